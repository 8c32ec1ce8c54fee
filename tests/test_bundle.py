"""The verdict bundle: it repeats, and any change of it is found."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from birthmark.bundle import recheck
from birthmark.claim import Claim
from birthmark.errors import BirthmarkError, InvalidClaim, InvalidVerdict
from birthmark.keys import OwnerKey
from birthmark.verdict import verify

Owned = tuple[OwnerKey, Claim, object]


@pytest.fixture(scope="module")
def bundle(session_claim: Owned, published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verdict on marked pictures, saved."""
    key, claim, _ = session_claim
    path = tmp_path_factory.mktemp("bundle") / "verdict.zip"
    verify(published.marked, claim, key).save(path, key)
    return path


def test_repeats_without_and_with_the_key(bundle: Path, session_claim: Owned) -> None:
    key, _, _ = session_claim
    without = recheck(bundle)
    assert without.summary["decision"] == "MARKED"
    assert without.needs_key
    assert not recheck(bundle, key).needs_key


def test_same_verdict_gives_the_same_bytes(
    bundle: Path, session_claim: Owned, published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    verify(published.marked, claim, key).save(tmp_path / "again.zip", key)
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_informed_bundle_repeats(session_claim: Owned, published, sr_model, tmp_path: Path) -> None:
    key, claim, _ = session_claim
    answers = {p.tobytes(): y for p, y in zip(published.inputs, published.marked, strict=True)}
    verdict = verify(
        None,
        claim,
        key,
        suspect=lambda p: answers[p.tobytes()],
        inputs=published.inputs,
        model=sr_model,
    )
    verdict.save(tmp_path / "v.zip", key)
    assert recheck(tmp_path / "v.zip", key).summary["mode"] == "informed"


def test_every_changed_byte_is_found(bundle: Path, tmp_path: Path) -> None:
    """Samples over the whole container, and in each member."""
    data = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    places = {*range(0, len(data), len(data) // 60), *starts, *(s + 60 for s in starts)}
    changed = tmp_path / "changed.zip"
    for place in sorted(places):
        broken = bytearray(data)
        broken[place] ^= 1
        changed.write_bytes(broken)
        with pytest.raises(BirthmarkError):
            recheck(changed)


def test_a_member_replaced_whole_is_named(bundle: Path, tmp_path: Path) -> None:
    """Even in a container that is well-formed."""
    from birthmark.bundle import _pack, _unpack

    members = _unpack(bundle)
    for name in members:
        forged = dict(members)
        forged[name] = members[name].replace(b"0", b"1", 1)
        if forged[name] == members[name]:
            continue
        (tmp_path / "forged.zip").write_bytes(_pack(forged))
        with pytest.raises(InvalidVerdict, match=r"json|npy|sig"):
            recheck(tmp_path / "forged.zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "x.zip")
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "missing.zip")


def test_paths_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    with pytest.raises(InvalidVerdict, match="not a verdict bundle"):
        recheck(tmp_path / "evil.zip")


def test_a_stranger_cannot_sign(
    session_claim: Owned, other_claim, published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    stranger, _ = other_claim
    with pytest.raises(InvalidClaim):
        verify(published.marked, claim, key).save(tmp_path / "v.zip", stranger)
    assert list(tmp_path.iterdir()) == []


def test_no_secret_in_the_bundle(bundle: Path, session_claim: Owned) -> None:
    key, claim, _ = session_claim
    data = bundle.read_bytes()
    for secret in (key._secret, key.mark_key(claim.digest)._secret):
        assert secret not in data
        assert secret.hex().encode() not in data
