"""The claim: whole or refused, its digest fixed by a written form that others can rebuild."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.claim import MAX_FILE_BYTES, MAX_LOGO_BYTES, Claim
from birthmark.emblem import from_key, from_logo
from birthmark.errors import InvalidClaim, InvalidModel
from birthmark.keys import OwnerKey
from birthmark.pictures import encode_png

LOGO = encode_png(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
LARGE_LOGO = encode_png(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
CREATED = datetime(2026, 1, 31, 13, 0, 0, 999_999, timezone(timedelta(hours=1)))
names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def key() -> OwnerKey:
    return OwnerKey.generate()


@pytest.fixture(scope="module")
def model(models_folder: Path) -> Path:
    return models_folder / "espcn_x2.onnx"


@pytest.fixture(scope="module")
def claim(key: OwnerKey, model: Path) -> Claim:
    return Claim.create(
        key, "Zoë & Søn AG", model, b"calibration", LOGO, "zoe@example.org", CREATED
    )


@pytest.fixture(scope="module")
def file(claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("claims") / "claim.json"
    claim.save(path)
    return path


def test_fields(claim: Claim, key: OwnerKey, model: Path) -> None:
    assert claim.owner == "Zoë & Søn AG" and claim.contact == "zoe@example.org"
    assert claim.model_name == "espcn_x2"
    assert claim.model_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert claim.created == "2026-01-31T12:00:00Z"
    assert claim.calibration_sha256 == hashlib.sha256(b"calibration").hexdigest()
    assert claim.public_key == key.public_key
    assert claim.logo == LOGO and claim.version == 4
    assert (claim.log10_false_positive_rate, claim.log10_unmarked_above) == (-6, -3)
    with pytest.raises(FrozenInstanceError):
        claim.owner = "Eve"


def test_a_claim_that_commits_to_another_secret_has_none(claim: Claim, key: OwnerKey) -> None:
    """Not even for its owner, who may sign what he likes: it could be the secret of any mark."""
    unsigned = replace(claim, commitment="1" * 64)
    forged = replace(unsigned, signature=key.sign(unsigned._signed_message()))
    forged.verify(key.public_key)
    with pytest.raises(InvalidClaim, match="commit"):
        forged.claim_key(key)
    with pytest.raises(InvalidClaim, match="commit"):
        forged.mark_key(claim.claim_key(key))


def test_a_claim_says_which_code_made_it(
    claim: Claim, key: OwnerKey, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claim.code_version == metadata.version("birthmark")

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert Claim.create(key, "A", model, b"c").code_version == "not installed"


def test_draws_are_stated_and_have_marks_of_their_own(key: OwnerKey, model: Path) -> None:
    when = datetime(2026, 1, 31, 12, tzinfo=UTC)
    claims = [Claim.create(key, "A", model, b"c", created=when, draw=i, draws=3) for i in (1, 2, 3)]
    assert [c.draw for c in claims] == [1, 2, 3] and {c.draws for c in claims} == {3}
    assert len({c.mark_key(key).id for c in claims}) == len({c.commitment for c in claims}) == 3
    for draw, draws in ((0, 3), (4, 3), (1, 0), (1, 1 << 17), (True, 1)):
        with pytest.raises(InvalidClaim, match="draw"):
            Claim.create(key, "A", model, b"c", draw=draw, draws=draws)


def test_time_is_now_by_default(key: OwnerKey, model: Path) -> None:
    created = datetime.fromisoformat(Claim.create(key, "A", model, b"c").created)
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=10)


@settings(max_examples=30)
@given(
    owner=names.filter(str.strip),
    contact=names.filter(str.strip) | st.just(""),
    calibration=st.binary(min_size=1, max_size=300),
    logo=st.sampled_from([None, LOGO]),
)
def test_round_trip(
    key: OwnerKey,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    owner: str,
    contact: str,
    calibration: bytes,
    logo: bytes | None,
) -> None:
    claim = Claim.create(key, owner, model, calibration, logo, contact)
    path = tmp_path_factory.mktemp("claim") / "c.json"
    claim.save(path)
    loaded = Claim.load(path)
    assert loaded == claim and loaded.digest == claim.digest
    loaded.verify(key.public_key)


def test_digest_and_signature_can_be_rebuilt_from_the_file(claim: Claim, file: Path) -> None:
    """By another author: with a JSON library and the words of the Claim's docstring."""
    values = json.loads(file.read_bytes())
    signature = base64.b64decode(values.pop("signature"))
    assert values.pop("stamp") is None
    canonical = json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    assert claim.digest == hashlib.sha256(canonical).digest()
    signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(values["public_key"]))
    signer.verify(signature, b"birthmark claim\0" + canonical)
    assert base64.b64decode(values["logo"]) == LOGO


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_byte_is_caught(file: Path, data: st.DataObject) -> None:
    whole = bytearray(file.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert_refused(file, bytes(whole))


@given(data=st.data())
def test_truncated_or_longer_file(file: Path, data: st.DataObject) -> None:
    whole = file.read_bytes()
    assert_refused(file, whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert_refused(file, whole + data.draw(st.sampled_from([b" ", b"\n", b"\0", b"{}"])))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"owner": 1}',
        b"\xff\xfe\x00",
        b'"' + b"9" * 5000,
        b"9" * 5000,
        b" " * (MAX_FILE_BYTES + 1),
    ],
    ids=[
        "empty",
        "null",
        "no fields",
        "deep",
        "few",
        "not utf-8",
        "open string",
        "digits",
        "large",
    ],
)
def test_foreign_file(file: Path, content: bytes) -> None:
    assert_refused(file, content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 1),
        ("version", True),
        ("owner", ""),
        ("owner", " "),
        ("owner", 7),
        ("owner", "a\nb"),
        ("owner", "x" * 1001),
        ("model_sha256", "0" * 63),
        ("model_sha256", None),
        ("calibration", "!!!!"),
        ("calibration", ""),
        ("calibration_sha256", "0" * 64),
        ("created", "2026-02-30T00:00:00Z"),
        ("created", "yesterday"),
        ("created", None),
        ("public_key", "AAAA"),
        ("public_key", base64.b64encode(b"\xff" * 32).decode()),
        ("signature", None),
        ("signature", base64.b64encode(bytes(64)).decode()),
        ("logo", "not base64"),
        ("logo", base64.b64encode(b"GIF89a").decode()),
        ("logo", base64.b64encode(LOGO[:-20]).decode()),
        ("logo", base64.b64encode(LOGO + bytes(MAX_LOGO_BYTES)).decode()),
        ("unknown", 1),
    ],
)
def test_malformed_field(file: Path, name: str, value: object) -> None:
    values = json.loads(file.read_bytes())
    values[name] = value
    text = json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False)
    assert_refused(file, text.encode() + b"\n")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidClaim, match="No such file"):
        Claim.load(tmp_path / "no.json")


