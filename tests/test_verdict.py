"""The exact tests, and verdicts on real outputs of a real model."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betainc

from birthmark import exact_tests
from birthmark.calibration import Calibration
from birthmark.damages import median
from birthmark.errors import CouldNotJudge, InvalidArray, InvalidClaim, InvalidModel
from birthmark.exact_tests import run_tests
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey
from birthmark.mark import claimed_chips, coordinates, provision, rotation
from birthmark.pictures import Picture, through_jpeg
from birthmark.regression import Regression
from birthmark.tails import log10_p_of_both, log10_p_of_chips, log10_p_of_cosine
from birthmark.verdict import Decision, verify


@given(c=st.floats(-0.999, 0.999), n=st.integers(2, 300))
def test_cosine_p_is_the_beta_tail(c: float, n: int) -> None:
    """Against SciPy's regularised incomplete beta function, where that does not underflow."""
    tail = 0.5 * betainc((n - 1) / 2, 0.5, 1 - c * c)
    expected = tail if c >= 0 else 1 - tail
    if expected > 1e-290:
        assert log10_p_of_cosine(c, n) == pytest.approx(math.log10(expected), abs=1e-7)


def test_cosine_p_reaches_below_the_smallest_float() -> None:
    assert log10_p_of_cosine(0.999, 500) < -600
    assert log10_p_of_cosine(1.0, 96) < -1000
    assert log10_p_of_cosine(-1.0, 96) == 0.0
    assert log10_p_of_cosine(0.0, 96) == pytest.approx(math.log10(0.5))


