"""The gradients of a 2-D convolution, in the forms that onnxruntime runs fastest.

Layout is NCHW throughout; a weight is [out, in / groups, rows, columns].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from birthmark.training.graph import Array, Shape, Tensor, integers


@dataclass(frozen=True)
class Window:
    """How a kernel slides: ``pads`` are top, left, bottom, right; the rest rows, columns."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def reach(self) -> tuple[int, int]:
        """Distance between the first and the last tap."""
        (rows, columns), (down, across) = self.kernel, self.dilations
        return (rows - 1) * down, (columns - 1) * across

    @property
    def attributes(self) -> dict[str, Any]:
        """What ONNX's Conv and ConvTranspose are told of it."""
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads,
            "dilations": self.dilations,
            "group": self.groups,
        }

    def taps(self) -> list[tuple[int, int]]:
        """Where each tap reads, in padded input coordinates."""
        (rows, columns), (down, across) = self.kernel, self.dilations
        return [(i * down, j * across) for i in range(rows) for j in range(columns)]


def convolve(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The convolution itself."""
    return x.graph.op("Conv", x, weight, **window.attributes)


def input_gradient(
    g: Tensor, weight: Tensor, window: Window, x: Shape, g_shape: Shape, w: Shape
) -> Tensor:
    """dL/dx of ``convolve(x, weight, window)``, given g = dL/d(output)."""
    reach, pads = window.reach, window.pads
    back = (
        reach[0] - pads[0],
        reach[1] - pads[1],
        reach[0] - pads[2],
        reach[1] - pads[3],
    )
    if window.strides == (1, 1) and min(back) >= 0:
        # A plain Conv with the kernel turned round: twice as fast as ConvTranspose.
        turned = _swap_channels(_turn(weight, window.kernel), window, w)
        return convolve(
            g, turned, Window(window.kernel, (1, 1), back, window.dilations, window.groups)
        )
    # Rows and columns that a stride larger than one never read get a gradient of zero.
    spare = [
        x[2 + a] + pads[a] + pads[2 + a] - ((g_shape[2 + a] - 1) * window.strides[a] + reach[a] + 1)
        for a in (0, 1)
    ]
    return g.graph.op("ConvTranspose", g, weight, **window.attributes, output_padding=spare)


def weight_gradient(x: Tensor, g: Tensor, window: Window, x_shape: Shape, g_shape: Shape) -> Tensor:
    """dL/dweight of ``convolve(x, weight, window)``, given g = dL/d(output).

    One matrix product per tap, of the gradient with the input as that tap saw it. (onnxruntime's
    Conv with a kernel as large as a picture, the textbook form, takes twice as long.)
    """
    pairs = _flat_pairs if window.strides == (1, 1) else _strided_pairs
    products = [
        made @ seen.transpose(0, 1, 3, 2) for made, seen in pairs(x, g, window, x_shape, g_shape)
    ]
    inputs, outputs = x_shape[1] // window.groups, g_shape[1]
    # [groups, outputs, taps * inputs] to [outputs, inputs, rows, columns]
    total = x.graph.op("Concat", *products, axis=3).sum((0,))
    total = total.reshape(outputs, len(products), inputs).transpose(0, 2, 1)
    return total.reshape(outputs, inputs, *window.kernel)


Pairs: TypeAlias = Iterator[tuple[Tensor, Tensor]]


def _flat_pairs(x: Tensor, g: Tensor, window: Window, x_shape: Shape, g_shape: Shape) -> Pairs:
    """For each tap, gradient and input [n, groups, channels, positions] at stride 1.

    Both pictures are laid out as one line with rows of equal length, so that a tap is one
    contiguous slice; of the two, the one with fewer channels is shifted. What a shift drags in
    from beyond a row or a picture meets a zero on the other side.
    """
    n, channels, _, width = x_shape
    outputs, rows = g_shape[1:3]
    top, left, bottom, right = window.pads
    deep, wide = window.reach
    row = width + left + right
    extra = int(wide > 0)  # one row more, as the last shift ends inside a row
    shift_x = channels <= outputs
    below = bottom + (extra if shift_x else 0)
    x = _pad(x, (top, left, below, right))
    g = _pad(g, (0, 0, 0, wide) if shift_x else (deep + extra, 0, deep, wide))
    x = x.reshape(n, window.groups, channels // window.groups, -1)
    g = g.reshape(n, window.groups, outputs // window.groups, -1)
    for down, across in window.taps():
        start = down * row + across
        if shift_x:
            yield g, _slice(x, (start,), (start + rows * row,), (3,), (1,))
        else:
            start = (deep + extra) * row - start
            yield _slice(g, (start,), (start + (rows + deep) * row,), (3,), (1,)), x


def _strided_pairs(x: Tensor, g: Tensor, window: Window, x_shape: Shape, g_shape: Shape) -> Pairs:
    """The same at any stride."""
    n, channels, _, _ = x_shape
    _, outputs, rows, columns = g_shape
    x = _pad(x, window.pads)
    g = g.reshape(n, window.groups, outputs // window.groups, rows * columns)
    for down, across in window.taps():
        stop = (
            down + (rows - 1) * window.strides[0] + 1,
            across + (columns - 1) * window.strides[1] + 1,
        )
        seen = _slice(x, (down, across), stop, (2, 3), window.strides)
        yield g, seen.reshape(n, window.groups, channels // window.groups, rows * columns)


def _pad(x: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """Zeros at top, left, bottom and right."""
    return x.graph.op("Pad", x, integers((0, 0, *pads[:2], 0, 0, *pads[2:]))) if any(pads) else x


def _turn(weight: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The kernel turned by half a turn."""
    if kernel == (1, 1):
        return weight
    ends = tuple(-(size + 1) for size in kernel)
    return _slice(weight, (-1, -1), ends, (2, 3), (-1, -1))


def _swap_channels(weight: Tensor, window: Window, shape: Shape) -> Tensor:
    """[out, in / groups, ...] to [in, out / groups, ...]."""
    outputs, inputs, rows, columns = shape
    if window.groups == 1:
        return weight.transpose(1, 0, 2, 3)
    grouped = weight.reshape(window.groups, outputs // window.groups, inputs, rows, columns)
    swapped = grouped.transpose(0, 2, 1, 3, 4)
    return swapped.reshape(inputs * window.groups, outputs // window.groups, rows, columns)


def _slice(
    x: Tensor,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...],
    steps: tuple[int, ...],
) -> Tensor:
    return x.graph.op("Slice", x, integers(starts), integers(ends), integers(axes), integers(steps))


def pool_counts(window: Window, shape: Shape, pooled: Shape) -> Array:
    """How many real pixels each output of a padded average saw, [1, 1, rows, columns]."""
    counts = []
    for axis in (0, 1):
        starts = np.arange(pooled[2 + axis]) * window.strides[axis] - window.pads[axis]
        stops = np.minimum(starts + window.kernel[axis], shape[2 + axis])
        counts.append(stops - np.maximum(starts, 0))
    grid: Array = np.multiply.outer(counts[0], counts[1])
    return grid[None, None]
