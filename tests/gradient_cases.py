"""The cases of test_gradient.py: each operator, how to call it, and torch's word for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from birthmark.training.graph import Graph, Tensor, integers

Draw = Callable[[np.random.Generator], np.ndarray]


def normal(*shape: int) -> Draw:
    return lambda rng: rng.normal(size=shape)


def positive(*shape: int) -> Draw:
    return lambda rng: rng.uniform(0.5, 2.0, size=shape)


def apart(*shape: int) -> Draw:
    """All values differ by at least 1/2, so that no small step changes which is the largest."""
    return lambda rng: rng.permutation(np.arange(int(np.prod(shape))) - 3.25).reshape(shape) / 2


@dataclass(frozen=True)
class Case:
    """An operator, how to call it, its differentiable inputs, and torch's word for it."""

    op: str
    build: Callable[..., Tensor]
    draws: Sequence[Draw]
    torch: Callable[..., Any] | None
    dtype: Any = np.float64
    note: str = ""

    def __str__(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op


def op(kind: str, *rest: Any, **attributes: Any) -> Callable[..., Tensor]:
    """A builder that gives its tensors, then constants, to one operator."""
    return lambda g, *xs: g.op(kind, *xs, *rest, **attributes)


def single(kind: str, *draws: Draw, **more: Any) -> Case:
    """onnxruntime has this operator in float32 only."""
    build, torch = more.pop("build"), more.pop("torch", None)
    return Case(kind, build, draws, torch, np.float32, more.pop("note", ""))


def conv(note: str, x: tuple[int, ...], w: tuple[int, ...], **settings: Any) -> Case:
    onnx = {
        "strides": settings.get("stride", (1, 1)),
        "pads": (*settings.get("padding", (0, 0)), *settings.get("padding", (0, 0))),
        "dilations": settings.get("dilation", (1, 1)),
        "group": settings.get("groups", 1),
    }
    return single(
        "Conv",
        normal(*x),
        normal(*w),
        normal(w[0]),
        note=note,
        build=op("Conv", kernel_shape=w[2:], **onnx),
        torch=lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, **settings),
    )


def pool(kind: str, note: str, size: int, function: str, onnx: Any, torch: Any) -> Case:
    return single(
        kind,
        apart(2, 2, size, size + 1),
        note=note,
        build=op(kind, **onnx),
        torch=lambda t, x: getattr(t.nn.functional, function)(x, **torch),
    )


def resize(note: str, shape: tuple[int, ...], factor: int, onnx: Any, torch: Any) -> Case:
    scales = np.array([1, 1, factor, factor], np.float32)
    return single(
        "Resize",
        normal(*shape),
        note=note,
        build=lambda g, x: g.op("Resize", x, None, scales, **onnx),
        torch=None
        if torch is None
        else lambda t, x: t.nn.functional.interpolate(x, scale_factor=factor, **torch),
    )


def pieces(g: Graph, x: Tensor) -> Tensor:
    """Uses only two of three pieces, one of them twice."""
    first, _, last = g.ops("Split", 3, x, integers([1, 2, 2]), axis=1)
    return g.op("Concat", first, last * last, first, axis=1)


def chosen(g: Graph, a: Tensor, b: Tensor) -> Tensor:
    condition = g.op("Greater", a, np.zeros((), g.dtype))
    return g.op("Where", condition, a * 2.0, b)


def both_casts(g: Graph, x: Tensor) -> Tensor:
    """Through float64 and back (the rule), and through bool (no gradient, as it should be)."""
    sign = g.op("Cast", g.op("Greater", x, 0.0), to=1)
    wide = g.op("Cast", x, to=11)
    return g.op("Cast", wide * np.array(3.0), to=1) + sign * x


