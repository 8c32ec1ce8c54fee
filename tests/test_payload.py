"""The payload's code: what is encoded is decoded, what is noise is refused, bounds hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from birthmark.errors import InvalidArray
from birthmark.keys import MarkKey
from birthmark.payload import (
    Bits,
    PayloadCode,
    chip_pad,
    chips,
    payload_code,
    payload_from_soft,
)

KEY = MarkKey.random(b"payload tests")
lengths = st.sampled_from([56, 96, 128, 256])


def payload_of(number: int, k: int = 16) -> Bits:
    return np.array([number >> i & 1 for i in reversed(range(k))], np.int8)


@given(lengths, st.integers(0, 2**16 - 1), st.floats(1e-200, 1e200))
def test_round_trip_at_any_gain(n: int, number: int, gain: float) -> None:
    bits = payload_of(number)
    carried = chips(bits, KEY, n)
    assert carried.dtype == np.int8 and set(carried.tolist()) <= {-1, 1}
    decoding = payload_code(n).decode(gain * carried, chip_pad(KEY, n))
    assert (decoding.bits == bits).all()
    assert decoding.cosine == pytest.approx(1, abs=1e-6)
    assert decoding.margin >= 2 * payload_code(n).minimum_distance / n - 1e-6
    assert (payload_from_soft(gain * carried, KEY) == bits).all()


@settings(max_examples=30)
@given(st.integers(0, 2**16 - 1), st.data())
def test_corrects_as_many_hard_errors_as_the_distance_promises(
    number: int, data: st.DataObject
) -> None:
    n = 128
    code = payload_code(n)
    most = (code.minimum_distance - 1) // 2
    wrong = data.draw(st.sets(st.integers(0, n - 1), min_size=most, max_size=most))
    soft = chips(payload_of(number), KEY, n).astype(float)
    soft[list(wrong)] *= -1
    assert (code.decode(soft, chip_pad(KEY, n)).bits == payload_of(number)).all()


@pytest.mark.parametrize(("n", "k"), [(12, 4), (31, 5), (24, 7)])
def test_agrees_with_plain_enumeration(n: int, k: int) -> None:
    """A second author: every codeword by its definition, every correlation by a loop."""
    code = payload_code(n, k)
    words = {
        payload: [
            1 - 2 * (sum(b * int(g) for b, g in zip(payload, column, strict=True)) % 2)
            for column in code.generator.T
        ]
        for payload in itertools.product((0, 1), repeat=k)
    }
    for payload, word in words.items():
        assert code.encode(np.array(payload)).tolist() == word
    distances = [
        sum(a != b for a, b in zip(*pair, strict=True))
        for pair in itertools.combinations(words.values(), 2)
    ]
    assert code.minimum_distance == min(distances) > 0
    pad = chip_pad(KEY, n)
    for seed in range(20):
        soft = np.random.default_rng(seed).normal(size=n)
        scores = {p: float(np.dot(soft * pad, w)) for p, w in words.items()}
        second, best = sorted(scores, key=scores.__getitem__)[-2:]
        decoding = code.decode(soft, pad)
        assert tuple(decoding.bits) == best
        length = np.linalg.norm(soft) * math.sqrt(n)
        assert decoding.cosine == pytest.approx(scores[best] / length)
        assert decoding.margin == pytest.approx((scores[best] - scores[second]) / length)


def test_code_is_fixed_for_ever() -> None:
    """A payload published under one release is read by the next: these may never change."""
    code = payload_code(128, 16)
    assert (code.seed, code.minimum_distance) == (8, 42)
    assert np.packbits(code.generator[0])[:8].tobytes().hex() == "2697ec12b34eeed7"
    assert payload_code(56).minimum_distance >= 14
    assert payload_code(256).minimum_distance >= 97


def test_best_of_the_public_seeds_is_taken() -> None:
    best = payload_code(40, 8)
    distances = [PayloadCode(40, 8, seed).minimum_distance for seed in range(64)]
    assert best.minimum_distance == max(distances)
    assert best.seed == distances.index(max(distances))


def test_noise_gives_no_payload() -> None:
    rng = np.random.default_rng(1)
    for i in range(300):
        n = (56, 128)[i % 2]
        noise = rng.normal(size=n) * np.exp(2 * rng.normal(size=n))
        assert payload_from_soft(noise, KEY) is None


def test_another_key_s_chips_give_no_payload() -> None:
    soft = chips(payload_of(12345), MarkKey.random(b"another"), 128).astype(float)
    assert payload_from_soft(soft, KEY) is None


def test_false_accept_bound_holds_over_random_pads() -> None:
    """The worst fixed vectors: equal weights, few weights, heavy tails; 2 000 pads each."""
    n, k = 64, 8
    code = payload_code(n, k)
    rng = np.random.default_rng(2)
    for soft in (np.ones(n), np.r_[np.ones(8), np.full(n - 8, 1e-3)], rng.standard_cauchy(n)):
        bounds = np.array(
            [code.decode(soft, rng.choice(np.int8([-1, 1]), n)).false_accept for _ in range(2000)]
        )
        for level in (0.5, 0.1, 0.02):
            expected = 2000 * level
            assert (bounds <= level).sum() <= expected + 4 * math.sqrt(expected)


def test_false_accept_is_never_below_the_exact_tail() -> None:
    """With equal weights the chance is a binomial's; Chernoff's bound must lie above it."""
    n, k = 128, 16
    code = payload_code(n, k)
    pad = chip_pad(KEY, n)
    for wrong in (0, 5, 10, 20):
        soft = chips(payload_of(777), KEY, n).astype(float)
        soft[:wrong] *= -1
        exact = 2**k * binom.cdf(wrong, n, 0.5)
        assert exact * (1 - 1e-6) <= code.decode(soft, pad).false_accept <= 20 * exact


def test_any_given_payload_is_hit_by_noise_once_in_2_to_the_k() -> None:
    n, k = 24, 4
    code = payload_code(n, k)
    noise = np.random.default_rng(3).normal(size=n)
    hits = np.zeros(2**k)
    for i in range(4000):
        bits = code.decode(noise, chip_pad(MarkKey.random(b"%d" % i), n)).bits
        hits[int("".join(map(str, bits)), 2)] += 1
    assert (np.abs(hits - 250) < 5 * math.sqrt(250)).all()


def test_weak_mark_is_read_or_refused_but_not_misread() -> None:
    rng = np.random.default_rng(4)
    read = 0
    for number in range(400):
        soft = 0.8 * chips(payload_of(number), KEY, 128) + rng.normal(size=128)
        bits = payload_from_soft(soft, KEY)
        assert bits is None or (bits == payload_of(number)).all()
        read += bits is not None
    assert read > 300


@pytest.mark.parametrize(
    "soft",
    [np.zeros(56), np.full(56, np.nan), np.full(56, np.inf), np.ones((56, 1))],
    ids=["zero", "nan", "inf", "shape"],
)
def test_unusable_soft_chips(soft: npt.NDArray[np.float64]) -> None:
    with pytest.raises(InvalidArray):
        payload_from_soft(soft, KEY)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidArray, match="56"):
        payload_code(56).decode(np.ones(55), chip_pad(KEY, 56))
    with pytest.raises(InvalidArray, match="pad"):
        payload_code(56).decode(np.ones(56), np.zeros(56, np.int8))
    for bits in (np.zeros(15, np.int8), np.full(16, 2)):
        with pytest.raises(InvalidArray, match="16"):
            payload_code(56).encode(bits)
    for n, k in ((128, 1), (128, 21), (15, 16)):
        with pytest.raises(ValueError, match="no payload code"):
            payload_code(n, k)
