"""A part of a picture, by itself or row by row, is published as within the whole: byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark import Embedder, Input, Mark, Output, _core
from birthmark.embed import HALO
from birthmark.errors import InvalidArray
from reference import Bytes, Gains
from vectors.cases import KINDS, as_planes, draw_gains, draw_picture, photo_gains

KERNELS = _core.available_kernels()
OUTPUTS = [
    Output(),
    Output("bgra"),
    Output("rgb", "chw"),
    Output("rgb", "chw", "float32", range="signed"),
    Output("grey"),
    Output("nv12"),
    Output("i420", matrix="bt709", full_range=True),
    Output("p010"),
]
Array = npt.NDArray[Any]


def embedder(gains: Gains | None, kernel: str | None = None) -> Embedder:
    mark = None if gains is None else Mark(_core.write_mark(bytes(16), gains))
    return Embedder(mark, kernel=kernel)


def planes_of(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)


def is_halved(output: Output) -> bool:
    return output.kind in ("nv12", "i420", "p010")


def rows_of(output: Output, plane: int) -> int:
    """Which axis of a plane runs over rows."""
    return 1 if output.layout == "chw" and plane == 0 else 0


def part(output: Output, plane: int, array: Array, rows: slice, columns: slice) -> Array:
    """The part of a published plane that belongs to these rows and columns of the picture."""
    if is_halved(output) and plane > 0:
        rows = slice(rows.start // 2, (rows.stop + 1) // 2)
        columns = slice(columns.start // 2, (columns.stop + 1) // 2)
    return array[:, rows, columns] if rows_of(output, plane) == 1 else array[rows, columns]


def neighbourhood(begin: int, end: int, size: int) -> tuple[int, int]:
    """Where a tile's surroundings begin (at an even place) and end."""
    return max(begin - HALO, 0) & ~1, min(end + HALO, size)


