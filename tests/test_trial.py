"""Trials: nobody picks the inputs alone, nobody asks on, and stale inputs void the test."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.bundle import recheck
from birthmark.bundle_container import to_json, unpack
from birthmark.claim import Claim
from birthmark.errors import CouldNotJudge, InvalidClaim, InvalidTrial, InvalidVerdict
from birthmark.extract import pixels_sha256
from birthmark.keys import OwnerKey
from birthmark.trial import Trial
from birthmark.verdict import Decision, Verdict, verify
from conftest import sign_again

Owned = tuple[OwnerKey, Claim, Any]


@pytest.fixture(scope="module")
def digests(published) -> list[str]:
    return [pixels_sha256(p) for p in published.inputs]


@pytest.fixture(scope="module")
def trial(session_claim: Owned, digests: list[str]) -> Trial:
    key, claim, _ = session_claim
    return Trial.declare(key, claim, digests, 5)


@pytest.fixture(scope="module")
def tried(session_claim: Owned, published, trial: Trial) -> Verdict:
    key, claim, _ = session_claim
    return verify(
        None,
        claim,
        key,
        suspect=published.answer,
        inputs=published.inputs,
        trial=trial.joined(bytes(32)),
    )


def test_a_declared_trial_asks_what_both_nonces_choose(
    tried: Verdict, trial: Trial, session_claim: Owned, digests: list[str], tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    summary = tried.summary()
    assert summary["queries_declared"] == 5 == len(summary["asked"])
    assert set(summary["asked"]) <= set(digests) and summary["accused_took_part"]
    assert tried.decision is Decision.MARKED
    tried.save(tmp_path / "v.zip", key)
    assert any("nonces" in step for step in recheck(tmp_path / "v.zip").repeated)
    recheck(tmp_path / "v.zip", key)
    recheck(tmp_path / "v.zip", claim.claim_key(key))
    assert [c.name for c in tried.controls] == ["inputs"] and tried.controls[0].log10_p > -3


def test_either_nonce_alone_changes_the_choice(
    trial: Trial, session_claim: Owned, digests: list[str]
) -> None:
    key, claim, _ = session_claim
    mark_key = claim.mark_key(key)
    choices = {trial.joined(bytes([i]) * 32).revealed(mark_key).chosen() for i in range(20)}
    assert len(choices) > 15
    # The owner's derives from what is declared, so another time gives another one.
    times = (datetime(2026, 1, 2, 0, 0, second, tzinfo=UTC) for second in range(20))
    declared = (Trial.declare(key, claim, digests, 5, created=time) for time in times)
    choices = {one.joined(bytes(32)).revealed(mark_key).chosen() for one in declared}
    assert len(choices) > 15
    with pytest.raises(InvalidTrial, match="not been revealed"):
        trial.chosen()


def test_what_the_owner_cannot_change_afterwards(
    trial: Trial, session_claim: Owned, digests: list[str]
) -> None:
    _, claim, _ = session_claim
    trial.check(claim)
    trial.joined(bytes(32)).check(claim)
    for change in (
        {"queries": 4},
        {"inputs": tuple(sorted(digests)[1:])},
        {"created": "2026-01-01T00:00:00Z"},
        {"mode": "informed"},
        {"mode": "informed", "references": ("5" * 64,)},
        {"customer": "Acme"},
        {"tests_counted": 2},
        {"false_positive_rate": 0.01},
        {"owner_commitment": "1" * 64},
        {"signature": "00" * 64},
    ):
        with pytest.raises(InvalidTrial, match="changed"):
            dataclasses.replace(trial, **change).check(claim)
    with pytest.raises(InvalidTrial, match="committed"):
        dataclasses.replace(trial, owner_nonce="2" * 64)
    stranger = OwnerKey.generate()
    with pytest.raises(InvalidClaim):
        Trial.declare(stranger, claim, digests, 2)
    with pytest.raises(InvalidTrial, match="joined this trial before"):
        trial.joined(bytes(32)).joined(bytes(32))


def test_a_trial_of_another_claim(trial: Trial, other_claim: tuple[OwnerKey, Claim]) -> None:
    with pytest.raises(InvalidTrial, match="another claim"):
        trial.check(other_claim[1])


def test_asking_something_else_than_declared(
    trial: Trial, session_claim: Owned, published, sr_model
) -> None:
    key, claim, _ = session_claim

    def ask(**how: Any) -> Verdict:
        arguments = {"suspect": published.answer, "inputs": published.inputs, "trial": trial}
        return verify(None, claim, key, **{**arguments, **how})

    with pytest.raises(InvalidTrial, match="not those that the trial declared"):
        ask(inputs=published.inputs[1:])
    with pytest.raises(InvalidTrial, match="declared blind"):
        ask(model=sr_model)
    with pytest.raises(InvalidTrial, match="the customer is not as the trial declared: none"):
        ask(customer="Acme")
    with pytest.raises(InvalidTrial, match="number of tests is not as the trial declared: 1"):
        ask(tests_counted=2)
    with pytest.raises(InvalidTrial, match="rate is not as the trial declared: 1e-06"):
        ask(false_positive_rate=1e-3)
    with pytest.raises(InvalidTrial, match="pictures alone"):
        verify(published.marked, claim, key, trial=trial)


def test_it_fixes_whose_mark_how_many_tests_and_the_threshold(
    session_claim: Owned, published, digests: list[str], tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    declared = {"customer": "Zoe\u0308", "tests_counted": 3, "false_positive_rate": 1e-3}
    trial = Trial.declare(key, claim, digests, 5, **declared)
    assert trial.customer == "Zo\u00eb" and Trial.from_bytes(trial.to_bytes()) == trial
    asked = {"suspect": published.answer, "inputs": published.inputs, "trial": trial}
    verdict = verify(None, claim, key, **asked)
    assert verify(None, claim, key, **asked, **declared).log10_p == verdict.log10_p
    summary = verdict.summary()
    assert {name: summary[name] for name in declared} == declared | {"customer": "Zo\u00eb"}
    assert verdict.decision is not Decision.MARKED  # it is the claim's own mark
    verdict.save(tmp_path / "v.zip", key)
    recheck(tmp_path / "v.zip", key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests_counted": 0}, "tests"),
        ({"tests_counted": True}, "tests"),
        ({"tests_counted": 10**13}, "tests"),
        ({"false_positive_rate": 0.0}, "rate"),
        ({"false_positive_rate": 1}, "rate"),
        ({"false_positive_rate": float("nan")}, "rate"),
        ({"customer": "two\nlines"}, "one line"),
        ({"customer": "Zoe\u0308"}, "NFC"),
        ({"customer": 5}, "text"),
    ],
)
def test_what_cannot_be_declared(trial: Trial, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTrial, match=message):
        dataclasses.replace(trial, **change)


@pytest.mark.parametrize("queries", [0, -1, 1000, True, 1.5, "9" * 5000])
def test_impossible_numbers_of_queries(
    session_claim: Owned, digests: list[str], queries: Any
) -> None:
    key, claim, _ = session_claim
    with pytest.raises(InvalidTrial, match="queries") as refused:
        Trial.declare(key, claim, digests, queries)
    assert len(str(refused.value)) < 100


@settings(max_examples=200)
@given(data=st.data())
def test_any_changed_byte_is_found(trial: Trial, session_claim: Owned, data: st.DataObject) -> None:
    whole = bytearray(trial.joined(bytes(32)).to_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = Trial.from_bytes(bytes(whole))
    except InvalidTrial as error:
        assert "\n" not in str(error)
        return
    if changed == dataclasses.replace(trial, accused_nonce=changed.accused_nonce):
        return  # the accused compares his nonce with the one he kept
    with pytest.raises(InvalidTrial):
        changed.check(session_claim[1])


def test_a_time_without_a_zone_is_refused(session_claim: Owned, digests: list[str]) -> None:
    key, claim, _ = session_claim
    with pytest.raises(InvalidTrial, match="time zone"):
        Trial.declare(key, claim, digests, 2, created=datetime(2026, 1, 1))


def test_files(trial: Trial, tmp_path: Path) -> None:
    trial.save(tmp_path / "t.json")
    assert Trial.load(tmp_path / "t.json") == trial
    for content in (b"", b"{}", b"[]", b"\xff", b"[" * 90_000, b'{"inputs": 1}'):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InvalidTrial, match="bad: "):
            Trial.load(tmp_path / "bad")
    with pytest.raises(InvalidTrial, match="No such file"):
        Trial.load(tmp_path / "no.json")


@pytest.mark.parametrize("signature", [5, None, []])
def test_a_signature_that_is_no_text(trial: Trial, signature: object) -> None:
    with pytest.raises(InvalidTrial, match="signature"):
        dataclasses.replace(trial, signature=signature)


def test_it_holds_no_secret(trial: Trial, session_claim: Owned) -> None:
    key, claim, _ = session_claim
    text = trial.revealed(claim.mark_key(key)).to_bytes().decode()
    for secret in (key._secret, claim.claim_key(key)._secret, claim.mark_key(key)._secret):
        assert secret.hex() not in text


def test_an_input_that_once_was_our_output_voids_the_test(session_claim: Owned, published) -> None:
    """Even for an innocent suspect that hands its input back; and it is not called UNMARKED."""
    key, claim, _ = session_claim

    def innocent(picture: np.ndarray) -> np.ndarray:
        return picture

    inputs = [*published.inputs, published.marked[0]]
    with pytest.raises(CouldNotJudge, match="carries the mark itself"):
        verify(None, claim, key, suspect=innocent, inputs=inputs)
    verdict = verify(None, claim, key, suspect=innocent, inputs=published.inputs)
    assert verdict.decision is not Decision.MARKED and verdict.controls[0].log10_p > -4


def test_the_owner_s_unmarked_outputs_are_a_control(
    session_claim: Owned, published, sr_model
) -> None:
    key, claim, _ = session_claim
    asked = {"suspect": published.answer, "inputs": published.inputs, "model": sr_model}
    verdict = verify(None, claim, key, **asked)
    assert [c.name for c in verdict.controls] == ["inputs", "the owner's unmarked outputs"]
    assert all(c.log10_p > -4 for c in verdict.controls)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("queries_declared", 6),
        ("queries_declared", None),
        ("accused_took_part", False),
        ("asked", []),
        ("customer", "Acme"),
        ("tests_counted", 2),
        ("false_positive_rate", 1e-3),
        ("controls", []),
        ("log10_likelihood_ratio", 99.0),
        ("log10_p_if_date_doubted", -99.0),
        ("claim_stamped", "2026-01-01T00:00:00Z"),
        ("created", "2025-01-01T00:00:00Z"),
    ],
)
def test_the_owner_cannot_sign_another_protocol(
    tried: Verdict, session_claim: Owned, path: str, value: Any, tmp_path: Path
) -> None:
    key = session_claim[0]
    tried.save(tmp_path / "v.zip", key)
    members = unpack((tmp_path / "v.zip").read_bytes())
    stated = json.loads(members["verdict.json"])
    assert stated[path] != value
    stated[path] = value
    sign_again(members | {"verdict.json": to_json(stated)}, key, tmp_path / "x.zip")
    with pytest.raises(InvalidVerdict):
        recheck(tmp_path / "x.zip", key)
