"""The public record of keys: who followed whom, and what a claim's date is worth."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authority import Authority
from birthmark.claim import Claim
from birthmark.errors import InvalidKeyHistory
from birthmark.key_history import KeyHistory
from birthmark.keys import OwnerKey
from birthmark.stamp import request_stamp


def on(month: int, day: int = 1) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


OLD, NEW, STRANGER = (OwnerKey.generate() for _ in range(3))
BEGUN = KeyHistory.begin(OLD, on(1))
FOLLOWED = BEGUN.followed(OLD, NEW, on(3))
REVOKED = FOLLOWED.revoked(NEW, "laptop stolen", on(5))


@pytest.fixture(scope="module")
def claims(models_folder: Path) -> dict[tuple[str, int], Claim]:
    model = models_folder / "espcn_x2.onnx"
    return {
        (name, month): Claim.create(key, "A", model, b"c", created=on(month, 2))
        for name, key in (("old", OLD), ("new", NEW), ("stranger", STRANGER))
        for month in (2, 4, 6)
    }


def test_periods() -> None:
    period = REVOKED.period(OLD.public_key)
    assert period and (period.since, period.until) == (
        "2026-01-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
    )
    period = REVOKED.period(NEW.public_key)
    assert period and period.until == "2026-05-01T00:00:00Z"
    assert period.revoked_for == "laptop stolen"
    assert REVOKED.period(STRANGER.public_key) is None
    period = FOLLOWED.period(NEW.public_key)
    assert period and period.until is None


@pytest.mark.parametrize(
    ("claim", "word"),
    [
        (("old", 2), None),
        (("old", 4), "after the end"),
        (("new", 2), "before its key"),
        (("new", 4), None),
        (("new", 6), "laptop stolen"),
        (("stranger", 2), "not in the key history"),
    ],
)
def test_a_claim_stands_if_its_key_was_in_use(
    claims: dict[tuple[str, int], Claim], claim: tuple[str, int], word: str | None
) -> None:
    """Claims of a revoked key from before its revocation go on standing."""
    if word is None:
        REVOKED.check(claims[claim])
    else:
        with pytest.raises(InvalidKeyHistory, match=word):
            REVOKED.check(claims[claim])


def test_a_claim_stamped_after_its_key_s_end_shows_nothing_of_before(
    claims: dict[tuple[str, int], Claim], tmp_path: Path
) -> None:
    """Whoever found the key can date a claim back, and have it stamped today."""
    authority, backdated = Authority(tmp_path), claims["new", 4]
    with authority.served() as url:
        stamped = backdated.stamped(request_stamp(backdated.canonical_form(), url))
    assert REVOKED.check(backdated).revoked_for and FOLLOWED.check(stamped).until is None
    with pytest.raises(InvalidKeyHistory, match=r"stamped on .* after the end"):
        REVOKED.check(stamped)


def test_round_trip(tmp_path: Path) -> None:
    REVOKED.save(tmp_path / "k.json")
    assert KeyHistory.load(tmp_path / "k.json") == REVOKED
    FOLLOWED.save(tmp_path / "k.json")
    assert KeyHistory.load(tmp_path / "k.json") == FOLLOWED


def test_what_may_not_follow() -> None:
    for attempt, word in (
        (lambda: FOLLOWED.followed(OLD, STRANGER, on(4)), "already has a successor"),
        (lambda: BEGUN.followed(STRANGER, NEW, on(2)), "not in it"),
        (lambda: FOLLOWED.followed(NEW, OLD, on(4)), "used before"),
        (lambda: REVOKED.followed(NEW, STRANGER, on(6)), "revoked"),
        (lambda: REVOKED.revoked(NEW, "again", on(6)), "revoked"),
        (lambda: FOLLOWED.revoked(NEW, "", on(4)), "reason"),
        (lambda: FOLLOWED.revoked(NEW, "a\nb", on(4)), "reason"),
        (lambda: FOLLOWED.revoked(NEW, "early", on(2)), "out of order"),
        (lambda: KeyHistory(()), "begin"),
        (lambda: KeyHistory(FOLLOWED.events[1:]), "begin"),
        (lambda: KeyHistory((REVOKED.events[0], REVOKED.events[2])), "does not follow"),
    ):
        with pytest.raises(InvalidKeyHistory, match=word):
            attempt()


def test_nobody_else_can_write_into_it() -> None:
    """A thief of NEW cannot make himself its successor without its signature, nor sign for it."""
    event = FOLLOWED.events[1]
    for change in (
        {"successor": STRANGER.public_key.hex()},
        {"successor_signature": STRANGER.sign(event.message).hex()},
        {"signature": STRANGER.sign(event.message).hex()},
        {"signature": ""},
        {"key": event.key.upper()},
        {"time": "2026-03-02T00:00:00Z"},
    ):
        with pytest.raises(InvalidKeyHistory):
            KeyHistory((FOLLOWED.events[0], dataclasses.replace(event, **change)))


@settings(max_examples=200)
@given(data=st.data())
def test_any_changed_byte_is_found(data: st.DataObject, tmp_path_factory) -> None:
    whole = bytearray(REVOKED.to_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("h") / "k.json"
    path.write_bytes(whole)
    with pytest.raises(InvalidKeyHistory, match=r"k\.json: ") as caught:
        KeyHistory.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"events": []}', b'{"events": [1]}', b"[" * 90_000, b" " * (2 << 20)],
    ids=range(7),
)
def test_foreign_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_bytes(content)
    with pytest.raises(InvalidKeyHistory, match=r"k\.json"):
        KeyHistory.load(tmp_path / "k.json")
    with pytest.raises(InvalidKeyHistory, match="No such file"):
        KeyHistory.load(tmp_path / "no.json")


def test_it_holds_no_secret() -> None:
    text = REVOKED.to_bytes().decode()
    assert len(json.loads(text)["events"]) == 3
    for key in (OLD, NEW):
        for secret in (key._secret, key._signer.private_bytes_raw()):
            assert secret.hex() not in text
