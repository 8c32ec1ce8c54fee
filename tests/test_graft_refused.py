"""Models that cannot be grafted: each is refused in one line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from birthmark.errors import CannotGraft, InvalidMarkFile, InvalidModel
from birthmark.graft import graft
from test_graft import FREE, MARK, TWO, model_of


def cast_to(kind: int, shape: list[Any] | None = FREE) -> bytes:
    return model_of([helper.make_node("Cast", ["x"], ["y"], to=kind)], outputs={"y": (kind, shape)})


def layout(perm: list[int], shape: list[Any]) -> bytes:
    node = helper.make_node("Transpose", ["x"], ["y"], perm=perm)
    return model_of([node], outputs={"y": (TensorProto.FLOAT, shape)})


def of_unknown_shape() -> bytes:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    data = model_of([node], outputs={"y": (TensorProto.FLOAT, None)})
    model = onnx.load_model_from_string(data)
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, ["k"]))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (graft(model_of(), MARK), "already grafted"),
        (model_of(opset=12), "opset 12 is too old"),
        (TWO, r"2 outputs \(y, z\)"),
        (cast_to(TensorProto.DOUBLE), "is double"),
        (cast_to(TensorProto.UINT8), "is uint8"),
        (layout([0, 2, 3, 1], ["n", "h", "w", 3]), r"is \[n, h, w, 3\]"),
        (layout([1, 0, 2, 3], [3, "n", "h", "w"]), r"is \[3, n, h, w\]"),
        (of_unknown_shape(), "no known shape"),
    ],
)
def test_what_cannot_be_grafted(data: bytes, word: str) -> None:
    with pytest.raises(CannotGraft, match=word) as refusal:
        graft(data, MARK)
    assert "\n" not in str(refusal.value)


def test_an_output_that_does_not_exist() -> None:
    with pytest.raises(CannotGraft, match="'q'"):
        graft(TWO, MARK, picture="q")


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="not an ONNX"):
        graft(b"nothing", MARK)
    with pytest.raises(InvalidModel, match=r"missing\.onnx"):
        graft(tmp_path / "missing.onnx", MARK)
    broken = model_of([helper.make_node("NoSuchOperator", ["x"], ["y"])])
    with pytest.raises(InvalidModel, match="does not load"):
        graft(broken, MARK)


def without_input() -> bytes:
    model = onnx.load_model_from_string(of_unknown_shape())
    del model.graph.node[0].input[:]
    return bytes(model.SerializeToString())


def with_functions_alike() -> bytes:
    model = onnx.load_model_from_string(of_unknown_shape())
    model.functions.add()
    model.functions.add()
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (without_input(), "shapes contradict"),
        (with_functions_alike(), "shapes contradict"),
        (model_of().replace(b"\x01y", b"\x01\xff"), "not UTF-8"),
    ],
)
def test_a_damaged_model(data: bytes, word: str) -> None:
    with pytest.raises(InvalidModel, match=word) as refusal:
        graft(data, MARK)
    assert "\n" not in str(refusal.value)


def test_an_element_that_onnx_does_not_know() -> None:
    with pytest.raises(CannotGraft, match="is 2147483647"):
        graft(cast_to(2**31 - 1), MARK)


def test_a_mark_for_another_contract(tmp_path: Path) -> None:
    data = bytearray(MARK.data)
    data[4] += 1
    path = tmp_path / "other.mark"
    path.write_bytes(data)
    with pytest.raises(InvalidMarkFile, match="version"):
        graft(model_of(), path)
