"""birthmark.cuda without a card: refusals, and how arrays are read, on a faked native module.

The kernel itself runs in tests/cpp/test_cuda_kernel.cc, in an emulator. The last tests need a card.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark import Embedder, Input, Mark, Output, _core, cuda
from birthmark.errors import CudaFailed, CudaUnavailable, InvalidArray, InvalidMarkFile
from dlpack import BFLOAT, Tensor, bfloat16, widened
from test_formats import ELEMENTS as INPUT_ELEMENTS
from test_formats import OUTPUTS, planes_of, strided
from vectors.cases import draw_gains

ROOT = Path(__file__).resolve().parent.parent
Array = npt.NDArray[Any]

BUILT = importlib.util.find_spec("birthmark._cuda") is not None
MARK = Mark(_core.write_mark(bytes(16), draw_gains("strong", np.random.default_rng(5))))


def card_is_here() -> bool:
    try:
        return cuda.device_count() > 0
    except CudaUnavailable:
        return False


def one_line(message: str) -> None:
    assert 10 < len(message) < 300
    assert message.isprintable()


# --- The module --------------------------------------------------------------------------------


def test_nothing_is_loaded_until_it_is_asked_for() -> None:
    code = (
        "import sys, birthmark; birthmark.Embedder; assert 'birthmark.cuda' not in sys.modules;"
        "import birthmark.cuda; assert 'birthmark._cuda' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(card_is_here(), reason="there is a card")
def test_without_a_card_it_is_unavailable() -> None:
    for call in (lambda: cuda.CudaEmbedder(MARK), cuda.device_count):
        with pytest.raises(CudaUnavailable) as caught:
            call()
        one_line(str(caught.value))


def test_without_the_module_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "birthmark._cuda", None)
    with pytest.raises(CudaUnavailable, match="BIRTHMARK_CUDA=ON") as caught:
        cuda.CudaEmbedder(MARK)
    one_line(str(caught.value))


@pytest.mark.skipif(not BUILT, reason="built without CUDA")
def test_module_is_small_and_needs_no_driver_to_load() -> None:
    module = importlib.import_module("birthmark._cuda")
    path = Path(str(module.__file__))
    assert path.stat().st_size <= 1.5e6
    if readelf := shutil.which("readelf"):
        done = subprocess.run([readelf, "-d", path], capture_output=True, text=True, check=True)
        needed = re.findall(r"NEEDED.*\[(.*?)\]", done.stdout)
        assert needed and not [name for name in needed if "cuda" in name]


@pytest.mark.skipif(not BUILT, reason="built without CUDA")
def test_stub_lists_the_native_module_s_names() -> None:
    module = importlib.import_module("birthmark._cuda")
    stub = ast.parse((ROOT / "python" / "birthmark" / "_cuda.pyi").read_text())
    names = {n.name: n for n in stub.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert set(names) == {name for name in vars(module) if not name.startswith("_")}
    methods = {n.name for n in names["Embedder"].body if isinstance(n, ast.FunctionDef)}  # type: ignore[union-attr]
    assert methods - {"__init__"} == {n for n in vars(module.Embedder) if not n.startswith("_")}


# --- A card that is played by the host's memory ------------------------------------------------


def memory(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """An array over raw memory, by nothing but what the native module is told."""
    item = np.dtype(dtype).itemsize
    reach = [(side - 1) * step for side, step in zip(shape, strides, strict=True)]
    low = sum(min(r, 0) for r in reach)
    span = sum(max(r, 0) for r in reach) + item - low
    buffer = (ctypes.c_uint8 * span).from_address(address + low)
    return np.ndarray(shape, dtype, buffer, -low, strides)


# The core's elements and colours, in its order.
ELEMENTS = (np.uint8, np.int8, np.uint16, np.float16, "bfloat16", np.float32)
RGB, GREY, YUV = range(3)


def cells(
    plane: tuple[int, int, int], offset: int, shape: tuple[int, int], dtype: npt.DTypeLike
) -> Array:
    """One plane of a layout."""
    return memory(plane[0] + offset, shape, plane[1:], dtype)


def publish(host: Embedder, source: dict[str, Any], target: dict[str, Any], i: int) -> None:
    """Mark picture `i` of a layout: what a kernel on a card does."""
    size = (source["height"], source["width"])
    element = ELEMENTS[source["element"]]
    x = []
    for plane, scale, offset in zip(
        source["planes"], source["scale"], source["offset"], strict=True
    ):
        if plane[0] == 0:
            continue
        there = i * source["picture_stride"]
        if element == "bfloat16":
            values = widened(np.array(cells(plane, there, size, np.uint16)))
        else:
            values = cells(plane, there, size, element)
        if element in (np.uint8, np.int8):
            levels = values.astype(np.float32) - np.float32(source["zero_point"])
            values = levels * np.float32(source["quantum"])
        x.append(values.astype(np.float32) * np.float32(scale) + np.float32(offset))
    planes = [(p, s) for p, s in zip(target["planes"], target["picture_strides"], strict=True)]
    dtype = ELEMENTS[target["element"]]
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    if target["colours"] == YUV:
        shapes = [size, half, half]
        ten_bits = dtype == np.uint16
        matrix: Any = "bt709" if target["bt709"] else "bt601"
        if ten_bits:
            luma, pairs = host.embed(np.stack(x), output=Output("p010", matrix=matrix))
            parts = [luma, pairs[..., 0], pairs[..., 1]]
        else:
            full = not target["limited"]
            parts = host.embed(np.stack(x), output=Output("i420", matrix=matrix, full_range=full))
    else:
        count = 1 if target["colours"] == GREY else sum(p[0] != 0 for p, _ in planes)
        shapes = [size] * count
        kind: Any = {1: "grey", 3: "rgb", 4: "rgba"}[count]
        if dtype == np.float32:  # floats that tell the sixty-fourths, then the target's range
            unit = host.embed(np.stack(x), output=Output(kind, dtype="float32"))
            levels = np.round(unit.reshape(*size, count) * 16320).astype(np.float32)
            parts = [
                levels[..., c] * np.float32(target["scale"][c]) + np.float32(target["offset"][c])
                for c in range(count)
            ]
        else:
            found = host.embed(np.stack(x), output=Output(kind)).reshape(*size, count)
            parts = [found[..., c] for c in range(count)]
    for (plane, stride), shape, part in zip(planes, shapes, parts, strict=False):
        cells(plane, i * stride, shape, dtype)[...] = part


class FakeCuda(types.ModuleType):
    """The native module's names. Its Embedder follows the addresses that it is given, and marks
    what is there by the core with plain numpy around it."""

    def __init__(self) -> None:
        super().__init__("birthmark._cuda")
        self.cards: dict[tuple[int, int], int] = {}
        self.waits: list[tuple[int, int, int]] = []
        self.launches: list[dict[str, Any]] = []
        self.finite = True

        class NativeEmbedder:
            def __init__(own, mark: bytes) -> None:
                own.host = Embedder(Mark(mark))

            def launch(own, layout: dict[str, Any], device: int, stream: int) -> None:
                self.launches.append({**layout, "device": device, "stream": stream})
                for i in range(layout["pictures"]):
                    try:
                        publish(own.host, layout["source"], layout["target"], i)
                    except InvalidArray:
                        self.finite = False

            def finish(own, device: int, stream: int) -> bool:
                finite, self.finite = self.finite, True
                return finite

        self.Embedder = NativeEmbedder

    def device_count(self) -> int:
        return 2

    def device_of(self, address: int) -> int:
        return next((d for (a, b), d in self.cards.items() if a <= address < b), -1)

    def wait_for(self, device: int, before: int, stream: int) -> None:
        self.waits.append((device, before, stream))

    def upload(self, array: Array, device: int = 0) -> Array:
        """Says that an array's memory is a card's."""
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        start = base.__array_interface__["data"][0]
        self.cards[start, start + max(base.nbytes, 1)] = device
        return array


class ByInterface:
    """An array as numba or cupy show it."""

    def __init__(self, array: Array, **said: Any) -> None:
        plain = array.__array_interface__
        self.__cuda_array_interface__ = {
            "shape": plain["shape"],
            "typestr": plain["typestr"],
            "data": plain["data"],
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            **said,
        }
        self.array = array


class ByDlpack(Tensor):
    """An array as torch shows it."""

    def __init__(self, array: Array, code: int | None = None, device: int = 2) -> None:
        super().__init__(array, code, device)
        self.streams = list[object]()

    def __dlpack__(self, stream: int | None = None) -> object:
        self.streams.append(stream)
        return super().__dlpack__()


SHOWN: list[Callable[[Array], Any]] = [ByInterface, ByDlpack]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "birthmark._cuda", fake)
    return fake


def draw_values(element: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values of an element; bfloat16's as bits."""
    if element == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    if element == "int8":
        return rng.integers(-128, 128, shape, np.int8)
    real = (1.4 * rng.random(shape) - 0.2).astype(np.float32)
    return bfloat16(real) if element == "bfloat16" else real.astype(element)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_format_and_layout_is_read_and_written_as_it_lies(
    data: st.DataObject, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    element = data.draw(st.sampled_from(INPUT_ELEMENTS))
    count, height, width = (data.draw(st.integers(1, most)) for most in (3, 12, 12))
    channels = data.draw(st.sampled_from([1, 3, 4]))
    layout: Any = data.draw(st.sampled_from(["chw", "hwc"]))
    quantised = element == "int8" or (element == "uint8" and data.draw(st.booleans()))
    how = Input(
        layout=layout,
        order=data.draw(st.sampled_from(["rgb", "bgr"])),
        range=data.draw(st.sampled_from(["unit", "signed", "byte"])),
        quantisation=(0.0125, -3) if quantised else None,
    )
    sides = (channels, height, width) if layout == "chw" else (height, width, channels)
    shape = sides if count == 1 and data.draw(st.booleans()) else (count, *sides)
    step = st.sampled_from([-2, -1, 1, 1, 2])
    steps = data.draw(st.tuples(*[step] * len(shape)))
    x = strided(draw_values(element, shape, rng), steps)
    output = data.draw(st.sampled_from(OUTPUTS))
    given_x = Tensor(x, BFLOAT) if element == "bfloat16" else x
    expected = planes_of(Embedder(MARK).embed(given_x, input=how, output=output))
    out_steps = data.draw(st.tuples(*[step] * 4))
    targets = [strided(np.zeros_like(plane), out_steps) for plane in expected]
    untouched = [np.array(target.base) for target in targets]
    fake = FakeCuda()
    for array in (x, *targets):
        fake.upload(array)
    show = data.draw(st.sampled_from(SHOWN))
    outs = tuple(data.draw(st.sampled_from(SHOWN))(target) for target in targets)
    out = outs if len(outs) > 1 else outs[0]
    source = ByDlpack(x, code=BFLOAT) if element == "bfloat16" else show(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "birthmark._cuda", fake)
        assert cuda.CudaEmbedder(MARK).embed(source, out, input=how, output=output) is out
    for target, plane, before in zip(targets, expected, untouched, strict=True):
        assert np.array_equal(target, plane), (element, how, output)
        target[...] = 0
        assert np.array_equal(target.base, before)


@pytest.mark.parametrize("shown", SHOWN)
def test_streams_are_kept_in_order(card: FakeCuda, shown: Callable[..., Any]) -> None:
    x = card.upload(np.zeros((3, 4, 5), np.float16))
    out = card.upload(np.zeros((4, 5, 3), np.uint8))
    embedder = cuda.CudaEmbedder(MARK)
    for asked, used in [(0, 1), (1, 1), (2, 2), (4711, 4711)]:
        source, target = ByDlpack(x), ByInterface(out, stream=7)
        embedder.embed(source, target, stream=asked)
        assert source.streams == [used]
        assert card.waits.pop() == (0, 7, used) and not card.waits
        assert card.launches[-1]["stream"] == used
    embedder.embed(shown(x), ByInterface(out, stream=7), stream=7)
    assert not card.waits


def test_a_value_that_is_not_finite_is_refused_now_or_when_asked(card: FakeCuda) -> None:
    x = card.upload(np.zeros((3, 4, 5), np.float32))
    out = card.upload(np.zeros((4, 5, 3), np.uint8))
    embedder = cuda.CudaEmbedder(MARK)
    embedder.embed(ByDlpack(x), ByDlpack(out))
    x[1, 2, 3] = np.nan
    with pytest.raises(InvalidArray, match="not finite"):
        embedder.embed(ByDlpack(x), ByDlpack(out))
    embedder.embed(ByDlpack(x), ByDlpack(out), wait=False)
    with pytest.raises(InvalidArray, match="not finite"):
        embedder.check()
    embedder.check()


PLANES = np.zeros((3, 20, 30), np.float16)
PIXELS = np.zeros((20, 30, 3), np.uint8)
BAD_PICTURES: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a list": [[1.0]],
    "numpy": PLANES,
    "numpy by dlpack": ByDlpack(PLANES, device=1),
    "pinned": ByDlpack(PLANES, device=3),
    "float64": ByInterface(PLANES.astype("f8")),
    "float64 by dlpack": ByDlpack(PLANES.astype("f8")),
    "int8 of no scale": ByInterface(PIXELS.astype("i1")),
    "other byte order": ByInterface(PLANES.astype(">f2")),
    "masked": ByInterface(PLANES, mask=ByInterface(PLANES)),
    "1 axis": ByInterface(PLANES[0, 0]),
    "5 axes": ByInterface(PLANES[None, None]),
    "empty batch": ByInterface(np.zeros((0, 3, 20, 30), np.float16)),
    "no rows": ByInterface(np.zeros((3, 0, 30), np.float16)),
    "no columns": ByDlpack(np.zeros((20, 0, 3), np.uint8)),
    "5 planes": ByInterface(np.zeros((5, 20, 30), np.float16)),
    "2 channels": ByInterface(PIXELS[..., :2]),
    "uint16": ByInterface(PIXELS.astype(np.uint16)),
    "float16 pixels": ByInterface(PIXELS.astype(np.float16)),
    "odd address": ByInterface(PLANES, data=(PLANES.ctypes.data + 1, False)),
    "odd stride": ByInterface(PLANES, strides=(1201, 60, 2)),
    "no shape": types.SimpleNamespace(__cuda_array_interface__={"data": (0, False)}),
    "no dictionary": types.SimpleNamespace(__cuda_array_interface__=None),
    "huge": ByInterface(PLANES, shape=(3, 1, (1 << 20) + 1)),
}


