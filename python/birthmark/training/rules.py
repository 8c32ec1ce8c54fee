"""What each operator passes back: the gradient rules longer than a line.

A rule gets a :class:`~birthmark.training.node.Node` and the gradient ``g`` of its first output and
gives one gradient for each input, or None for an input that has none (indices, shapes). Rules may
be generous: what nobody wanted is dropped when the model is built. What a rule does not cover, it
refuses with :class:`~birthmark.errors.MissingGradient`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx.helper
import onnxruntime

from birthmark.training.convolution import (
    Window,
    convolve,
    input_gradient,
    pool_counts,
    weight_gradient,
)
from birthmark.training.graph import Array, Graph, Shape, Tensor, integers
from birthmark.training.node import FLOATS, Gradients, Node, Rule

MATRIX_LIMIT = 1 << 22  # elements; a longer axis does not go through a dense selection matrix

# --- shapes -----------------------------------------------------------------------------------


def unbroadcast(g: Tensor, shape: Shape, target: Shape) -> Tensor:
    """Sums ``g`` of ``shape`` over whatever broadcasting stretched, back to ``target``."""
    if shape == target:
        return g
    lead = len(shape) - len(target)
    stretched = [i for i in range(lead, len(shape)) if target[i - lead] == 1 and shape[i] != 1]
    axes = [*range(lead), *stretched]
    summed = g.sum(axes, keepdims=True) if axes else g
    return summed.reshape(*target) if lead else summed


def elementwise(rule: Rule) -> Rule:
    """Lets a rule for numpy-style arithmetic ignore broadcasting."""

    def broadcasting(node: Node, g: Tensor) -> Gradients:
        shape = node.output_shape()
        return [
            None if d is None or not wanted else unbroadcast(d, shape, node.shape(i))
            for i, (d, wanted) in enumerate(zip(rule(node, g), node.wanted, strict=False))
        ]

    return broadcasting


def like_input(node: Node, g: Tensor) -> Gradients:
    """The operator only rearranges in order: give back the input's shape."""
    return (g.reshape(*node.shape(0)),)


def mask(node: Node, kind: str, left: Tensor, right: Tensor | float) -> Tensor:
    """1 where the comparison holds, else 0, in the type of the first input.

    A product with it is faster than onnxruntime's Where with a scalar.
    """
    return node.graph.op("Cast", node.graph.op(kind, left, right), to=node.kind(0))


def along(g: Tensor, matrix: Array, axis: int, rank: int) -> Tensor:
    """Applies ``matrix`` [from, to] to one axis."""
    if axis == rank - 1:
        return g @ matrix
    if axis == rank - 2:
        return g.graph.op("MatMul", np.ascontiguousarray(matrix.T), g)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return (g.transpose(*order) @ matrix).transpose(*order)


def selection(node: Node, indices: npt.NDArray[np.int64], size: int) -> Array:
    """The matrix [len(indices), size] that sends position i back to where it was read from."""
    if len(indices) * size > MATRIX_LIMIT:
        raise node.missing(f"an axis of {size} is too long for this rule")
    matrix = np.zeros((len(indices), size), dtype=node.graph.dtype)
    matrix[np.arange(len(indices)), indices] = 1
    return matrix


# --- element-wise -----------------------------------------------------------------------------


def multiply(node: Node, g: Tensor) -> Gradients:
    """d(ab) = b da + a db."""
    a, b = node.inputs
    return g * b, g * a


def divide(node: Node, g: Tensor) -> Gradients:
    """The quotient itself serves again for the divisor."""
    _, b = node.inputs
    share = g / b
    return share, -(share * node.output)


def power(node: Node, g: Tensor) -> Gradients:
    """The exponent may be of another type than the base."""
    x, exponent = node.inputs
    if node.kind(1) != node.kind(0):
        exponent = node.graph.op("Cast", exponent, to=node.kind(0))
    log = node.graph.op("Log", x)
    return g * exponent * node.graph.op("Pow", x, exponent - 1.0), g * node.output * log


def leaky_relu(node: Node, g: Tensor) -> Gradients:
    """Slope ``alpha`` below zero."""
    slope = node.attribute("alpha", 0.01)
    # The output has the sign of the input, and reading it lets onnxruntime fuse Conv + LeakyRelu.
    source = node.output if slope >= 0 else node.inputs[0]
    positive = mask(node, "Greater", source, 0.0)
    if 0 <= slope <= 1:
        return (g * node.graph.op("Clip", positive, slope, 1.0),)  # one pass instead of two
    return (g * (slope + (1.0 - slope) * positive),)


