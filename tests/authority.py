"""A real time-stamping authority for the tests: `openssl ts` behind a tiny HTTP server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = Test root
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[authority]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = signing
[signing]
serial = serial
signer_cert = tsa.pem
certs = ca.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
"""


class Authority:
    """Keys and certificates in a folder; `roots` is what a verifier trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = folder / "ca.pem"
        (folder / "ca.cnf").write_text(_CONFIG)
        (folder / "serial").write_text("01\n")
        new = "-newkey rsa:2048 -nodes -config ca.cnf"
        self._openssl(f"req -x509 {new} -keyout ca.key -out ca.pem -days 3650 -extensions root")
        self._openssl(f"req {new} -keyout tsa.key -out tsa.csr -subj /CN=Test-authority")
        self._openssl(
            "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem"
            " -days 3650 -extfile ca.cnf -extensions authority"
        )

    def reply(self, query: bytes) -> bytes:
        """The response to a time-stamp query, both DER."""
        (self.folder / "query.tsq").write_bytes(query)
        self._openssl("ts -reply -config ca.cnf -queryfile query.tsq -out reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()

    def verifies(self, stamp: bytes, digest: bytes) -> bool:
        """Whether `openssl ts -verify` accepts the stamp."""
        (self.folder / "stamp.tsr").write_bytes(stamp)
        line = f"ts -verify -digest {digest.hex()} -in stamp.tsr -CAfile ca.pem"
        done = subprocess.run(
            ["openssl", *line.split()], cwd=self.folder, capture_output=True, check=False
        )
        return done.returncode == 0

    def _openssl(self, line: str) -> None:
        subprocess.run(["openssl", *line.split()], cwd=self.folder, capture_output=True, check=True)

    @contextmanager
    def served(self, status: int = 200, answer: bytes | None = None) -> Iterator[str]:
        """The address of a server that stamps, or gives this answer to everything."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/timestamp-query"
                data = authority.reply(query) if answer is None else answer
                self.send_response(status)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/tsr"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
