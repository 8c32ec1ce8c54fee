"""The verdict bundle: it repeats, and any change of it is found."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birthmark import _core
from birthmark.bundle import recheck
from birthmark.bundle_container import pack, to_json, unpack
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim, InvalidVerdict
from birthmark.keys import OwnerKey
from birthmark.models import ImageModel
from birthmark.verdict import Verdict, verify
from conftest import Published, sign_again

Owned = tuple[OwnerKey, Claim, Calibration]
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def verdict(session_claim: Owned, published: Published) -> Verdict:
    """A verdict on marked pictures."""
    key, claim, _ = session_claim
    return verify(published.marked, claim, key)


@pytest.fixture(scope="module")
def saved(verdict: Verdict, session_claim: Owned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `verdict`."""
    path = tmp_path_factory.mktemp("bundle") / "verdict.zip"
    verdict.save(path, session_claim[0])
    return path


@pytest.fixture(scope="module")
def informed(
    session_claim: Owned,
    published: Published,
    sr_model: ImageModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundle of an informed verdict on a suspect that answers as the model publishes."""
    key, claim, _ = session_claim
    verdict = verify(
        None,
        claim,
        key,
        suspect=published.answer,
        inputs=published.inputs,
        model=sr_model,
    )
    path = tmp_path_factory.mktemp("informed") / "verdict.zip"
    verdict.save(path, key)
    return path


def test_repeats_without_and_with_the_key(saved: Path, session_claim: Owned) -> None:
    without = recheck(saved)
    assert without.summary["decision"] == "MARKED"
    assert without.needs_key
    with_key = recheck(saved, session_claim[0])
    assert not with_key.needs_key
    assert set(without.repeated) < set(with_key.repeated)


def test_informed_bundle_repeats(informed: Path, session_claim: Owned) -> None:
    assert recheck(informed, session_claim[0]).summary["mode"] == "informed"


def test_verdict_json_says_what_a_reader_needs(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        stated = json.loads(archive.read("verdict.json"))
    for name in ("hypotheses", "not_said", "protocol", "created", "code_version"):
        assert stated[name]
    assert stated["contract_version"] == _core.CONTRACT_VERSION


def test_other_words_are_said(saved: Path, session_claim: Owned, tmp_path: Path) -> None:
    """What an owner, or another version, may have written about it in other words."""
    assert recheck(saved).worded_otherwise == ()
    members = unpack(saved.read_bytes())
    stated = json.loads(members["verdict.json"])
    stated["not_said"] = "Whoever is called MARKED is guilty."
    stated["protocol"] = stated["protocol"][:-1]
    sign_again(members | {"verdict.json": to_json(stated)}, session_claim[0], tmp_path / "x.zip")
    assert recheck(tmp_path / "x.zip").worded_otherwise == ("not_said", "protocol")


def test_a_refusal_says_if_another_version_made_the_bundle(
    saved: Path, session_claim: Owned, tmp_path: Path
) -> None:
    members = unpack(saved.read_bytes())
    stated = json.loads(members["verdict.json"])
    stated |= {"extractor_sha256": "0" * 64, "code_version": "0.0.1", "of another form": 1}
    sign_again(members | {"verdict.json": to_json(stated)}, session_claim[0], tmp_path / "x.zip")
    with pytest.raises(InvalidVerdict, match=r"form .*\(made by birthmark 0.0.1, which reads"):
        recheck(tmp_path / "x.zip")


def test_same_verdict_gives_the_same_bytes(
    saved: Path, verdict: Verdict, session_claim: Owned, published: Published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    again = verify(published.marked, claim, key)
    dataclasses.replace(again, created=verdict.created).save(tmp_path / "again.zip", key)
    assert (tmp_path / "again.zip").read_bytes() == saved.read_bytes()


def test_names_that_are_not_unicode_are_kept_readable(
    session_claim: Owned, published: Published, tmp_path: Path
) -> None:
    import os

    from birthmark.pictures import write_png

    key, claim, _ = session_claim
    write_png(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png"), published.marked[0])
    verify([tmp_path], claim, key).save(tmp_path / "v.zip", key)
    assert recheck(tmp_path / "v.zip").summary["evidence"][0]["name"].endswith("a\\xff.png")


def test_every_changed_byte_is_found_and_named(informed: Path, tmp_path: Path) -> None:
    """Every byte of the container's own, and samples of each member's content."""
    data = informed.read_bytes()
    with zipfile.ZipFile(informed) as archive:
        entries, directory = archive.infolist(), archive.start_dir
    owners = [(e.header_offset, e.header_offset + 30 + len(e.filename), e) for e in entries]
    places = {place: "" for place in range(directory, len(data))}
    for header, start, entry in owners:
        places |= dict.fromkeys(range(header, start), "")
        inside = np.linspace(start, start + entry.file_size - 1, 9).astype(int)
        places |= dict.fromkeys(inside.tolist(), entry.filename)
    changed = tmp_path / "changed.zip"
    for place, name in places.items():
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        changed.write_bytes(broken)
        with pytest.raises(InvalidVerdict) as refusal:
            recheck(changed)
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("where", ["begin", "middle", "end"])
def test_bytes_added_or_lost_are_found(saved: Path, where: str, tmp_path: Path) -> None:
    data = saved.read_bytes()
    at = {"begin": 0, "middle": len(data) // 2, "end": len(data)}[where]
    for changed in (data[:at] + b"x" + data[at:], data[: max(at - 1, 0)] + data[at:][at == 0 :]):
        (tmp_path / "x.zip").write_bytes(changed)
        with pytest.raises(InvalidVerdict):
            recheck(tmp_path / "x.zip")


def test_a_member_replaced_in_a_sound_container_is_named(saved: Path, tmp_path: Path) -> None:
    members = unpack(saved.read_bytes())
    for name, data in members.items():
        forged = members | {name: data[:-1] + bytes([data[-1] ^ 1])}
        (tmp_path / "forged.zip").write_bytes(pack(forged))
        with pytest.raises(InvalidVerdict, match=name.replace(".", r"\.")):
            recheck(tmp_path / "forged.zip")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("decision", "UNMARKED"),
        ("p_value", 1e-90),
        ("log10_p", -90.0),
        ("mode", "informed"),
        ("pictures", 7),
        ("payload", "00000000"),
        ("payload", None),
        ("payload_guess", "00000000"),
        ("payload_guess", "<script>"),
        ("payload_doubt", 0.0011),
        ("payload_doubt", -0.1),
        ("emblem", "12345678"),
        ("payload_is_claimed", False),
        ("tests_counted", 0),
        ("false_positive_rate", 0.5),
        ("claim_digest", "00"),
        ("owner", "Somebody else"),
        ("tests.coordinates", 97),
        ("tests.cosine", 0.999),
        ("tests.chips_matched", 96),
        ("tests.log10_p_chips", -90.0),
        ("tests.decoys", 10),
        ("tests.decoys_as_good", 4),
        ("tests.agree", False),
        ("contract_version", 1),
        ("tests", []),
        ("evidence", []),
        ("protocol", None),
    ],
)
def test_the_owner_cannot_sign_numbers_that_do_not_follow(
    saved: Path, session_claim: Owned, path: str, value: Any, tmp_path: Path
) -> None:
    members = unpack(saved.read_bytes())
    stated = json.loads(members["verdict.json"])
    inner = stated
    *above, last = path.split(".")
    for name in above:
        inner = inner[name]
    assert inner[last] != value
    inner[last] = value
    sign_again(
        members | {"verdict.json": to_json(stated)},
        session_claim[0],
        tmp_path / "x",
    )
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coordinates", 25),
        ("cosine", 0.999),
        ("chips_matched", 25),
        ("log10_p_cosine", -90.0),
        ("decoys_as_good", 4),
        ("agree", False),
    ],
)
def test_nor_numbers_of_the_tint(
    informed: Path, session_claim: Owned, name: str, value: Any, tmp_path: Path
) -> None:
    members = unpack(informed.read_bytes())
    stated = json.loads(members["verdict.json"])
    assert stated["tint_tests"][0][name] != value
    stated["tint_tests"][0][name] = value
    sign_again(members | {"verdict.json": to_json(stated)}, session_claim[0], tmp_path / "x")
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "x")


def test_what_only_the_key_can_repeat_is_repeated_with_it(
    saved: Path, session_claim: Owned, tmp_path: Path
) -> None:
    """A cosine with numbers made to fit: only the owner's key shows that it is not the cosine."""
    from birthmark import tails

    key = session_claim[0]
    members = unpack(saved.read_bytes())
    stated = json.loads(members["verdict.json"])
    fitted = copy.deepcopy(stated)
    tests, n = fitted["tests"], stated["tests"]["coordinates"]
    tests["cosine"] += 0.01
    tests["log10_p_cosine"] = fitted["log10_p"] = tails.log10_p_of_cosine(tests["cosine"], n)
    fitted["p_value"] = tails.p_of(fitted["log10_p"])
    fitted["log10_likelihood_ratio"] = tails.log10_likelihood_ratio(fitted["log10_p"])
    fitted["log10_p_if_date_doubted"] = min(0.0, fitted["log10_p"] + 64 * np.log10(2))
    curve = copy.deepcopy(stated)
    curve["curve"][0][1] -= 1.0
    emblem = copy.deepcopy(stated)
    emblem.update(payload="12345678", payload_guess="12345678", payload_is_claimed=False)
    for forged in (fitted, curve, emblem):
        sign_again(members | {"verdict.json": to_json(forged)}, key, tmp_path / "x")
        recheck(tmp_path / "x")
        with pytest.raises(InvalidVerdict, match="does not follow from the owner's key"):
            recheck(tmp_path / "x", key)


def array_bytes(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name",
    ["statistics.npy", "estimate.npy", "regression.npy", "tint.npy", "tint_regression.npy"],
)
def test_hostile_arrays_are_refused(
    informed: Path, session_claim: Owned, name: str, tmp_path: Path
) -> None:
    members = unpack(informed.read_bytes())
    data = members[name]
    array = np.load(io.BytesIO(data))
    hostile = [
        b"",
        data[:-1],
        data.replace(b"'shape': (", b"'shape': (90000000000, "),
        array_bytes(array.astype("<f4")),
        array_bytes(np.array([{}], object), allow_pickle=True),
        array_bytes(array * array.dtype.type(-1)),
    ]
    if array.dtype.kind == "f":
        hostile += [array_bytes(array * np.nan), array_bytes(np.full_like(array, 1e308))]
    for bad in hostile:
        # The blind statistics of an informed verdict enter its evidence only, hence the key.
        sign_again(members | {name: bad}, session_claim[0], tmp_path / "x")
        with pytest.raises(InvalidVerdict):
            recheck(tmp_path / "x", session_claim[0])


@pytest.mark.parametrize(
    "text", [b"{", b"[]\n", b"[" * 100_000, b"\xff", b'{"p_value": NaN}\n', b'{"p_value": 1e999}\n']
)
def test_a_hostile_verdict_json_is_refused(
    saved: Path, session_claim: Owned, text: bytes, tmp_path: Path
) -> None:
    members = unpack(saved.read_bytes())
    sign_again(members | {"verdict.json": text}, session_claim[0], tmp_path / "x")
    with pytest.raises(InvalidVerdict, match=r"verdict\.json"):
        recheck(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "x.zip")
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "missing.zip")
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path)


