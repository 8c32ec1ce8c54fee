"""Models: what is image-to-image runs on pictures of any size, what is not is named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from birthmark.errors import InvalidArray, InvalidModel
from birthmark.models import ImageModel
from birthmark.pictures import Picture, psnr_db, read_picture

Shape = tuple[str | int, ...]

FREE: Shape = ("n", 3, "h", "w")


def model_of(
    nodes: list[onnx.NodeProto],
    weights: Sequence[tuple[str, Any]] = (),
    x: Shape = FREE,
    y: Shape = ("n", 3, "p", "q"),
    kind: int = TensorProto.FLOAT,
) -> bytes:
    inputs = [helper.make_tensor_value_info("x", kind, x)]
    outputs = [helper.make_tensor_value_info("y", kind, y)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def identity(**interface: Any) -> bytes:
    return model_of([helper.make_node("Identity", ["x"], ["y"])], **interface)


def unet_like(depth: int) -> bytes:
    """Halve and double ``depth`` times and add the input: sides must be multiples of 2^depth."""
    nodes, name = [], "x"
    for i in range(depth):
        nodes.append(
            helper.make_node("AveragePool", [name], [f"d{i}"], kernel_shape=[2, 2], strides=[2, 2])
        )
        name = f"d{i}"
    for i in range(depth):
        nodes.append(helper.make_node("Resize", [name, "", "twice"], [f"u{i}"], mode="nearest"))
        name = f"u{i}"
    nodes.append(helper.make_node("Add", ["x", name], ["sum"]))
    nodes.append(helper.make_node("Mul", ["sum", "half"], ["y"]))
    return model_of(nodes, [("twice", np.float32([1, 1, 2, 2])), ("half", np.float32(0.5))])


def enlarging(factor: int) -> bytes:
    """Repeat each pixel ``factor`` times both ways."""
    node = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return model_of([node], [("scales", np.float32([1, 1, factor, factor]))])


def noise(*shape: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_real_models(models_folder: Path, photos_folder: Path) -> None:
    photo = read_picture(photos_folder / "eval" / "ski_chelsea.jpg")[:201, :301]
    for stem, scale, multiple in (("espcn_x2", 2, 1), ("denoise_small", 1, 2)):
        path = models_folder / f"{stem}.onnx"
        model = ImageModel(path, threads=1)
        assert (model.name, model.scale, model.multiple) == (stem, scale, multiple)
        assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert model.fixed_sides == (None, None)
        output = model(photo)
        assert output.shape == (201 * scale, 301 * scale, 3) and output.dtype == np.uint8
        assert psnr_db(output[::scale, ::scale], photo) > 22
        assert (output == ImageModel(path.read_bytes(), threads=1)(photo)).all()


@given(st.integers(1, 40), st.integers(1, 40))
def test_identity_is_exact_on_every_size(height: int, width: int) -> None:
    picture = noise(height, width, 3)
    output = ImageModel(identity())(picture)
    assert (output == picture).all() and output.flags.c_contiguous


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 5])
def test_sides_are_padded_to_the_model_s_multiple(depth: int) -> None:
    model = ImageModel(unet_like(depth), threads=1)
    assert model.multiple == 2**depth and model.scale == 1
    flat = np.full((13, 21, 3), 77, np.uint8)
    assert (model(flat) == flat).all()
    x = np.random.default_rng(0).random((1, 3, 3 * 2**depth, 2**depth), np.float32)
    cut = x[:, :, :-1] if depth else x
    padded_by_hand = np.concatenate([cut, cut[:, :, -1:]], axis=2) if depth else x
    assert np.array_equal(model.run(cut), model.run(padded_by_hand)[:, :, : cut.shape[2]])


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_scale_is_found(factor: int) -> None:
    model = ImageModel(enlarging(factor), threads=1)
    assert (model.scale, model.multiple) == (factor, 1)
    picture = noise(7, 5, 3)
    assert (model(picture) == picture.repeat(factor, axis=0).repeat(factor, axis=1)).all()


def test_run_takes_batches_also_where_the_model_does_not() -> None:
    x = np.random.default_rng(0).random((3, 3, 6, 4), np.float32)
    assert (ImageModel(identity(x=(1, 3, "h", "w"), y=(1, 3, "h", "w"))).run(x) == x).all()


def test_pixels_are_clipped_and_rounded_to_the_nearest() -> None:
    def shifted(by: float) -> ImageModel:
        nodes = [helper.make_node("Add", ["x", "b"], ["y"])]
        return ImageModel(model_of(nodes, [("b", np.float32(by / 255))]))

    picture = noise(16, 16, 3)
    for by, steps in ((0.4, 0), (0.6, 1), (-0.4, 0), (-0.6, -1), (300, 300), (-300, -300)):
        expected = np.clip(picture.astype(int) + steps, 0, 255)
        assert (shifted(by)(picture) == expected).all()


def test_fixed_size() -> None:
    model = ImageModel(identity(x=(1, 3, 30, 50), y=(1, 3, 30, 50)), name="fixed")
    assert model.fixed_sides == (30, 50)
    picture = noise(30, 50, 3)
    assert (model(picture) == picture).all()
    with pytest.raises(InvalidModel, match="fixed: height is fixed to 30 px, not 31 px"):
        model(noise(31, 50, 3))
    with pytest.raises(InvalidModel, match="fixed: width is fixed to 50 px, not 49 px"):
        model(noise(30, 49, 3))


def identity_of(shape: Shape) -> bytes:
    return identity(x=shape, y=shape)


POOL = helper.make_node("GlobalAveragePool", ["x"], ["y"])
FLATTEN = helper.make_node("Flatten", ["x"], ["y"])
HALVE = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
LOG = helper.make_node("Log", ["x"], ["y"])
FIXED_RESIZE = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")
TO_GREY = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an ONNX file"),
        (b"hello, world", "not an ONNX file"),
        (np.random.default_rng(0).bytes(1000), "not an ONNX file"),
        (model_of([POOL]), "not image-to-image"),
        (model_of([HALVE]), "not image-to-image"),
        (model_of([FLATTEN], y=("n", "k")), r"output is \[1, "),
        (model_of([TO_GREY], y=("n", 1, "h", "w")), r"output is \[1, 1, "),
        (
            model_of([FIXED_RESIZE], [("sizes", np.int64([1, 3, 64, 64]))]),
            "not image-to-image|does not follow",
        ),
        (identity_of(("n", 1, "h", "w")), "not \\[n, 3, height, width\\]"),
        (identity_of((1, 64, 64, 3)), "not \\[n, 3, height, width\\]"),
        (identity_of(("n", "k")), "2 axes"),
        (identity_of((4, 3, "h", "w")), "batches of 4"),
        (identity(kind=TensorProto.UINT8), "uint8"),
        (identity(kind=TensorProto.FLOAT16), "float16"),
        (model_of([helper.make_node("Nonsense", ["x"], ["y"])]), "does not load"),
    ],
)
def test_what_is_no_image_model_is_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidModel, match=reason) as caught:
        ImageModel(data, name="suspect")
    assert str(caught.value).startswith("suspect: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_two_inputs_are_refused() -> None:
    model = onnx.load_model_from_string(identity())
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    with pytest.raises(InvalidModel, match="2 inputs and 1 outputs"):
        ImageModel(model.SerializeToString())


def test_missing_or_truncated_file(models_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"no\.onnx: No such file"):
        ImageModel(tmp_path / "no.onnx")
    whole = (models_folder / "espcn_x2.onnx").read_bytes()
    for kept in (1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.onnx").write_bytes(whole[:kept])
        with pytest.raises(InvalidModel, match="cut: "):
            ImageModel(tmp_path / "cut.onnx")


@settings(max_examples=40)
@given(data=st.data())
def test_changed_bytes_never_crash(data: st.DataObject) -> None:
    whole = bytearray(unet_like(1))
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        ImageModel(bytes(whole), threads=1)
    except InvalidModel as error:
        assert "\n" not in str(error)


def test_weights_in_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the claim's hash would not cover them, and they would be read from anywhere."""
    monkeypatch.chdir(tmp_path)
    model = onnx.load_model_from_string(enlarging(2))
    onnx.save_model(model, "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InvalidModel, match="external files"):
        ImageModel("m.onnx")


def test_output_that_is_not_finite() -> None:
    model = ImageModel(model_of([LOG]), name="log")
    with pytest.raises(InvalidModel, match="log: the output holds NaN or Inf"):
        model(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3, 4, 4)),
        np.zeros((3, 4, 4), np.float32),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((0, 3, 4, 4), np.float32),
        np.full((1, 3, 4, 4), np.nan, np.float32),
        np.full((1, 3, 4, 4), np.inf, np.float32),
        [0.0],
    ],
    ids=["float64", "rank", "layout", "empty", "nan", "inf", "list"],
)
def test_bad_input(x: npt.NDArray[Any]) -> None:
    with pytest.raises(InvalidArray):
        ImageModel(identity()).run(x)


def test_bad_picture() -> None:
    with pytest.raises(InvalidArray, match="uint8"):
        ImageModel(identity())(np.zeros((4, 4, 3), np.float32))


def test_input_is_not_changed_and_need_not_be_contiguous() -> None:
    picture = noise(12, 16, 3)
    picture.flags.writeable = False
    view = picture[::-1, ::2]
    assert (ImageModel(identity())(view) == view).all()
