"""Forward graphs in ONNX, written like formulas.

A :class:`Graph` collects ONNX nodes; a :class:`Tensor` is a name in it with the arithmetic of
numpy. The same few lines describe a network for training (static shapes, parameters as state) and
for use (dynamic shapes, parameters as constants).

The operator set is 17, which every onnxruntime since 1.12 can run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from birthmark.errors import InvalidModel

OPSET = 17
IR_VERSION = 8

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Operand: TypeAlias = "Tensor | float | Array"


class Tensor:
    """The name of a value inside a graph; arithmetic on it appends nodes."""

    __slots__ = ("graph", "name")
    # numpy must hand `array * tensor` to us instead of looping over its elements.
    __array_ufunc__ = None

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __repr__(self) -> str:
        return f"Tensor({self.name!r})"

    def __add__(self, other: Operand) -> Tensor:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Operand) -> Tensor:
        return self.graph.op("Sub", self, other)

    def __mul__(self, other: Operand) -> Tensor:
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Operand) -> Tensor:
        return self.graph.op("Div", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self.graph.op("Add", other, self)

    def __rsub__(self, other: Operand) -> Tensor:
        return self.graph.op("Sub", other, self)

    def __rmul__(self, other: Operand) -> Tensor:
        return self.graph.op("Mul", other, self)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.graph.op("Div", other, self)

    def __neg__(self) -> Tensor:
        return self.graph.op("Neg", self)

    def __matmul__(self, other: Operand) -> Tensor:
        return self.graph.op("MatMul", self, other)

    def reshape(self, *shape: int) -> Tensor:
        """The same values in another static shape."""
        return self.graph.op("Reshape", self, integers(shape))

    def transpose(self, *order: int) -> Tensor:
        """The axes in another order."""
        return self.graph.op("Transpose", self, perm=order)

    def sum(self, axes: Sequence[int], keepdims: bool = False) -> Tensor:
        """The sum over the given axes."""
        return self.graph.op("ReduceSum", self, integers(axes), keepdims=int(keepdims))


def integers(values: Iterable[int]) -> npt.NDArray[np.int64]:
    """A vector of int64, the type that ONNX wants for sizes, axes and paddings."""
    return np.array(list(values), dtype=np.int64)


class Graph:
    """An ONNX graph under construction.

    ``dtype`` is the type that plain Python numbers take in it. ``parameters`` holds the trainable
    constants by name; ``constants`` everything fixed.
    """

    def __init__(self, dtype: npt.DTypeLike = np.float32, opset: int = OPSET) -> None:
        self.dtype = np.dtype(dtype)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.constants: dict[str, Array] = {}
        self.parameters: dict[str, Array] = {}
        self._known: dict[tuple[str, Shape, bytes], Tensor] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def shell(self) -> Graph:
        """A graph with this one's inputs, constants and taken names, but none of its nodes."""
        shell = Graph(self.dtype, self.opset)
        shell.inputs |= self.inputs
        shell.constants |= self.constants
        shell._taken |= self._taken
        return shell

    def append(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Adds finished nodes under their own names."""
        for node in nodes:
            self.nodes.append(node)
            self._taken |= {name for name in node.output if name}

    def input(
        self, name: str, shape: Sequence[int | str], dtype: npt.DTypeLike | None = None
    ) -> Tensor:
        """Declares an input; a string in ``shape`` is a dynamic size."""
        if name in self._taken:
            raise ValueError(f"the name {name!r} is taken in this graph")
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype))
        self.inputs[name] = onnx.helper.make_tensor_value_info(name, kind, list(shape))
        self._taken.add(name)
        return Tensor(self, name)

    def parameter(self, name: str, value: Array) -> Tensor:
        """Declares a trainable constant with its first value."""
        if name in self._taken:
            raise ValueError(f"the name {name!r} is taken in this graph")
        self.parameters[name] = np.asarray(value, dtype=self.dtype)
        self._taken.add(name)
        return Tensor(self, name)

    def unpack(self, flat: Tensor, like: dict[str, Array]) -> list[Tensor]:
        """Cuts a flat vector into values with the names and shapes of ``like``, in its order."""
        sizes = integers(value.size for value in like.values())
        pieces = self.ops("Split", len(sizes), flat, sizes, axis=0)
        shaped = []
        for piece, (name, value) in zip(pieces, like.items(), strict=True):
            shape = self.constant(integers(value.shape)).name
            self.append([onnx.helper.make_node("Reshape", [piece.name, shape], [name], name=name)])
            shaped.append(Tensor(self, name))
        return shaped

    def constant(self, value: Operand) -> Tensor:
        """A fixed value; Python numbers take the graph's dtype, equal constants share one name."""
        if isinstance(value, Tensor):
            return value
        array = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else self.dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self.fresh("constant")
            self.constants[name] = array
            self._known[key] = Tensor(self, name)
        return self._known[key]

    def fresh(self, stem: str) -> str:
        """A name not taken yet, numbered by its stem so that equal graphs get equal names."""
        while True:
            count = self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}_{count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def op(self, kind: str, *inputs: Operand | None, **attributes: Any) -> Tensor:
        """Appends an operator with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def name(self, tensor: Tensor, name: str) -> Tensor:
        """Gives a value a name of one's own."""
        if name in self._taken:
            raise ValueError(f"the name {name!r} is taken in this graph")
        self.append([_alias(tensor, name)])
        return Tensor(self, name)

    def ops(
        self, kind: str, count: int, *inputs: Operand | None, **attributes: Any
    ) -> tuple[Tensor, ...]:
        """Appends an operator with ``count`` outputs; an input of None is left out."""
        names = ["" if x is None else self.constant(x).name for x in inputs]
        outputs = [self.fresh(kind.lower()) for _ in range(count)]
        node = onnx.helper.make_node(kind, names, outputs, name=outputs[0], **attributes)
        self.nodes.append(node)
        return tuple(Tensor(self, name) for name in outputs)

    def types(self, *outputs: Tensor) -> dict[str, onnx.TypeProto.Tensor]:
        """Element type and shape of every value that ``outputs`` need, by name.

        Raises:
            InvalidModel: the graph contradicts itself.
        """
        graph = self._inferred({t.name: t for t in outputs}).graph
        values = [*graph.input, *graph.value_info, *graph.output]
        found = {value.name: value.type.tensor_type for value in values}
        for tensor in graph.initializer:
            kind = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            found[tensor.name] = kind.tensor_type
        return found

    def model(
        self,
        outputs: dict[str, Tensor],
        *,
        shapes: dict[str, Sequence[int | str]] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> onnx.ModelProto:
        """The model that computes ``outputs`` and nothing else: unused nodes are dropped.

        Args:
            outputs: the values to give, by the names they get.
            shapes: names for dynamic output sizes, which inference cannot know.
            metadata: goes into ``metadata_props``.

        Raises:
            InvalidModel: the result is not valid ONNX, or shapes do not fit.
        """
        model = self._inferred(outputs)
        del model.graph.value_info[:]
        for value in model.graph.output:
            if shapes and value.name in shapes:
                kind = value.type.tensor_type.elem_type
                described = onnx.helper.make_tensor_type_proto(kind, shapes[value.name])
                value.type.CopyFrom(described)
        onnx.helper.set_model_props(model, metadata or {})
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise InvalidModel(f"not valid ONNX: {str(error).splitlines()[0]}") from error
        return model

    def _inferred(self, outputs: dict[str, Tensor]) -> onnx.ModelProto:
        """The model of ``outputs`` with the types of all its values."""
        aliases = [_alias(t, name) for name, t in outputs.items() if name != t.name]
        needed = set(outputs)  # never the empty name of an input or output that was left out
        nodes: list[onnx.NodeProto] = []
        for node in reversed([*self.nodes, *aliases]):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(filter(None, node.input))
        nodes.reverse()
        kind = onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = onnx.helper.make_graph(
            nodes,
            "birthmark",
            [value for name, value in self.inputs.items() if name in needed],
            [onnx.helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [
                # asarray, as ascontiguousarray would turn a scalar into a vector
                onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
                for name, array in {**self.constants, **self.parameters}.items()
                if name in needed
            ],
        )
        model = onnx.helper.make_model(
            graph,
            producer_name="birthmark",
            opset_imports=[onnx.helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSION,
        )
        try:
            # To follow the values of shapes takes seconds in a training graph, and where all sizes
            # are given it finds nothing more.
            inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
            if _all_sizes_known(inferred.graph):
                return inferred
            return onnx.shape_inference.infer_shapes(
                model, check_type=True, strict_mode=True, data_prop=True
            )
        except onnx.shape_inference.InferenceError as error:
            raise InvalidModel(f"shapes do not fit: {' '.join(str(error).split())}") from error


def _all_sizes_known(graph: onnx.GraphProto) -> bool:
    """Whether each value that a node makes has a shape of numbers."""
    known = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }
    return all(name in known for node in graph.node for name in node.output if name)


def _alias(tensor: Tensor, name: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Identity", [tensor.name], [name], name=name)
