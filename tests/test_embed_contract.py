"""What the embedding promises whatever the mark: symmetry, locality, distortion, refusals."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from birthmark import _core
from birthmark.errors import InvalidArray, InvalidMarkFile
from birthmark.pictures import psnr_db
from reference import Bytes, Gains, Picture
from vectors.cases import GAIN_KINDS, KINDS, as_planes, draw_gains, draw_picture, photo_gains

KERNELS = _core.available_kernels()
Array = npt.NDArray[Any]


def embedder(gains: Gains | None, kernel: str) -> _core.Embedder:
    mark = None if gains is None else _core.write_mark(bytes(16), gains)
    return _core.Embedder(mark, kernel=kernel)


# --- Symmetry and locality -----------------------------------------------------------------------


def turned(picture: Array, turns: int, flip: bool) -> Array:
    """One of the eight symmetries of the square, on planes or on pixels."""
    rows, columns = (1, 2) if picture.dtype == np.float32 else (0, 1)
    result = np.rot90(picture, turns, axes=(rows, columns))
    return np.ascontiguousarray(np.flip(result, columns) if flip else result)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    kind=st.sampled_from(KINDS),
    gain_kind=st.sampled_from(GAIN_KINDS),
    pixels=st.booleans(),
    turns=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_mark_turns_and_flips_with_the_picture(
    height: int,
    width: int,
    kind: str,
    gain_kind: str,
    pixels: bool,
    turns: int,
    flip: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    picture = draw_picture(kind, height, width, rng, pixels)
    gains = draw_gains(gain_kind, rng)
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        marked = one.embed(picture)
        assert np.array_equal(one.embed(turned(picture, turns, flip)), turned(marked, turns, flip))
        assert np.array_equal(
            _core.statistics(turned(marked, turns, flip), kernel), _core.statistics(marked, kernel)
        )


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_mark_turns_and_flips_with_photographs(
    turns: int, flip: bool, eval_photos: list[Bytes]
) -> None:
    smallest = min(eval_photos, key=lambda photo: photo.size)
    for kernel in KERNELS:
        one = embedder(photo_gains(), kernel)
        marked = one.embed(smallest)
        assert np.array_equal(one.embed(turned(smallest, turns, flip)), turned(marked, turns, flip))
        assert np.array_equal(
            _core.statistics(turned(marked, turns, flip), kernel), _core.statistics(marked, kernel)
        )


@given(
    rows=st.tuples(st.integers(0, 90), st.integers(0, 90)).filter(lambda r: r[0] != r[1]),
    columns=st.tuples(st.integers(0, 600), st.integers(0, 600)).filter(lambda c: c[0] != c[1]),
    kind=st.sampled_from(KINDS),
    pixels=st.booleans(),
)
def test_mark_sees_no_farther_than_21_pixels(
    rows: tuple[int, int], columns: tuple[int, int], kind: str, pixels: bool
) -> None:
    """A crop with 21 pixels of surroundings (or the picture's edge) is marked like the whole."""
    rng = np.random.default_rng(7)
    height, width = 90, 600
    picture = draw_picture(kind, height, width, rng, pixels)
    gains = draw_gains("strong", rng)
    (top, bottom), (left, right) = sorted(rows), sorted(columns)
    assert reference.REACH == 21
    wide_top, wide_left = max(top - 21, 0), max(left - 21, 0)
    wide = (
        slice(wide_top, min(bottom + 21, height)),
        slice(wide_left, min(right + 21, width)),
    )
    piece = picture[wide] if pixels else picture[:, *wide]
    inside = np.s_[top - wide_top : bottom - wide_top, left - wide_left : right - wide_left]
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        assert np.array_equal(
            one.embed(piece)[inside], one.embed(picture)[top:bottom, left:right]
        ), kernel


# --- Distortion ----------------------------------------------------------------------------------


def check_distortion(marked: Bytes, plain: Bytes) -> None:
    difference = marked.astype(np.int64) - plain
    assert np.abs(difference).max() <= 2
    assert np.mean(difference**2) <= 4
    assert psnr_db(plain, marked) >= 42.1


@pytest.mark.parametrize("gain_kind", GAIN_KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_grey_levels_at_most(kind: str, gain_kind: str, rng: np.random.Generator) -> None:
    for pixels in (False, True):
        picture = draw_picture(kind, 67, 45, rng, pixels)
        plain = reference.plain(picture)
        gains = draw_gains(gain_kind, rng)
        for kernel in KERNELS:
            marked = embedder(gains, kernel).embed(picture)
            check_distortion(marked, plain)
            if gain_kind == "zero":
                assert np.array_equal(marked, plain)


@pytest.mark.parametrize("gain_kind", ["typical", "bound", "highest"])
def test_two_grey_levels_at_most_in_photographs(
    gain_kind: str, eval_photos: list[Bytes], rng: np.random.Generator
) -> None:
    for photo in eval_photos:
        piece = photo[:200, :320]
        gains = draw_gains(gain_kind, rng)
        for kernel in KERNELS:
            check_distortion(embedder(gains, kernel).embed(piece), piece)
            check_distortion(embedder(gains, kernel).embed(as_planes(piece)), piece)


def test_values_far_outside_are_clamped(rng: np.random.Generator) -> None:
    picture = rng.choice(np.array([-3e38, -5, -1e-30, 0.5, 1.001, 2, 255, 3e38], "f4"), (3, 40, 50))
    gains = draw_gains("typical", rng)
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        assert np.array_equal(one.embed(picture), one.embed(np.clip(picture, 0, 1)))


# --- Values that are not numbers -----------------------------------------------------------------


def refuses(call: Callable[[], object]) -> None:
    """InvalidArray, said in one line for a person."""
    with pytest.raises(InvalidArray) as caught:
        call()
    message = str(caught.value)
    assert 10 < len(message) < 200
    assert message.isprintable()


# Quiet and signalling NaN of both signs, and both infinities.
NOT_FINITE = np.array(
    [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7F800000, 0xFF800000], np.uint32
).view(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@given(
    height=st.integers(1, 70),
    width=st.one_of(st.integers(1, 70), st.sampled_from([512, 513, 600])),
    where=st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(0, 1)),
    bad=st.sampled_from(list(NOT_FINITE)),
)
def test_one_value_that_is_not_finite_is_refused(
    kernel: str, height: int, width: int, where: tuple[int, float, float], bad: np.float32
) -> None:
    picture = np.full((3, height, width), 0.25, np.float32)
    picture[where[0], round(where[1] * (height - 1)), round(where[2] * (width - 1))] = bad
    gains = draw_gains("typical", np.random.default_rng(1))
    refuses(lambda: embedder(gains, kernel).embed(picture))
    refuses(lambda: embedder(None, kernel).embed(picture))
    refuses(lambda: _core.statistics(picture, kernel))
    refuses(lambda: _core.fields(picture, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("place", range(3))
def test_one_bad_picture_in_a_batch_is_refused(kernel: str, place: int) -> None:
    batch = np.zeros((3, 3, 20, 30), np.float32)
    one = embedder(draw_gains("typical", np.random.default_rng(1)), kernel)
    expected = one.embed(batch)
    for bad in NOT_FINITE:
        broken = batch.copy()
        broken[place, 2, 19, 29] = bad
        refuses(lambda broken=broken: one.embed(broken))  # type: ignore[misc]
    assert np.array_equal(one.embed(batch), expected)  # and the embedder is as good as before


# --- Arrays of the wrong kind --------------------------------------------------------------------

PLANES = np.zeros((3, 20, 30), np.float32)
PIXELS = np.zeros((20, 30, 3), np.uint8)

BAD_PICTURES: dict[str, Array] = {
    "float64": PLANES.astype(np.float64),
    "int8": PIXELS.astype(np.int8),
    "uint16": PIXELS.astype(np.uint16),
    "bool": PIXELS.astype(np.bool_),
    "complex": PLANES.astype(np.complex64),
    "object": PLANES.astype(object),
    "other byte order": PLANES.astype(PLANES.dtype.newbyteorder()),
    "record": np.zeros((3, 20, 30), [("value", "f4")]),
    "0 axes": np.zeros((), np.float32),
    "1 axis": np.zeros(3, np.float32),
    "5 axes": PLANES[None, None],
    "5 axes of pixels": PIXELS[None, None],
    "no rows": PLANES[:, :0],
    "no columns": PLANES[:, :, :0],
    "no rows of pixels": PIXELS[:0],
    "no columns of pixels": PIXELS[:, :0],
    "no rows, new": np.zeros((3, 0, 30), np.float32),
    "no planes": PLANES[:0],
    "no channels": PIXELS[..., :0],
    "2 planes": PLANES[:2],
    "float32 pixels": PIXELS.astype(np.float32),
    "uint8 planes": np.zeros((3, 20, 30), np.uint8),
}
BAD_BATCHES: dict[str, Array] = {
    "empty": PLANES[None][:0],
    "empty pixels": PIXELS[None][:0],
    "no rows": np.zeros((2, 3, 0, 30), np.float32),
    "no columns of pixels": np.zeros((2, 20, 0, 3), np.uint8),
    "2 planes": np.zeros((2, 2, 20, 30), np.float32),
    "5 channels": np.zeros((2, 20, 30, 5), np.uint8),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_picture_is_refused(name: str, kernel: str) -> None:
    picture = BAD_PICTURES[name]
    refuses(lambda: embedder(None, kernel).embed(picture))
    refuses(lambda: _core.statistics(picture, kernel))
    refuses(lambda: _core.fields(picture, kernel))


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batch_is_refused(name: str) -> None:
    refuses(lambda: _core.Embedder(None).embed(BAD_BATCHES[name]))


@pytest.mark.parametrize("batch", [PLANES[None], PIXELS[None]])
def test_statistics_are_of_one_picture(batch: Picture) -> None:
    refuses(lambda: _core.statistics(batch))
    refuses(lambda: _core.fields(batch))


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


BAD_OUTS: dict[str, Array] = {
    "read-only": read_only(PIXELS.copy()),
    "one value for a row": np.broadcast_to(PIXELS[:, :1], PIXELS.shape),
    "int8": PIXELS.astype(np.int8),
    "bool": PIXELS.astype(np.bool_),
    "float32": PIXELS.astype(np.float32),
    "planes": np.zeros((3, 20, 30), np.uint8),
    "a row too few": np.zeros((19, 30, 3), np.uint8),
    "a row too many": np.zeros((21, 30, 3), np.uint8),
    "a column too few": np.zeros((20, 29, 3), np.uint8),
    "a column too many": np.zeros((20, 31, 3), np.uint8),
    "turned": np.zeros((30, 20, 3), np.uint8),
    "4 channels": np.zeros((20, 30, 4), np.uint8),
    "a batch of two": np.zeros((2, 20, 30, 3), np.uint8),
    "1 axis": np.zeros(20 * 30 * 3, np.uint8),
}


@pytest.mark.parametrize("picture", [PLANES, PIXELS], ids=["planes", "pixels"])
@pytest.mark.parametrize("name", BAD_OUTS)
def test_bad_out_is_refused_and_stays_as_it_is(name: str, picture: Picture) -> None:
    out = BAD_OUTS[name]
    before = out.copy()
    refuses(lambda: _core.Embedder(None).embed(picture, out=out))
    assert np.array_equal(out, before)


@pytest.mark.parametrize("shape", [(20, 30, 3), (1, 20, 30, 3), (3, 20, 30, 3), (2, 30, 20, 3)])
def test_out_of_another_batch_is_refused(shape: tuple[int, ...]) -> None:
    batch = np.zeros((2, 3, 20, 30), np.float32)
    refuses(lambda: _core.Embedder(None).embed(batch, out=np.zeros(shape, np.uint8)))


def test_out_that_shares_memory_with_the_input_is_refused() -> None:
    pixels = np.zeros((40, 30, 3), np.uint8)
    plain = _core.Embedder(None)
    refuses(lambda: plain.embed(pixels, out=pixels))
    refuses(lambda: plain.embed(pixels, out=pixels[::-1]))
    refuses(lambda: plain.embed(pixels[:30], out=pixels[10:]))
    refuses(lambda: plain.embed(pixels[::2], out=pixels[:20]))
    planes = np.zeros((3, 20, 30), np.float32)
    inside = planes.view(np.uint8).reshape(-1)[: 20 * 30 * 3].reshape(20, 30, 3)
    refuses(lambda: plain.embed(planes, out=inside))
    assert np.array_equal(plain.embed(pixels[:20], out=pixels[20:]), pixels[:20])  # beside it


def test_floats_at_an_odd_address(rng: np.random.Generator) -> None:
    """Unaligned data is refused or marked like any other."""
    picture = draw_picture("noise", 21, 43, rng)
    holder = np.zeros(picture.nbytes + 1, np.uint8)
    view = holder[1:].view(np.float32).reshape(picture.shape)
    view[...] = picture
    assert not view.flags.aligned
    gains = draw_gains("typical", rng)
    for kernel in KERNELS:
        one = embedder(gains, kernel)
        try:
            found = one.embed(view)
        except InvalidArray:
            continue
        assert np.array_equal(found, one.embed(picture))


@pytest.mark.parametrize("name", ["", "sse2", "AVX2", "scalar ", "scalar\0"])
def test_unknown_kernel_is_refused(name: str) -> None:
    for call in (
        lambda: _core.Embedder(None, kernel=name),
        lambda: _core.statistics(PIXELS, kernel=name),
        lambda: _core.fields(PIXELS, kernel=name),
    ):
        with pytest.raises(InvalidArray):
            call()


def test_mark_files_come_back_and_bad_ones_are_refused(rng: np.random.Generator) -> None:
    for kind in GAIN_KINDS:
        gains = draw_gains(kind, rng)
        name, found = _core.read_mark(_core.write_mark(bytes(range(16)), gains))
        assert name == bytes(range(16))
        assert found.dtype == np.int16
        assert np.array_equal(found, gains)
    mark = _core.write_mark(bytes(16), draw_gains("typical", rng))
    for bad in (b"", mark[:-1], mark + b"\0", b"X" + mark[1:], mark[:-1] + bytes([mark[-1] ^ 1])):
        with pytest.raises(InvalidMarkFile):
            _core.Embedder(bad)
        with pytest.raises(InvalidMarkFile):
            _core.read_mark(bad)
    too_much = np.zeros((len(reference.ORBITS), reference.TONES), np.int16)
    too_much[:2, 9] = 30000, -30001
    with pytest.raises(InvalidMarkFile):
        _core.write_mark(bytes(16), too_much)


# --- Memory and threads --------------------------------------------------------------------------


def between_guards(array: Array, at_end: bool) -> Array:
    """A copy that ends (or begins) where the next (or last) byte belongs to nobody."""
    page = mmap.PAGESIZE
    pages = -(-array.nbytes // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (base, base + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    offset = page + (pages * page - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def embed_between_guards() -> None:
    """Runs in a process of its own: a byte read or written outside a picture ends it."""
    rng = np.random.default_rng(5)
    gains = draw_gains("typical", rng)
    for height, width in [*((h, w) for h in (1, 2, 9) for w in range(1, 36)), (30, 513), (70, 64)]:
        for pixels in (False, True):
            picture = draw_picture("noise", height, width, rng, pixels)
            for kernel in KERNELS:
                one = embedder(gains, kernel)
                marked = one.embed(picture)
                for at_end in (False, True):
                    guarded = between_guards(picture, at_end)
                    out = between_guards(np.zeros_like(marked), at_end)
                    assert np.array_equal(one.embed(guarded, out=out), marked)
                    assert np.array_equal(
                        _core.statistics(guarded, kernel), _core.statistics(picture, kernel)
                    )
    print("nothing touched")


def runs_between_guards(script: str) -> None:
    """Run a test file by itself: it says so in the end, unless something outside was touched."""
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing touched\n"


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is asked the Linux way")
def test_nothing_outside_the_pictures_is_touched() -> None:
    runs_between_guards(__file__)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_embedder_serves_many_threads(kernel: str, rng: np.random.Generator) -> None:
    one = embedder(draw_gains("typical", rng), kernel)
    pictures = [draw_picture("noise", 120, 200 + i, rng) for i in range(6)]
    expected = [one.embed(picture) for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(10):
            for found, wanted in zip(pool.map(one.embed, pictures), expected, strict=True):
                assert np.array_equal(found, wanted)


if __name__ == "__main__":
    embed_between_guards()