def parametric_relu(node: Node, g: Tensor) -> Gradients:
    """The slope below zero is an input and learns too."""
    x, slope = node.inputs
    positive = mask(node, "Greater", x, 0.0)
    negative = 1.0 - positive
    return g * (positive + slope * negative), g * x * negative


def extremum(node: Node, g: Tensor) -> Gradients:
    """Max and Min: a tie shares the gradient, as torch does."""
    won = [mask(node, "Equal", x, node.output) for x in node.inputs]
    share = g if len(won) == 1 else g / (node.graph.op("Sum", *won))
    return [share * w for w in won]


def where(node: Node, g: Tensor) -> Gradients:
    """The condition has no gradient."""
    chosen = node.graph.op("Cast", node.inputs[0], to=node.kind(1))
    return None, g * chosen, g * (1.0 - chosen)


def cast(node: Node, g: Tensor) -> Gradients:
    """Between float types; anything else has no gradient."""
    if node.kind(0) not in FLOATS or node.attribute("to") not in FLOATS:
        return (None,)
    return (node.graph.op("Cast", g, to=node.kind(0)),)


# --- reductions and products ------------------------------------------------------------------


def reduction(node: Node, g: Tensor) -> Gradients:
    """ReduceSum and ReduceMean; axes are an attribute or an input, by operator version."""
    shape = node.shape(0)
    axes = node.attribute("axes") or node.value(1) or []
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return (g,)
    axes = [a % len(shape) for a in axes] or list(range(len(shape)))
    kept = g.reshape(*(1 if i in axes else n for i, n in enumerate(shape)))
    if node.proto.op_type == "ReduceMean":
        kept = kept * (1.0 / math.prod(shape[a] for a in axes))
    return (node.graph.op("Expand", kept, integers(shape)),)


def matmul(node: Node, g: Tensor) -> Gradients:
    """Batches broadcast as in numpy."""
    a, b = node.inputs
    rank_a, rank_b, rank = len(node.shape(0)), len(node.shape(1)), len(node.output_shape())
    if min(rank_a, rank_b) < 2:
        raise node.missing("vectors are not covered; reshape them to matrices")

    def swap(x: Tensor, size: int) -> Tensor:
        return x.transpose(*range(size - 2), size - 1, size - 2)

    batch = node.output_shape()[: rank - 2]
    of_a, of_b = g @ swap(b, rank_b), swap(a, rank_a) @ g
    return (
        unbroadcast(of_a, (*batch, *node.shape(0)[-2:]), node.shape(0)),
        unbroadcast(of_b, (*batch, *node.shape(1)[-2:]), node.shape(1)),
    )


# --- moving things about ----------------------------------------------------------------------


def transpose(node: Node, g: Tensor) -> Gradients:
    """The inverse order."""
    rank = len(node.shape(0))
    order = node.attribute("perm", list(reversed(range(rank))))
    return (g.transpose(*np.argsort(order).tolist()),)


def concat(node: Node, g: Tensor) -> Gradients:
    """Cuts the gradient up again."""
    axis = node.attribute("axis")
    sizes = integers(node.shape(i)[axis] for i in range(len(node.inputs)))
    return node.graph.ops("Split", len(sizes), g, sizes, axis=axis)


def split(node: Node, g: Tensor) -> Gradients:
    """A piece that nothing used gets zeros."""
    zeros = [np.zeros(node.output_shape(i), node.graph.dtype) for i in range(len(node.arrived))]
    parts = [z if h is None else h for z, h in zip(zeros, node.arrived, strict=True)]
    return (node.graph.op("Concat", *parts, axis=node.attribute("axis", 0)),)


def slicing(node: Node, g: Tensor) -> Gradients:
    """Zeros around what was cut out; a matrix for each axis read with a step."""
    shape = node.shape(0)
    starts, ends = node.value(1), node.value(2)
    axes = [a % len(shape) for a in node.value(3, list(range(len(starts))))]
    steps = node.value(4, [1] * len(starts))
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        if step == 1:
            first, last, _ = slice(start, end).indices(size)
            before[axis], after[axis] = first, size - last
        else:
            end = None if step < 0 and end < -size else end  # "down to the first" in ONNX
            g = along(g, selection(node, np.arange(size)[start:end:step], size), axis, len(shape))
    return (node.graph.op("Pad", g, integers(before + after)),) if any(before + after) else (g,)


