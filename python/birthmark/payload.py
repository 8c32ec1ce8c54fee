"""The payload's error-correcting layer: k bits <-> chips of the mark's parts, under secret pads.

Each part of a mark carries a codeword of a random binary linear code [n, k] of its own; bit 0
becomes chip +1 and bit 1 chip -1; the codeword is multiplied by the part's secret pad of n signs
(that is, XOR). Under that pad the chips of every payload are uniformly random to whoever lacks the
key. All parts carry the same k bits, so their codewords side by side are one of a longer code, and
that is what is decoded: a part may have fewer chips than the payload has bits.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidArray
from birthmark.keys import MarkKey

Bits = npt.NDArray[np.int8]
Chips = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float64]

MAX_BITS = 64
# bench/payload.py measures what this lets through: how often a payload is read, and how often a
# wrong one.
MOST_DOUBT = 1e-3

_SEEDS_TRIED = 64
_MOST_BITS_ENUMERATED = 20
# Of ordered statistics: how many of the most reliable chips may be wrong, of up to so many bits
# (where that finds what all 2^k payloads' enumeration finds), and of more.
_ORDER_OF_FEW_BITS, _MOST_BITS_FEW, _ORDER = 6, 20, 4
# A cosine known to be less, or from so few chips that it seems more, says no more than these.
_LEAST_COSINE, _MOST_COSINE = 0.05, 0.98


@dataclass(frozen=True)
class Decoding:
    """The likeliest payload of a vector of soft chips, and how far it may be trusted."""

    bits: Bits
    """The payload, int8 [k] of 0 and 1."""
    doubt: float
    """Estimate of the chance that it is wrong, at most 1: the sum of two. That of the second best,
    from how much less likely it is; and how many of 2^k payloads soft chips that know nothing of
    the pad would come as close to (the tail of a sum of fair signs weighted by the soft chips), so
    that noise is doubted as well, whatever the ratios are scaled by."""

    @property
    def trusted(self) -> bool:
        """Whether the doubt is at most :data:`MOST_DOUBT`."""
        return self.doubt <= MOST_DOUBT


class PayloadCode:
    """A binary linear code for k bits, one part after the other; see :func:`payload_code`.

    Attributes:
        generator: uint8 [k, n] of 0 and 1; a payload's codeword is bits @ generator mod 2.
    """

    def __init__(self, generator: npt.NDArray[np.uint8]) -> None:
        self.generator = generator
        self.k, self.n = generator.shape

    def encode(self, bits: Bits) -> Chips:
        """Return the chips of a payload, before the pad: int8 [n] of +1 and -1.

        Raises:
            InvalidArray: not k numbers 0 or 1.
        """
        bits = np.asarray(bits)
        if bits.shape != (self.k,) or not np.isin(bits, (0, 1)).all():
            raise InvalidArray(f"a payload of this code is {self.k} numbers 0 or 1")
        codeword = bits.astype(np.int64) @ self.generator % 2
        return (1 - 2 * codeword).astype(np.int8)

    def decode(self, half_ratios: FloatArray, pad: Chips) -> Decoding:
        """Decode soft chips by ordered statistics.

        Fossorier & Lin, "Soft-decision decoding of linear block codes based on ordered statistics",
        IEEE Trans. Inf. Theory 41(5), 1995: of the k most reliable independent chips, up to
        4 (of a payload of up to 20 bits, 6) are taken to be wrong, in all ways, and the likeliest
        codeword is kept.

        Args:
            half_ratios: float64 [n], half the logarithm of how much likelier a chip of +1 is than
                one of -1, with the pad still on (:func:`half_log_ratios`).
            pad: the key's signs, int8 [n] (:func:`chip_pad`).

        Raises:
            InvalidArray: wrong shapes, NaN or Inf, or all of ``half_ratios`` is zero.
        """
        soft = np.asarray(half_ratios, np.float64)
        if soft.shape != (self.n,) or not np.isfinite(soft).all() or not soft.any():
            raise InvalidArray(f"soft chips must be {self.n} finite numbers, not all zero")
        if pad.shape != (self.n,) or not np.isin(pad, (-1, 1)).all():
            raise InvalidArray(f"a pad must be {self.n} signs")
        soft = soft * pad
        reduced, made_of, pivots = _reliable_basis(self.generator, np.abs(soft))
        rank = len(pivots)
        first = (soft[pivots] < 0).astype(np.int64)
        agreement = soft * (1 - 2 * (first @ reduced % 2))
        # A pattern of wrong chips is one of half the order and another such, so that all scores are
        # one product of two small matrices.
        patterns, together = _patterns(rank)
        signs = 1 - 2 * (patterns.astype(np.float32) @ reduced.astype(np.float32) % 2)
        scores = (signs * agreement.astype(np.float32)) @ signs.T
        best = int(scores.argmax())
        scores[together == together.flat[best]] = -np.inf
        second = int(scores.argmax())
        # Once more in float64, so that every machine says the same of the two.
        wrong, almost = (
            patterns[i // len(patterns)] ^ patterns[i % len(patterns)] for i in (best, second)
        )
        likelihood, next_best = (_scored(w, reduced, agreement) for w in (wrong, almost))
        lead = likelihood - next_best if rank == self.k else 0.0
        by_chance = self.k * math.log(2) + _log_tail(soft, likelihood)
        return Decoding(
            bits=((first ^ wrong) @ made_of % 2).astype(np.int8),
            doubt=min(1.0, math.exp(min(0.0, -lead)) + math.exp(min(0.0, by_chance))),
        )


def _scored(
    pattern: npt.NDArray[np.int64], reduced: npt.NDArray[np.int64], agreement: FloatArray
) -> float:
    """Log-likelihood, up to a constant, of the codeword with this pattern of wrong chips."""
    return float(agreement @ (1 - 2 * (pattern @ reduced % 2)))


@functools.lru_cache(maxsize=8)
def payload_code(lengths: tuple[int, ...], k: int) -> PayloadCode:
    """Return the code for ``k`` bits of a mark whose parts have these numbers of chips.

    Deterministic. A part's code comes from a public seed: of 64 the one whose codewords are the
    farthest apart (the first of equals), up to 20 bits; beyond, where codewords are too many to
    enumerate, and where there are fewer chips than bits, the first. Takes some 0.1 s for k = 16,
    and seconds for k = 20.

    Raises:
        ValueError: not 2 <= k <= MAX_BITS, or no chips.
    """
    if not 2 <= k <= MAX_BITS or not lengths or min(lengths) < 1:
        raise ValueError(f"no payload code {list(lengths)}, {k}: 2 <= k <= {MAX_BITS} is needed")
    return PayloadCode(np.concatenate([_generator(n, k, _seed(n, k)) for n in lengths], axis=1))


def chip_pad(key: MarkKey, n: int) -> Chips:
    """Return the key's secret pad for ``n`` chips, int8 [n] of +1 and -1."""
    return key.signs("chip pad", n)


