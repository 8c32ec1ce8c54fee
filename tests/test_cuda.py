"""birthmark.cuda without a card: refusals, and how arrays are read, on a faked native module.

The kernel itself runs in tests/cpp/test_cuda_kernel.cc, in an emulator. The last tests need a card.
"""

from __future__ import annotations

import ast
import ctypes
import enum
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

from birthmark import Embedder, Mark, _core, cuda
from birthmark.errors import CudaFailed, CudaUnavailable, InvalidArray, InvalidMarkFile
from vectors.cases import draw_gains, draw_picture

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
    assert set(module.Format.__members__) == set(FakeFormat.__members__)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_compiles_for_every_card_without_spilling(tmp_path: Path) -> None:
    """Every architecture that this nvcc knows, and the limits that the kernel was planned for."""
    known = subprocess.run(
        ["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = [name.removeprefix("compute_") for name in known if int(name[8:]) >= 75]
    assert "75" in wanted and "120" in wanted
    command = ["nvcc", "-std=c++20", "-O3", "-Xptxas=-v", "-I", ROOT / "cpp", "-c"]
    command.append(ROOT / "cpp" / "cuda" / "launch.cu")
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in wanted]
    done = subprocess.run(
        [*command, *codes, "-o", tmp_path / "launch.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    kernels = len(FakeFormat) * len(wanted)
    assert len(re.findall(r"Compiling entry function .*EmbedKernel", report)) == kernels
    assert set(re.findall(r"(\d+) bytes spill", report)) == {"0"}
    used = re.findall(r"Used (\d+) registers.*?(\d+) bytes smem", report)
    assert len(used) == kernels
    assert max(int(registers) for registers, _ in used) <= 168  # four blocks of 96 threads fit
    assert max(int(shared) for _, shared in used) <= 48 << 10


# --- A card that is played by the host's memory ------------------------------------------------


class FakeFormat(enum.Enum):
    PLANAR_FLOAT = 0
    PLANAR_HALF = 1
    RGB8 = 2


def memory(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Array:
    """An array over raw memory, by nothing but what the native module is told."""
    item = np.dtype(dtype).itemsize
    reach = [(side - 1) * step for side, step in zip(shape, strides, strict=True)]
    low = sum(min(r, 0) for r in reach)
    span = sum(max(r, 0) for r in reach) + item - low
    buffer = (ctypes.c_uint8 * span).from_address(address + low)
    return np.ndarray(shape, dtype, buffer, -low, strides)


class FakeCuda(types.ModuleType):
    """The native module's names. Its Embedder follows the addresses that it is given."""

    Format = FakeFormat

    def __init__(self) -> None:
        super().__init__("birthmark._cuda")
        self.cards: dict[tuple[int, int], int] = {}
        self.waits: list[tuple[int, int, int]] = []
        self.launches: list[dict[str, Any]] = []
        self.finite = True

        class NativeEmbedder:
            def __init__(own, mark: bytes) -> None:
                own.host = Embedder(Mark(mark))

            def launch(own, **job: Any) -> None:
                self.launches.append(job)
                height, width, count = job["height"], job["width"], job["pictures"]
                for i in range(count):
                    starts = [plane + i * job["picture_stride"] for plane in job["planes"]]
                    if job["format"] is FakeFormat.RGB8:
                        strides = (job["row_stride"], 3, 1)
                        x = memory(starts[0], (height, width, 3), strides, np.uint8)
                    else:
                        half = job["format"] is FakeFormat.PLANAR_HALF
                        dtype, item = (np.float16, 2) if half else (np.float32, 4)
                        strides = (job["row_stride"], item)
                        planes = [memory(s, (height, width), strides, dtype) for s in starts]
                        x = np.stack(planes).astype(np.float32)
                    out = memory(
                        job["out"] + i * job["out_picture_stride"],
                        (height, width, 3),
                        (job["out_row_stride"], 3, 1),
                        np.uint8,
                    )
                    try:
                        out[...] = own.host.embed(x)
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


class ByDlpack:
    """An array as torch shows it."""

    def __init__(self, array: Array, kind: int = 2) -> None:
        self.array, self.kind, self.streams = array, kind, list[object]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


SHOWN: list[Callable[[Array], Any]] = [ByInterface, ByDlpack]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "birthmark._cuda", fake)
    return fake


def as_float32(picture: Array) -> Array:
    return picture if picture.dtype == np.uint8 else picture.astype(np.float32)


def draw_batch(dtype: str, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    count, height, width = shape
    pictures = [draw_picture("noise", height, width, rng, dtype == "uint8") for _ in range(count)]
    return np.stack(pictures).astype(dtype)


@given(
    dtype=st.sampled_from(["float32", "float16", "uint8"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    upwards=st.booleans(),
    as_one=st.booleans(),
    shown=st.tuples(st.sampled_from(SHOWN), st.sampled_from(SHOWN)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_layout_is_read_and_written_as_it_lies(
    dtype: str,
    shape: tuple[int, int, int],
    pads: tuple[int, int, int, int],
    upwards: bool,
    as_one: bool,
    shown: tuple[Callable[[Array], Any], Callable[[Array], Any]],
    seed: int,
) -> None:
    fake = FakeCuda()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "birthmark._cuda", fake)
        count, height, width = shape
        batch = draw_batch(dtype, shape, np.random.default_rng(seed))
        planar = dtype != "uint8"
        row_axis, column_axis = (2, 3) if planar else (1, 2)
        holder_shape = list(batch.shape)
        holder_shape[row_axis] += pads[0]
        holder_shape[column_axis] += pads[1]
        x = np.zeros(holder_shape, dtype)
        x = x[:, :, :height, :width] if planar else x[:, :height, :width]
        x[...] = batch
        holder = np.full((count, height + pads[2], width + pads[3], 3), 77, np.uint8)
        out = holder[:, :height, :width]
        if upwards:
            x = x[:, :, ::-1] if planar else x[:, ::-1]
        fake.upload(x), fake.upload(out)
        expected = np.stack([Embedder(MARK).embed(as_float32(p)) for p in x])
        rest = holder.copy()
        rest[:, :height, :width] = expected
        if count == 1 and as_one:
            x, out = x[0], out[0]
        target = shown[1](out)
        assert cuda.CudaEmbedder(MARK).embed(shown[0](x), target) is target
        assert np.array_equal(holder, rest)


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
    "numpy by dlpack": ByDlpack(PLANES, kind=1),
    "pinned": ByDlpack(PLANES, kind=3),
    "float64": ByInterface(PLANES.astype("f8")),
    "float64 by dlpack": ByDlpack(PLANES.astype("f8")),
    "int8": ByInterface(PIXELS.astype("i1")),
    "other byte order": ByInterface(PLANES.astype(">f2")),
    "masked": ByInterface(PLANES, mask=ByInterface(PLANES)),
    "2 axes": ByInterface(PLANES[0]),
    "5 axes": ByInterface(PLANES[None, None]),
    "empty batch": ByInterface(np.zeros((0, 3, 20, 30), np.float16)),
    "no rows": ByInterface(np.zeros((3, 0, 30), np.float16)),
    "no columns": ByDlpack(np.zeros((20, 0, 3), np.uint8)),
    "4 planes": ByInterface(np.zeros((4, 20, 30), np.float16)),
    "1 channel": ByInterface(PIXELS[..., :1]),
    "float16 pixels": ByInterface(PIXELS.astype(np.float16)),
    "every second column": ByInterface(PLANES[:, :, ::2]),
    "mirrored": ByInterface(PIXELS[:, ::-1]),
    "BGR view": ByInterface(PIXELS[..., ::-1]),
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
    for picture in (PLANES, PIXELS, PLANES[None]):
        cuda.CudaEmbedder(MARK).embed(ByInterface(card.upload(picture)), ByInterface(out))


BAD_OUTS: dict[str, Any] = {
    "nothing": None,
    "numpy": PIXELS,
    "float16": ByInterface(PIXELS.astype(np.float16)),
    "planes": ByInterface(np.zeros((3, 20, 30), np.uint8)),
    "a row too many": ByInterface(np.zeros((21, 30, 3), np.uint8)),
    "a batch of two": ByInterface(np.zeros((2, 20, 30, 3), np.uint8)),
    "read-only": ByInterface(PIXELS, data=(PIXELS.ctypes.data, True)),
    "mirrored": ByInterface(PIXELS[:, ::-1]),
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


def test_bad_marks_are_refused(card: FakeCuda, tmp_path: Path) -> None:
    (tmp_path / "bad.mark").write_bytes(b"BMRK")
    for path in (tmp_path / "bad.mark", tmp_path / "none.mark"):
        with pytest.raises(InvalidMarkFile):
            cuda.CudaEmbedder(path)
    MARK.save(tmp_path / "good.mark")
    assert cuda.CudaEmbedder(tmp_path / "good.mark")


# --- On a card ---------------------------------------------------------------------------------


@pytest.mark.skipif(not card_is_here(), reason="needs a card")
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_card_publishes_the_same_bytes(dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    embedder = cuda.CudaEmbedder(MARK)
    for shape in [(1, 1, 1), (2, 37, 67), (1, 130, 700), (3, 300, 337), (1, 1080, 1920)]:
        batch = draw_batch(dtype, shape, rng)
        expected = np.stack([Embedder(MARK).embed(as_float32(p)) for p in batch])
        out = torch.empty(expected.shape, dtype=torch.uint8, device="cuda")
        embedder.embed(torch.from_numpy(batch).cuda(), out)
        assert np.array_equal(out.cpu().numpy(), expected)
    bad = torch.full((3, 9, 9), float("nan"), device="cuda")
    with pytest.raises(InvalidArray):
        embedder.embed(bad, torch.empty((9, 9, 3), dtype=torch.uint8, device="cuda"))
    with pytest.raises((InvalidArray, CudaFailed)):
        embedder.embed(bad, torch.empty((9, 9, 3), dtype=torch.uint8))
