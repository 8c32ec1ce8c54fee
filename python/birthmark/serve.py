"""The verifier's page: drop a claim and a folder of pictures, get the verdict and its report.

A small local web server. The page sends one picture after another; each is measured and forgotten,
so memory does not grow with their number. No name from the client is ever opened. Whoever has the
page's address (it holds a random token) can ask for verdicts with the owner's key, and whoever can
ask as often as he likes can learn what makes the verdict say no: keep it on your own machine.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from birthmark.claim import MAX_FILE_BYTES, Claim
from birthmark.errors import BirthmarkError, InvalidPicture
from birthmark.extract import Pool, Statistics
from birthmark.keys import MarkKey, OwnerKey
from birthmark.measure import Measured
from birthmark.picture_headers import picture_size
from birthmark.pictures import decode_picture
from birthmark.report import render
from birthmark.verdict import Verdict, judge

MAX_PICTURE_BYTES = 64 << 20
MAX_PICTURE_PIXELS = 1 << 25
MOST_PICTURES = 50_000
MOST_CASES = 16
_MOST_NAME_CHARACTERS = 300
_MOST_LENGTH_DIGITS = 20
_TIMEOUT_S = 60


@dataclass
class _Case:
    """One claim and what was measured for it so far."""

    claim: Claim
    key: MarkKey
    pool: Pool = field(default_factory=Pool)
    verdict: Verdict | None = None
    looks: int = 0
    """How often it was judged, each time of more pictures; every verdict counts them."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Refused(Exception):
    """A request that is answered with a status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class VerifierServer(ThreadingHTTPServer):
    """Serves the page; ``url`` is its address, token included.

    Args:
        key: the owner's key.
        host: where to listen, one address or name of this machine, which requests must say;
            anything but 127.0.0.1 lets others in.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
        ValueError: the host stands for all addresses.
    """

    daemon_threads = True

    def __init__(self, key: OwnerKey, host: str = "127.0.0.1", port: int = 0) -> None:
        if host in ("", "0.0.0.0", "::"):
            raise ValueError("name one address of this machine to listen at; requests must say it")
        super().__init__((host, port), _Handler)
        self._key = key
        self._token = secrets.token_urlsafe(24)
        self._cases: OrderedDict[str, _Case] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()
        # A page of another site that resolves to this machine sends its own name as the host.
        names = {host, "127.0.0.1", "localhost"} if host == "127.0.0.1" else {host}
        self._hosts = {f"{name}:{self.server_port}" for name in names}
        if self.server_port == HTTP_PORT:  # which browsers leave out
            self._hosts |= names
        self.url = f"http://{host}:{self.server_port}/?token={self._token}"

    def check(self, host: str | None, token: str) -> None:
        """Refuse a request that was not made by the page."""
        if host not in self._hosts:
            raise _Refused(421, "not this server's name")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise _Refused(403, "wrong or missing token")

    def open_case(self, data: bytes) -> dict[str, Any]:
        """Begin a case with a claim's bytes; the oldest of too many cases is forgotten."""
        claim = Claim.from_bytes(data)
        claim.check_date()
        case = _Case(claim, claim.mark_key(self._key))
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._cases[name] = case
            while len(self._cases) > MOST_CASES:
                self._cases.popitem(last=False)
        stamp = claim.stamp_read
        return {
            "case": name,
            "owner": claim.owner,
            "model": claim.model_name,
            "created": claim.created,
            "stamped": None if stamp is None else f"{stamp.time:%Y-%m-%d} by {stamp.authority}",
        }

    def case(self, name: str) -> _Case:
        """The case of this name."""
        with self._lock:
            found = self._cases.get(name)
        if found is None:
            raise _Refused(404, "no such case; load the page again")
        return found

    def add_picture(self, case: _Case, name: str, data: bytes) -> dict[str, Any]:
        """Measure one picture, or note why not."""
        with case.lock:
            pool = case.pool
            if len(pool.pictures) + len(pool.rejected) >= MOST_PICTURES:
                raise _Refused(413, f"more than {MOST_PICTURES} pictures")
            case.verdict = None
            try:
                width, height = picture_size(data)
                if width * height > MAX_PICTURE_PIXELS:
                    raise InvalidPicture(f"more than {MAX_PICTURE_PIXELS} pixels")
                with self._decoding:  # one at a time, whatever the number of requests
                    pool.add(name, decode_picture(data, name))
            except (BirthmarkError, ValueError) as error:
                pool.rejected.append((name, str(error).removeprefix(f"{name}: ")))
            return {"pictures": len(pool.pictures), "rejected": len(pool.rejected)}

    def verdict(self, case: _Case) -> Verdict:
        """Judge what was measured so far."""
        with case.lock:
            if case.verdict is None:
                case.looks += 1
                # Of its own list of what was measured so far: more may be added to the case's.
                pool = Pool(Statistics(case.pool.pictures), list(case.pool.rejected))
                case.verdict = judge(
                    Measured(pool),
                    case.claim,
                    case.key,
                    case.claim.false_positive_rate,
                    tests_counted=case.looks,
                )
            return case.verdict

    def bundle(self, case: _Case) -> bytes:
        """The verdict's bundle, signed."""
        verdict = self.verdict(case)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "verdict.zip"
            verdict.save(path, self._key)
            return path.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    """Routes of the page. Answers are JSON but for the page, the report and the bundle."""

    server: VerifierServer
    server_version = "birthmark"
    sys_version = ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Page, report, bundle."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Open a case, add a picture, ask for the verdict."""
        self._answer(self._post)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: addresses hold the token."""

    def _answer(self, route: Any) -> None:
        status, kind = 200, "application/json"
        try:
            kind, body = route(*self._checked())
        except _Refused as refused:
            status, body = refused.status, _json({"error": str(refused)})
        except BirthmarkError as error:
            status, body = 422, _json({"error": str(error)})
        except Exception as error:  # a full disk, or a defect of ours: whoever asked is told
            kind, status, body = _JSON, 500, _json({"error": _unexpected(error)})
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": (
                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
                " img-src data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"
            ),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            # What an unread body holds must not be taken for the next request.
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # who asked may be gone
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True

    def _checked(self) -> tuple[list[str], dict[str, str]]:
        """The parts of the path and the query, of a request that may be answered."""
        try:
            address = urlsplit(self.path)
        except ValueError:
            raise _Refused(400, "an address that is none") from None
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        token = self.headers.get("X-Birthmark-Token") or query.get("token", "")
        self.server.check(self.headers.get("Host"), token)
        return [part for part in address.path.split("/") if part], query

    def _get(self, path: list[str], query: dict[str, str]) -> tuple[str, bytes]:
        match path:
            case []:
                page = resources.files("birthmark") / "data" / "verifier.html"
                return "text/html; charset=utf-8", page.read_bytes()
            case ["case", name, "report"]:
                case = self.server.case(name)
                report = render(self.server.verdict(case), key=case.key, bundle="verdict.zip")
                return "text/html; charset=utf-8", report.encode()
            case ["case", name, "verdict.zip"]:
                return "application/zip", self.server.bundle(self.server.case(name))
        raise _Refused(404, "no such page")

    def _post(self, path: list[str], query: dict[str, str]) -> tuple[str, bytes]:
        match path:
            case ["case"]:
                return _JSON, _json(self.server.open_case(self._body(MAX_FILE_BYTES)))
            case ["case", name, "picture"]:
                case = self.server.case(name)
                picture = query.get("name", "picture")[:_MOST_NAME_CHARACTERS]
                body = self._body(MAX_PICTURE_BYTES)
                return _JSON, _json(self.server.add_picture(case, picture, body))
            case ["case", name, "verdict"]:
                return _JSON, _json(self.server.verdict(self.server.case(name)).summary())
        raise _Refused(404, "no such page")

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refused(411, "the length is missing")
        if len(length) > _MOST_LENGTH_DIGITS:
            raise _Refused(400, "a length of too many digits")
        if int(length) > most:
            raise _Refused(413, f"larger than {most} bytes")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise _Refused(400, "the request ended too early")
        return data


_JSON = "application/json"


def _unexpected(error: Exception) -> str:
    """What is said of it. Not its own message, which may name a path of this machine."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return f"unexpected {type(error).__name__}"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
