"""Time stamps by a real authority, `openssl ts`: asked for over HTTP, checked offline."""

from __future__ import annotations

import hashlib
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from authority import Authority
from birthmark.claim import Claim, to_time
from birthmark.errors import InvalidClaim, InvalidStamp, StampUnavailable
from birthmark.keys import OwnerKey
from birthmark.stamp import (
    MAX_STAMP_BYTES,
    check_stamp,
    load_certificates,
    read_stamp,
    request_stamp,
)
from birthmark.verdict import verify

MESSAGE = b"what is stamped"
DIGEST = hashlib.sha256(MESSAGE).digest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def stamp(authority: Authority) -> bytes:
    with authority.served() as url:
        return request_stamp(MESSAGE, url)


@pytest.fixture(scope="module")
def claim(models_folder: Path) -> Claim:
    key = OwnerKey.generate()
    return Claim.create(key, "Owner", models_folder / "espcn_x2.onnx", b"calibration")


def test_says_when_and_by_whom_as_openssl_does(authority: Authority, stamp: bytes) -> None:
    said = check_stamp(stamp, DIGEST, load_certificates(authority.roots))
    assert said == read_stamp(stamp, DIGEST)
    assert abs(said.time - datetime.now(UTC)) < timedelta(minutes=5)
    assert said.authority == "CN=Test-authority"
    assert authority.verifies(stamp, DIGEST)


def test_of_something_else(authority: Authority, stamp: bytes) -> None:
    other = hashlib.sha256(b"x").digest()
    assert not authority.verifies(stamp, other)
    for attempt in (
        lambda: read_stamp(stamp, other),
        lambda: check_stamp(stamp, other, load_certificates(authority.roots)),
    ):
        with pytest.raises(InvalidStamp, match="something else"):
            attempt()