@given(n=st.integers(1, 200), data=st.data())
def test_chips_p_is_the_binomial_tail(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binom.logsf(k - 1, n, 0.5) / math.log(10)
    assert log10_p_of_chips(k, n) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(first=st.floats(-150, 0), second=st.floats(-150, 0))
def test_two_p_values_together_are_fishers(first: float, second: float) -> None:
    """Against SciPy's chi-squared with four degrees of freedom."""
    statistic = -2 * math.log(10) * (first + second)
    expected = math.log10(stats.chi2.sf(statistic, 4))
    assert log10_p_of_both(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_innocent_estimates_give_uniform_p(session_claim) -> None:
    """One fixed estimate under 200 other keys: p-values look uniform, none is tiny."""
    _owner, claim, calibration = session_claim
    estimate = np.random.default_rng(5).standard_normal(calibration.coordinates)
    estimate *= np.linspace(3, 0.2, len(estimate))
    tests = [run_tests(estimate, MarkKey.random(str(i).encode()), claim) for i in range(200)]
    p = [10**t.log10_p_cosine for t in tests]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert min(p) > 1e-5
    assert sum(not t.agree for t in tests) <= 1


def test_planted_estimate_is_found(session_claim) -> None:
    owner, claim, calibration = session_claim
    key = claim.mark_key(owner)
    n = calibration.coordinates
    z = rotation(key, n) @ claimed_chips(key, claim, n)
    noise = np.random.default_rng(0).standard_normal(n)
    tests = run_tests(z + 0.7 * noise, key, claim)
    assert tests.agree
    assert tests.log10_p_cosine < -9
    assert tests.chips_matched > 0.8 * n
    assert tests.decoys_as_good == 0


def test_an_emblem_needs_as_many_coordinates(session_claim, monkeypatch) -> None:
    """Of both parts together; the tint alone has fewer."""
    owner, claim, calibration = session_claim
    key = claim.mark_key(owner)
    assert calibration.tint_coordinates < len(claim.payload)
    assert len(claimed_chips(key.tint, claim, calibration.tint_coordinates)) == 24
    for available, refused in ((8, False), (7, True)):
        with monkeypatch.context() as patch:
            patch.setattr(Calibration, "coordinates", available)
            raised = pytest.raises(InvalidClaim, match="31 coordinates cannot carry 32 bits")
            with raised if refused else pytest.raises(ValueError, match="8"):
                provision(owner, claim)


def test_blind_verdict_on_published_pictures(session_claim, published) -> None:
    owner, claim, _ = session_claim
    verdict = verify(published.marked, claim, owner)
    assert verdict.decision is Decision.MARKED
    assert verdict.log10_p < -6
    assert verdict.pictures == len(published.marked)
    assert verdict.payload_is_claimed
    assert verdict.payload == verdict.payload_guess == claim.emblem
    assert verdict.payload_doubt < 1e-3
    assert [count for count, _ in verdict.curve][-1] == verdict.pictures


def test_a_verdict_prints_as_figures(session_claim, published) -> None:
    """Not as the claim, the estimates and the statistics of every picture."""
    owner, claim, _ = session_claim
    text = repr(verify(published.marked, claim, owner))
    assert "log10_p=" in text and "Claim(" not in text and "array(" not in text


def test_a_geometry_is_for_pictures_alone(session_claim, published, sr_model) -> None:
    owner, claim, _ = session_claim
    geometry = Geometry(tried=100)
    with pytest.raises(ValueError, match="blind test only"):
        verify(
            None,
            claim,
            owner,
            suspect=sr_model,
            inputs=published.inputs,
            model=sr_model,
            geometry=geometry,
        )
    verdict = verify(published.marked, claim, owner, geometry=geometry)
    plain = verify(published.marked, claim, owner)
    assert verdict.log10_p == pytest.approx(plain.log10_p + 2)


def test_unmarked_pictures_are_not_convicted(session_claim, published) -> None:
    owner, claim, _ = session_claim
    verdict = verify(published.plain, claim, owner)
    assert verdict.decision is not Decision.MARKED
    assert verdict.payload is None
    assert verdict.log10_p > -3


def test_another_owner_does_not_find_it(published, other_claim) -> None:
    owner, claim = other_claim
    verdict = verify(published.marked, claim, owner)
    assert verdict.decision is not Decision.MARKED
    assert verdict.log10_p > -3


def test_mark_survives_turning_and_jpeg(session_claim, published) -> None:
    owner, claim, _ = session_claim
    turned = [np.ascontiguousarray(np.rot90(p)[:, ::-1]) for p in published.marked]
    straight = verify(published.marked, claim, owner)
    assert verify(turned, claim, owner).log10_p == pytest.approx(straight.log10_p, abs=1e-9)
    compressed = [through_jpeg(p, 75) for p in published.marked]
    assert verify(compressed, claim, owner).log10_p < -4


def test_informed_verdict_is_stronger(session_claim, published, sr_model) -> None:
    """A suspect that is the owner's own marked service."""
    owner, claim, _ = session_claim
    verdict = verify(
        None,
        claim,
        owner,
        suspect=published.answer,
        inputs=published.inputs,
        model=sr_model,
    )
    assert verdict.mode == "informed"
    assert verdict.decision is Decision.MARKED
    echo, tint = verdict.tests, verdict.tint_tests
    assert tint is not None and tint.agree and tint.log10_p_cosine < -4
    together = log10_p_of_both(echo.log10_p_cosine, tint.log10_p_cosine)
    assert verdict.log10_p == pytest.approx(together)
    assert verify(published.marked, claim, owner).tint_tests is None
    assert verdict.log10_p < verify(published.marked, claim, owner).log10_p


def _smoothed(picture: Picture, rng: np.random.Generator) -> Picture:
    return median(picture)


def _noisy_in_part(picture: Picture, rng: np.random.Generator) -> Picture:
    noise = rng.normal(0, 12, (*picture.shape[:2], 1))
    noise[:, : picture.shape[1] // 2] = 0
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fail", [_smoothed, _noisy_in_part])
def test_what_a_suspect_gets_wrong_hides_no_weak_mark(session_claim, published, fail) -> None:
    """A twentieth of the mark, beside failings that are much larger."""
    owner, claim, calibration = session_claim
    n = calibration.coordinates
    direction = coordinates(claim.mark_key(owner), claim, n) / np.sqrt(n)
    rng = np.random.default_rng(8)
    regression = Regression.empty()
    for own, marked in zip(published.plain, published.marked, strict=True):
        learned = 0.05 * (marked.astype(float) - own) + rng.uniform(-0.5, 0.5, own.shape)
        suspect = np.clip(np.rint(fail(own, rng) + learned), 0, 255).astype(np.uint8)
        regression.add(suspect, own)
    read = regression.read(calibration)
    assert log10_p_of_cosine(float(read @ direction) / float(np.linalg.norm(read)), n) < -12


def test_duplicates_count_once_and_bad_files_are_named(session_claim, published, tmp_path) -> None:
    owner, claim, _ = session_claim
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    verdict = verify([*published.marked, published.marked[0], broken], claim, owner)
    assert verdict.pictures == len(published.marked)
    assert len(verdict.rejected) == 2
    assert "broken.png" in verdict.rejected[1][0]


@pytest.mark.parametrize("thing", [None, b"picture.png", 5, [[0, 0, 0]]], ids=repr)
def test_what_is_neither_array_nor_path_is_refused(session_claim, thing) -> None:
    key, claim, _ = session_claim
    with pytest.raises(InvalidArray, match="picture 1: neither an array nor a path"):
        verify([thing], claim, key)


def test_what_cannot_be_judged_is_not_called_unmarked(session_claim) -> None:
    owner, claim, _ = session_claim
    flat = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(CouldNotJudge):
        verify([flat], claim, owner)
    with pytest.raises(CouldNotJudge):
        verify([], claim, owner)


def test_wrong_owner_and_wrong_model_are_refused(
    session_claim, other_claim, published, models_folder
) -> None:
    owner, claim, _ = session_claim
    stranger, _ = other_claim
    with pytest.raises(InvalidClaim):
        verify(published.marked, claim, stranger)
    with pytest.raises(InvalidModel):
        verify(
            None,
            claim,
            owner,
            suspect=lambda p: p,
            inputs=published.inputs,
            model=models_folder / "denoise_small.onnx",
        )


@pytest.mark.parametrize("seed", range(5))
def test_decoys_are_repeatable(session_claim, seed: int) -> None:
    _owner, claim, calibration = session_claim
    estimate = np.random.default_rng(seed).standard_normal(calibration.coordinates)
    key = MarkKey.random(seed.to_bytes(4, "little"))
    first = run_tests(estimate, key, claim)
    exact_tests._decoy_cosines.cache_clear()  # so that they are drawn again
    assert run_tests(estimate, key, claim) == first


def test_an_embedder_takes_a_mark_or_its_file(session_claim, published, tmp_path) -> None:
    from birthmark.embed import Embedder
    from birthmark.errors import InvalidMarkFile

    owner, claim, _ = session_claim
    mark = provision(owner, claim)
    mark.save(tmp_path / "m.mark")
    picture = published.plain[0]
    same = Embedder(tmp_path / "m.mark").embed(picture)
    assert np.array_equal(same, Embedder(mark).embed(picture))
    with pytest.raises(InvalidMarkFile):
        Embedder(tmp_path / "missing.mark")
    assert owner._secret not in mark.data and mark.data[12:28].hex() == mark.id


def test_memory_grows_by_the_statistics_of_a_picture_and_no_more() -> None:
    """In a process of its own: the peak after 2 000 small pictures, 5 kB of statistics each."""
    script = """
import resource
import numpy as np
from birthmark.extract import Pool
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rng, pool = np.random.default_rng(0), Pool()
for i in range(2000):
    pool.add(str(i), rng.integers(0, 256, (96, 96, 3), np.uint8))
    if i == 200:
        before = peak_mb()
assert len({p.sums.tobytes() for p in pool.pictures}) == 2000
print(peak_mb() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60
