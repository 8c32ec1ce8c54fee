"""Tracing: the right customer among many, nobody who had no part, and what colluders leave."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats
from scipy.special import betainc

from birthmark import _core
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.errors import CouldNotJudge, InvalidCustomer, InvalidMarkFile
from birthmark.extract import Pool, log10_p_of_sums
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import Mark, provision
from birthmark.measure import Measured, measure
from birthmark.models import ImageModel
from birthmark.pictures import Picture
from birthmark.regression import Regression
from birthmark.sums import sums_of, total_of
from birthmark.tails import log10_p_of_subspace
from birthmark.trace import Customers, _Part, read_customers
from birthmark.verdict import verify
from conftest import Published

Owned = tuple[OwnerKey, Claim, Calibration]
NAMES = [f"customer {i}" for i in range(1000)]
RATE = 1e-3


@pytest.fixture(scope="module")
def customers(session_claim: Owned, mark_key: MarkKey) -> Customers:
    return Customers(NAMES, session_claim[1], mark_key)


def noise(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(abs(seed) + 1000 * (seed < 0)).standard_normal(n)


def mean_mark(customers: Customers, members: list[int]) -> np.ndarray:
    """What averaging leaves, in coordinates of variance 1 for one mark."""
    n = customers.directions.shape[1]
    return customers.directions[members].astype(float).mean(axis=0) * math.sqrt(n)


def test_directions_are_those_of_the_marks_that_are_provisioned(
    session_claim: Owned, customers: Customers
) -> None:
    owner, claim, calibration = session_claim
    for i in (0, 123, 999):
        mark = provision(owner, claim, NAMES[i])
        z = mark.read(calibration)
        cosine = z @ customers.directions[i] / np.linalg.norm(z)
        assert cosine > 0.999
        found = customers.trace(z)
        assert [one.customer for one in found.named] == [NAMES[i]]
    assert len({provision(owner, claim, name).id for name in (*NAMES[:20], None)}) == 21
    lengths = np.linalg.norm(customers.directions, axis=1)
    assert np.abs(lengths - 1).max() < 1e-5


def test_published_pictures_name_their_customer(
    session_claim: Owned, customers: Customers, sr_model: ImageModel, published
) -> None:
    owner, claim, calibration = session_claim
    embedder = Embedder(provision(owner, claim, NAMES[7]))
    pictures = [embedder.embed(sr_model.output(x)) for x in published.inputs]
    measured = measure(pictures, claim, claim.mark_key(owner))
    found = customers.trace(measured.estimate(calibration))
    assert [one.customer for one in found.named] == [NAMES[7]]
    assert found.named[0].log10_p < -6 and found.leads[0].customer == NAMES[7]
    assert found.group is None and found.summary()["found"]
    verdict = verify(pictures, claim, owner, customer=NAMES[7], tests_counted=1000)
    assert verdict.decision == "MARKED" and verdict.customer == NAMES[7]
    assert verify(pictures, claim, owner, customer=NAMES[8]).decision != "MARKED"
    assert verify(pictures, claim, owner).decision != "MARKED"


def test_the_tint_adds_to_what_answers_say(
    session_claim: Owned, customers: Customers, sr_model: ImageModel, published: Published
) -> None:
    """A suspect that is one customer's marked service, asked beside the owner's model."""
    owner, claim, calibration = session_claim
    embedder = Embedder(provision(owner, claim, NAMES[7]))

    def answer(picture: Picture) -> Picture:
        return embedder.embed(sr_model.output(picture))

    key = claim.mark_key(owner)
    measured = measure(None, claim, key, suspect=answer, inputs=published.inputs, model=sr_model)
    estimate, tint = measured.estimate(calibration), measured.tint_estimate(calibration)
    alone, both = customers.trace(estimate), customers.trace(estimate, tint=tint)
    assert [one.customer for one in both.named] == [NAMES[7]] == [n.customer for n in alone.named]
    assert both.named[0].log10_p < alone.named[0].log10_p - 2
    # The tint of somebody else does not carry an echo that is nobody's.
    m = customers.tint_directions.shape[1]
    for seed in range(100):
        found = customers.trace(noise(seed, len(estimate)), RATE / 1e3, tint=noise(-1 - seed, m))
        assert not found.found


def test_customers_who_average_their_pictures_are_named_and_nobody_else(
    session_claim: Owned, customers: Customers, sr_model: ImageModel, published
) -> None:
    """Four pairs: how well two marks are read beside each other differs from pair to pair."""
    owner, claim, calibration = session_claim
    outputs = [sr_model.output(x) for x in published.inputs]
    found_somebody = 0
    for members in ((3, 4), (5, 6), (7, 8), (9, 10)):
        copies = [
            [
                Embedder(provision(owner, claim, NAMES[i])).embed(y).astype(np.uint16)
                for y in outputs
            ]
            for i in members
        ]
        averaged = [((a + b + 1) // 2).astype(np.uint8) for a, b in zip(*copies, strict=True)]
        estimate = measure(averaged, claim, claim.mark_key(owner)).estimate(calibration)
        named = {one.customer for one in customers.trace(estimate, RATE).named}
        assert named <= {NAMES[i] for i in members}
        found_somebody += bool(named)
    assert found_somebody >= 3


def test_nobody_is_named_for_innocent_suspects(customers: Customers) -> None:
    """1 000 suspects of all shapes against 1 000 customers: a million comparisons."""
    n = customers.directions.shape[1]
    named = 0
    for seed in range(1000):
        estimate = noise(seed, n) * np.linspace(3, 0.1, n) ** (seed % 4)
        named += customers.trace(estimate, RATE).found
    assert stats.binom.sf(named - 1, 1000, RATE) > 1e-4


def test_the_smallest_p_of_a_search_is_as_it_should_be(customers: Customers) -> None:
    """Over innocent suspects N x min p is 1 - (1 - p)^N: uniform in its quantiles."""
    n = customers.directions.shape[1]
    best = [customers.trace(noise(seed, n), RATE).leads[0].log10_p for seed in range(300)]
    uniform = 1 - (1 - 10 ** np.array(best)) ** len(NAMES)
    assert stats.kstest(uniform, "uniform").pvalue > 0.001


@pytest.mark.parametrize("count", [1, 2, 3])
def test_colluders_with_little_noise_are_named(customers: Customers, count: int) -> None:
    """One or two all of them; of three, whose marks interfere, mostly one at least.

    Thirty searches: at a rate of 10^-4 a stranger is named in one of 300 such tests.
    """
    n = customers.directions.shape[1]
    found_somebody = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        members = rng.choice(len(NAMES), count, replace=False).tolist()
        found = customers.trace(mean_mark(customers, members) + 0.2 * noise(seed, n), RATE / 10)
        named = {one.customer for one in found.named}
        assert named <= {NAMES[i] for i in members}
        assert count == 3 or len(named) == count
        found_somebody += bool(named)
    assert found_somebody >= 8


def test_a_group_is_found_where_nobody_can_be_named_alone(customers: Customers) -> None:
    """With more noise pairs are found; whoever is in them or named is one of the two."""
    n = customers.directions.shape[1]
    groups = 0
    for seed in range(60):
        members = np.random.default_rng(seed).choice(len(NAMES), 2, replace=False).tolist()
        found = customers.trace(mean_mark(customers, members) + 0.75 * noise(seed, n), RATE)
        guilty = {NAMES[i] for i in members}
        assert {one.customer for one in found.named} <= guilty
        if found.group is not None:
            groups += 1
            assert set(found.group.customers) & guilty
            assert all(one.how == "in a group of 2" for one in found.named)
    assert groups > 5


def test_conditional_cosines_are_those_of_plain_linear_algebra(customers: Customers) -> None:
    n = customers.directions.shape[1]
    unit = (noise(1, n) / np.linalg.norm(noise(1, n))).astype(np.float32)
    for inside in ([5], [5, 9], [0, 1, 2]):
        cosines, dimensions = _Part(customers.directions, unit).cosines_given(inside)
        assert dimensions == n - len(inside)
        assert not cosines[inside].any()
        others = customers.directions[inside].astype(float).T
        for i in (10, 500, 999):
            left = [
                v - others @ np.linalg.lstsq(others, v, rcond=None)[0]
                for v in (unit.astype(float), customers.directions[i].astype(float))
            ]
            expected = left[0] @ left[1] / np.linalg.norm(left[0]) / np.linalg.norm(left[1])
            assert cosines[i] == pytest.approx(expected, abs=1e-5)


def test_subspace_p_is_the_beta_tail_and_that_of_the_cosine() -> None:
    for k, n, share in itertools.product((1, 2, 3), (10, 96), (0.0, 0.1, 0.4, 0.7)):
        expected = betainc((n - k) / 2, k / 2, 1 - share)
        assert 10 ** log10_p_of_subspace(share, k, n) == pytest.approx(expected, rel=1e-6)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        basis, _ = np.linalg.qr(rng.standard_normal((12, 2)))
        shares.append((basis[0] ** 2).sum())
    p = [10 ** log10_p_of_subspace(float(s), 2, 12) for s in shares]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_inputs_that_carry_a_customer_s_mark_void_the_search(
    session_claim: Owned, customers: Customers, sr_model: ImageModel, published: Published
) -> None:
    owner, claim, calibration = session_claim
    output = sr_model.output(published.inputs[1])
    # How much one picture says differs from key to key: that of the customer whose says most.
    once = {name: Embedder(provision(owner, claim, name)).embed(output) for name in NAMES[:12]}
    evidence = {
        name: log10_p_of_sums(
            sums_of(picture),
            calibration,
            customers.directions[customers.names.index(name)].astype(np.float64),
        )
        for name, picture in once.items()
    }
    stale = once[min(evidence, key=evidence.__getitem__)]
    key = claim.mark_key(owner)
    fresh = measure(None, claim, key, suspect=lambda x: x, inputs=published.inputs)
    customers.check_controls(fresh, claim)
    inputs = [*published.inputs[2:], stale]
    measured = measure(None, claim, key, suspect=lambda x: x, inputs=inputs)
    with pytest.raises(CouldNotJudge, match="carries a customer's mark"):
        customers.check_controls(measured, claim)


def test_controls_that_carry_a_customer_s_mark_void_the_search(
    session_claim: Owned, customers: Customers, sr_model: ImageModel, published: Published
) -> None:
    """Beside its negative whoever does not carry it would seem to be that customer."""
    owner, claim, _ = session_claim
    marked = Embedder(provision(owner, claim, NAMES[3]))
    theirs = [marked.embed(sr_model.output(question)) for question in published.inputs]
    fair, leaning = Regression.empty(1), Regression.empty(1)
    for plain, of_customer in zip(published.plain, theirs, strict=True):
        soft = cv2.GaussianBlur(plain, (0, 0), 0.6)
        away = (2 * plain.astype(np.int16) - of_customer).clip(0, 255).astype(np.uint8)
        fair.add(soft, plain, [soft])
        leaning.add(soft, plain, [away])
    measured = Measured(Pool(), fair, own=total_of(map(sums_of, published.plain)))
    customers.check_controls(measured, claim)
    with pytest.raises(CouldNotJudge, match="control: reference 1"):
        customers.check_controls(dataclasses.replace(measured, regression=leaning), claim)
    with pytest.raises(CouldNotJudge, match="control: the owner's unmarked outputs"):
        own = total_of(map(sums_of, theirs))
        customers.check_controls(dataclasses.replace(measured, own=own), claim)


def test_a_customer_listed_twice_among_very_many_is_found(
    session_claim: Owned, mark_key: MarkKey
) -> None:
    names = [f"customer {i}" for i in range(100_000)]
    with pytest.raises(InvalidCustomer, match="'customer 99999' is listed twice"):
        Customers([*names, names[-1]], session_claim[1], mark_key)


def test_bad_customers(session_claim: Owned, mark_key: MarkKey, tmp_path: Path) -> None:
    claim = session_claim[1]
    for names, word in (([], "1 to"), (["a", "b", "a"], "'a' is listed twice"), ([" a"], "spaces")):
        with pytest.raises(InvalidCustomer, match=word):
            Customers(names, claim, mark_key)
    few = Customers(["a"], claim, mark_key)
    assert not few.trace(noise(0, few.directions.shape[1])).found
    with pytest.raises(CouldNotJudge):
        few.trace(np.zeros(few.directions.shape[1]))
    with pytest.raises(ValueError, match="rate"):
        few.trace(np.ones(few.directions.shape[1]), 0.5)
    (tmp_path / "names").write_text("# ours\nAcme\n\n  Zo\u00eb & S\u00f8n \n")
    assert read_customers(tmp_path / "names") == ["Acme", "Zo\u00eb & S\u00f8n"]
    (tmp_path / "windows").write_bytes("\ufeffAcme\r\nBolt\r\n".encode())
    assert read_customers(tmp_path / "windows") == ["Acme", "Bolt"]
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "latin").write_bytes(b"Zo\xeb")
    for name in ("empty", "latin", "missing"):
        with pytest.raises(InvalidCustomer, match=name):
            read_customers(tmp_path / name)


def test_an_empty_mark_file_cannot_be_read(calibration: Calibration) -> None:

    empty = np.zeros((_core.GAIN_ROWS, _core.TONES), np.int16)
    with pytest.raises(InvalidMarkFile, match="empty"):
        Mark(_core.write_mark(bytes(16), empty)).read(calibration)