def refuses(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArray) as caught:
        call()
    one_line(str(caught.value))


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_picture_is_refused(card: FakeCuda, name: str) -> None:
    card.upload(PLANES), card.upload(PIXELS)
    out = card.upload(np.zeros((20, 30, 3), np.uint8))
    refuses(lambda: cuda.CudaEmbedder(MARK).embed(BAD_PICTURES[name], ByInterface(out)))
    assert not card.launches


def test_good_picture_among_the_bad(card: FakeCuda) -> None:
    out = card.upload(np.zeros((20, 30, 3), np.uint8))
    for picture in (PLANES, PIXELS, PLANES[None], PIXELS[:, ::-1], PLANES[:1], PLANES[0]):
        cuda.CudaEmbedder(MARK).embed(ByInterface(card.upload(picture)), ByInterface(out))


BAD_OUTS: dict[str, Any] = {
    "nothing": None,
    "numpy": PIXELS,
    "float16": ByInterface(PIXELS.astype(np.float16)),
    "planes": ByInterface(np.zeros((3, 20, 30), np.uint8)),
    "a row too many": ByInterface(np.zeros((21, 30, 3), np.uint8)),
    "a batch of two": ByInterface(np.zeros((2, 20, 30, 3), np.uint8)),
    "read-only": ByInterface(PIXELS, data=(PIXELS.ctypes.data, True)),
    "one row for all": ByInterface(np.broadcast_to(PIXELS[:1], PIXELS.shape)),
    "rows that overlap": ByInterface(PIXELS, strides=(60, 3, 1)),
}


