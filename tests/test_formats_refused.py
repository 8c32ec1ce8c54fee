"""Formats that do not exist, values that are none, and memory that cannot be written: refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from birthmark import Embedder, Input, Output, _core
from birthmark.errors import InvalidArray, InvalidFormat
from test_formats import MEAN, Array, embedders
from vectors.cases import photo_gains


@pytest.mark.parametrize(
    "named",
    [
        {"layout": "nchw"},
        {"order": "grb"},
        {"range": "half"},
        {"mean": (0, 0)},
        {"mean": (0, 0, float("nan"))},
        {"std": (1, 1, 0)},
        {"std": (1, 1, float("inf"))},
        {"range": "signed", "mean": MEAN},
        {"quantisation": (0.0, 0)},
        {"quantisation": (float("nan"), 0)},
        {"quantisation": (0.1, 300)},
    ],
    ids=str,
)
def test_bad_input_format_is_refused(named: Any) -> None:
    with pytest.raises(InvalidFormat):
        Input(**named)


@pytest.mark.parametrize(
    "named",
    [
        {"kind": "yuyv"},
        {"layout": "nhwc"},
        {"dtype": "float16"},
        {"kind": "nv12", "dtype": "float32"},
        {"kind": "p010", "full_range": True},
        {"kind": "grey", "layout": "chw"},
        {"matrix": "bt2020"},
        {"std": (0, 1, 1)},
    ],
    ids=str,
)
def test_bad_output_format_is_refused(named: Any) -> None:
    with pytest.raises(InvalidFormat):
        Output(**named)


def test_int8_without_quantisation_is_refused() -> None:
    with pytest.raises(InvalidArray, match="quantisation"):
        Embedder(None).embed(np.zeros((3, 8, 8), np.int8))


@pytest.mark.parametrize("threads", [0, -1, 1 << 20])
def test_absurd_threads_are_refused(threads: int) -> None:
    with pytest.raises(InvalidArray, match="threads"):
        Embedder(None).embed(np.zeros((8, 8, 3), np.uint8), threads=threads)
    with pytest.raises(InvalidArray, match="threads"):
        _core.statistics(np.zeros((8, 8, 3), np.uint8), threads=threads)


def test_alpha_that_is_not_finite_is_refused_only_where_it_is_published() -> None:
    x = np.zeros((4, 9, 9), np.float32)
    x[3, 4, 4] = np.inf
    for one in embedders(photo_gains()):
        assert not one.embed(x).any()
        with pytest.raises(InvalidArray, match="not finite"):
            one.embed(x, output=Output("rgba"))


def test_a_range_that_overflows_is_refused() -> None:
    x = np.full((3, 9, 9), 3e38, np.float32)
    for one in embedders(None):
        with pytest.raises(InvalidArray, match="not finite"):
            one.embed(x, input=Input(std=(2, 2, 2)))


def _overlapping(shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    return np.lib.stride_tricks.as_strided(np.zeros(4096, np.uint8), shape, strides)


@pytest.mark.parametrize(
    "out",
    [
        _overlapping((8, 8, 3), (24, 3, 0)),
        _overlapping((8, 8, 3), (24, 2, 1)),
        _overlapping((8, 8, 3), (23, 3, 1)),
        _overlapping((8, 8, 3), (0, 3, 1)),
        _overlapping((8, 8, 3), (3, 3, 1)),
        _overlapping((8, 8, 3), (24, -3, 0)),
    ],
)
def test_out_that_overlaps_itself_is_refused(out: Array) -> None:
    with pytest.raises(InvalidArray, match="each other"):
        Embedder(None).embed(np.zeros((8, 8, 3), np.uint8), out)


def test_planes_of_out_must_be_apart_and_may_be_interleaved() -> None:
    x = np.full((8, 8, 3), 99, np.uint8)
    one, output = Embedder(None), Output("i420")
    frame = np.zeros(96, np.uint8)
    y, u, v = frame[:64].reshape(8, 8), frame[64:80].reshape(4, 4), frame[80:].reshape(4, 4)
    one.embed(x, (y, u, v), output=output)
    both = frame[64:].reshape(4, 4, 2)
    one.embed(x, (y, both[..., 0], both[..., 1]), output=output)
    both = frame[64:].reshape(4, 2, 4)
    one.embed(x, (y, both[:, 0], both[:, 1]), output=output)
    for bad in ((y, u, u), (y, u, frame[79:95].reshape(4, 4)), (y, frame[63:79].reshape(4, 4), v)):
        with pytest.raises(InvalidArray, match="each other"):
            one.embed(x, bad, output=output)
    for wrong in ((y, u), (y, u, v, v), y, (y, u, v.T[:2])):
        with pytest.raises(InvalidArray, match="out must be"):
            one.embed(x, wrong, output=output)


def test_a_colour_plane_may_lie_beside_luma_but_not_in_it() -> None:
    """Rows of one stride, luma eight wide: colour beside them, then where the last row still is."""
    x = np.full((8, 8, 3), 99, np.uint8)
    one, output = Embedder(None), Output("i420")
    wide = np.zeros((8, 16), np.uint8)
    expected = one.embed(x, output=output)
    found = (wide[:, :8], wide[:4, 8:12], wide[:4, 12:])
    one.embed(x, found, output=output)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    memory = np.zeros(256, np.uint8)
    luma, apart = memory[:128].reshape(8, 16)[:, :8], memory[192:208].reshape(4, 4)
    for begin in (116, 119):
        inside = np.lib.stride_tricks.as_strided(memory[begin:], (4, 4), (16, 1))
        with pytest.raises(InvalidArray, match="each other"):
            one.embed(x, (luma, inside, apart), output=output)


def test_strides_beyond_the_address_space_are_refused() -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(16, np.uint8), (8, 8, 3), (1 << 61, 3, 1))
    with pytest.raises(InvalidArray, match="address space"):
        Embedder(None).embed(huge)
    # A stride that leads nowhere does not matter.
    row = np.lib.stride_tricks.as_strided(np.zeros(24, np.uint8), (1, 8, 3), (1 << 61, 3, 1))
    assert not Embedder(None).embed(row).any()


def test_a_batch_whose_output_nothing_could_hold() -> None:
    """One byte of input, and 2^64 / 3 pictures of it: the product of sizes must not wrap."""
    batch = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), ((2**64 + 2) // 3, 1, 1, 1))
    for kind in ("rgb", "grey", "i420", "nv12"):
        with pytest.raises(MemoryError):
            Embedder(None).embed(batch, output=Output(kind))


@pytest.mark.parametrize("beyond", [1, 2, 3])
def test_an_output_on_the_last_bytes_of_a_batch_is_refused(beyond: int) -> None:
    memory = np.zeros(4096, np.uint8)
    values = 2 * 3 * 4 * 4
    x = memory[: 4 * values].view(np.float32).reshape(2, 3, 4, 4)
    x[:] = 0.5
    out = memory[4 * values - beyond :][:values].reshape(2, 4, 4, 3)
    with pytest.raises(InvalidArray, match="memory"):
        Embedder(None).embed(x, out=out)
    beside = memory[4 * values :][:values].reshape(2, 4, 4, 3)
    assert (Embedder(None).embed(x, out=beside) == 128).all()


def test_float_outputs_of_a_batch_on_one_another_are_refused() -> None:
    x = np.zeros((2, 1, 1, 3), np.uint8)
    memory = np.zeros(64, np.float32)
    for step in (4, 8):
        out = as_strided(memory, (2, 1, 1, 3), (step, 12, 12, 4))
        with pytest.raises(InvalidArray, match="with each other"):
            Embedder(None).embed(x, out=out, output=Output(dtype="float32"))
    # Three bytes of a value count as well as its first.
    bytes_of_it = memory.view(np.uint8)
    odd = np.ndarray((2, 1, 1, 3), np.float32, bytes_of_it, strides=(9, 12, 12, 4))
    with pytest.raises(InvalidArray, match="with each other"):
        Embedder(None).embed(x, out=odd, output=Output(dtype="float32"))


def test_planes_of_different_pictures_are_apart() -> None:
    x = np.zeros((2, 2, 2, 3), np.uint8)
    x[1] = 200
    memory = np.zeros(64, np.uint8)
    luma = memory[:8].reshape(2, 2, 2)
    colours = as_strided(memory[4:6], (2, 1, 1, 2), (8, 2, 2, 1))
    with pytest.raises(InvalidArray, match="with each other"):
        Embedder(None).embed(x, out=(luma, colours), output=Output("nv12"))
    expected = Embedder(None).embed(x, output=Output("nv12"))
    frames = memory[:12].reshape(2, 6)  # one frame behind the other, as cameras have them
    planes = frames[:, :4].reshape(2, 2, 2), frames[:, 4:].reshape(2, 1, 1, 2)
    assert all(np.shares_memory(plane, memory) for plane in planes)
    Embedder(None).embed(x, out=planes, output=Output("nv12"))
    separate = np.zeros((2, 2, 2), np.uint8), np.zeros((2, 1, 1, 2), np.uint8)
    Embedder(None).embed(x, out=separate, output=Output("nv12"))
    for theirs in (planes, separate):
        for one, other in zip(theirs, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_window_far_outside_is_refused_before_memory_is_asked_for() -> None:
    with pytest.raises(InvalidArray, match="window"):
        Embedder(None).embed(np.zeros((4, 4, 3), np.uint8), window=np.s_[0:1048576, 0:1048576])
