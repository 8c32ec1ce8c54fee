"""One forward operator, as a gradient rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import onnx.helper

from birthmark.errors import MissingGradient
from birthmark.training.graph import Graph, Shape, Tensor

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Node:
    """One forward operator, as a rule sees it."""

    graph: Graph
    proto: onnx.NodeProto
    types: dict[str, onnx.TypeProto.Tensor]
    arrived: tuple[Tensor | None, ...]  # the gradient of each output, None where nothing arrived
    wanted: tuple[bool, ...]  # for each input: does anything ask for its gradient?

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All inputs; one that was left out has an empty name."""
        return tuple(Tensor(self.graph, name) for name in self.proto.input)

    @property
    def output(self) -> Tensor:
        """The first output."""
        return Tensor(self.graph, self.proto.output[0])

    def has(self, index: int) -> bool:
        """Is the optional input there?"""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def shape(self, index: int) -> Shape:
        """The static shape of an input."""
        return self._shape(self.proto.input[index])

    def output_shape(self, index: int = 0) -> Shape:
        """The static shape of an output."""
        return self._shape(self.proto.output[index])

    def _shape(self, name: str) -> Shape:
        if name not in self.types or not self.types[name].HasField("shape"):
            raise self.missing(f"the shape of {name!r} is not known")
        dims = self.types[name].shape.dim
        if not all(d.HasField("dim_value") for d in dims):
            raise self.missing(f"the shape of {name!r} is not static")
        return tuple(d.dim_value for d in dims)

    def kind(self, index: int) -> int:
        """The ONNX element type of an input."""
        return int(self.types[self.proto.input[index]].elem_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default that the operator's specification gives it."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def value(self, index: int, default: Any = None) -> Any:
        """A constant input as integers, or ``default`` if it is left out."""
        if not self.has(index):
            return default
        name = self.proto.input[index]
        if name in self.graph.constants:
            return self.graph.constants[name].tolist()
        raise self.missing(f"input {name!r} is not a constant")

    def missing(self, why: str) -> MissingGradient:
        """The error for a case that the rule does not cover."""
        return MissingGradient(f"{self.proto.op_type} ({self.proto.name or 'unnamed'}): {why}")


Gradients: TypeAlias = Sequence[Tensor | None]
Rule: TypeAlias = Callable[[Node, Tensor], Gradients]
