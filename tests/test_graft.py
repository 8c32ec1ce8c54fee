"""Grafted models: the published bytes of the contract, with and without the native operator."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import reference
from birthmark import _core
from birthmark import graft as grafting
from birthmark.embed import Embedder
from birthmark.errors import (
    InvalidFormat,
    MissingLibrary,
)
from birthmark.formats import Input, Range
from birthmark.graft import graft, library_path
from birthmark.mark import Mark
from birthmark.models import ImageModel, as_planes
from conftest import half_size
from vectors.cases import GAIN_KINDS, KINDS, draw_gains, draw_picture

HAVE_LIBRARY = (Path(grafting.__file__).parent / "libbirthmark_ort.so").is_file()
RUNNERS = [
    "body",
    pytest.param(
        "library",
        marks=pytest.mark.skipif(not HAVE_LIBRARY, reason="built without onnxruntime's headers"),
    ),
]
Planes = npt.NDArray[np.float32]


def mark_from(gains: npt.NDArray[np.int16]) -> Mark:
    return Mark(_core.write_mark(bytes(range(16)), gains))


GAINS = draw_gains("strong", np.random.default_rng(7))
MARK = mark_from(GAINS)
FREE = ["n", 3, "h", "w"]


def model_of(
    nodes: list[onnx.NodeProto] | None = None,
    *,
    outputs: dict[str, tuple[int, list[Any] | None]] | None = None,
    opset: int = 17,
) -> bytes:
    """A model with the input x, float32 [n, 3, h, w]; by default its output y is x."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, FREE)],
        [
            helper.make_tensor_value_info(name, *kind)
            for name, kind in (outputs or {"y": (TensorProto.FLOAT, FREE)}).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    return bytes(model.SerializeToString())


def open_model(data: bytes, runner: str = "body") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if runner == "library":
        options.register_custom_ops_library(library_path())
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@functools.cache
def marking_session(runner: str) -> onnxruntime.InferenceSession:
    """A model that does nothing but put MARK on its input."""
    return open_model(graft(model_of(), MARK), runner)


def run(session: onnxruntime.InferenceSession, x: Planes) -> list[Any]:
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    return list(session.run(None, {session.get_inputs()[0].name: x}, options))


def expected(x: Planes, gains: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    return np.stack([reference.published(picture, gains) for picture in x])


@pytest.mark.parametrize("runner", RUNNERS)
@hypothesis.settings(max_examples=60)  # each opens a session of its own
@hypothesis.given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(KINDS),
    gain_kind=st.sampled_from(GAIN_KINDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_and_mark_gives_the_contract_s_bytes(
    runner: str, height: int, width: int, kind: str, gain_kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gains = draw_gains(gain_kind, rng)
    x = np.stack([draw_picture(kind, height, width, rng) for _ in range(2)])
    (published,) = run(open_model(graft(model_of(), mark_from(gains)), runner), x)
    np.testing.assert_array_equal(published, expected(x, gains), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
@hypothesis.given(
    x=hnp.arrays(
        np.float32,
        st.tuples(st.just(1), st.just(3), st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
)
def test_any_finite_float_gives_the_contract_s_bytes(runner: str, x: Planes) -> None:
    (published,) = run(marking_session(runner), x)
    np.testing.assert_array_equal(published, expected(x, GAINS), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", ["espcn_x2.onnx", "denoise_small.onnx"])
def test_a_real_model_publishes_what_the_embedder_publishes(
    name: str,
    runner: str,
    models_folder: Path,
    eval_photos: list[npt.NDArray[np.uint8]],
) -> None:
    session = open_model(graft(models_folder / name, MARK), runner)
    model = ImageModel(models_folder / name, threads=1)
    embedder = Embedder(MARK)
    for photo in half_size(eval_photos)[:3]:
        height, width = (side // 2 * 2 for side in photo.shape[:2])
        photo = np.ascontiguousarray(photo[:height, :width])
        (published,) = run(session, as_planes(photo))
        np.testing.assert_array_equal(published[0], embedder.embed(model.output(photo)))
        assert (published[0] != model(photo)).mean() > 0.1, "no mark is in it"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kind", ["a batch", "a high picture"])
def test_several_threads(runner: str, kind: str, eval_photos: list[npt.NDArray[np.uint8]]) -> None:
    if kind == "a batch":
        x = np.concatenate([as_planes(p[:150, :201]) for p in eval_photos])
    else:
        x = as_planes(np.concatenate([p[:200, :90] for p in eval_photos[:4]]))
    data = graft(model_of(), MARK)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    if runner == "library":
        options.register_custom_ops_library(library_path())
    session = onnxruntime.InferenceSession(data, options)
    np.testing.assert_array_equal(run(session, x)[0], expected(x, GAINS), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
def test_one_session_in_several_threads(
    runner: str, eval_photos: list[npt.NDArray[np.uint8]]
) -> None:
    session = marking_session(runner)
    pictures = [as_planes(p[:60, :80]) for p in eval_photos]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            if not np.array_equal(run(session, pictures[i])[0], truth[i]):
                wrong.append(i)

    truth = [expected(x, GAINS) for x in pictures]
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16"])
def test_a_half_precision_output_is_widened(
    dtype: str, runner: str, eval_photos: list[npt.NDArray[np.uint8]]
) -> None:
    kind = getattr(TensorProto, dtype)
    data = model_of([helper.make_node("Cast", ["x"], ["y"], to=kind)], outputs={"y": (kind, FREE)})
    x = as_planes(eval_photos[0][:90, :77])
    if dtype == "FLOAT16":
        narrow = x.astype(np.float16).astype(np.float32)
    else:
        narrow = x.astype(onnx.helper.tensor_dtype_to_np_dtype(kind)).astype(np.float32)
    (published,) = run(open_model(graft(data, MARK), runner), x)
    np.testing.assert_array_equal(published, expected(narrow, GAINS), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_model_of_float16(
    runner: str, models_folder: Path, eval_photos: list[npt.NDArray[np.uint8]]
) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(models_folder / "espcn_x2.onnx"))
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    data = half.SerializeToString()
    x = as_planes(half_size(eval_photos)[2][:64, :96]).astype(np.float16)
    (plain,) = run(open_model(data), x)
    (published,) = run(open_model(graft(data, MARK), runner), x)
    assert plain.dtype == np.float16
    np.testing.assert_array_equal(published[0], Embedder(MARK).embed(plain))


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_quantised_model(
    runner: str,
    tmp_path: Path,
    models_folder: Path,
    eval_photos: list[npt.NDArray[np.uint8]],
) -> None:
    from onnxruntime import quantization

    photos = [as_planes(p[:64, :96]) for p in half_size(eval_photos)]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(photos[:3])

        def get_next(self) -> dict[str, Planes] | None:
            x = next(self.left, None)
            return None if x is None else {"input": x}

    quantised = tmp_path / "int8.onnx"
    quantization.quantize_static(models_folder / "espcn_x2.onnx", quantised, Reader())
    assert any(n.op_type == "DequantizeLinear" for n in onnx.load(quantised).graph.node)
    (plain,) = run(open_model(quantised.read_bytes()), photos[4])
    (published,) = run(open_model(graft(quantised, MARK), runner), photos[4])
    np.testing.assert_array_equal(published[0], Embedder(MARK).embed(plain))


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("name", "scale", "offset"), [("signed", 2, -1), ("byte", 255, 0)])
def test_other_ranges(
    name: Range,
    scale: float,
    offset: float,
    runner: str,
    eval_photos: list[npt.NDArray[np.uint8]],
) -> None:
    unit = as_planes(eval_photos[1][:70, :83])
    x = np.asarray(unit * np.float32(scale) + np.float32(offset), np.float32)
    (published,) = run(open_model(graft(model_of(), MARK, range=name), runner), x)
    truth = Embedder(MARK).embed(x, input=Input(range=name))
    np.testing.assert_array_equal(published[0], truth)
    assert np.abs(truth.astype(int) - eval_photos[1][:70, :83]).max() <= 3


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("keep", [False, True])
def test_the_range_is_not_merged_into_a_convolution(keep: bool, runner: str) -> None:
    """onnxruntime multiplies a convolution's weights by what follows, and that rounds otherwise.

    Without a mark in the way, values around the ties between two grey levels show it.
    """
    weights = np.float32([100, 170, 233])
    kernel = onnx.numpy_helper.from_array(np.diag(weights).reshape(3, 3, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=kernel),
        helper.make_node("Conv", ["x", "k"], ["y"]),
    ]
    ties = (64 * np.arange(255) + 31.5) / 16320 * 255
    x = np.float32(ties / weights[:, None, None]) * np.float32(1 + 6e-8 * np.mgrid[-3:4, :1][0])
    x = np.asarray(x[np.newaxis], np.float32)
    zero = mark_from(draw_gains("zero", np.random.default_rng()))
    (plain,) = run(open_model(model_of(nodes)), x)
    data = graft(model_of(nodes), zero, range="byte", keep=keep)
    published = run(open_model(data, runner), x)[0]
    truth = Embedder(None).embed(plain, input=Input(range="byte"))
    np.testing.assert_array_equal(published[0], truth)


def test_a_range_that_does_not_exist() -> None:
    with pytest.raises(InvalidFormat, match="unit, signed, byte"):
        graft(model_of(), MARK, range="hdr")  # type: ignore[arg-type]


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("opset", [13, 15, 18, 21])
def test_every_opset(opset: int, runner: str, rng: np.random.Generator) -> None:
    x = rng.random((1, 3, 23, 30), np.float32)
    (published,) = run(open_model(graft(model_of(opset=opset), MARK), runner), x)
    np.testing.assert_array_equal(published, expected(x, GAINS), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
def test_without_graph_optimisation(runner: str, rng: np.random.Generator) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if runner == "library":
        options.register_custom_ops_library(library_path())
    session = onnxruntime.InferenceSession(graft(model_of(), MARK), options)
    x = rng.random((1, 3, 23, 30), np.float32)
    np.testing.assert_array_equal(run(session, x)[0], expected(x, GAINS), strict=True)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails_the_run(runner: str, value: float) -> None:
    word = "not finite" if runner == "library" else "Gather"
    x = np.zeros((2, 3, 8, 9), np.float32)
    session = marking_session(runner)
    run(session, x)
    x[1, 2, 7, 8] = value
    with pytest.raises(Exception, match=word):
        run(session, x)


def test_the_interface_says_what_it_gives(models_folder: Path) -> None:
    plain = open_model((models_folder / "espcn_x2.onnx").read_bytes())
    session = open_model(graft(models_folder / "espcn_x2.onnx", MARK))
    (before,), (after,) = plain.get_outputs(), session.get_outputs()
    assert (after.name, after.type) == (f"{before.name}_marked", "tensor(uint8)")
    assert after.shape == [before.shape[0], *before.shape[2:], 3]
    assert [i.shape for i in session.get_inputs()] == [i.shape for i in plain.get_inputs()]


def test_sizes_may_be_fixed() -> None:
    data = model_of(outputs={"y": (TensorProto.FLOAT, [1, 3, 5, 7])})
    (after,) = open_model(graft(data, MARK)).get_outputs()
    assert after.shape == [1, 5, 7, 3]


def test_a_shape_that_is_not_declared_is_inferred() -> None:
    graph = onnx.load_model_from_string(model_of())
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    (after,) = open_model(graft(graph.SerializeToString(), MARK)).get_outputs()
    assert after.shape == ["n", "h", "w", 3]


def test_taken_names_are_left_alone(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["y_marked"], "birthmark"),
        helper.make_node("Neg", ["y_marked"], ["y"]),
    ]
    x = rng.random((1, 3, 4, 5), np.float32)
    session = open_model(graft(model_of(nodes), MARK))
    assert session.get_outputs()[0].name == "y_marked_"
    np.testing.assert_array_equal(run(session, x)[0], expected(x, GAINS))


def test_nodes_of_the_body_have_names_of_their_own() -> None:
    # onnxruntime 1.18 to 1.21 refuse the model otherwise: they name what they fuse after the node.
    (body,) = onnx.load_model_from_string(graft(model_of(), MARK)).functions
    names = [node.name for node in body.node]
    assert all(names)
    assert len(set(names)) == len(names)


TWO = model_of(
    [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
    outputs={"y": (TensorProto.FLOAT, FREE), "z": (TensorProto.FLOAT, FREE)},
)


def test_one_of_two_outputs(rng: np.random.Generator) -> None:
    x = rng.random((1, 3, 9, 5), np.float32)
    session = open_model(graft(TWO, MARK, picture="z"))
    assert [o.name for o in session.get_outputs()] == ["y", "z_marked"]
    y, z = run(session, x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(z, expected(-x, GAINS))


def test_the_unmarked_output_may_be_kept(rng: np.random.Generator) -> None:
    x = rng.random((1, 3, 9, 5), np.float32)
    session = open_model(graft(model_of(), MARK, keep=True))
    assert [o.name for o in session.get_outputs()] == ["y_marked", "y"]
    marked, plain = run(session, x)
    np.testing.assert_array_equal(plain, x)
    np.testing.assert_array_equal(marked, expected(x, GAINS))


@pytest.mark.skipif(not HAVE_LIBRARY, reason="built without onnxruntime's headers")
def test_the_library_refuses_a_damaged_mark() -> None:
    data = graft(model_of(), MARK)
    at = data.index(MARK.data) + 100
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(Exception, match=r"ai\.birthmark::Embed: .*damaged"):
        open_model(damaged, "library")


@pytest.mark.skipif(not HAVE_LIBRARY, reason="built without onnxruntime's headers")
def test_the_library_refuses_what_is_no_picture() -> None:
    """A graph whose declared shape promises less than the operator needs."""
    model = onnx.load_model_from_string(graft(model_of(), MARK))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    session = open_model(model.SerializeToString(), "library")
    for shape in ((1, 4, 8, 8), (3, 8, 8), (1, 3, 0, 8)):
        with pytest.raises(Exception, match=r"ai\.birthmark::Embed: "):
            run(session, np.zeros(shape, np.float32))


@pytest.mark.skipif(not HAVE_LIBRARY, reason="built without onnxruntime's headers")
def test_sessions_come_and_go(rng: np.random.Generator) -> None:
    """The library is unloaded with its last session, and loads again."""
    x = rng.random((1, 3, 9, 5), np.float32)
    data = graft(model_of(), MARK)
    for _ in range(3):
        sessions = [open_model(data, "library") for _ in range(2)]
        del sessions[0]
        np.testing.assert_array_equal(run(sessions[0], x)[0], expected(x, GAINS))
        del sessions


def test_a_build_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafting, "_LIBRARY", "libnone.so")
    with pytest.raises(MissingLibrary, match="BIRTHMARK_ORT"):
        library_path()


def test_a_grafted_model_needs_nothing_of_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.random((1, 3, 20, 31), np.float32)
    (tmp_path / "m.onnx").write_bytes(graft(model_of(), MARK))
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession('m.onnx')\n"
        "numpy.save('out.npy', s.run(None, {'x': numpy.load('x.npy')})[0])\n"
        "assert not any('birthmark' in name for name in sys.modules)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(x, GAINS))