def draw_sides(data: st.DataObject, size: int, halved: bool) -> tuple[int, int]:
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    if halved:
        begin &= ~1
        end = min(end + end % 2, size)
    return begin, end


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_tile_with_its_neighbourhood(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height = data.draw(st.integers(1, 90))
    width = data.draw(st.one_of(st.integers(1, 90), st.sampled_from([700, 1300])))
    output = data.draw(st.sampled_from(OUTPUTS))
    pixels = data.draw(st.booleans())
    picture = draw_picture(data.draw(st.sampled_from(KINDS)), height, width, rng, pixels)
    gains = data.draw(st.sampled_from([draw_gains("typical", rng), None]))
    top, bottom = draw_sides(data, height, is_halved(output))
    left, right = draw_sides(data, width, is_halved(output))
    (first_row, last_row), (first_column, last_column) = (
        neighbourhood(top, bottom, height),
        neighbourhood(left, right, width),
    )
    around = np.s_[first_row:last_row, first_column:last_column]
    tile = picture[around] if pixels else picture[:, *around]
    window = np.s_[top - first_row : bottom - first_row, left - first_column : right - first_column]
    threads = data.draw(st.integers(1, 2))
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        whole = planes_of(one.embed(picture, output=output))
        found = planes_of(one.embed(tile, None, threads, output=output, window=window))
        for i, (ours, all_of_it) in enumerate(zip(found, whole, strict=True)):
            wanted = part(output, i, all_of_it, slice(top, bottom), slice(left, right))
            assert np.array_equal(ours, wanted), (kernel, i)


def beside(window: tuple[int, int], reach: int, size: int) -> tuple[int, int]:
    return max(window[0] - reach, 0), min(window[1] + reach, size)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_only_what_a_window_depends_on_must_be_finite(data: st.DataObject, seed: int) -> None:
    """Every kernel looks at the window and the mark's reach around it, to the pixel."""
    rng = np.random.default_rng(seed)
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 150))
    orbits, reach = data.draw(st.sampled_from([(17, 21), (14, 19), (9, 17), (0, 0)]))
    gains = draw_gains("typical", rng)
    gains[orbits:] = 0
    rows, columns = draw_sides(data, height, False), draw_sides(data, width, False)
    window = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
    picture = draw_picture(data.draw(st.sampled_from(KINDS)), height, width, rng, False)
    if data.draw(st.booleans()):  # another way of loading
        picture = np.ascontiguousarray(picture.transpose(1, 2, 0)).transpose(2, 0, 1)
    near = np.s_[:, slice(*beside(rows, reach, height)), slice(*beside(columns, reach, width))]
    around = np.full_like(picture, data.draw(st.sampled_from([np.nan, np.inf, -np.inf])))
    around[near] = picture[near]
    inside = np.argwhere(np.isfinite(around))
    bad = around.copy()
    bad[tuple(inside[data.draw(st.sampled_from([0, -1]))])] = np.nan  # its outermost corners
    how = Input("chw")
    for kernel in KERNELS:
        one = embedder(gains if orbits else None, kernel)
        whole = one.embed(picture, input=how)
        assert np.array_equal(one.embed(around, input=how, window=window), whole[window]), kernel
        with pytest.raises(InvalidArray, match="not finite"):
            one.embed(bad, input=how, window=window)


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("side", [64, 200])
def test_a_photograph_tile_by_tile(output: Output, side: int, eval_photos: list[Bytes]) -> None:
    """As a tiled model hands it out: each tile into its place of one large output."""
    photo = as_planes(eval_photos[0][:301, :423])
    height, width = photo.shape[1:]
    one = embedder(photo_gains())
    whole = planes_of(one.embed(photo, output=output))
    together = tuple(np.zeros_like(plane) for plane in whole)
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            first_row, last_row = neighbourhood(top, bottom, height)
            first_column, last_column = neighbourhood(left, right, width)
            tile = photo[:, first_row:last_row, first_column:last_column]
            place = tuple(
                part(output, i, plane, slice(top, bottom), slice(left, right))
                for i, plane in enumerate(together)
            )
            one.embed(
                tile,
                place if len(place) > 1 else place[0],
                output=output,
                window=np.s_[
                    top - first_row : bottom - first_row, left - first_column : right - first_column
                ],
            )
    for ours, theirs in zip(together, whole, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "window",
    [
        np.s_[0:0, 0:8],
        np.s_[5:3, :],
        np.s_[0:9, :],
        np.s_[:, 0:13],
        np.s_[-3:, :],
        np.s_[:, : 1 << 40],
        np.s_[::2, :],
    ],
)
def test_window_that_is_not_inside_is_refused(window: Any) -> None:
    with pytest.raises(InvalidArray, match="window"):
        embedder(None).embed(np.zeros((8, 12, 3), np.uint8), window=window)


@pytest.mark.parametrize("window", [np.s_[1:, :], np.s_[:, 3:], np.s_[:3, :], np.s_[:, :5]])
def test_window_that_cuts_pairs_is_refused_for_halved_colours(window: Any) -> None:
    x = np.zeros((8, 12, 3), np.uint8)
    assert embedder(None).embed(x, window=window).size > 0
    with pytest.raises(InvalidArray, match="halved"):
        embedder(None).embed(x, window=window, output=Output("nv12"))


# --- Streams -------------------------------------------------------------------------------------


def pushed(
    one: Embedder, x: Array, blocks: list[int], input: Input | None, output: Output | None
) -> tuple[Array, ...]:
    """What comes out of a stream that is handed `x` in blocks of so many rows, over and over."""
    rows_axis = 1 if x.ndim == 3 and x.shape[0] <= 4 and x.dtype != np.uint8 else 0
    height, width = x.shape[rows_axis : rows_axis + 2]
    stream = one.stream(width, input=input, output=output)
    pieces = []
    at = i = 0
    while at < height:
        rows = slice(at, at + blocks[i % len(blocks)])
        pieces.append(planes_of(stream.push(x[:, rows] if rows_axis == 1 else x[rows])))
        at, i = rows.stop, i + 1
    pieces.append(planes_of(stream.finish()))
    chosen = output or Output()
    return tuple(
        np.concatenate(arrays, axis=rows_of(chosen, i))
        for i, arrays in enumerate(zip(*pieces, strict=True))
    )