PICK = np.array([[2, 0], [-1, 2]])
EVERY = np.array([[0, 2, 1], [1, 1, 0]])
HALF = {"coordinate_transformation_mode": "half_pixel"}
CASES = [
    Case("Add", op("Add"), (normal(2, 3), normal(3)), lambda t, a, b: a + b),
    Case("Add", lambda g, x: x + x, (normal(2, 3),), lambda t, x: x + x, note="twice"),
    Case("Sub", op("Sub"), (normal(1, 3), normal(2, 1)), lambda t, a, b: a - b),
    Case("Mul", op("Mul"), (normal(2, 1, 3), normal(4, 1)), lambda t, a, b: a * b),
    Case("Div", op("Div"), (normal(2, 3), positive(3)), lambda t, a, b: a / b),
    Case("Pow", op("Pow"), (positive(2, 3), normal(3)), lambda t, a, b: a**b),
    Case("Pow", op("Pow", np.array(3)), (normal(2, 3),), lambda t, a: a**3, note="integer"),
    Case("Max", op("Max"), (normal(4, 3), normal(3)), lambda t, a, b: t.maximum(a, b)),
    Case(
        "Min",
        op("Min"),
        (normal(2, 3), normal(2, 3), normal(1)),
        lambda t, a, b, c: t.minimum(t.minimum(a, b), c),
    ),
    Case("Sum", op("Sum"), (normal(2, 3), normal(3), normal(1)), lambda t, a, b, c: a + b + c),
    Case("Where", chosen, (normal(2, 3), normal(3)), lambda t, a, b: t.where(a > 0, 2 * a, b)),
    single(
        "PRelu",
        normal(2, 3, 2),
        normal(3, 1),
        build=op("PRelu"),
        torch=lambda t, x, s: t.where(x > 0, x, s * x),
    ),
    Case("Neg", op("Neg"), (normal(3),), lambda t, x: -x),
    Case("Abs", op("Abs"), (normal(2, 3),), lambda t, x: x.abs()),
    Case("Sqrt", op("Sqrt"), (positive(2, 3),), lambda t, x: x.sqrt()),
    Case("Exp", op("Exp"), (normal(2, 3),), lambda t, x: x.exp()),
    Case("Log", op("Log"), (positive(2, 3),), lambda t, x: x.log()),
    Case("Tanh", op("Tanh"), (normal(2, 3),), lambda t, x: x.tanh()),
    Case("Sigmoid", op("Sigmoid"), (normal(2, 3),), lambda t, x: x.sigmoid()),
    single(
        "Softplus",
        normal(2, 3),
        build=op("Softplus"),
        torch=lambda t, x: t.nn.functional.softplus(x),
    ),
    Case("Relu", op("Relu"), (normal(3, 4),), lambda t, x: x.relu()),
    single(
        "LeakyRelu",
        normal(3, 4),
        build=op("LeakyRelu", alpha=0.2),
        torch=lambda t, x: t.nn.functional.leaky_relu(x, 0.2),
    ),
    single(
        "LeakyRelu",
        normal(3, 4),
        note="falling",
        build=op("LeakyRelu", alpha=-0.5),
        torch=lambda t, x: t.where(x > 0, x, -0.5 * x),
    ),
    Case(
        "Clip",
        lambda g, x: g.op("Clip", x, np.array(-0.5), np.array(0.7)),
        (normal(4, 4),),
        lambda t, x: x.clamp(-0.5, 0.7),
    ),
    Case("Identity", op("Identity"), (normal(3),), lambda t, x: x),
    single("Cast", normal(5), build=both_casts, torch=lambda t, x: x * 3 + (x > 0) * x),
    Case(
        "ReduceSum",
        op("ReduceSum", integers([-1, 0]), keepdims=0),
        (normal(2, 3, 4),),
        lambda t, x: x.sum((-1, 0)),
    ),
    Case(
        "ReduceSum",
        op("ReduceSum"),
        (normal(2, 3),),
        lambda t, x: x.sum((0, 1), keepdim=True),
        note="all",
    ),
    Case(
        "ReduceSum",
        op("ReduceSum", noop_with_empty_axes=1),
        (normal(2, 3),),
        lambda t, x: x,
        note="nothing",
    ),
    Case(
        "ReduceMean",
        op("ReduceMean", axes=[1]),
        (normal(2, 3, 4),),
        lambda t, x: x.mean(1, keepdim=True),
    ),
    Case(
        "ReduceMean",
        op("ReduceMean", keepdims=0),
        (normal(2, 3),),
        lambda t, x: x.mean(),
        note="all",
    ),
    Case("MatMul", op("MatMul"), (normal(2, 3), normal(3, 4)), lambda t, a, b: a @ b),
    Case(
        "MatMul",
        op("MatMul"),
        (normal(2, 1, 2, 3), normal(5, 3, 2)),
        lambda t, a, b: a @ b,
        note="batches",
    ),
    Case(
        "Reshape", op("Reshape", integers([4, -1])), (normal(2, 6),), lambda t, x: x.reshape(4, 3)
    ),
    Case("Flatten", op("Flatten", axis=2), (normal(2, 1, 3),), lambda t, x: x.reshape(2, 3)),
    Case("Squeeze", op("Squeeze", integers([1])), (normal(2, 1, 3),), lambda t, x: x[:, 0]),
    Case(
        "Unsqueeze",
        op("Unsqueeze", integers([0, 3])),
        (normal(2, 3),),
        lambda t, x: x[None, :, :, None],
    ),
    Case(
        "Expand", op("Expand", integers([4, 2, 3])), (normal(2, 1),), lambda t, x: x.expand(4, 2, 3)
    ),
    Case(
        "Transpose",
        op("Transpose", perm=(1, 2, 0)),
        (normal(2, 3, 4),),
        lambda t, x: x.permute(1, 2, 0),
    ),
    Case(
        "Transpose",
        op("Transpose"),
        (normal(2, 3, 4),),
        lambda t, x: x.permute(2, 1, 0),
        note="all",
    ),
    Case(
        "Concat",
        op("Concat", axis=-1),
        (normal(2, 3), normal(2, 1)),
        lambda t, a, b: t.cat((a, b), -1),
    ),
    Case(
        "Split", pieces, (normal(2, 5),), lambda t, x: t.cat((x[:, :1], x[:, 3:] ** 2, x[:, :1]), 1)
    ),
    Case(
        "Slice",
        op("Slice", integers([1, -3]), integers([99, -1]), integers([0, -1])),
        (normal(3, 5),),
        lambda t, x: x[1:, -3:-1],
    ),
    Case(
        "Slice",
        op("Slice", integers([4, 0]), integers([-99, 9]), integers([1, 0]), integers([-2, 3])),
        (normal(8, 5),),
        lambda t, x: x[::3].flip(1)[:, ::2],
        note="steps",
    ),
    Case(
        "Slice",
        op("Slice", integers([0]), integers([5]), integers([1]), integers([1])),
        (normal(2, 5),),
        lambda t, x: x,
        note="everything",
    ),
    Case(
        "Pad",
        op("Pad", integers([0, 1, 0, 2, 0, 0, 3, 1])),
        (normal(1, 2, 2, 3),),
        lambda t, x: t.nn.functional.pad(x, (2, 1, 0, 3, 1, 0)),
    ),
    *[
        Case(
            "Pad",
            op("Pad", integers([0, 0, 2, 1, 0, 0, 3, 2]), mode=ours),
            (normal(1, 2, 4, 5),),
            lambda t, x, theirs=theirs: t.nn.functional.pad(x, (1, 2, 2, 3), theirs),
            note=ours,
        )
        for ours, theirs in (("reflect", "reflect"), ("edge", "replicate"))
    ],
    Case(
        "Pad",
        op("Pad", integers([2, 0, 1, 1, 0, 1]), mode="edge"),
        (normal(3, 2, 2),),
        None,
        note="first axis",
    ),
    Case(
        "Gather", op("Gather", PICK, axis=1), (normal(2, 3, 2),), lambda t, x: x[:, t.tensor(PICK)]
    ),
    Case("Gather", op("Gather", np.array(1)), (normal(3, 2),), lambda t, x: x[1], note="scalar"),
    Case(
        "GatherElements",
        op("GatherElements", EVERY, axis=1),
        (normal(2, 3),),
        lambda t, x: x.gather(1, t.tensor(EVERY)),
    ),
    Case(
        "DepthToSpace",
        op("DepthToSpace", blocksize=2, mode="CRD"),
        (normal(1, 8, 2, 3),),
        lambda t, x: t.nn.functional.pixel_shuffle(x, 2),
    ),
    Case("DepthToSpace", op("DepthToSpace", blocksize=2), (normal(1, 8, 2, 3),), None, note="DCR"),
    Case("SpaceToDepth", op("SpaceToDepth", blocksize=2), (normal(1, 3, 4, 6),), None),
    conv("same", (2, 3, 5, 6), (4, 3, 3, 3), padding=(1, 1)),
    conv("fewer-outputs", (2, 4, 5, 6), (2, 4, 3, 3), padding=(1, 1)),
    conv("valid", (1, 2, 5, 6), (3, 2, 3, 2)),
    conv("wide", (1, 2, 4, 4), (1, 2, 3, 3), padding=(3, 4)),
    conv("point", (2, 3, 4, 4), (2, 3, 1, 1)),
    conv("row", (1, 2, 4, 7), (2, 2, 1, 5), padding=(0, 2)),
    conv("stride", (2, 2, 6, 7), (3, 2, 3, 3), stride=(2, 3), padding=(1, 0)),
    conv("dilated", (1, 2, 7, 8), (3, 2, 3, 2), dilation=(2, 3), padding=(2, 1)),
    conv("dilated-stride", (1, 2, 9, 8), (3, 2, 3, 2), dilation=(2, 3), stride=(2, 2)),
    conv("groups", (2, 4, 5, 4), (6, 2, 3, 3), groups=2, padding=(1, 1)),
    conv("groups-fewer", (2, 6, 5, 4), (2, 3, 3, 3), groups=2, padding=(1, 0)),
    conv("depthwise", (2, 3, 5, 4), (3, 1, 3, 3), groups=3, padding=(1, 1)),
    conv("depthwise-stride", (1, 3, 6, 5), (3, 1, 2, 2), groups=3, stride=(2, 2)),
    single(
        "ConvTranspose",
        normal(2, 3, 3, 4),
        normal(3, 2, 3, 3),
        normal(2),
        build=op("ConvTranspose", strides=(2, 2), pads=(1, 0, 1, 0), output_padding=(1, 0)),
        torch=lambda t, x, w, b: t.nn.functional.conv_transpose2d(
            x, w, b, stride=2, padding=(1, 0), output_padding=(1, 0)
        ),
    ),
    single(
        "ConvTranspose",
        normal(1, 4, 3, 4),
        normal(4, 1, 2, 2),
        note="groups",
        build=op("ConvTranspose", group=2),
        torch=lambda t, x, w: t.nn.functional.conv_transpose2d(x, w, groups=2),
    ),
    pool(
        "AveragePool",
        "halves",
        4,
        "avg_pool2d",
        {"kernel_shape": (2, 2), "strides": (2, 2)},
        {"kernel_size": 2},
    ),
    pool(
        "AveragePool",
        "overlap",
        5,
        "avg_pool2d",
        {"kernel_shape": (3, 2), "strides": (2, 1)},
        {"kernel_size": (3, 2), "stride": (2, 1)},
    ),
    pool(
        "AveragePool",
        "padded",
        5,
        "avg_pool2d",
        {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    pool(
        "AveragePool",
        "pads-count",
        5,
        "avg_pool2d",
        {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "count_include_pad": 1},
        {"kernel_size": 3, "stride": 1, "padding": 1},
    ),
    single(
        "GlobalAveragePool",
        normal(2, 3, 4, 5),
        build=op("GlobalAveragePool"),
        torch=lambda t, x: x.mean((2, 3), keepdim=True),
    ),
    pool(
        "MaxPool",
        "halves",
        4,
        "max_pool2d",
        {"kernel_shape": (2, 2), "strides": (2, 2)},
        {"kernel_size": 2},
    ),
    pool(
        "MaxPool",
        "overlap",
        5,
        "max_pool2d",
        {"kernel_shape": (3, 3), "strides": (1, 2), "pads": (1, 1, 1, 1)},
        {"kernel_size": 3, "stride": (1, 2), "padding": 1},
    ),
    resize(
        "nearest",
        (1, 2, 3, 4),
        2,
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        {"mode": "nearest"},
    ),
    resize(
        "nearest-odd",
        (1, 2, 3, 2),
        3,
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"},
        None,
    ),
    resize("linear", (1, 2, 3, 4), 2, {"mode": "linear", **HALF}, {"mode": "bilinear"}),
    resize(
        "corners",
        (1, 1, 3, 4),
        2,
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "bilinear", "align_corners": True},
    ),
    resize("cubic", (1, 1, 4, 5), 2, {"mode": "cubic", **HALF}, {"mode": "bicubic"}),
    single(
        "Resize",
        normal(1, 2, 6, 5),
        note="smaller",
        build=lambda g, x: g.op(
            "Resize", x, None, None, integers([1, 2, 4, 3]), mode="linear", **HALF
        ),
        torch=lambda t, x: t.nn.functional.interpolate(x, (4, 3), mode="bilinear"),
    ),
]