def padding(node: Node, g: Tensor) -> Gradients:
    """Cuts a constant border off; folds a reflected or repeated one back in."""
    shape, mode = node.shape(0), node.attribute("mode", "constant")
    rank = len(shape)
    axes = [a % rank for a in node.value(3, list(range(rank)))]
    pads = node.value(1)
    sides = {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    if min(pads) < 0:
        raise node.missing("negative padding is not covered")
    if mode == "constant":
        starts = [sides.get(a, (0, 0))[0] for a in range(rank)]
        ends = [start + n for start, n in zip(starts, shape, strict=True)]
        every = integers(range(rank))
        return (node.graph.op("Slice", g, integers(starts), integers(ends), every),)
    for axis, side in sides.items():
        if any(side):
            read = np.pad(np.arange(shape[axis]), side, mode=mode)
            g = along(g, selection(node, read, shape[axis]), axis, rank)
    return (g,)


def gather(node: Node, g: Tensor) -> Gradients:
    """Adds each gradient where its value was read."""
    shape, picked = node.shape(0), node.shape(1)
    axis = node.attribute("axis", 0) % len(shape)
    flat = (*shape[:axis], math.prod(picked), *shape[axis + 1 :])
    line = [1] * len(shape)
    line[axis] = flat[axis]
    indices = node.graph.op("Expand", node.inputs[1].reshape(*line), integers(flat))
    return (scatter(node, g.reshape(*flat), indices, shape, axis),)


def scatter(node: Node, g: Tensor, indices: Tensor, shape: Shape, axis: int) -> Tensor:
    """Adds ``g`` into zeros of ``shape`` at ``indices`` along one axis."""
    zeros = np.zeros(shape, node.graph.dtype)
    return node.graph.op("ScatterElements", zeros, indices, g, axis=axis, reduction="add")


def gather_elements(node: Node, g: Tensor) -> Gradients:
    """The same, with an index for each element."""
    return (scatter(node, g, node.inputs[1], node.shape(0), node.attribute("axis", 0)),)


def depth_to_space(node: Node, g: Tensor) -> Gradients:
    """Back to blocks."""
    n, c, h, w = node.shape(0)
    block = node.attribute("blocksize")
    depth = c // block**2
    blocks = g.reshape(n, depth, h, block, w, block)
    order = (0, 1, 3, 5, 2, 4) if node.attribute("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return (blocks.transpose(*order).reshape(n, c, h, w),)


def space_to_depth(node: Node, g: Tensor) -> Gradients:
    """Its inverse exists as an operator."""
    return (node.graph.op("DepthToSpace", g, blocksize=node.attribute("blocksize"), mode="DCR"),)


# --- convolution, pooling, resizing -----------------------------------------------------------


def window(node: Node, kernel: Sequence[int]) -> Window:
    """The sliding window that a Conv, ConvTranspose or pooling node describes."""
    if len(kernel) != 2:
        raise node.missing("only two-dimensional windows are covered")
    if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.missing("auto_pad is not covered; give the pads")
    if node.attribute("ceil_mode", 0):
        raise node.missing("ceil_mode is not covered")
    return Window(
        (kernel[0], kernel[1]),
        tuple(node.attribute("strides", (1, 1))),
        tuple(node.attribute("pads", (0, 0, 0, 0))),
        tuple(node.attribute("dilations", (1, 1))),
        node.attribute("group", 1),
    )


def conv(node: Node, g: Tensor) -> Gradients:
    """See :mod:`birthmark.training.convolution`; the bias sums."""
    x, weight = node.inputs[:2]
    slide = window(node, node.shape(1)[2:])
    seen, made = node.shape(0), node.output_shape()
    return (
        input_gradient(g, weight, slide, seen, made, node.shape(1)) if node.wanted[0] else None,
        weight_gradient(x, g, slide, seen, made) if node.wanted[1] else None,
        g.sum((0, 2, 3)),
    )


def conv_transpose(node: Node, g: Tensor) -> Gradients:
    """The mirror image of Conv: what is the input there is the gradient here."""
    x, weight = node.inputs[:2]
    if node.attribute("output_shape") is not None:
        raise node.missing("output_shape is not covered; give the pads")
    slide = window(node, node.shape(1)[2:])
    return (
        convolve(g, weight, slide) if node.wanted[0] else None,
        weight_gradient(g, x, slide, node.output_shape(), node.shape(0)),
        g.sum((0, 2, 3)),
    )


def average_pool(node: Node, g: Tensor) -> Gradients:
    """A depth-wise convolution with equal weights, backwards."""
    slide = window(node, node.attribute("kernel_shape"))
    shape, pooled = node.shape(0), node.output_shape()
    if any(slide.pads) and not node.attribute("count_include_pad", 0):
        g = g / pool_counts(slide, shape, pooled).astype(node.graph.dtype)
    else:
        g = g * (1.0 / math.prod(slide.kernel))
    channels = shape[1]
    ones = np.ones((channels, 1, *slide.kernel), node.graph.dtype)
    depthwise = replace(slide, groups=channels)
    return (input_gradient(g, node.graph.constant(ones), depthwise, shape, pooled, ones.shape),)


def global_average_pool(node: Node, g: Tensor) -> Gradients:
    """Every pixel gets an equal share."""
    shape = node.shape(0)
    return (node.graph.op("Expand", g * (1.0 / math.prod(shape[2:])), integers(shape)),)


def max_pool(node: Node, g: Tensor) -> Gradients:
    """Runs the pooling again for the flat index of each winner, and adds there."""
    slide, shape = window(node, node.attribute("kernel_shape")), node.shape(0)
    if node.attribute("storage_order", 0):
        raise node.missing("column-major indices are not covered")
    _, winners = node.graph.ops(
        "MaxPool",
        2,
        node.inputs[0],
        kernel_shape=slide.kernel,
        strides=slide.strides,
        pads=slide.pads,
        dilations=slide.dilations,
    )
    line = scatter(node, g.reshape(-1), winners.reshape(-1), (math.prod(shape),), 0)
    return (line.reshape(*shape),)


def resize(node: Node, g: Tensor) -> Gradients:
    """Resizing is one matrix per axis, in every mode: apply their transposes."""
    shape, resized = node.shape(0), node.output_shape()
    if node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise node.missing("cropping while resizing is not covered")
    factors = [b // a for a, b in zip(shape, resized, strict=True)]
    whole = all(a * f == b for a, b, f in zip(shape, resized, factors, strict=True))
    if node.attribute("mode", "nearest") == "nearest" and whole and factors[:2] == [1, 1]:
        rows = [resize_matrix(node, axis) for axis in (2, 3)]
        blocks = [np.kron(np.eye(shape[a]), np.ones(factors[a])) for a in (2, 3)]
        if all(np.array_equal(row, block) for row, block in zip(rows, blocks, strict=True)):
            pool = {"kernel_shape": factors[2:], "strides": factors[2:]}
            return (node.graph.op("AveragePool", g, **pool) * float(math.prod(factors)),)
    for axis, (before, after) in enumerate(zip(shape, resized, strict=True)):
        if before != after:
            g = along(g, np.ascontiguousarray(resize_matrix(node, axis).T), axis, len(shape))
    return (g,)


def resize_matrix(node: Node, axis: int) -> Array:
    """[from, to] weights along one axis, found by resizing the unit vectors in onnxruntime."""
    before, after = node.shape(0)[axis], node.output_shape()[axis]
    if before * after > MATRIX_LIMIT:
        raise node.missing(f"an axis of {after} is too long for this rule")
    probe = Graph(opset=node.graph.opset)
    units = probe.input("units", (1, 1, before, before))
    scales = node.value(2)
    line = (
        (None, np.array([1, 1, 1, scales[axis]], np.float32))
        if scales
        else (None, None, integers((1, 1, before, after)))
    )
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.proto.attribute}
    made = probe.op("Resize", units, *line, **settings)
    session = onnxruntime.InferenceSession(
        probe.model({"weights": made}).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    unit = np.eye(before, dtype=np.float32)[None, None]
    weights: Array = session.run(None, {"units": unit})[0][0, 0]
    return weights.astype(node.graph.dtype)
