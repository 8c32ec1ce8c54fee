"""Keys: streams that a second author recomputes, files that open for one passphrase only."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import math
import os
import pickle
import stat
import struct
import traceback
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.errors import (
    InvalidClaim,
    InvalidCustomer,
    InvalidKeyFile,
    OutputExists,
    WrongPassphrase,
)
from birthmark.keys import ClaimKey, MarkKey, OwnerKey

SECRET = bytes(range(32))
HEADER_BYTES = 40 + 16
FILE_BYTES = HEADER_BYTES + 64 + 16
labels = st.text(max_size=20)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[OwnerKey, Path]:
    key = OwnerKey.generate()
    path = tmp_path_factory.mktemp("keys") / "owner.key"
    key.save(path, "correct horse")
    return key, path


# --- a second author: HKDF (RFC 5869) and ChaCha20 (RFC 8439) in plain Python ---


def hkdf(secret: bytes, info: bytes) -> bytes:
    pseudo_random = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(pseudo_random, info + b"\1", "sha256")


def chacha20_block(key: bytes, counter: int) -> bytes:
    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF

    start = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        counter,
        0,
        0,
        0,
    ]
    state = start.copy()
    for _ in range(10):
        for column in range(4):
            quarter(column, column + 4, column + 8, column + 12)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True)))


def plain_stream(secret: bytes, kind: bytes, label: str, n: int) -> bytes:
    key = hkdf(secret, b"birthmark " + kind + b"\0" + label.encode())
    return b"".join(chacha20_block(key, i) for i in range(-(-n // 64)))[:n]


def test_chacha20_of_the_second_author_is_the_rfc_s() -> None:
    """RFC 8439 appendix A.1, test vector 1."""
    block = chacha20_block(bytes(32), 0)
    assert block.hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1a")


@given(st.binary(min_size=32, max_size=32), labels, st.integers(0, 200))
def test_streams_agree_with_a_second_author(secret: bytes, label: str, n: int) -> None:
    key = MarkKey(secret)
    assert key.stream(label, n) == plain_stream(secret, b"stream", label, n)
    bits = plain_stream(secret, b"signs", label, 25)
    signs = [1 - 2 * (bits[i // 8] >> i % 8 & 1) for i in range(n)]
    assert key.signs(label, n).tolist() == signs
    words = struct.unpack(f"<{n}Q", plain_stream(secret, b"uniforms", label, 8 * n))
    assert key.uniforms(label, n).tolist() == [(w >> 11) / 2**53 for w in words]


def test_gaussians_agree_with_a_second_author() -> None:
    words = struct.unpack("<6Q", plain_stream(SECRET, b"gaussians", "x", 48))
    uniforms = [(w >> 11) / 2**53 for w in words]
    expected = []
    for u, v in zip(uniforms[::2], uniforms[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(1 - u))
        expected += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    assert MarkKey(SECRET).gaussians("x", 5) == pytest.approx(expected[:5], rel=1e-12)
    assert MarkKey(SECRET).gaussians("x", (2, 3)) == pytest.approx(np.reshape(expected, (2, 3)))


@given(labels, labels, st.integers(1, 100), st.integers(0, 100))
def test_streams_are_prefixes_of_longer_ones_and_differ_by_label(
    label: str, other: str, n: int, more: int
) -> None:
    key = MarkKey(SECRET)
    assert key.stream(label, n + more).startswith(key.stream(label, n))
    assert (key.signs(label, n + more)[:n] == key.signs(label, n)).all()
    assert (key.gaussians(label, n + more)[:n] == key.gaussians(label, n)).all()
    if label != other:
        assert key.stream(label, 16) != key.stream(other, 16)


def test_long_stream_exceeds_what_hkdf_alone_gives() -> None:
    stream = MarkKey(SECRET).stream("long", 1_000_000)
    assert len(stream) == 1_000_000
    assert abs(np.unpackbits(np.frombuffer(stream, np.uint8)).mean() - 0.5) < 0.001


def test_draws_have_their_distributions() -> None:
    key = MarkKey(SECRET)
    signs = key.signs("a", 100_001)
    assert signs.dtype == np.int8 and set(signs.tolist()) == {-1, 1} and abs(signs.mean()) < 0.02
    gaussians = key.gaussians("a", (1000, 100))
    assert gaussians.dtype == np.float64 and gaussians.shape == (1000, 100)
    assert abs(gaussians.mean()) < 0.02
    assert gaussians.std() == pytest.approx(1, abs=0.01)
    assert (gaussians**4).mean() == pytest.approx(3, abs=0.15)
    assert key.signs("a", 0).shape == key.gaussians("a", 0).shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 56, 128])
def test_rotation_is_orthogonal_and_repeatable(n: int) -> None:
    key = MarkKey(SECRET)
    rotation = key.rotation("q", n)
    assert np.abs(rotation @ rotation.T - np.eye(n)).max() < 1e-12
    assert (rotation == key.rotation("q", n)).all()
    assert np.abs(rotation - key.rotation("r", n)).max() > 0.1 or n == 1


def test_rotation_is_haar() -> None:
    """Under Haar measure the trace has mean 0 and variance 1, and both determinants are as likely.

    Without the sign fix LAPACK's Q has a far from uniform diagonal.
    """
    rotations = [MarkKey.random(b"%d" % i).rotation("q", 5) for i in range(2000)]
    traces = np.trace(rotations, axis1=1, axis2=2)
    assert abs(traces.mean()) < 0.1
    assert traces.var() == pytest.approx(1, abs=0.15)
    assert abs(np.mean(np.linalg.det(rotations))) < 0.1
    assert np.mean(np.square(rotations), axis=0) == pytest.approx(np.full((5, 5), 0.2), abs=0.03)


def test_random_keys() -> None:
    assert MarkKey.random() != MarkKey.random()
    assert MarkKey.random(b"seed") == MarkKey.random(b"seed") != MarkKey.random(b"other")
    assert MarkKey(SECRET) != SECRET
    for wrong in (b"short", "x" * 32, bytearray(32)):
        with pytest.raises(ValueError, match="32 bytes"):
            MarkKey(wrong)


def test_every_key_of_the_tree_is_the_one_above_s_hkdf(saved: tuple[OwnerKey, Path]) -> None:
    key, path = saved
    draft, digest = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()
    claim_key = key.claim_key(draft)
    assert claim_key._secret == hkdf(key._secret, b"birthmark claim" + draft)
    committed = hashlib.sha256(b"birthmark commitment\0" + claim_key._secret).digest()
    assert claim_key.commitment == committed
    mark = claim_key.mark_key(digest)
    assert mark == MarkKey(hkdf(claim_key._secret, b"birthmark mark" + digest))
    acme = mark.customer("Acme")
    assert acme == MarkKey(hkdf(mark._secret, b"birthmark customer\0Acme"))
    assert acme.id == hkdf(acme._secret, b"birthmark mark id")[:16]
    assert OwnerKey.load(path, "correct horse").claim_key(draft) == claim_key
    others = [
        OwnerKey.generate().claim_key(draft).mark_key(digest),
        key.claim_key(digest).mark_key(digest),
        claim_key.mark_key(draft),
        mark.customer("acme"),
        mark.customer("Acme/device 7"),
    ]
    ids = {k.id for k in (*others, mark, acme)}
    assert len(ids) == len(others) + 2
    for attempt in (key.claim_key, claim_key.mark_key):
        with pytest.raises(InvalidClaim, match="32 bytes"):
            attempt(b"short")


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "a\nb", "x" * 201, "\x07", "\ud800"])
def test_what_cannot_be_a_customer_s_name(name: str) -> None:
    with pytest.raises(InvalidCustomer):
        MarkKey(SECRET).customer(name)


def test_a_customer_s_name_is_normalised() -> None:
    assert MarkKey(SECRET).customer("Zo\u00eb") == MarkKey(SECRET).customer("Zoe\u0308")


def test_a_disclosed_claim_key_is_private_whole_or_refused(tmp_path: Path) -> None:
    key = ClaimKey(SECRET)
    key.save(tmp_path / "d")
    assert (tmp_path / "d").read_text() == f"birthmark disclosed claim key {SECRET.hex()}\n"
    assert ClaimKey.load(tmp_path / "d") == key != ClaimKey(bytes(32))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o600
    with pytest.raises(OutputExists):
        key.save(tmp_path / "d")
    data = (tmp_path / "d").read_bytes()
    bad = [b"", data[:-1], data + b"\n", data.upper(), data[:-3] + b"zz\n", b"\xff" * 94]
    for content in bad:
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InvalidKeyFile, match="bad"):
            ClaimKey.load(tmp_path / "bad")
    with pytest.raises(InvalidKeyFile, match="No such file"):
        ClaimKey.load(tmp_path / "missing")


# --- key files ---


def test_save_and_load(saved: tuple[OwnerKey, Path]) -> None:
    key, path = saved
    loaded = OwnerKey.load(path, b"correct horse")
    assert loaded == key and loaded != OwnerKey.generate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == FILE_BYTES
    Ed25519PublicKey.from_public_bytes(key.public_key).verify(loaded.sign(b"m"), b"m")


def test_passphrase_is_normalised(tmp_path: Path) -> None:
    key = OwnerKey.generate()
    key.save(tmp_path / "k", "Zo\u00eb")
    assert OwnerKey.load(tmp_path / "k", "Zoe\u0308") == key


def test_same_key_saved_twice_shares_nothing(saved: tuple[OwnerKey, Path], tmp_path: Path) -> None:
    key, path = saved
    key.save(tmp_path / "again", "correct horse")
    again, first = (tmp_path / "again").read_bytes(), path.read_bytes()
    assert again[12:40] != first[12:40] and again[HEADER_BYTES:] != first[HEADER_BYTES:]


def test_key_is_never_overwritten(saved: tuple[OwnerKey, Path], tmp_path: Path) -> None:
    key, path = saved
    before = path.read_bytes()
    with pytest.raises(OutputExists):
        key.save(path, "x")
    assert path.read_bytes() == before
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists):
        key.save(tmp_path / "dangling", "x")


@pytest.mark.parametrize("passphrase", ["", b""])
def test_empty_passphrase_is_refused_and_nothing_written(
    saved: tuple[OwnerKey, Path], tmp_path: Path, passphrase: str | bytes
) -> None:
    key, path = saved
    with pytest.raises(WrongPassphrase, match="empty"):
        key.save(tmp_path / "k", passphrase)
    assert not os.listdir(tmp_path)
    with pytest.raises(WrongPassphrase, match="empty"):
        OwnerKey.load(path, passphrase)


def test_wrong_passphrase(saved: tuple[OwnerKey, Path]) -> None:
    with pytest.raises(WrongPassphrase, match=r"owner\.key"):
        OwnerKey.load(saved[1], "correct house")


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_any_changed_header_byte_is_an_invalid_file(
    saved: tuple[OwnerKey, Path], at: int, change: int
) -> None:
    with pytest.raises(InvalidKeyFile):
        load_changed(saved[1], at, change)


@settings(max_examples=15)
@given(st.integers(HEADER_BYTES, FILE_BYTES - 1), st.integers(1, 255))
def test_any_changed_ciphertext_byte_does_not_open(
    saved: tuple[OwnerKey, Path], at: int, change: int
) -> None:
    with pytest.raises(WrongPassphrase, match="wrong passphrase, or the file was changed"):
        load_changed(saved[1], at, change)


@given(st.integers(0, FILE_BYTES - 1))
def test_truncated_file(saved: tuple[OwnerKey, Path], kept: int) -> None:
    path = saved[1].with_name("truncated")
    path.write_bytes(saved[1].read_bytes()[:kept])
    with pytest.raises(InvalidKeyFile):
        OwnerKey.load(path, "correct horse")


def load_changed(path: Path, at: int, change: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= change
    changed = path.with_name("changed")
    changed.write_bytes(data)
    OwnerKey.load(changed, "correct horse")


def with_fresh_checksum(header: bytes) -> bytes:
    return header + hashlib.sha256(header).digest()[:16]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (8, 2, "version 2"),
        (9, 19, "absurd"),
        (9, 40, "absurd"),
        (9, 0, "absurd"),
        (10, 9, "absurd"),
        (10, 0, "absurd"),
        (10, 255, "absurd"),
        (11, 5, "absurd"),
        (11, 0, "absurd"),
        (11, 99, "absurd"),
    ],
)
def test_absurd_or_unknown_header_is_refused_before_any_work(
    saved: tuple[OwnerKey, Path], tmp_path: Path, at: int, value: int, message: str
) -> None:
    data = bytearray(saved[1].read_bytes())
    data[at] = value
    (tmp_path / "k").write_bytes(with_fresh_checksum(bytes(data[:40])) + data[HEADER_BYTES:])
    with pytest.raises(InvalidKeyFile, match=message):
        OwnerKey.load(tmp_path / "k", "correct horse")


def test_header_is_authenticated_also_with_a_fresh_checksum(
    saved: tuple[OwnerKey, Path], tmp_path: Path
) -> None:
    data = bytearray(saved[1].read_bytes())
    data[20] ^= 1  # salt
    (tmp_path / "k").write_bytes(with_fresh_checksum(bytes(data[:40])) + data[HEADER_BYTES:])
    with pytest.raises(WrongPassphrase):
        OwnerKey.load(tmp_path / "k", "correct horse")


def test_foreign_or_missing_file(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("-----BEGIN PRIVATE KEY-----\n" + "A" * 200)
    for name, reason in (("pem", "not an owner's key"), ("no", "No such file"), (".", "directory")):
        with pytest.raises(InvalidKeyFile, match=reason):
            OwnerKey.load(tmp_path / name, "x")


# --- secrets stay secret ---


def spellings(secret: bytes) -> list[str]:
    return [
        repr(secret)[2:-1],
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode()[:40],
        str(list(secret))[1:-1],
    ]


def test_secrets_are_shown_nowhere(saved: tuple[OwnerKey, Path], tmp_path: Path) -> None:
    owner, path = saved
    mark = MarkKey(SECRET)
    claim_key = owner.claim_key(SECRET)
    shown = [
        repr(claim_key),
        repr(mark.customer("Acme")),
        repr(owner),
        str(owner),
        f"{owner}",
        repr(mark),
        str(mark),
        f"{mark!s:>20}",
        repr([mark]),
    ]
    for attempt in (
        lambda: pickle.dumps(mark),
        lambda: pickle.dumps(owner),
        lambda: copy.deepcopy(mark),
        lambda: copy.copy(owner),
        lambda: hash(mark),
        lambda: hash(owner),
        lambda: vars(mark),
        lambda: vars(owner),
        lambda: owner.claim_key(SECRET[:5]),
        lambda: claim_key.mark_key(SECRET[:5]),
        lambda: pickle.dumps(claim_key),
        lambda: hash(claim_key),
        lambda: OwnerKey.join(owner.split(3, 2)[:1]),
        lambda: owner.save(path, "passphrase of the test"),
        lambda: owner.save(tmp_path / "no" / "k", "passphrase of the test"),
        lambda: OwnerKey.load(path, "passphrase of the test"),
        lambda: mark.signs("x", -1),
    ):
        with pytest.raises(Exception) as caught:
            attempt()
        shown += traceback.format_exception_only(caught.value)
    everything = "\n".join(shown)
    secrets = (
        SECRET,
        owner._secret,
        owner._signer.private_bytes_raw(),
        claim_key._secret,
        mark.customer("Acme")._secret,
    )
    for text in [s for secret in secrets for s in spellings(secret)]:
        assert text not in everything
    assert "passphrase of the test" not in everything
    assert owner.public_key.hex() in everything
    for secret in secrets[1:3]:
        assert secret not in path.read_bytes()


def test_keys_differ_from_whatever_is_no_key() -> None:
    for made in (MarkKey(SECRET), OwnerKey.generate()):
        assert (made == SECRET) is False and (made == made) is True


def test_a_decoy_is_the_hash_of_its_seed() -> None:
    assert MarkKey.random(b"s") == MarkKey(hashlib.sha256(b"birthmark decoy\0s").digest())
    assert MarkKey.random() != MarkKey.random()