def chips(bits: Bits, key: MarkKey, n: int) -> Chips:
    """Return the chips of one part: the payload's codeword times the key's pad, int8 [n] of +-1.

    Raises:
        InvalidArray: ``bits`` is not a row of 0 and 1.
    """
    return payload_code((n,), len(bits)).encode(bits) * chip_pad(key, n)


def half_log_ratios(soft: FloatArray, cosine: float) -> FloatArray:
    """Soft chips of one part as half log-likelihood ratios, float64 [n].

    Equal Gaussian noise on chips that have ``cosine`` with the true ones gives
    cosine / (1 - cosine^2) times the soft chips at a root mean square of 1.

    Args:
        soft: n real numbers, each positive in so far as its chip seems +1.
        cosine: between them and the true chips, as far as is known.

    Raises:
        InvalidArray: NaN or Inf, or all of ``soft`` is zero.
    """
    soft = np.asarray(soft, np.float64)
    if not np.isfinite(soft).all() or not soft.any():
        raise InvalidArray("soft chips must be finite numbers, not all zero")
    of_unit_size = soft / np.abs(soft).max()
    of_unit_size /= math.sqrt(float(np.mean(of_unit_size**2)))
    known = min(max(cosine, _LEAST_COSINE), _MOST_COSINE)
    ratios: FloatArray = of_unit_size * (known / (1 - known * known))
    return ratios


