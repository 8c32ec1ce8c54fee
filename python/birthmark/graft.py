"""The mark inside a customer's graph: the operator ``ai.birthmark::Embed`` at an ONNX model's end.

The operator takes the model's float picture and gives the published bytes. The grafted model
brings a body for it, a function of plain ONNX operators (:mod:`birthmark.graft_body`), so stock
onnxruntime runs the model without this package. With :func:`library_path` registered, onnxruntime
calls the C++ kernels instead. Both give the bytes that ``cpp/contract/CONTRACT.md`` defines.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birthmark.errors import CannotGraft, InvalidModel, MissingLibrary
from birthmark.files import StrPath
from birthmark.formats import Range, scale_and_offset
from birthmark.graft_body import DOMAIN, MIN_OPSET, OPERATOR, body
from birthmark.mark import Mark
from birthmark.models import open_session, parse_model, read_model

if TYPE_CHECKING:
    import onnx

_FUNCTION_IR_VERSION = 8  # model-local functions exist since then
_LIBRARY = "libbirthmark_ort.so"


def graft(
    model: StrPath | bytes,
    mark: Mark | StrPath,
    *,
    picture: str | None = None,
    range: Range = "unit",
    keep: bool = False,
) -> bytes:
    """Append the mark to an ONNX model and return the new model's bytes.

    The picture output, float32 (or float16, bfloat16) [n, 3, h, w] RGB, is replaced
    by ``<its name>_marked``, uint8 [n, h, w, 3]. Other outputs and all inputs stay as they are. A
    run whose picture holds NaN or Inf fails.

    Args:
        model: path of an ONNX file, or its bytes. Sizes may be symbolic.
        mark: the mark or the path of a mark file. The grafted model holds it in the clear, so it
            belongs where the mark file belongs.
        picture: name of the output that is the picture; needed if the model has several.
        range: of the picture's values: "unit" for [0, 1], "signed" for [-1, 1], "byte" for
            [0, 255]. Whatever is outside is clamped.
        keep: keep the unmarked picture as an output too, last in order.

    Raises:
        InvalidModel: not an ONNX file, weights in external files, or onnxruntime does not load it.
        CannotGraft: already grafted; an opset older than 13; several outputs and no name, or no
            output of that name; an output that is not float [n, 3, h, w].
        InvalidFormat: no such range.
        InvalidMarkFile: not a mark file, or one for another contract version.
    """
    import onnx

    scale, offset = scale_and_offset(range)
    if not isinstance(mark, Mark):
        mark = Mark.load(mark)
    data, name = read_model(model)
    proto = parse_model(data, name)
    opset = _checked_opset(proto, name)
    source = _checked_output(proto, name, picture)
    graph = proto.graph

    taken = set(_names(graph))
    image = source.name
    if source.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        image = _unused(f"{source.name}_float32", taken)
        graph.node.append(
            onnx.helper.make_node("Cast", [source.name], [image], to=onnx.TensorProto.FLOAT)
        )
    marked = _unused(f"{source.name}_marked", taken)
    content = onnx.numpy_helper.from_array(np.frombuffer(mark.data, np.uint8), "mark")
    graph.node.append(
        onnx.helper.make_node(
            OPERATOR,
            [image],
            [marked],
            _unused("birthmark", taken),
            domain=DOMAIN,
            mark=content,
            scale=scale,
            offset=offset,
        )
    )
    published = onnx.helper.make_tensor_value_info(marked, onnx.TensorProto.UINT8, None)
    n, _, height, width = source.type.tensor_type.shape.dim
    published.type.tensor_type.shape.dim.extend([n, height, width])
    published.type.tensor_type.shape.dim.add().dim_value = 3

    outputs = [published if value.name == source.name else value for value in graph.output]
    if keep:
        outputs.append(source)
    del graph.output[:]
    graph.output.extend(outputs)
    proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    proto.functions.append(body(opset))
    proto.ir_version = max(proto.ir_version, _FUNCTION_IR_VERSION)

    grafted: bytes = proto.SerializeToString()
    open_session(grafted, name, threads=1)
    return grafted


def library_path() -> str:
    """Path of the native operator, for ``SessionOptions.register_custom_ops_library``.

    It needs onnxruntime 1.17 or newer. A grafted model runs without it, only more slowly.

    Raises:
        MissingLibrary: this build of the package is without it (``BIRTHMARK_ORT``).
    """
    path = Path(__file__).parent / _LIBRARY
    if not path.is_file():
        raise MissingLibrary(
            f"{_LIBRARY} is not in this build: build with onnxruntime's headers (BIRTHMARK_ORT=ON),"
            " or run the grafted model without it"
        )
    return str(path)


def _checked_opset(proto: onnx.ModelProto, name: str) -> int:
    """The version of the plain operators, if it is new enough and nothing was grafted before."""
    used = {entry.domain: entry.version for entry in proto.opset_import}
    if DOMAIN in used or any(function.domain == DOMAIN for function in proto.functions):
        raise CannotGraft(f"{name}: already grafted: it uses the operators of {DOMAIN}")
    opset = int(used.get("", used.get("ai.onnx", 0)))
    if opset < MIN_OPSET:
        raise CannotGraft(
            f"{name}: opset {opset} is too old, {MIN_OPSET} or newer is needed"
            " (onnx.version_converter converts)"
        )
    return opset


def _checked_output(proto: onnx.ModelProto, name: str, wanted: str | None) -> onnx.ValueInfoProto:
    """A copy of the picture output's declaration, with its shape inferred if none is declared."""
    import onnx

    found = [value.name for value in proto.graph.output]
    if not all(isinstance(each, str) for each in found):  # protobuf hands on what it cannot read
        raise InvalidModel(f"{name}: the name of an output is not UTF-8")
    if wanted is None and len(found) != 1:
        raise CannotGraft(
            f"{name}: has {len(found)} outputs ({', '.join(found)}): name the picture"
        )
    if wanted is not None and wanted not in found:
        raise CannotGraft(f"{name}: no output is called '{wanted}', only {', '.join(found)}")
    index = found.index(wanted) if wanted is not None else 0
    value = onnx.ValueInfoProto()
    value.CopyFrom(proto.graph.output[index])
    if len(value.type.tensor_type.shape.dim) != 4:
        try:
            value.CopyFrom(onnx.shape_inference.infer_shapes(proto).graph.output[index])
        except Exception as error:  # onnx's errors share no base but Exception
            said = str(error).strip().split("\n")[0]
            raise InvalidModel(f"{name}: its shapes contradict each other: {said}") from error

    tensor = value.type.tensor_type
    shape = [d.dim_value or d.dim_param or "?" for d in tensor.shape.dim]
    if not value.type.HasField("tensor_type") or tensor.elem_type not in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    ):
        known = onnx.TensorProto.DataType.values()
        kind = tensor.elem_type
        if kind in known:
            kind = onnx.TensorProto.DataType.Name(kind).lower()
        raise CannotGraft(
            f"{name}: output '{value.name}' is {kind}, not a picture of float32 or float16"
        )
    if not shape:
        raise CannotGraft(
            f"{name}: output '{value.name}' has no known shape, [n, 3, height, width] is needed"
        )
    if len(shape) != 4 or shape[1] != 3:
        raise CannotGraft(
            f"{name}: output '{value.name}' is [{', '.join(map(str, shape))}],"
            " not a picture [n, 3, height, width]"
        )
    return value


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that the graph gives to a value or a node."""
    for group in (graph.input, graph.output, graph.initializer, graph.value_info):
        yield from (item.name for item in group)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