def test_paths_and_compression_in_a_zip_are_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../outside.txt", "x")
    with pytest.raises(InvalidVerdict, match="not a verdict bundle"):
        recheck(tmp_path / "evil.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in unpack(saved.read_bytes()):
            archive.writestr(name, bytes(10_000_000))
    with pytest.raises(InvalidVerdict, match="compressed"):
        recheck(tmp_path / "bomb.zip")


def test_a_stranger_can_neither_sign_nor_repeat(
    session_claim: Owned, other_claim: tuple[OwnerKey, Claim], saved: Path, tmp_path: Path
) -> None:
    stranger, _ = other_claim
    with pytest.raises(InvalidClaim):
        recheck(saved, stranger)
    members = unpack(saved.read_bytes())
    sign_again(members, stranger, tmp_path / "x")
    with pytest.raises(InvalidVerdict, match="signature"):
        recheck(tmp_path / "x")


def test_saving_with_another_key_writes_nothing(
    verdict: Verdict, other_claim: tuple[OwnerKey, Claim], tmp_path: Path
) -> None:
    with pytest.raises(InvalidClaim):
        verdict.save(tmp_path / "v.zip", other_claim[0])
    assert list(tmp_path.iterdir()) == []


def test_no_secret_in_the_bundle(saved: Path, session_claim: Owned) -> None:
    key, claim, _ = session_claim
    data = saved.read_bytes()
    for secret in (key._secret, claim.claim_key(key)._secret, claim.mark_key(key)._secret):
        assert secret not in data
        assert secret.hex().encode() not in data