def test_an_authority_that_nobody_trusts(
    stamp: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    with pytest.raises(InvalidStamp, match="no trusted authority"):
        check_stamp(stamp, DIGEST, load_certificates(stranger.roots))


def test_an_authority_whose_certificate_had_run_out(tmp_path: Path) -> None:
    """It has to be valid when it stamps; that it is not any more today is no matter."""
    authority = Authority(tmp_path)
    root_key, key = (
        load_pem_private_key((tmp_path / name).read_bytes(), None) for name in ("ca.key", "tsa.key")
    )
    assert isinstance(root_key, RSAPrivateKey) and isinstance(key, RSAPrivateKey)
    valid = x509.load_pem_x509_certificate((tmp_path / "tsa.pem").read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(valid.subject)
        .issuer_name(valid.issuer)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(datetime(2001, 1, 1))
        .not_valid_after(datetime(2002, 1, 1))
    )
    for extension in valid.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    run_out = builder.sign(root_key, SHA256())
    (tmp_path / "tsa.pem").write_bytes(run_out.public_bytes(Encoding.PEM))
    with authority.served() as url:
        stamp = request_stamp(MESSAGE, url)
    with pytest.raises(InvalidStamp, match="no trusted authority vouches"):
        check_stamp(stamp, DIGEST, load_certificates(authority.roots))


@settings(max_examples=200)
@given(data=st.data())
def test_a_changed_byte_never_changes_what_is_vouched_for(
    authority: Authority, stamp: bytes, data: st.DataObject
) -> None:
    """Certificates may hold bytes that nothing depends on; time and digest never change."""
    said, roots = read_stamp(stamp, DIGEST), load_certificates(authority.roots)
    changed = bytearray(stamp)
    changed[data.draw(st.integers(0, len(stamp) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        vouched = check_stamp(bytes(changed), DIGEST, roots)
    except InvalidStamp as error:
        assert "\n" not in str(error)
    else:
        assert vouched.time == said.time


@pytest.mark.parametrize("place", ["version", "serial number"])
def test_an_odd_certificate_is_refused(authority: Authority, stamp: bytes, place: str) -> None:
    """cryptography has an error and a warning of its own for these."""
    version = b"\xa0\x03\x02\x01\x02"  # [0] INTEGER 2; the serial number follows
    assert version in stamp and stamp[stamp.index(version) + 5] == 2
    changed = bytearray(stamp)
    changed[stamp.index(version) + (4 if place == "version" else 7)] ^= 0xB2
    with pytest.raises(InvalidStamp):
        check_stamp(bytes(changed), DIGEST, load_certificates(authority.roots))


@given(st.binary(max_size=300))
def test_foreign_bytes(data: bytes) -> None:
    with pytest.raises(InvalidStamp):
        read_stamp(data, DIGEST)


def test_truncated_or_huge(stamp: bytes) -> None:
    for end in range(0, len(stamp), 97):
        with pytest.raises(InvalidStamp):
            read_stamp(stamp[:end], DIGEST)
    with pytest.raises(InvalidStamp, match="larger"):
        read_stamp(stamp + bytes(MAX_STAMP_BYTES), DIGEST)


def test_an_authority_that_does_not_answer_as_it_should(authority: Authority, stamp: bytes) -> None:
    refusal = bytes.fromhex("300b30090201023004") + b"\x0c\x02no"  # status 2, and why
    for answer, error, word in (
        (stamp, InvalidStamp, "another question"),
        (b"", InvalidStamp, "response"),
        (b"<html>", InvalidStamp, "response"),
        (refusal, StampUnavailable, "refuses to stamp: no"),
    ):
        with authority.served(answer=answer) as url, pytest.raises(error, match=word):
            request_stamp(MESSAGE, url)
    with authority.served(status=500) as url, pytest.raises(StampUnavailable, match=r"127\.0"):
        request_stamp(MESSAGE, url)
    for address in (
        *("http://127.0.0.1:9/", "file:///etc/passwd", "nowhere", "http://["),
        "http://127.0.0.1:abc/",
    ):
        with pytest.raises(StampUnavailable):
            request_stamp(MESSAGE, address)


@pytest.mark.parametrize(
    "answer", [b"garbage " * 500 + b"\r\nmore\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200]
)
def test_a_server_that_does_not_speak_http(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            asked, _ = server.accept()
            with asked:
                asked.recv(1 << 16)
                asked.sendall(answer)
                asked.shutdown(socket.SHUT_WR)
                while asked.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(StampUnavailable, match=r"127\.0") as caught:
            request_stamp(MESSAGE, f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_claim_keeps_its_digest_and_its_stamp(
    authority: Authority, claim: Claim, tmp_path: Path
) -> None:
    with authority.served() as url:
        stamped = claim.stamped(request_stamp(claim.canonical_form(), url))
    stamped.save(tmp_path / "c.json")
    loaded = Claim.load(tmp_path / "c.json")
    assert loaded == stamped and loaded.digest == claim.digest and loaded.stamp is not None
    check_stamp(loaded.stamp, claim.digest, load_certificates(authority.roots))
    assert claim.stamp_read is None and loaded.stamp_read is not None


def test_a_verdict_says_when_its_claim_was_stamped(
    authority: Authority, session_claim, published
) -> None:
    owner, claim, _ = session_claim
    with authority.served() as url:
        stamped = claim.stamped(request_stamp(claim.canonical_form(), url))
    told = verify(published.marked[:1], stamped, owner)
    assert stamped.stamp_read is not None
    assert told.claim_stamped == told.summary()["claim_stamped"] == to_time(stamped.stamp_read.time)
    assert verify(published.marked[:1], claim, owner).claim_stamped is None


def test_a_claim_refuses_a_stamp_that_is_not_its_own(stamp: bytes, claim: Claim) -> None:
    for other in (stamp, b"", b"x" * 100):
        with pytest.raises(InvalidClaim, match="stamp does not hold"):
            claim.stamped(other)


def test_a_claim_dated_after_its_stamp_is_refused(
    authority: Authority, models_folder: Path
) -> None:
    later = datetime.now(UTC) + timedelta(days=30)
    key = OwnerKey.generate()
    claim = Claim.create(key, "A", models_folder / "espcn_x2.onnx", b"c", created=later)
    with pytest.raises(InvalidClaim, match="future"):
        claim.check_date()
    claim.check_date(later)
    with authority.served() as url:
        stamp = request_stamp(claim.canonical_form(), url)
    with pytest.raises(InvalidClaim, match="before the date"):
        claim.stamped(stamp)
    with pytest.raises(InvalidClaim):
        replace(claim, stamp=stamp)


def test_certificate_files(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name, reason in (("empty.pem", "no certificates"), ("no.pem", "No such file")):
        with pytest.raises(InvalidStamp, match=reason):
            load_certificates(tmp_path / name)