def assert_refused(file: Path, content: bytes) -> None:
    path = file.with_name("changed.json")
    path.write_bytes(content)
    with pytest.raises(InvalidClaim, match=r"changed\.json: ") as caught:
        Claim.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_verify_tells_whose_claim_it_is(claim: Claim, key: OwnerKey) -> None:
    claim.verify()
    claim.verify(key.public_key)
    with pytest.raises(InvalidClaim, match="another key"):
        claim.verify(OwnerKey.generate().public_key)
    with pytest.raises(InvalidClaim, match="changed"):
        replace(claim, owner="Eve").verify()
    with pytest.raises(InvalidClaim, match="changed"):
        replace(claim, public_key=OwnerKey.generate().public_key).verify()


@pytest.mark.parametrize(
    "bad",
    [
        {"owner": ""},
        {"owner": "\ud800"},
        {"owner": "a\nb"},
        {"owner": "a\u2028b"},
        {"owner": "a\u2029b"},
        {"calibration": b""},
        {"calibration": bytes(MAX_FILE_BYTES)},
        {"logo": b"\x89PNG"},
        {"logo": encode_png(np.zeros((2000, 10, 3), np.uint8))},
        {"logo": LARGE_LOGO},
        {"created": datetime(2026, 1, 1)},
    ],
    ids=[
        "owner",
        "surrogate",
        "line feed",
        "line",
        "paragraph",
        "no calibration",
        "large",
        "logo",
        "long logo",
        "large logo",
        "no zone",
    ],
)
def test_create_refuses(key: OwnerKey, model: Path, bad: dict[str, Any]) -> None:
    arguments = {"owner": "A", "calibration": b"c", **bad}
    with pytest.raises(InvalidClaim):
        Claim.create(key, model_path=model, **arguments)


