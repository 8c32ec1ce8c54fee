"""Where the rules of the exact tests and of the decision end, to the last count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from birthmark import controls, emblem, exact_tests
from birthmark import verdict as verdicts
from birthmark.errors import CouldNotJudge
from birthmark.exact_tests import DECOYS, corrected_log10_p, count_decoys_as_good, decoy_cosines
from birthmark.payload import MOST_DOUBT, Decoding
from birthmark.verdict import Decision, decide, verify

N = 68


def test_decoys_agree_to_within_four_standard_deviations_and_three() -> None:
    # Under a cosine of 0 half of the decoys are as good: 4999.5, by 4 sqrt(9999 / 4) + 3 = 202.99.
    for decoys, agree in ((4796, False), (4797, True), (5202, True), (5203, False)):
        assert exact_tests.tests_agree(0.0, N // 2, decoys, N) is agree
    # Under the largest cosine none is, by 3; and rounding may put it a little above 1.
    for cosine in (1.0, 1.0 + 1e-12):
        assert exact_tests.tests_agree(cosine, N, 3, N) and not exact_tests.tests_agree(
            cosine, N, 4, N
        )
        assert exact_tests.tests_agree(-cosine, 0, DECOYS, N)


def test_chips_agree_to_within_four_and_a_half_standard_deviations() -> None:
    # Under a cosine of 0 half of the chips match: 34, by 4.5 sqrt(68) / 2 = 18.55.
    for chips, agree in ((15, False), (16, True), (52, True), (53, False)):
        assert exact_tests.tests_agree(0.0, chips, DECOYS // 2, N) is agree


def test_a_decoy_exactly_as_good_counts() -> None:
    estimate = np.random.default_rng(2).standard_normal(N)
    best = float(decoy_cosines(estimate).max())
    assert count_decoys_as_good(estimate, best) == 1
    assert count_decoys_as_good(estimate, math.nextafter(best, 2)) == 0
    assert count_decoys_as_good(estimate, -1.0) == DECOYS


def test_p_is_multiplied_by_what_was_tried_and_never_above_one() -> None:
    assert corrected_log10_p([-3.0], 10) == pytest.approx(-2)
    assert corrected_log10_p([-0.5], 10) == 0.0
    assert corrected_log10_p([-3.0, -4.0], 1) < -5


@pytest.mark.parametrize(
    ("log10_p", "agree", "decision"),
    [
        (-6.1, True, "MARKED"),
        (-6.0, True, "UNDECIDED"),
        (-3.0, True, "UNDECIDED"),
        (-2.9, True, "UNMARKED"),
        (-6.1, False, "UNDECIDED"),
        (-2.9, False, "UNDECIDED"),
    ],
)
def test_the_decision_rule(log10_p: float, agree: bool, decision: str) -> None:
    assert decide(log10_p, agree, 1e-6, -3) is Decision(decision)


@pytest.mark.parametrize("rate", [0.0, -1.0, 0.0101, math.nan])
def test_a_rate_of_false_alarms_that_is_none(session_claim, published, rate: float) -> None:
    owner, claim, _ = session_claim
    with pytest.raises(ValueError, match="false-positive rate"):
        verify(published.marked[:1], claim, owner, false_positive_rate=rate)


def test_another_payload_is_not_the_claimed_one(session_claim, published, monkeypatch) -> None:
    owner, claim, _ = session_claim
    other = 1 - claim.payload
    monkeypatch.setattr(verdicts, "_decoded", lambda *_: Decoding(other, MOST_DOUBT))
    verdict = verify(published.marked, claim, owner)
    assert verdict.decision is Decision.MARKED
    assert verdict.payload == emblem.from_bits(other) != claim.emblem
    assert not verdict.payload_is_claimed
    # One that cannot be trusted is not given out as read, be it the claim's.
    doubted = Decoding(claim.payload, 1.01 * MOST_DOUBT)
    monkeypatch.setattr(verdicts, "_decoded", lambda *_: doubted)
    verdict = verify(published.marked, claim, owner)
    assert verdict.payload is None and not verdict.payload_is_claimed
    assert verdict.payload_guess == claim.emblem


def test_controls_that_look_marked_void_the_test(session_claim, published, monkeypatch) -> None:
    owner, claim, _ = session_claim
    monkeypatch.setattr(controls, "_CONTROL_LOG10_P", 1.0)
    with pytest.raises(CouldNotJudge, match="control: inputs: marked, it seems"):
        verify(None, claim, owner, suspect=published.answer, inputs=published.inputs)