@pytest.mark.parametrize("name", BAD_OUTS)
def test_bad_out_is_refused(card: FakeCuda, name: str) -> None:
    card.upload(PIXELS)
    x = ByInterface(card.upload(PLANES))
    refuses(lambda: cuda.CudaEmbedder(MARK).embed(x, BAD_OUTS[name]))
    assert not card.launches


def test_out_must_be_apart_and_on_the_same_card(card: FakeCuda) -> None:
    embedder = cuda.CudaEmbedder(MARK)
    pixels = card.upload(np.zeros((40, 30, 3), np.uint8))
    refuses(lambda: embedder.embed(ByInterface(pixels), ByInterface(pixels[::-1])))
    refuses(lambda: embedder.embed(ByInterface(pixels[:30]), ByInterface(pixels[10:])))
    embedder.embed(ByInterface(pixels[:20]), ByInterface(pixels[20:]))
    other = card.upload(np.zeros((40, 30, 3), np.uint8), device=1)
    refuses(lambda: embedder.embed(ByInterface(pixels), ByInterface(other)))
    unknown = np.zeros((40, 30, 3), np.uint8)
    refuses(lambda: embedder.embed(ByInterface(pixels), ByInterface(unknown)))
    refuses(lambda: embedder.embed(ByInterface(unknown), ByInterface(pixels)))
    batch = card.upload(np.zeros((2, 40, 30, 3), np.uint8))
    shared = ByInterface(batch, shape=(2, 40, 30, 3), strides=(90, 90, 3, 1))
    refuses(lambda: embedder.embed(ByInterface(card.upload(batch.copy())), shared))


