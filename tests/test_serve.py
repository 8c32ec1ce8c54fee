"""The verifier's page: over HTTP as an enemy would, and in a real browser as a person would."""

from __future__ import annotations

import errno
import http.client
import json
import math
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from birthmark import serve as serving
from birthmark.bundle import recheck
from birthmark.claim import Claim
from birthmark.keys import OwnerKey
from birthmark.pictures import encode_png
from birthmark.serve import VerifierServer
from birthmark.sums import SHAPE
from birthmark.verdict import verify
from test_report import axe_core

Owned = tuple[OwnerKey, Claim, Any]
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def server(session_claim: Owned) -> Iterator[VerifierServer]:
    with VerifierServer(session_claim[0]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def token_of(server: VerifierServer) -> str:
    return parse_qs(urlsplit(server.url).query)["token"][0]


def ask(
    server: VerifierServer,
    method: str,
    path: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    sent = {"X-Birthmark-Token": token_of(server)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    kind = answer.getheader("Content-Type")
    assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    return answer.status, json.loads(data) if kind == "application/json" else data


def open_case(server: VerifierServer, claim: Claim) -> str:
    status, opened = ask(server, "POST", "/case", claim.to_bytes())
    assert status == 200
    case: str = opened["case"]
    return case


def send(server: VerifierServer, case: str, files: list[bytes]) -> Any:
    """Send pictures one by one; what the last answer counts."""
    for i, data in enumerate(files):
        status, counted = ask(server, "POST", f"/case/{case}/picture?name=p{i}.png", data)
        assert status == 200
    return counted


def test_the_same_verdict_as_the_command_s(
    server: VerifierServer, session_claim: Owned, published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    case = open_case(server, claim)
    files = [encode_png(p) for p in published.marked]
    counted = send(server, case, [*files, files[0], b"not a picture"])
    assert counted == {"pictures": len(files), "rejected": 2}
    status, verdict = ask(server, "POST", f"/case/{case}/verdict", b"")
    expected = verify(published.marked, claim, key)
    assert status == 200 and verdict["decision"] == "MARKED"
    assert verdict["log10_p"] == pytest.approx(expected.log10_p)
    status, data = ask(server, "GET", f"/case/{case}/verdict.zip")
    (tmp_path / "v.zip").write_bytes(data)
    assert recheck(tmp_path / "v.zip", key).summary["log10_p"] == verdict["log10_p"]
    status, report = ask(server, "GET", f"/case/{case}/report")
    assert status == 200 and b"Verdict: MARKED" in report
    page = ask(server, "GET", "/")[1]
    for secret in (key._secret, claim.claim_key(key)._secret, claim.mark_key(key)._secret):
        assert secret.hex().encode() not in page + report and secret not in data


def test_every_look_at_more_pictures_is_counted(
    server: VerifierServer, session_claim: Owned, published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    case = open_case(server, claim)
    files = [encode_png(p) for p in published.marked]
    first, second = files[: len(files) // 2], files[len(files) // 2 :]
    looked = []
    for some in (first, second):
        send(server, case, some)
        for _ in range(2):  # the same verdict shown again is no other look
            looked.append(ask(server, "POST", f"/case/{case}/verdict", b"")[1])
    assert [v["tests_counted"] for v in looked] == [1, 1, 2, 2]
    expected = verify(published.marked, claim, key, tests_counted=2)
    assert looked[-1]["log10_p"] == pytest.approx(expected.log10_p)


def test_a_verdict_keeps_to_its_own_pictures(
    server: VerifierServer, session_claim: Owned, published, tmp_path: Path
) -> None:
    """Though one more is added before its bundle is fetched."""
    key, claim, _ = session_claim
    case = server.case(open_case(server, claim))
    files = [encode_png(p) for p in published.marked]
    for i, data in enumerate(files[:-1]):
        server.add_picture(case, f"p{i}.png", data)
    verdict = server.verdict(case)
    server.add_picture(case, "late.png", files[-1])
    verdict.save(tmp_path / "v.zip", key)
    assert recheck(tmp_path / "v.zip", key).summary["pictures"] == len(files) - 1


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_an_address_that_stands_for_all_is_refused(session_claim: Owned, host: str) -> None:
    with pytest.raises(ValueError, match="one address"):
        VerifierServer(session_claim[0], host)


def test_an_address_that_is_none(server: VerifierServer) -> None:
    with socket.create_connection(server.server_address[:2]) as connection:
        connection.sendall(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 400 " in connection.makefile("rb").readline()


def test_nobody_gets_in_without_the_token_or_under_another_name(server: VerifierServer) -> None:
    for path in ("/", "/case/x/report", "/nothing"):
        assert ask(server, "GET", path, X_Birthmark_Token="")[0] == 403
        assert ask(server, "GET", path, X_Birthmark_Token="a" * 32)[0] == 403
        assert ask(server, "GET", path, X_Birthmark_Token="\u00e9")[0] == 403
        assert ask(server, "GET", path, Host="evil.example")[0] == 421
    assert ask(server, "GET", f"/?token={token_of(server)}", X_Birthmark_Token="")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/../../etc/passwd", None, 404),
        ("GET", "/case/..%2f..%2fetc%2fpasswd/report", None, 404),
        ("GET", "//etc/passwd", None, 404),
        ("GET", "/case/none/verdict.zip", None, 404),
        ("POST", "/case/none/picture?name=x", b"x", 404),
        ("POST", "/case", b"{}", 422),
        ("POST", "/case", b"\xff" * 1000, 422),
        ("POST", "/elsewhere", b"", 404),
    ],
)
def test_bad_requests_get_one_line(
    server: VerifierServer, method: str, path: str, body: bytes | None, status: int
) -> None:
    got, answer = ask(server, method, path, body)
    assert got == status and "\n" not in answer["error"]


def test_limits(
    server: VerifierServer,
    session_claim: Owned,
    published,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = session_claim[1]
    case = open_case(server, claim)
    picture = f"/case/{case}/picture?name=x.png"
    assert ask(server, "POST", picture, b"x", Content_Length="99999999999")[0] == 413
    assert ask(server, "POST", picture, b"x", Content_Length="9" * 5000)[0] == 400
    assert ask(server, "POST", picture, b"x", Content_Length="-1")[0] == 411
    assert ask(server, "POST", picture, b"x", Content_Length="many")[0] == 411
    monkeypatch.setattr(serving, "MAX_PICTURE_PIXELS", 100)
    png = encode_png(published.marked[0])
    assert ask(server, "POST", picture, png)[1] == {"pictures": 0, "rejected": 1}
    monkeypatch.setattr(serving, "MOST_PICTURES", 1)
    assert ask(server, "POST", picture, png)[0] == 413
    status, answer = ask(server, "POST", f"/case/{case}/verdict", b"")
    assert status == 422 and "no picture could be used" in answer["error"]
    for _ in range(serving.MOST_CASES):
        open_case(server, claim)
    assert ask(server, "POST", f"/case/{case}/verdict", b"")[0] == 404


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/home/me/tmp"), "No space left"),
        (OSError("/home/me/tmp"), "unexpected OSError"),
        (RuntimeError("/home/me\n/tmp"), "unexpected RuntimeError"),
        (MemoryError(), "unexpected MemoryError"),
    ],
)
def test_what_nobody_foresaw_is_answered_in_one_line(
    server: VerifierServer,
    session_claim: Owned,
    published,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    case = open_case(server, session_claim[1])
    send(server, case, [encode_png(published.marked[0])])
    monkeypatch.setattr(serving.tempfile, "TemporaryDirectory", fail)
    monkeypatch.setattr(serving, "render", fail)
    for path in ("verdict.zip", "report"):
        status, answer = ask(server, "GET", f"/case/{case}/{path}")
        assert status == 500 and answer["error"].startswith(said)
        assert "/home" not in answer["error"] and "\n" not in answer["error"]
    assert capfd.readouterr() == ("", "")


def test_a_stranger_s_claim_is_refused(
    server: VerifierServer, other_claim: tuple[OwnerKey, Claim]
) -> None:
    status, answer = ask(server, "POST", "/case", other_claim[1].to_bytes())
    assert status == 422 and "another key" in answer["error"]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
def test_in_a_real_browser(
    server: VerifierServer, session_claim: Owned, published, tmp_path: Path
) -> None:
    """Choose a folder, watch, open the report, fetch the bundle: no error, no outside request."""
    from playwright.sync_api import sync_playwright

    (tmp_path / "suspects").mkdir()
    session_claim[1].save(tmp_path / "claim.json")
    for i, picture in enumerate(published.marked):
        (tmp_path / "suspects" / f"p{i}.png").write_bytes(encode_png(picture))
    (tmp_path / "suspects" / "notes.txt").write_text("no picture")
    (tmp_path / "suspects" / "broken.png").write_bytes(b"\x89PNG nothing")
    errors: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        assert page.get_by_role("button", name="Judge").is_disabled()
        page.set_input_files("#claim", tmp_path / "claim.json")
        page.set_input_files("#folder", tmp_path / "suspects")
        assert "9 pictures" in page.inner_text("#count")
        assert "suspects/notes.txt" in page.inner_text("#count")
        page.get_by_role("button", name="Judge").click()
        page.wait_for_selector("#links a", timeout=120_000)
        assert re.match(
            r"MARKED: .* p = \d\.\d\s×\s10⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+ from", page.inner_text("#answer")
        )
        assert page.inner_text("#out").startswith("suspects/broken.png: left out, ")
        assert "1 left out" in page.inner_text("#left")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "the page is wider than a phone"
        page.screenshot(path=tmp_path / "phone.png")
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Report").click()
        report = popup.value
        report.wait_for_load_state()
        assert "MARKED" in report.title()
        with page.expect_download() as download:
            page.get_by_role("link", name="Bundle").click()
        download.value.save_as(tmp_path / "v.zip")
        browser.close()
    assert zipfile.is_zipfile(tmp_path / "v.zip")
    assert recheck(tmp_path / "v.zip").summary["pictures"] == len(published.marked)
    assert errors == []
    assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in asked), asked


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
@pytest.mark.skipif(axe_core() is None, reason="no axe-core (npm install axe-core) here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page(server: VerifierServer, scheme: Any) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(server.url)
        # As a judged case looks; the script itself may not be loaded by this page's own rules.
        tab.evaluate("at('answer').textContent = 'MARKED: it carries the mark.'")
        tab.evaluate("at('out').append(document.createElement('li'))")
        tab.evaluate(Path(str(axe_core())).read_text())
        found = tab.evaluate("axe.run().then(r => r.violations)")
        browser.close()
    assert found == [], json.dumps([(v["id"], v["help"]) for v in found])


def test_memory_does_not_grow_with_pictures(session_claim: Owned) -> None:
    """What is kept of a picture is its statistics: some 7 kB, whatever its size."""
    with VerifierServer(session_claim[0]) as server:
        case = server.case(server.open_case(session_claim[1].to_bytes())["case"])
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
        server.add_picture(case, "x.png", encode_png(noise))
        (kept,) = case.pool.pictures
        assert kept.sums.nbytes == 8 * math.prod(SHAPE) < 7000 and case.verdict is None