@given(
    height=st.integers(1, 300),
    width=st.one_of(st.integers(1, 70), st.sampled_from([641, 1300])),
    blocks=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    pixels=st.booleans(),
    output=st.sampled_from([None, *OUTPUTS]),
    marked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_stream_gives_what_the_whole_gives(
    height: int,
    width: int,
    blocks: list[int],
    pixels: bool,
    output: Output | None,
    marked: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    picture = draw_picture("noise", height, width, rng, pixels)
    gains = draw_gains("typical", rng) if marked else None
    for kernel in KERNELS[1:] or KERNELS:
        one = embedder(gains, kernel)
        whole = planes_of(one.embed(picture, output=output))  # type: ignore[call-overload]
        found = pushed(one, picture, blocks, None, output)
        for ours, theirs in zip(found, whole, strict=True):
            assert np.array_equal(ours, theirs), kernel


@pytest.mark.parametrize("kind", ["rgba", "nv12"])
def test_the_widest_stream(kind: Any, rng: np.random.Generator) -> None:
    """Where only a few rows are worked on at a time."""
    picture = rng.integers(0, 256, (61, 16384, 4), np.uint8)
    one = embedder(photo_gains())
    whole = planes_of(one.embed(picture, output=Output(kind)))
    for ours, theirs in zip(pushed(one, picture, [13], None, Output(kind)), whole, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_stream_of_grey_float16_with_a_range(rng: np.random.Generator) -> None:
    picture = rng.uniform(-1, 1, (150, 90)).astype(np.float16)
    how, output = Input(range="signed"), Output("grey")
    one = embedder(photo_gains())
    (found,) = pushed(one, picture, [40], how, output)
    assert np.array_equal(found, one.embed(picture, input=how, output=output))


def test_a_stream_works_in_place(eval_photos: list[Bytes]) -> None:
    """Rows come out after they went in, so they may take the place of those above them."""
    photo = eval_photos[0]
    one = embedder(photo_gains())
    whole = one.embed(photo)
    memory = photo.copy()
    stream = one.stream(photo.shape[1])
    done = 0
    for at in range(0, len(memory), 64):
        rows = stream.push(memory[at : at + 64])
        memory[done : done + len(rows)] = rows
        done += len(rows)
    memory[done:] = stream.finish()
    assert np.array_equal(memory, whole)


def test_a_stream_says_what_is_wrong() -> None:
    stream = embedder(None).stream(12)
    for bad in (
        np.zeros((5, 11, 3), np.uint8),
        np.zeros((2, 5, 12, 3), np.uint8),
        np.zeros((0, 12, 3), np.uint8),
        np.zeros((5, 12, 3), np.float64),
    ):
        with pytest.raises(InvalidArray):
            stream.push(bad)
    good = np.full((5, 12, 3), 9, np.uint8)
    assert stream.push(good).shape == (0, 12, 3)
    assert np.array_equal(stream.finish(), good)
    for call in (stream.finish, lambda: stream.push(good)):
        with pytest.raises(InvalidArray, match="ended"):
            call()
    assert embedder(None).stream(12).finish().shape == (0, 12, 3)
    for width in (0, -1, 1 << 40):
        with pytest.raises(InvalidArray, match="side"):
            embedder(None).stream(width)
    stream = embedder(None).stream(12)
    with pytest.raises(InvalidArray, match="not finite"):
        stream.push(np.full((3, 5, 12), np.nan, np.float32))
    with pytest.raises(InvalidArray, match="ended"):
        stream.push(good)