def _reliable_basis(
    generator: npt.NDArray[np.uint8], reliability: FloatArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[int]]:
    """The code's generator made systematic in its most reliable independent chips.

    Returns:
        int64 [rank, n], the generator with a unit matrix in the columns of the pivots; int64
        [rank, k], the payload of each of its rows; the pivots, most reliable first.
    """
    k, n = generator.shape
    rows = np.concatenate([generator, np.eye(k, dtype=np.uint8)], axis=1)
    pivots: list[int] = []
    for column in np.argsort(-reliability, kind="stable"):
        at = len(pivots)
        ones = np.flatnonzero(rows[at:, column])
        if not len(ones):
            continue
        rows[[at, at + ones[0]]] = rows[[at + ones[0], at]]
        others = np.flatnonzero(rows[:, column])
        rows[others[others != at]] ^= rows[at]
        pivots.append(int(column))
        if len(pivots) == k:
            break
    reduced = rows[: len(pivots)].astype(np.int64)
    return reduced[:, :n], reduced[:, n:], pivots


@functools.lru_cache(maxsize=2)
def _patterns(rank: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """All ways for up to half the order of ``rank`` chips to be wrong, int64 [ways, rank] of 0 and
    1; and any two of them together as one number, uint64 [ways, ways]."""
    most = (_ORDER_OF_FEW_BITS if rank <= _MOST_BITS_FEW else _ORDER) // 2
    ways = [w for size in range(most + 1) for w in itertools.combinations(range(rank), size)]
    patterns = np.zeros((len(ways), rank), np.int64)
    for i, way in enumerate(ways):
        patterns[i, list(way)] = 1
    masks = np.array([sum(1 << place for place in way) for way in ways], np.uint64)
    return patterns, masks[:, np.newaxis] ^ masks


def _log_tail(weights: FloatArray, least: float) -> float:
    """Natural log of P(sum of fair signs times ``weights`` >= ``least``), by saddle point.

    Chernoff's bound, the least over a grid of exponents within 1 % of the best one, divided as in
    Bahadur & Rao, "On deviations of the sample mean", Ann. Math. Statist. 31(4), 1960.
    """
    size = math.sqrt(float(weights @ weights))
    t = np.geomspace(0.01, 100, 464)[:, np.newaxis]
    unit = weights * (math.sqrt(len(weights)) / size)
    log_cosh = np.logaddexp(t * unit, -t * unit) - math.log(2)
    exponents = log_cosh.sum(axis=1) - t[:, 0] * least * math.sqrt(len(weights)) / size
    at = int(exponents.argmin())
    spread = math.sqrt(float((unit**2 * (1 - np.tanh(t[at] * unit) ** 2)).sum()))
    return float(exponents[at]) - math.log(
        max(1.0, float(t[at, 0]) * spread * math.sqrt(2 * math.pi))
    )


@functools.lru_cache(maxsize=32)
def _seed(n: int, k: int) -> int:
    """The public seed of the code [n, k]."""
    if k > _MOST_BITS_ENUMERATED or n < k:
        return 0
    distances = [minimum_distance(_generator(n, k, seed)) for seed in range(_SEEDS_TRIED)]
    return int(np.argmax(distances))


def minimum_distance(generator: npt.NDArray[np.uint8]) -> int:
    """Chips in which any two codewords of a code differ at least, by enumeration."""
    k, n = generator.shape
    # A codeword is (codeword of the first half of the bits) x (one of the second half), in signs;
    # so all 2^k correlations with the zero word are one product of two small matrices.
    first, second = _all_codewords(generator[: k // 2]), _all_codewords(generator[k // 2 :])
    correlations = (first @ second.T).reshape(-1)
    correlations[0] = -n  # the zero word itself
    return round((int(n) - float(correlations.max())) / 2)


def _generator(n: int, k: int, seed: int) -> npt.NDArray[np.uint8]:
    """Bits of SHA-256("birthmark code n k seed block") for block = 0, 1, ..., in C order."""
    blocks = (
        hashlib.sha256(f"birthmark code {n} {k} {seed} {block}".encode()).digest()
        for block in range(-(-n * k // 256))
    )
    bits = np.unpackbits(np.frombuffer(b"".join(blocks), np.uint8), count=n * k)
    return bits.reshape(k, n)


def _all_codewords(generator: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Signs of all codewords, float32 [2^rows, n]; an index's top bit takes the first row."""
    rows = len(generator)
    payloads = np.arange(2**rows)[:, np.newaxis] >> np.arange(rows)[::-1] & 1
    return (1 - 2 * (payloads @ generator.astype(np.int64) % 2)).astype(np.float32)
