"""The thief's networks, each written once for training (static sizes) and use (dynamic ones).

All take RGB and give RGB, ``scale`` times as large. Most learn the difference to a fixed skip: the
picture itself, or its bicubic enlargement. Super-resolution works at the low resolution and ends in
a sub-pixel shuffle (Shi et al. 2016, "ESPCN"). None of them shares code with the mark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx

from birthmark.errors import InvalidTraining
from birthmark.training.graph import Array, Graph, Tensor, integers

FINEST = 1e-30  # weights below this are set to zero: denormal numbers slow a network 10-30 times
CHANGE = 1 / 16  # what the last layer gives is about this large in 0..1: it starts near the skip


class Layers:
    """Draws and numbers the layers of one network; ``prefix`` tells it from others in the graph."""

    def __init__(self, graph: Graph, seed: int, prefix: str = "") -> None:
        self.graph = graph
        self._prefix = prefix
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def conv(
        self,
        x: Tensor,
        inputs: int,
        outputs: int,
        gain: float = 1.0,
        kernel: int = 3,
        groups: int = 1,
    ) -> Tensor:
        """A convolution with bias, He-normal (He et al. 2015) times ``gain``."""
        shape = (outputs, inputs // groups, kernel, kernel)
        weight, bias = self._drawn(shape, outputs, gain * np.sqrt(2 / np.prod(shape[1:])))
        reach = kernel // 2
        return self.graph.op(
            "Conv",
            x,
            weight,
            bias,
            kernel_shape=(kernel, kernel),
            pads=(reach,) * 4,
            group=groups,
        )

    def halved(self, x: Tensor, inputs: int, outputs: int) -> Tensor:
        """A convolution of every second place, with a rectifier."""
        weight, bias = self._drawn((outputs, inputs, 4, 4), outputs, np.sqrt(2 / (16 * inputs)))
        return self._strided("Conv", x, weight, bias)

    def doubled(self, x: Tensor, inputs: int, outputs: int) -> Tensor:
        """A transposed convolution to twice the size, with a rectifier."""
        weight, bias = self._drawn((inputs, outputs, 4, 4), outputs, np.sqrt(2 / (4 * inputs)))
        return self._strided("ConvTranspose", x, weight, bias)

    def _strided(self, kind: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        made = self.graph.op(
            kind, x, weight, bias, kernel_shape=(4, 4), strides=(2, 2), pads=(1,) * 4
        )
        return self.graph.op("LeakyRelu", made, alpha=0.1)

    def _drawn(self, shape: tuple[int, ...], outputs: int, size: float) -> tuple[Tensor, Tensor]:
        """A layer's weight, normal of this size, and its bias."""
        self._count += 1
        name = f"{self._prefix}conv{self._count}"
        weight = self.graph.parameter(f"{name}.weight", self._rng.standard_normal(shape) * size)
        return weight, self.graph.parameter(f"{name}.bias", np.zeros(outputs))

    def active(self, x: Tensor, inputs: int, outputs: int) -> Tensor:
        """The same with a rectifier."""
        return self.graph.op("LeakyRelu", self.conv(x, inputs, outputs), alpha=0.1)


