"""The thief's networks, each written once for training (static shapes) and use (dynamic ones).

All take RGB and give RGB, ``scale`` times as large. They learn the difference to a fixed skip: the
picture itself, or its bicubic enlargement. Super-resolution works at the low resolution and ends in
a sub-pixel shuffle (Shi et al. 2016, "ESPCN"). None of them shares code with the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from birthmark.errors import InvalidTraining
from birthmark.training.graph import Graph, Tensor, integers


@dataclass(frozen=True)
class Network:
    """A student to be: which one, its enlargement and its number of channels."""

    kind: str
    scale: int = 1
    width: int = 24

    def graph(self, size: tuple[int, int, int] | None, seed: int = 0) -> Graph:
        """The forward graph with freshly drawn parameters.

        ``size`` is (n, h, w) of a training input, the sides multiples of :data:`MULTIPLE`; None
        makes every size dynamic. Values: ``input``, ``target`` and ``output``, RGB in 0..1, the
        output not clipped.
        """
        graph = Graph()
        n, h, w = size or ("n", "h", "w")
        x = graph.input("input", (n, 3, h, w))
        if size:
            graph.input("target", (n, 3, size[1] * self.scale, size[2] * self.scale))
        layers = Layers(graph, np.random.default_rng(seed))
        whole, picture = (None, x) if size else pad_to_multiple(x)
        body = STUDENTS[self.kind](layers, picture - 0.5, self.width)
        change = layers.conv(body, 3 * self.scale**2, gain=LAST_GAIN, activate=False)
        skip = picture
        if self.scale > 1:
            change = graph.op("DepthToSpace", change, blocksize=self.scale, mode="CRD")
            skip = enlarge(picture, self.scale)
        made = skip + change
        if whole is not None:
            sides = graph.op("Mul", whole, integers([self.scale]))
            made = graph.op("Slice", made, integers([0, 0]), sides, integers([2, 3]))
        graph.op("Identity", made)
        return graph
