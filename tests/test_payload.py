"""The payload's code: what is encoded is decoded, what is noise is refused, estimates hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from birthmark import payload
from birthmark.errors import InvalidArray
from birthmark.keys import MarkKey
from birthmark.payload import (
    MOST_DOUBT,
    Bits,
    Decoding,
    PayloadCode,
    chip_pad,
    chips,
    half_log_ratios,
    minimum_distance,
    payload_code,
)

KEY = MarkKey.random(b"payload tests")
Soft = npt.NDArray[np.float64]


def payload_of(number: int, k: int = 16) -> Bits:
    return np.array([number >> i & 1 for i in reversed(range(k))], np.int8)


def read(soft: Soft, key: MarkKey = KEY, k: int = 16, cosine: float = 0.8) -> Decoding:
    code = payload_code((len(soft),), k)
    return code.decode(half_log_ratios(soft, cosine), chip_pad(key, len(soft)))


def at_cosine(carried: npt.NDArray[np.int8], cosine: float, rng: np.random.Generator) -> Soft:
    """Soft chips that have exactly this cosine with the true ones."""
    true = carried / math.sqrt(len(carried))
    noise = rng.standard_normal(len(carried))
    noise -= true * (noise @ true)
    soft: Soft = cosine * true + math.sqrt(1 - cosine**2) * noise / np.linalg.norm(noise)
    return soft


@given(
    st.sampled_from([(56, 16), (68, 16), (128, 16), (68, 32), (92, 48), (92, 64)]),
    st.integers(0, 2**64 - 1),
    st.floats(1e-200, 1e200),
)
def test_round_trip_at_any_gain(size: tuple[int, int], number: int, gain: float) -> None:
    n, k = size
    bits = payload_of(number % 2**k, k)
    carried = chips(bits, KEY, n)
    assert carried.dtype == np.int8 and set(carried.tolist()) <= {-1, 1}
    decoding = read(gain * carried, k=k)
    assert (decoding.bits == bits).all() and decoding.trusted


@settings(max_examples=30)
@given(st.integers(0, 2**16 - 1), st.data())
def test_corrects_as_many_hard_errors_as_the_distance_promises(
    number: int, data: st.DataObject
) -> None:
    n = 68
    most = (minimum_distance(payload_code((n,), 16).generator) - 1) // 2
    wrong = data.draw(st.sets(st.integers(0, n - 1), min_size=most, max_size=most))
    soft = chips(payload_of(number), KEY, n).astype(float)
    soft[list(wrong)] *= -1
    # Of equally strong chips nobody knows which are wrong; a little noise gives them an order.
    soft *= np.random.default_rng(number).uniform(0.99, 1.01, n)
    assert (read(soft).bits == payload_of(number)).all()


@pytest.mark.parametrize(("n", "k"), [(12, 4), (31, 5), (24, 7)])
def test_agrees_with_plain_enumeration(n: int, k: int) -> None:
    """A second author: every codeword by its definition, every likelihood by a loop."""
    code = payload_code((n,), k)
    words = {
        bits: [
            1 - 2 * (sum(b * int(g) for b, g in zip(bits, column, strict=True)) % 2)
            for column in code.generator.T
        ]
        for bits in itertools.product((0, 1), repeat=k)
    }
    for bits, word in words.items():
        assert code.encode(np.array(bits)).tolist() == word
    distances = [
        sum(a != b for a, b in zip(*pair, strict=True))
        for pair in itertools.combinations(words.values(), 2)
    ]
    assert minimum_distance(code.generator) == min(distances) > 0
    pad = chip_pad(KEY, n)
    for seed in range(20):
        soft = 3 * np.random.default_rng(seed).normal(size=n)
        scores = {b: float(np.dot(soft * pad, w)) for b, w in words.items()}
        second, best = sorted(scores, key=scores.__getitem__)[-2:]
        decoding = code.decode(soft, pad)
        assert tuple(decoding.bits) == best
        # Of the doubt, the part that the second best makes up; the tail is tested by itself.
        by_chance = min(1.0, 2**k * math.exp(payload._log_tail(soft * pad, scores[best])))
        expected = min(1.0, math.exp(scores[second] - scores[best]) + by_chance)
        assert decoding.doubt == pytest.approx(expected)


@pytest.mark.parametrize("n", [68, 92])
def test_finds_of_sixteen_bits_what_enumeration_finds(n: int) -> None:
    """Also where the true payload is no longer the likeliest."""
    code = payload_code((n,), 16)
    words = 1 - 2 * (
        (np.arange(2**16)[:, None] >> np.arange(16)[::-1] & 1) @ code.generator.astype(int) % 2
    ).astype(np.float32)
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(60):
        number = int(rng.integers(2**16))
        soft = half_log_ratios(at_cosine(code.encode(payload_of(number)), 0.42, rng), 0.42)
        best = int((words @ soft.astype(np.float32)).argmax())
        assert (code.decode(soft, np.ones(n, np.int8)).bits == payload_of(best)).all()
        wrong += best != number
    assert wrong > 5


def test_code_is_fixed_for_ever() -> None:
    """A payload published under one release is read by the next: these may never change."""
    generator = payload_code((128,), 16).generator
    assert (payload._seed(128, 16), minimum_distance(generator)) == (8, 42)
    assert np.packbits(generator[0])[:8].tobytes().hex() == "2697ec12b34eeed7"
    assert minimum_distance(payload_code((56,), 16).generator) >= 14
    assert minimum_distance(payload_code((256,), 16).generator) >= 97
    long = payload_code((68, 24), 32).generator
    assert long.shape == (32, 92) and payload._seed(68, 32) == payload._seed(24, 32) == 0
    assert np.packbits(long[0])[:8].tobytes().hex() == "151b39e704a87ea8"
    assert np.packbits(long[31, 68:]).tobytes().hex() == "4103dc"


def test_best_of_the_public_seeds_is_taken() -> None:
    distances = [minimum_distance(payload._generator(40, 8, seed)) for seed in range(64)]
    assert payload._seed(40, 8) == distances.index(max(distances))


def test_parts_carry_the_codes_that_they_have_alone() -> None:
    whole = payload_code((68, 24), 32)
    alone = [payload_code((n,), 32).generator for n in (68, 24)]
    assert np.array_equal(whole.generator, np.concatenate(alone, axis=1))


def test_a_part_with_fewer_chips_than_bits_helps() -> None:
    """Neither part says the payload; both do."""
    rng = np.random.default_rng(8)
    both = payload_code((68, 24), 32)
    pads = [chip_pad(KEY, 68), chip_pad(KEY.tint, 24)]
    read_alone = read_together = 0
    for _ in range(20):
        bits = rng.integers(0, 2, 32).astype(np.int8)
        soft = [
            half_log_ratios(at_cosine(chips(bits, key, n), cosine, rng), cosine)
            for key, n, cosine in ((KEY, 68, 0.6), (KEY.tint, 24, 0.9))
        ]
        alone = payload_code((68,), 32).decode(soft[0], pads[0])
        together = both.decode(np.concatenate(soft), np.concatenate(pads))
        read_alone += bool((alone.bits == bits).all())
        read_together += bool((together.bits == bits).all()) and together.trusted
        swapped = both.decode(np.concatenate(soft), np.concatenate([pads[0], -pads[1]]))
        assert not swapped.trusted
        few = payload_code((24,), 32).decode(soft[1], pads[1])
        assert few.bits.shape == (32,) and few.doubt == 1
    assert read_alone < 5 and read_together > 15


def test_noise_gives_no_payload() -> None:
    rng = np.random.default_rng(1)
    for i in range(200):
        n, k = ((68, 16), (68, 32), (92, 48))[i % 3]
        noise = rng.normal(size=n) * np.exp(2 * rng.normal(size=n) * (i % 2))
        assert not read(noise, k=k, cosine=0.6).trusted


def test_another_key_s_chips_give_no_payload() -> None:
    for k in (16, 32):
        soft = chips(payload_of(12345, k), MarkKey.random(b"another"), 68).astype(float)
        assert not read(soft, k=k).trusted
        assert not read(soft, KEY.customer("Lyon"), k).trusted


def test_doubt_holds_over_random_pads() -> None:
    """Noise is doubted as often as it says: equal, few and heavy-tailed weights."""
    n, k = 64, 8
    code = payload_code((n,), k)
    rng = np.random.default_rng(2)
    for soft in (np.ones(n), np.r_[np.ones(12), np.full(n - 12, 0.1)], rng.standard_cauchy(n)):
        ratios = half_log_ratios(soft, 0.7)
        doubts = np.array(
            [code.decode(ratios, rng.choice(np.int8([-1, 1]), n)).doubt for _ in range(2000)]
        )
        for level in (0.5, 0.1, 0.02):
            expected = 2000 * level
            assert (doubts <= level).sum() <= expected + 4 * math.sqrt(expected)


def test_tail_is_the_binomial_s_where_weights_are_equal() -> None:
    for n, wrong in ((68, 0), (68, 5), (68, 15), (128, 30)):
        exact = binom.logcdf(wrong, n, 0.5)
        for size in (0.01, 3.0):
            tail = payload._log_tail(np.full(n, size), size * (n - 2 * wrong))
            # A point of the binomial is as wide as a step, which no density knows.
            assert exact - 1.1 <= tail <= exact + 0.2


def test_tail_is_what_is_drawn() -> None:
    rng = np.random.default_rng(5)
    weights = rng.exponential(size=68)
    sums = rng.choice([-1.0, 1.0], (200_000, 68)) @ weights
    for least in (15.0, 25.0):
        found = float((sums >= least).mean())
        assert math.exp(payload._log_tail(weights, least)) == pytest.approx(found, rel=0.25)


def test_any_given_payload_is_hit_by_noise_once_in_2_to_the_k() -> None:
    n, k = 24, 4
    noise = np.random.default_rng(3).normal(size=n)
    hits = np.zeros(2**k)
    for i in range(4000):
        bits = read(noise, MarkKey.random(b"%d" % i), k).bits
        hits[int("".join(map(str, bits)), 2)] += 1
    assert (np.abs(hits - 250) < 5 * math.sqrt(250)).all()


@pytest.mark.parametrize(("k", "cosine"), [(16, 0.66), (32, 0.79)])
def test_weak_mark_is_read_or_refused_but_not_misread(k: int, cosine: float) -> None:
    rng = np.random.default_rng(4)
    trusted = 0
    for number in range(100):
        soft = at_cosine(chips(payload_of(number, k), KEY, 68), cosine, rng)
        decoding = read(soft, k=k, cosine=cosine)
        assert not decoding.trusted or (decoding.bits == payload_of(number, k)).all()
        trusted += decoding.trusted
    assert trusted > 85


def test_ratios_are_those_of_gaussian_noise() -> None:
    soft = np.random.default_rng(7).normal(size=68)
    soft /= math.sqrt(float(np.mean(soft**2)))
    for cosine in (0.3, 0.7, 0.9):
        # Chips of size c under noise of variance 1 - c^2.
        expected = ((soft + cosine) ** 2 - (soft - cosine) ** 2) / (4 * (1 - cosine**2))
        assert half_log_ratios(5 * soft, cosine) == pytest.approx(expected)
    least, none = half_log_ratios(soft, 0.05), half_log_ratios(soft, -0.4)
    assert np.array_equal(least, none) and np.sign(least).tolist() == np.sign(soft).tolist()
    assert np.isfinite(half_log_ratios(soft, 1.0)).all()


@pytest.mark.parametrize("doubt", [0.0, MOST_DOUBT])
def test_trusted_up_to_the_threshold(doubt: float) -> None:
    assert Decoding(payload_of(1), doubt).trusted
    assert not Decoding(payload_of(1), math.nextafter(MOST_DOUBT, 1)).trusted


@pytest.mark.parametrize(
    "soft",
    [np.zeros(56), np.full(56, np.nan), np.full(56, np.inf), np.ones((56, 1))],
    ids=["zero", "nan", "inf", "shape"],
)
def test_unusable_soft_chips(soft: Soft) -> None:
    with pytest.raises(InvalidArray):
        payload_code((56,), 16).decode(soft, chip_pad(KEY, 56))
    if soft.ndim == 1:
        with pytest.raises(InvalidArray):
            half_log_ratios(soft, 0.5)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidArray, match="56"):
        payload_code((56,), 16).decode(np.ones(55), chip_pad(KEY, 56))
    with pytest.raises(InvalidArray, match="pad"):
        payload_code((56,), 16).decode(np.ones(56), np.zeros(56, np.int8))
    for bits in (np.zeros(15, np.int8), np.full(16, 2)):
        with pytest.raises(InvalidArray, match="16"):
            payload_code((56,), 16).encode(bits)
    for lengths, k in (((128,), 1), ((128,), 65), ((), 16), ((68, 0), 16)):
        with pytest.raises(ValueError, match="no payload code"):
            payload_code(lengths, k)


def test_a_code_that_confuses_payloads_is_never_trusted() -> None:
    twice = np.zeros((3, 40), np.uint8)
    twice[0] = twice[1] = np.arange(40) % 2
    twice[2, ::3] = 1
    code = PayloadCode(twice)
    word = code.encode(np.array([1, 0, 1]))
    decoding = code.decode(3.0 * word, np.ones(40, np.int8))
    assert (code.encode(decoding.bits) == word).all() and decoding.doubt == 1