def cnn(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Plain layers."""
    x = layers.active(x, 3, width)
    for _ in range(depth):
        x = layers.active(x, width, width)
    return x


def resnet(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Residual blocks without normalisation (He et al. 2016; Lim et al. 2017, "EDSR")."""
    x = layers.active(x, 3, width)
    for _ in range(depth):
        x = x + layers.conv(layers.active(x, width, width), width, width, gain=0.3)
    return x


def unet(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Three levels (Ronneberger et al. 2015), with ``depth`` layers at the coarsest."""
    fine = layers.active(x, 3, width)
    middle = layers.active(_halve(fine), width, 2 * width)
    coarse = layers.active(_halve(middle), 2 * width, 3 * width)
    for _ in range(depth - 1):
        coarse = layers.active(coarse, 3 * width, 3 * width)
    coarse = layers.active(coarse, 3 * width, 2 * width)
    middle = layers.active(_join(middle, _double(coarse)), 4 * width, width)
    return layers.active(_join(fine, _double(middle)), 2 * width, width)


def pix2pix(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Halved ``depth`` times, and as often doubled (Isola et al. 2017, "pix2pix").

    Its few coarsest cells differ by what lies beyond the picture's edges, so that it knows where in
    the picture it is: the others hardly do.
    """
    channels = [width * min(2**level, 4) for level in range(depth + 1)]
    levels = [layers.active(x, 3, width)]
    for inputs, outputs in pairwise(channels):
        levels.append(layers.halved(levels[-1], inputs, outputs))
    x, inputs = levels.pop(), channels.pop()
    for level, outputs in zip(reversed(levels), reversed(channels), strict=True):
        x, inputs = _join(level, layers.doubled(x, inputs, outputs)), 2 * outputs
    return layers.active(x, inputs, width)


def espcn(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Wide kernels and hyperbolic tangents (Shi et al. 2016, "ESPCN")."""
    x = layers.graph.op("Tanh", layers.conv(x, 3, width, gain=0.7, kernel=5))
    for _ in range(depth):
        x = layers.graph.op("Tanh", layers.conv(x, width, width, gain=0.7))
    return x


def separable(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Residual blocks of depth-wise and point-wise layers (Howard et al. 2017, "MobileNets")."""
    x = layers.active(x, 3, width)
    for _ in range(depth):
        each = layers.conv(x, width, width, kernel=5, groups=width)
        mixed = layers.graph.op(
            "LeakyRelu", layers.conv(each, width, 2 * width, kernel=1), alpha=0.1
        )
        x = x + layers.conv(mixed, 2 * width, width, gain=0.3, kernel=1)
    return x


def nafnet(layers: Layers, x: Tensor, width: int, depth: int) -> Tensor:
    """Layers normalised over channels, and products for rectifiers (Chen et al. 2022, "NAFNet")."""
    x = layers.conv(x, 3, width)
    for _ in range(depth):
        wide = layers.conv(_normalise(x), width, 2 * width, kernel=1)
        wide = layers.conv(wide, 2 * width, 2 * width, groups=2 * width)
        x = x + layers.conv(_gate(wide, width), width, width, gain=0.3, kernel=1)
        wide = layers.conv(_normalise(x), width, 2 * width, kernel=1)
        x = x + layers.conv(_gate(wide, width), width, width, gain=0.3, kernel=1)
    return x


@dataclass(frozen=True)
class Student:
    """A body, from RGB about zero to ``width`` channels of the same size."""

    body: Callable[[Layers, Tensor, int, int], Tensor]
    width: int
    """The usual number of channels; twice as many where it enlarges, on fewer pixels."""
    depth: int
    """The usual number of layers or blocks."""
    multiple: int = 1
    """What the sides of its input must be a multiple of."""
    skip: bool = True
    """Whether it learns the difference to a fixed skip, or the picture itself."""


STUDENTS = {
    "unet": Student(unet, width=16, depth=1, multiple=4),
    "pix2pix": Student(pix2pix, width=16, depth=5, multiple=32),
    "resnet": Student(resnet, width=16, depth=4),
    "cnn": Student(cnn, width=16, depth=4),
    "espcn": Student(espcn, width=32, depth=2, skip=False),
    "separable": Student(separable, width=16, depth=4),
    "nafnet": Student(nafnet, width=16, depth=4),
}


@dataclass(frozen=True)
class Network:
    """A student with its enlargement, its number of channels and of layers or blocks.

    Raises:
        InvalidTraining: the student is unknown, or the depth is none that it can have.
    """

    kind: str
    scale: int = 1
    width: int = 0
    """0: the student's usual number."""
    depth: int | None = None
    """None: the student's usual number."""

    def __post_init__(self) -> None:
        if self.kind not in STUDENTS:
            raise InvalidTraining(
                f"unknown student {self.kind!r}: choose one of {', '.join(STUDENTS)}"
            )
        if self.blocks < (1 if self.kind == "unet" else 0):
            raise InvalidTraining(f"a {self.kind} cannot have {self.blocks} layers or blocks")

    @property
    def channels(self) -> int:
        """Channels of its first layer."""
        return self.width or STUDENTS[self.kind].width * (1 if self.scale == 1 else 2)

    @property
    def blocks(self) -> int:
        """Its layers or blocks."""
        return STUDENTS[self.kind].depth if self.depth is None else self.depth

    @property
    def multiple(self) -> int:
        """What the sides of a training input must be a multiple of."""
        return STUDENTS[self.kind].multiple

    def training_graph(self, size: tuple[int, int, int], seed: int) -> Graph:
        """The graph for inputs of ``size`` (n, h, w), with freshly drawn parameters.

        Values: ``input`` float32 [n, 3, h, w], ``target`` and ``output`` float32
        [n, 3, h s, w s], all RGB in 0..1; the output is not clipped.
        """
        graph = Graph()
        n, height, width = size
        picture = graph.input("input", (n, 3, height, width))
        graph.input("target", (n, 3, height * self.scale, width * self.scale))
        graph.name(self._build(graph, picture, seed), "output")
        return graph

    def model(self, weights: dict[str, Array], metadata: dict[str, str]) -> onnx.ModelProto:
        """The trained network for pictures of any size.

        ``input`` float32 [n, 3, h, w] to ``output`` float32 [n, 3, h s, w s], RGB in 0..1, clipped.
        """
        graph = Graph()
        picture = graph.input("input", ("n", 3, "h", "w"))
        sides = graph.op("Slice", graph.op("Shape", picture), integers([2]), integers([4]))
        whole = _pad_to_multiple(picture, sides, self.multiple) if self.multiple > 1 else picture
        made = graph.op("Clip", self._build(graph, whole, 0), 0.0, 1.0)
        if self.multiple > 1:
            ends = sides * integers([self.scale])
            made = graph.op("Slice", made, integers([0, 0]), ends, integers([2, 3]))
        for name, value in weights.items():
            graph.parameters[name] = np.where(np.abs(value) < FINEST, 0, value).astype(np.float32)
        shape = ("n", 3, "oh", "ow") if self.scale > 1 else ("n", 3, "h", "w")
        return graph.model({"output": made}, shapes={"output": shape}, metadata=metadata)

    def _build(self, graph: Graph, picture: Tensor, seed: int) -> Tensor:
        layers = Layers(graph, seed)
        student = STUDENTS[self.kind]
        body = student.body(layers, (picture - 0.5) * 4.0, self.channels, self.blocks)
        made = layers.conv(body, self.channels, 3 * self.scale**2, gain=0.1)
        if self.scale > 1:
            made = _shuffle(made, self.scale)
        if not student.skip:
            return made * 0.5 + 0.5
        skip = picture if self.scale == 1 else _enlarge(picture, self.scale)
        return skip + made * CHANGE


def _halve(x: Tensor) -> Tensor:
    return x.graph.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))


def _double(x: Tensor) -> Tensor:
    scales = np.array([1, 1, 2, 2], np.float32)
    return x.graph.op(
        "Resize",
        x,
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _normalise(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the channels of each pixel."""
    centred = x - x.graph.op("ReduceMean", x, axes=[1])
    variance = x.graph.op("ReduceMean", centred * centred, axes=[1])
    return centred / x.graph.op("Sqrt", variance + 1e-4)


def _gate(x: Tensor, width: int) -> Tensor:
    """One half of the channels times the other."""
    one, other = x.graph.ops("Split", 2, x, integers([width, width]), axis=1)
    return one * other


def _join(*xs: Tensor) -> Tensor:
    return xs[0].graph.op("Concat", *xs, axis=1)


def _shuffle(x: Tensor, scale: int) -> Tensor:
    """Channels [colour, row, column] to pixels."""
    return x.graph.op("DepthToSpace", x, blocksize=scale, mode="CRD")


def _enlarge(picture: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement (Keys 1981, a = -1/2), a fixed filter for each of scale^2 phases."""
    phases = [(phase + 0.5) / scale - 0.5 for phase in range(scale)]
    rows = np.array([[_keys(tap - phase) for tap in range(-2, 3)] for phase in phases])
    kernels = np.einsum("pi,qj->pqij", rows, rows).reshape(scale**2, 1, 5, 5)
    weight = np.concatenate([kernels] * 3).astype(np.float32)
    edged = picture.graph.op("Pad", picture, integers([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
    return _shuffle(picture.graph.op("Conv", edged, weight, kernel_shape=(5, 5), group=3), scale)


def _keys(distance: float) -> float:
    d = abs(distance)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def _pad_to_multiple(picture: Tensor, sides: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until both sides are multiples (1x1 pictures too)."""
    graph = picture.graph
    lacking = graph.op("Mod", -sides, integers([multiple]))
    pads = graph.op("Concat", integers([0] * 6), lacking, axis=0)
    return graph.op("Pad", picture, pads, mode="edge")
