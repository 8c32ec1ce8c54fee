"""Every kernel gives, byte for byte and sum for sum, what the plain numpy reference gives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from birthmark import _core
from reference import Bytes, Gains, Picture
from vectors.cases import (
    GAIN_KINDS,
    KINDS,
    as_planes,
    draw_gains,
    draw_picture,
    photo_gains,
)
from vectors.generate import GOLDEN, golden, reference_published

KERNELS = _core.available_kernels()


def embedder(gains: Gains | None, kernel: str) -> _core.Embedder:
    mark = None if gains is None else _core.write_mark(bytes(16), gains)
    return _core.Embedder(mark, kernel=kernel)


@cache
def plain_embedder(kernel: str) -> _core.Embedder:
    return embedder(None, kernel)


def same(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic], kernel: str) -> None:
    """Fails with the place of the first difference."""
    assert found.shape == expected.shape, kernel
    if not np.array_equal(found, expected):
        places = np.argwhere(found != expected)
        first = tuple(places[0])
        raise AssertionError(
            f"{kernel}: {len(places)} of {found.size} differ, first at {first}: "
            f"{found[first]} is not {expected[first]}"
        )


def agree(picture: Picture, *tables: Gains) -> None:
    """All kernels against the reference: fields, plain output, and each mark with statistics."""
    texture, tones, sums, colour = reference.fields(picture)
    plain = reference.plain(picture)
    plain_statistics = reference.statistics(plain)
    for kernel in KERNELS:
        found = _core.fields(picture, kernel)
        same(found[0], texture, kernel)
        same(found[1], tones, kernel)
        same(found[2], sums, kernel)
        same(found[3], colour, kernel)
        same(plain_embedder(kernel).embed(picture), plain, kernel)
        same(_core.statistics(plain, kernel), plain_statistics, kernel)
    for gains in tables:
        marked = reference.published(picture, gains)
        statistics = reference.statistics(marked)
        for kernel in KERNELS:
            same(embedder(gains, kernel).embed(picture), marked, kernel)
            same(_core.statistics(marked, kernel), statistics, kernel)


def test_there_is_something_to_compare() -> None:
    assert KERNELS[0] == "scalar"
    assert len(KERNELS) == len(set(KERNELS))
    assert _core.orbits() == reference.ORBITS
    assert len(reference.ORBITS) == _core.ORBITS == 17
    assert sum(len(reference.orbit_taps(i, j)) for i, j in reference.ORBITS) == 100
    assert reference.TONES == _core.TONES == 16
    assert reference.TAP_SUM_MAX == _core.TAP_SUM_MAX
    assert reference.TINT_GAIN_MAX == _core.TINT_GAIN_MAX
    assert reference.GAIN_ROWS == _core.GAIN_ROWS
    assert sum(reference.K9) == sum(reference.K15) == 64
    for kernel in KERNELS:
        assert plain_embedder(kernel).kernel == kernel


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    kind=st.sampled_from(KINDS),
    gain_kind=st.sampled_from(GAIN_KINDS),
    pixels=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_and_content(
    height: int, width: int, kind: str, gain_kind: str, pixels: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    picture = draw_picture(kind, height, width, rng, pixels)
    agree(picture, draw_gains(gain_kind, rng))


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("gain_kind", GAIN_KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_content_with_every_gains(
    kind: str, gain_kind: str, pixels: bool, rng: np.random.Generator
) -> None:
    agree(draw_picture(kind, 37, 67, rng, pixels), draw_gains(gain_kind, rng))


@pytest.mark.parametrize("height", range(1, 18))
def test_every_small_size(height: int, rng: np.random.Generator) -> None:
    for width in range(1, 18):
        picture = draw_picture("noise", height, width, rng, pixels=width % 2 == 0)
        agree(picture, draw_gains("typical", rng))


# A mark that leaves the outer orbits alone takes a shorter way through the kernels: any set of
# orbits, above all those on both sides of the places where the way changes.
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 75),
    kept=st.one_of(
        st.integers(0, len(reference.ORBITS)).map(range),
        st.integers(0, len(reference.ORBITS) - 1).map(lambda o: [o]),
        st.sets(st.integers(0, len(reference.ORBITS) - 1)),
    ),
    tone=st.none() | st.integers(0, reference.TONES - 1),
    pixels=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_marks_with_some_orbits(
    height: int,
    width: int,
    kept: Iterable[int],
    tone: int | None,
    pixels: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    drawn = draw_gains("typical", rng)
    gains = np.zeros_like(drawn)
    tones = slice(None) if tone is None else tone
    for orbit in kept:
        gains[orbit, tones] = drawn[orbit, tones]
    picture = draw_picture("noise", height, width, rng, pixels)
    marked = reference.published(picture, gains)
    for kernel in KERNELS:
        same(embedder(gains, kernel).embed(picture), marked, kernel)


@pytest.mark.parametrize("orbits", range(len(reference.ORBITS) + 1))
def test_every_number_of_orbits_across_seams(orbits: int, rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    gains[orbits:] = 0
    if orbits:
        gains[orbits - 1, :] = 0
        gains[orbits - 1, rng.integers(reference.TONES)] = 900
    for height, width in [(33, 990), (70, 41)]:
        picture = draw_picture("noise", height, width, rng)
        marked = reference.published(picture, gains)
        for kernel in KERNELS:
            same(embedder(gains, kernel).embed(picture), marked, kernel)


# Kernels work in tiles and bands: sizes on both sides of the seams that they could have.
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (23, width)
        for width in (255, 256, 257, 511, 512, 513, 600, 640, 928, 959, 960, 961, 991, 1100, 1921)
    ]
    + [(height, 19) for height in (59, 60, 61, 63, 64, 65, 119, 121, 127, 128, 129, 255, 257, 300)]
    + [(1, 1100), (2, 513), (1025, 1), (601, 3), (67, 513), (130, 530)],
)
def test_across_seams(height: int, width: int, rng: np.random.Generator) -> None:
    kind = ("noise", "gradient", "text")[(height + width) % 3]
    picture = draw_picture(kind, height, width, rng, pixels=height % 2 == 0)
    agree(picture, draw_gains("typical", rng))


def test_flat_pictures_stay_as_they_are(rng: np.random.Generator) -> None:
    gains = draw_gains("bound", rng)
    embedders = [embedder(gains, kernel) for kernel in KERNELS]
    for level in range(256):
        flat = np.full((19, 23, 3), level, np.uint8)
        assert not reference.statistics(flat).any()
        same(reference.published(flat, gains), flat, "reference")
        for one in embedders:
            same(one.embed(flat), flat, one.kernel)
            same(one.embed(as_planes(flat)), flat, one.kernel)
            assert not _core.statistics(flat, one.kernel).any()


def test_every_grey_level_and_tie_loads_alike() -> None:
    # All 16-bit steps of [0, 1], and the floats next to each of them.
    steps = np.arange(65281, dtype=np.float32) / np.float32(65280)
    around = np.stack([np.nextafter(steps, np.float32(end)) for end in (-1, 2)])
    picture = np.concatenate([steps[None], around]).reshape(3, 97, 673)
    plain = reference.plain(picture)
    for kernel in KERNELS:
        same(plain_embedder(kernel).embed(picture), plain, kernel)


def strided(picture: Picture, row_step: int, fill: float) -> Picture:
    """The same picture with rows far apart in memory, or upwards; `fill` lies between them."""
    rows = picture.ndim - 2 if picture.dtype == np.float32 else picture.ndim - 3
    shape = list(picture.shape)
    shape[rows] *= abs(row_step)
    shape[rows + 1] += 5
    holder = np.full(shape, fill, picture.dtype)
    index = [slice(None)] * picture.ndim
    index[rows] = slice(None, None, row_step)
    index[rows + 1] = slice(2, -3)
    view = holder[tuple(index)]
    view[...] = picture
    assert not view.flags.c_contiguous or view.size == 0
    return view


@pytest.mark.parametrize("row_step", [1, 3, -1, -2])
@pytest.mark.parametrize("pixels", [False, True])
def test_strided_views(pixels: bool, row_step: int, rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    picture = draw_picture("noise", 41, 35, rng, pixels)
    # NaN between the rows is no part of the picture.
    view = strided(picture, row_step, 7 if pixels else float("nan"))
    agree(view, gains)
    marked = reference.published(picture, gains)
    for kernel in KERNELS:
        same(embedder(gains, kernel).embed(view), marked, kernel)


def test_planes_in_any_order_and_place(rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    picture = draw_picture("noise", 33, 40, rng)
    agree(picture[::-1], gains)
    agree(np.broadcast_to(np.asarray(picture[1], np.float32), picture.shape), gains)
    by_rows = np.ascontiguousarray(picture.transpose(1, 0, 2), np.float32)
    agree(by_rows.transpose(1, 0, 2), gains)


@pytest.mark.parametrize("row_step", [1, 2, -1])
@pytest.mark.parametrize("pixels", [False, True])
def test_given_out_is_filled_and_nothing_beside_it(
    pixels: bool, row_step: int, rng: np.random.Generator
) -> None:
    gains = draw_gains("typical", rng)
    for height, width in [(1, 1), (3, 7), (31, 33), (65, 130), (9, 530)]:
        picture = draw_picture("noise", height, width, rng, pixels)
        marked = reference.published(picture, gains)
        for kernel in KERNELS:
            holder = np.full((height * abs(row_step) + 4, width + 64, 3), 77, np.uint8)
            expected = holder.copy()
            place = (slice(2, -2), slice(32, -32))
            expected[place][::row_step] = marked
            out = holder[place][::row_step]
            assert embedder(gains, kernel).embed(picture, out=out) is out
            same(holder, expected, kernel)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_one_by_one(count: int, pixels: bool, rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    batch = np.array([draw_picture("noise", 29, 34, rng, pixels) for _ in range(count)])
    marked = np.stack([reference.published(picture, gains) for picture in batch])
    # Where nobody gives `out`, a batch of one comes back as a picture.
    shape = marked.shape if count > 1 else marked.shape[1:]
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        same(one.embed(batch), marked.reshape(shape), kernel)
        same(one.embed(strided(batch, 2, 0)), marked.reshape(shape), kernel)
        same(one.embed(batch[::-1]), marked[::-1].reshape(shape), kernel)
        out = np.zeros_like(marked)
        assert one.embed(batch, out=out) is out
        same(out, marked, kernel)
        for picture, expected in zip(batch, marked, strict=True):
            same(one.embed(picture), expected, kernel)


def test_photographs(eval_photos: list[Bytes]) -> None:
    """Kernels among each other on whole photographs, and with the reference on a piece of each."""
    gains = photo_gains()
    first, *others = [embedder(gains, kernel) for kernel in KERNELS]
    for photo in eval_photos:
        planes = as_planes(photo)
        marked = first.embed(planes)
        statistics = _core.statistics(marked, first.kernel)
        assert (marked != photo).mean() > 0.05
        for other in others:
            same(other.embed(planes), marked, other.kernel)
            same(other.embed(photo), first.embed(photo), other.kernel)
            same(_core.statistics(marked, other.kernel), statistics, other.kernel)
        piece = np.ascontiguousarray(photo[-160:, 60:220])
        agree(as_planes(piece), gains)


def test_one_whole_photograph_is_as_the_reference_says(eval_photos: list[Bytes]) -> None:
    smallest = min(eval_photos, key=lambda photo: photo.size)
    agree(smallest, photo_gains())


def test_golden_set_is_what_the_reference_says() -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden(reference_published, reference.statistics) == expected


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_reproduces_golden_set(kernel: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))

    def published(picture: Picture, gains: Gains | None) -> Bytes:
        return embedder(gains, kernel).embed(picture)

    assert golden(published, lambda picture: _core.statistics(picture, kernel)) == expected
