"""Files at http addresses whose server does not say how large they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from birthmark.remote import RemotePath

CONTENT = bytes(range(256)) * 800


class _Handler(BaseHTTPRequestHandler):
    """Sends the content in pieces, each as a chunk of its own where the path says so."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        chunked = self.path.startswith("/chunked")
        self.send_response(200)
        self.send_header(
            *(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close"))
        )
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        chunked = self.path.startswith("/chunked")
        try:
            for start in range(0, len(CONTENT), 1000):
                piece = CONTENT[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:  # who asked has read enough
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="needs birthmark[scale]")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["chunked", "until-it-closes"])
def test_a_file_of_unknown_size(address: str, way: str) -> None:
    file = RemotePath(f"{address}/{way}/x.png?Signature=SECRET")
    for most in (len(CONTENT), len(CONTENT) + 1, 1 << 30):
        assert file.read_bytes(most) == CONTENT
    for most in (0, 10, len(CONTENT) - 1):
        with pytest.raises(OSError, match="too large") as caught:
            file.read_bytes(most)
        assert "SECRET" not in str(caught.value)