@pytest.mark.usefixtures("card")
def test_bad_marks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.mark").write_bytes(b"BMRK")
    for path in (tmp_path / "bad.mark", tmp_path / "none.mark"):
        with pytest.raises(InvalidMarkFile):
            cuda.CudaEmbedder(path)
    MARK.save(tmp_path / "good.mark")
    assert cuda.CudaEmbedder(tmp_path / "good.mark")


# --- On a card ---------------------------------------------------------------------------------


@pytest.mark.skipif(not card_is_here(), reason="needs a card")
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_a_card_publishes_the_same_bytes(output: Output, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    embedder = cuda.CudaEmbedder(MARK)
    inputs = [
        (draw_values("float16", (2, 3, 37, 67), rng), Input()),
        (draw_values("float32", (1, 4, 130, 700), rng), Input(range="signed")),
        (draw_values("uint8", (3, 300, 337, 3), rng), Input()),
        (draw_values("int8", (1, 1, 11, 9), rng), Input(quantisation=(1 / 255, -128))),
        (draw_values("float16", (1, 1080, 1920, 4), rng), Input("hwc", "bgr")),
    ]
    for x, how in inputs:
        expected = planes_of(Embedder(MARK).embed(x, input=how, output=output))
        outs = tuple(torch.from_numpy(np.zeros_like(plane)).cuda() for plane in expected)
        out = outs if len(outs) > 1 else outs[0]
        embedder.embed(torch.from_numpy(x).cuda(), out, input=how, output=output)
        for found, plane in zip(outs, expected, strict=True):
            assert np.array_equal(found.cpu().numpy(), plane)


@pytest.mark.skipif(not card_is_here(), reason="needs a card")
def test_a_card_refuses() -> None:
    torch = pytest.importorskip("torch")
    embedder = cuda.CudaEmbedder(MARK)
    bad = torch.full((3, 9, 9), float("nan"), device="cuda")
    with pytest.raises(InvalidArray):
        embedder.embed(bad, torch.empty((9, 9, 3), dtype=torch.uint8, device="cuda"))
    with pytest.raises((InvalidArray, CudaFailed)):
        embedder.embed(bad, torch.empty((9, 9, 3), dtype=torch.uint8))
