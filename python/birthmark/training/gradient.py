"""Reverse-mode differentiation of ONNX graphs: one table of rules, one walk.

:func:`gradients` appends to a :class:`~birthmark.training.graph.Graph` the nodes that compute the
gradient of a scalar; the result is plain ONNX again, which any onnxruntime runs. Shapes must be
static. An operator without a rule raises :class:`~birthmark.errors.MissingGradient`; nothing is
ever taken for zero in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from birthmark.errors import MissingGradient
from birthmark.training import rules
from birthmark.training.graph import Graph, Tensor
from birthmark.training.node import FLOATS, Node, Rule

RULES: dict[str, Rule] = {
    # arithmetic
    "Add": rules.elementwise(lambda node, g: (g, g)),
    "Sub": rules.elementwise(lambda node, g: (g, -g)),
    "Mul": rules.elementwise(rules.multiply),
    "Div": rules.elementwise(rules.divide),
    "Pow": rules.elementwise(rules.power),
    "Max": rules.elementwise(rules.extremum),
    "Min": rules.elementwise(rules.extremum),
    "Sum": rules.elementwise(lambda node, g: [g] * len(node.inputs)),
    "Where": rules.elementwise(rules.where),
    "PRelu": rules.elementwise(rules.parametric_relu),
    # one input, element by element
    "Neg": lambda node, g: (-g,),
    "Abs": lambda node, g: (g * node.graph.op("Sign", node.inputs[0]),),
    "Sqrt": lambda node, g: (g * 0.5 / node.output,),
    "Exp": lambda node, g: (g * node.output,),
    "Log": lambda node, g: (g / node.inputs[0],),
    "Tanh": lambda node, g: (g * (1.0 - node.output * node.output),),
    "Sigmoid": lambda node, g: (g * node.output * (1.0 - node.output),),
    "Softplus": lambda node, g: (g * node.graph.op("Sigmoid", node.inputs[0]),),
    # The output is positive where the input is; reading it lets onnxruntime fuse Conv + Relu.
    "Relu": lambda node, g: (g * rules.mask(node, "Greater", node.output, 0.0),),
    "LeakyRelu": rules.leaky_relu,
    # Inclusive bounds, as in torch.
    "Clip": lambda node, g: (g * rules.mask(node, "Equal", node.inputs[0], node.output),),
    "Identity": lambda node, g: (g,),
    "Cast": rules.cast,
    # reductions and products
    "ReduceSum": rules.reduction,
    "ReduceMean": rules.reduction,
    "MatMul": rules.matmul,
    # moving things about
    "Reshape": rules.like_input,
    "Flatten": rules.like_input,
    "Squeeze": rules.like_input,
    "Unsqueeze": rules.like_input,
    "Expand": rules.elementwise(lambda node, g: (g, None)),
    "Transpose": rules.transpose,
    "Concat": rules.concat,
    "Split": rules.split,
    "Slice": rules.slicing,
    "Pad": rules.padding,
    "Gather": rules.gather,
    "GatherElements": rules.gather_elements,
    "DepthToSpace": rules.depth_to_space,
    "SpaceToDepth": rules.space_to_depth,
    # convolution, pooling, resizing
    "Conv": rules.conv,
    "ConvTranspose": rules.conv_transpose,
    "AveragePool": rules.average_pool,
    "GlobalAveragePool": rules.global_average_pool,
    "MaxPool": rules.max_pool,
    "Resize": rules.resize,
}


def gradients(graph: Graph, loss: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
    """Appends the gradient of ``loss`` with respect to each wanted tensor.

    ``loss`` has one element; all shapes on the way are static. The result has the shapes and
    types of ``wanted``. Raises :class:`MissingGradient`, naming operator and node, when a rule is
    missing or does not cover the case, or when the loss does not depend on a wanted tensor.
    """
    types = graph.types(loss)
    forward = list(graph.nodes)
    reached = {t.name for t in wanted}  # everything that depends on a wanted tensor
    for proto in forward:
        if reached.intersection(proto.input):
            reached.update(filter(None, proto.output))
    arrived: dict[str, Tensor] = {}
    if loss.name in reached:
        dims = [d.dim_value for d in types[loss.name].shape.dim]
        arrived[loss.name] = graph.constant(np.ones(dims, dtype=graph.dtype))
    for proto in reversed(forward):
        if not reached.intersection(proto.input):
            continue
        outputs = tuple(arrived.get(name) for name in proto.output)
        first = next((g for g in outputs if g is not None), None)
        if first is None:
            continue
        node = Node(graph, proto, types, outputs, tuple(n in reached for n in proto.input))
        rule = RULES.get(proto.op_type)
        if rule is None or proto.domain not in ("", "ai.onnx"):
            raise node.missing("no gradient rule for this operator")
        passed = [*rule(node, first), *[None] * len(proto.input)]
        for index, (name, g) in enumerate(zip(proto.input, passed, strict=False)):
            if not node.wanted[index]:
                continue
            if g is not None:
                arrived[name] = arrived[name] + g if name in arrived else g
            elif node.kind(index) in FLOATS:
                raise node.missing(f"its rule gives no gradient for input {index} ({name!r})")
    for tensor in wanted:
        if tensor.name not in arrived:
            raise MissingGradient(f"the loss does not depend on {tensor.name!r}")
    return [arrived[t.name] for t in wanted]