def test_as_large_as_a_claim_may_be(key: OwnerKey, model: Path, tmp_path: Path) -> None:
    def of_size(calibration_bytes: int, contact: str) -> Claim:
        return Claim.create(key, "A", model, bytes(calibration_bytes), contact=contact)

    lacking = MAX_FILE_BYTES - len(of_size(3_000, "x").to_bytes())
    full = 3_000 + 3 * (lacking // 4 - 1)  # base64 writes three bytes as four characters
    contact = "x" * (1 + lacking - 4 * (lacking // 4 - 1))
    claim = of_size(full, contact)
    claim.save(tmp_path / "large.json")
    assert (tmp_path / "large.json").stat().st_size == MAX_FILE_BYTES
    assert Claim.load(tmp_path / "large.json") == claim
    with pytest.raises(InvalidClaim, match="larger than"):
        of_size(full, contact + "x")


def test_create_refuses_a_missing_model(key: OwnerKey, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"no\.onnx"):
        Claim.create(key, "A", tmp_path / "no.onnx", b"c")


def test_every_field_changes_the_digest(claim: Claim) -> None:
    changes = {
        "owner": "B",
        "contact": "c",
        "logo": None,
        "model_name": "m",
        "model_sha256": "0" * 64,
        "created": "2026-01-31T12:00:01Z",
        "code_version": "v",
        "public_key": bytes(32),
        "emblem": "12345678",
    }
    digests = {replace(claim, **{name: value}).digest for name, value in changes.items()}
    other = hashlib.sha256(b"x").hexdigest()
    digests.add(replace(claim, calibration=b"x", calibration_sha256=other).digest)
    assert len(digests | {claim.digest}) == len(changes) + 2
    assert replace(claim, signature=bytes(64)).digest == claim.digest


def test_payload_is_the_emblem(claim: Claim) -> None:
    assert claim.payload.dtype == np.int8 and claim.payload.shape == (32,)
    assert int("".join(map(str, claim.payload)), 2) == int(claim.emblem, 16)


def test_emblem_is_drawn_from_the_logo_or_the_key(claim: Claim, key: OwnerKey, model: Path) -> None:
    assert claim.emblem == from_logo(LOGO, 8)
    plain = Claim.create(key, "A", model, b"c", emblem_rows=4)
    assert plain.emblem == from_key(key.public_key, 4) and len(plain.payload) == 16
    other = Claim.create(OwnerKey.generate(), "A", model, b"c")
    assert other.emblem != from_key(key.public_key, 8)
    with pytest.raises(InvalidClaim, match="4 to 16 rows"):
        Claim.create(key, "A", model, b"c", emblem_rows=3)


def test_saved_claim_holds_no_secret(claim: Claim, key: OwnerKey, file: Path) -> None:
    text = file.read_bytes() + repr(claim).encode()
    secrets = (
        key._secret,
        key._signer.private_bytes_raw(),
        claim.claim_key(key)._secret,
        claim.mark_key(key)._secret,
    )
    for secret in secrets:
        for spelling in (secret, secret.hex().encode(), base64.b64encode(secret)[:40]):
            assert spelling not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 1),
        ("version", True),
        ("owner", "x" * 1001),
        ("model_sha256", "0" * 63),
        ("commitment", None),
        ("public_key", bytes(31)),
        ("public_key", "x" * 32),
        ("signature", bytes(65)),
        ("contract_version", 1001),
        ("contract_version", 0),
        ("contract_version", True),
        ("emblem", "00000000"),
        ("emblem", "fff"),
        ("emblem", 12345678),
        ("log10_false_positive_rate", -13),
        ("log10_false_positive_rate", -1),
        ("log10_unmarked_above", 1),
        ("log10_unmarked_above", -7),
        ("calibration", b""),
        ("created", "yesterday"),
        ("stamp", b"none"),
    ],
)
def test_each_field_is_refused_by_itself(claim: Claim, name: str, value: object) -> None:
    """Before any signature is looked at, and by its own name."""
    with pytest.raises(InvalidClaim, match=name):
        replace(claim, **{name: value})


def test_a_text_of_the_most_characters_is_taken(claim: Claim) -> None:
    assert len(replace(claim, owner="x" * 1000).owner) == 1000


def test_a_claim_from_the_future(claim: Claim) -> None:
    made = datetime.strptime(claim.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    claim.check_date(made - timedelta(days=1))
    with pytest.raises(InvalidClaim, match="future"):
        claim.check_date(made - timedelta(days=1, seconds=1))
