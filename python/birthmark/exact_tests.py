"""Estimate -> exact tests against the key's randomness.

Null hypothesis: the suspect never saw pictures that carry this key's mark. The estimate ``a`` of
the coordinates is then independent of the key, and the claimed direction Q s (Q the key's
Haar-random rotation, s its chips) is uniform on the sphere in n dimensions, whatever the pictures
are. Hence

* cosine test: p = P(cosine of a fixed vector with a uniform direction >= observed)
  = 1/2 I(1 - c^2; (n - 1)/2, 1/2) for c >= 0 (Sablayrolles et al., "Radioactive data", ICML 2020);
* chips test: the secret pad makes each sign of Q^T a agree with its chip with probability 1/2,
  independently: one binomial over n chips;
* decoys: the same cosine under fresh random directions, p = (b + 1)/(m + 1)
  (Phipson & Smyth 2010).

The cosine test decides; the other two must agree with it, or the verdict is UNDECIDED.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from birthmark.calibration import FloatArray
from birthmark.claim import Claim
from birthmark.keys import MarkKey
from birthmark.mark import claimed_chips, rotation
from birthmark.tails import log10_p_of_both, log10_p_of_chips, log10_p_of_cosine

DECOYS = 9_999
_DECOY_SEED = b"birthmark decoys\0"


@dataclass(frozen=True)
class Tests:
    """The three tests of one estimate against one key. All p-values are one-sided.

    Attributes:
        coordinates: n.
        cosine: between the estimate and the claimed direction.
        log10_p_cosine: of the cosine test.
        chips_matched: of n.
        log10_p_chips: of the binomial test.
        decoys: how many decoy directions were tried.
        decoys_as_good: how many had a cosine at least as large.
        agree: whether the three are compatible (see :func:`run_tests`).
    """

    coordinates: int
    cosine: float
    log10_p_cosine: float
    chips_matched: int
    log10_p_chips: float
    decoys: int
    decoys_as_good: int
    agree: bool


def run_tests(estimate: FloatArray, key: MarkKey, claim: Claim) -> Tests:
    """The three exact tests of an estimate against the claim's key. See :func:`tests_agree`."""
    n = len(estimate)
    chips, turn = claimed_chips(key, claim, n), rotation(key, n)
    unit = estimate / np.linalg.norm(estimate)
    cosine = float(unit @ (turn @ chips)) / math.sqrt(n)
    matched = int(((turn.T @ unit) * chips > 0).sum())
    log10_p = log10_p_of_cosine(cosine, n)
    as_good = count_decoys_as_good(estimate, cosine)
    agree = tests_agree(cosine, matched, as_good, n)
    return Tests(n, cosine, log10_p, matched, log10_p_of_chips(matched, n), DECOYS, as_good, agree)


@functools.lru_cache(maxsize=2)
def _decoy_cosines(data: bytes) -> FloatArray:
    """Cosines of an estimate (little-endian float64) with DECOYS uniform directions.

    A fresh key's direction is uniform on the sphere, so a normalised Gaussian vector stands for it.
    The seed is public and fixed by the estimate: anybody can repeat the draw, nobody can choose it.
    It is taken from the estimate as stored, since norms differ between machines in the last bit.
    """
    estimate = np.frombuffer(data, "<f8")
    seed = hashlib.sha256(_DECOY_SEED + data).digest()
    gaussians = MarkKey.random(seed).gaussians("decoys", (DECOYS, len(estimate)))
    lengths = np.linalg.norm(gaussians, axis=1) * np.linalg.norm(estimate)
    cosines: FloatArray = gaussians @ estimate / lengths
    return cosines


def decoy_cosines(estimate: FloatArray) -> FloatArray:
    """Cosines of an estimate with its DECOYS fresh directions, float64 [DECOYS]."""
    return _decoy_cosines(estimate.astype("<f8").tobytes())


def count_decoys_as_good(estimate: FloatArray, cosine: float) -> int:
    """How many of the estimate's decoys have at least this cosine with it."""
    return int((decoy_cosines(estimate) >= cosine).sum())


def tests_agree(cosine: float, chips_matched: int, decoys_as_good: int, n: int) -> bool:
    """Whether the three tests are compatible.

    The number of decoys as good must be what the cosine's p-value foretells (two-sided, some four
    standard deviations of the binomial), and the matched chips must be what the cosine foretells,
    n (1/2 + asin(c) / pi), to within 4.5 standard deviations of fair coins.
    """
    p = 10.0 ** log10_p_of_cosine(cosine, n)
    decoys_fit = abs(decoys_as_good - DECOYS * p) <= 4 * math.sqrt(DECOYS * p * (1 - p)) + 3
    expected = n * (0.5 + math.asin(max(-1.0, min(1.0, cosine))) / math.pi)
    return decoys_fit and abs(chips_matched - expected) <= 4.5 * math.sqrt(n) / 2


def corrected_log10_p(log10_ps: Sequence[float], tests_counted: int) -> float:
    """log10 p of a mark's parts (one or two) together, times the number of hypotheses."""
    together = log10_ps[0] if len(log10_ps) == 1 else log10_p_of_both(*log10_ps)
    return min(0.0, together + math.log10(tests_counted))
