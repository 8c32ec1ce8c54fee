"""The payload's error-correcting layer: k bits <-> n chips, under a secret pad.

A payload of k bits is a codeword of a random binary linear code [n, k]; bit 0 becomes chip +1 and
bit 1 chip -1; the codeword is multiplied by the key's secret pad of n signs (that is, XOR). Under
that pad the chips of every payload are uniformly random to whoever lacks the key.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidArray
from birthmark.keys import MarkKey

Bits = npt.NDArray[np.int8]
Chips = npt.NDArray[np.int8]

DEFAULT_BITS = 16
MAX_BITS = 20

_SEEDS_TRIED = 64


@dataclass(frozen=True)
class Decoding:
    """The likeliest payload of a vector of soft chips, and how far it may be trusted."""

    bits: Bits
    """The maximum-likelihood payload, int8 [k] of 0 and 1."""
    cosine: float
    """Cosine between the soft chips and the payload's chips, at most 1."""
    margin: float
    """That cosine less the cosine of the second best payload, >= 0. Soft chips that are a
    codeword give 2 d / n, where d is the distance to its nearest neighbour; noise, some .02."""
    false_accept: float
    """Upper bound, over the pad's randomness, on the chance that soft chips which know nothing
    of the pad come as close to any payload: 2^k times Chernoff's bound on a sum of fair signs
    weighted by the soft chips, min over t of exp(sum_j ln cosh(t y_j) - t sum_j y_j x chip_j)."""


class PayloadCode:
    """A binary linear code [n, k] from a public seed; see :func:`payload_code`.

    Attributes:
        generator: uint8 [k, n] of 0 and 1; a payload's codeword is bits @ generator mod 2.
        minimum_distance: chips in which any two codewords differ at least; found by enumeration.
        seed: the public seed chosen.
    """

    def __init__(self, n: int, k: int, seed: int) -> None:
        self.n, self.k, self.seed = n, k, seed
        self.generator = _generator(n, k, seed)
        # A codeword is (codeword of the first half of the bits) x (one of the second half), in
        # signs; so all 2^k correlations are one product of two small matrices.
        self._first = _all_codewords(self.generator[: k // 2])
        self._second = _all_codewords(self.generator[k // 2 :])
        correlations = self._correlations(np.ones(n, np.float32))
        correlations[0] = -n  # the zero word itself
        self.minimum_distance: int = round((n - float(correlations.max())) / 2)

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

    def decode(self, soft: npt.NDArray[np.float64], pad: Chips) -> Decoding:
        """Decode soft chips by maximum likelihood over all 2^k payloads.

        Args:
            soft: n real numbers, each positive in so far as its chip seems +1; the likelihood is
                that of equal Gaussian noise on each, so scale them to equal noise beforehand.
            pad: the key's signs, int8 [n] (:func:`chip_pad`).

        Raises:
            InvalidArray: wrong shapes, NaN or Inf, or all of ``soft`` is zero.
        """
        soft = np.asarray(soft, np.float64)
        if soft.shape != (self.n,) or not np.isfinite(soft).all() or not soft.any():
            raise InvalidArray(f"soft chips must be {self.n} finite numbers, not all zero")
        if pad.shape != (self.n,) or not np.isin(pad, (-1, 1)).all():
            raise InvalidArray(f"a pad must be {self.n} signs")
        direction = soft / np.abs(soft).max()
        direction /= np.linalg.norm(direction)
        cosines = self._correlations(direction * pad) / math.sqrt(self.n)
        second, best = np.argpartition(cosines, -2)[-2:]
        cosine = float(cosines[best])
        places = np.arange(self.k)[::-1]
        return Decoding(
            bits=((best >> places) & 1).astype(np.int8),
            cosine=cosine,
            margin=cosine - float(cosines[second]),
            false_accept=min(1.0, 2.0**self.k * _sign_sum_tail(direction, cosine)),
        )

    def _correlations(self, y: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Sum of y x chips for each payload, [2^k]; a payload's index has its first bit on top."""
        return ((self._first * y) @ self._second.T.astype(y.dtype)).reshape(-1)


@functools.lru_cache(maxsize=8)
def payload_code(n: int, k: int = DEFAULT_BITS) -> PayloadCode:
    """Return the code of length ``n`` for ``k`` bits: the farthest apart of 64 public seeds'.

    Deterministic; the first of equals wins. Takes some 0.1 s for k = 16, and seconds for k = 20.

    Raises:
        ValueError: not 2 <= k <= MAX_BITS, or n is too small to tell all payloads apart.
    """
    if not 2 <= k <= MAX_BITS or n < k:
        raise ValueError(f"no payload code [{n}, {k}]: 2 <= k <= {MAX_BITS} and n >= k are needed")
    codes = (PayloadCode(n, k, seed) for seed in range(_SEEDS_TRIED))
    best = max(codes, key=lambda code: code.minimum_distance)
    if best.minimum_distance == 0:
        raise ValueError(f"no payload code [{n}, {k}]: n is too small")
    return best


def chip_pad(key: MarkKey, n: int) -> Chips:
    """Return the key's secret pad for ``n`` chips, int8 [n] of +1 and -1."""
    return key.signs("chip pad", n)


def chips(bits: Bits, key: MarkKey, n: int) -> Chips:
    """Return the chips to embed: the payload's codeword times the key's pad, int8 [n] of +-1.

    Raises:
        InvalidArray: ``bits`` is not a row of 0 and 1.
    """
    return payload_code(n, len(bits)).encode(bits) * chip_pad(key, n)


def payload_from_soft(
    soft: npt.NDArray[np.float64],
    key: MarkKey,
    k: int = DEFAULT_BITS,
    *,
    false_accept: float = 1e-6,
    min_margin: float = 0.05,
) -> Bits | None:
    """Return the payload that soft chips carry, or None where it cannot be trusted.

    Under pure noise the pad is independent of ``soft`` and makes every payload equally likely:
    the chance of decoding to any *given* payload is 2^-k, and that of getting any payload at all
    past this function is at most ``false_accept`` (:attr:`Decoding.false_accept`).

    Args:
        soft: n soft chips, with the pad still on.
        key: the mark's key.
        k: bits of the payload.
        false_accept: bound on the chance that noise is taken for a payload.
        min_margin: least difference of cosines between the best and the second best payload.
            With independent Gaussian noise on chips of .3 to 1.2 of its standard deviation, at
            n = 56 to 256, 1 of 19 375 payloads that passed ``false_accept`` = 1e-3 was wrong.
    """
    decoding = payload_code(len(soft), k).decode(soft, chip_pad(key, len(soft)))
    trusted = decoding.false_accept <= false_accept and decoding.margin >= min_margin
    return decoding.bits if trusted else None


def _sign_sum_tail(direction: npt.NDArray[np.float64], cosine: float) -> float:
    """Chernoff's bound on P(cosine of ``direction`` with n fair signs >= ``cosine``).

    Every exponent t gives a valid bound; the least of a fixed grid is taken, within 1 % of the
    best exponent. ``direction`` has unit length.
    """
    n = len(direction)
    t = math.sqrt(n) * np.geomspace(0.01, 100, 464)[:, np.newaxis]
    log_cosh = np.logaddexp(t * direction, -t * direction) - math.log(2)
    exponents = log_cosh.sum(axis=1) - t[:, 0] * cosine * math.sqrt(n)
    return min(1.0, math.exp(float(exponents.min())))


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
