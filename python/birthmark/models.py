"""An image-to-image ONNX model, run by onnxruntime on the CPU: the owner's model or a suspect."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidArray, InvalidModel
from birthmark.files import StrPath
from birthmark.pictures import Picture, check_picture

if TYPE_CHECKING:
    import onnx

Tensor = npt.NDArray[np.float32]

_PROBED_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_SMALLEST_PROBE_PX = 32


class ImageModel:
    """A model from pictures to pictures: float32 [n, 3, h, w] -> float32 [n, 3, h s, w s], 0..1.

    The file is read once, so that :attr:`sha256` is the hash of exactly what runs. Construction
    runs the model on a few small pictures of noise to find its scale s (a whole number >= 1) and
    the multiple that its sides must be of (1, 2, 4 .. 64).

    Args:
        model: path of an ONNX file, or its bytes.
        threads: threads within one operator; 0 leaves the choice to onnxruntime.
        name: how messages and reports call it; by default the file's stem.
        limit_s: how many seconds one picture may take; by default, as many as it likes.

    Raises:
        InvalidModel: not ONNX, weights in external files (their hash would not be covered), not
            one float32 picture in and one out, or it runs at none of the probed sizes.
    """

    def __init__(
        self,
        model: StrPath | bytes,
        *,
        threads: int = 0,
        name: str | None = None,
        limit_s: float | None = None,
    ) -> None:
        data, stem = read_model(model)
        self.name: str = name or stem
        self._limit_s = limit_s
        self.sha256: str = hashlib.sha256(data).hexdigest()
        parse_model(data, self.name)
        self._session = open_session(data, self.name, threads)
        self._input_name, fixed_height, fixed_width = _check_interface(self._session, self.name)
        self.fixed_sides: tuple[int | None, int | None] = (fixed_height, fixed_width)
        """Height and width in pixels that the input is fixed to; None where it is free."""
        self.scale, self.multiple = self._probe()

    def __repr__(self) -> str:
        """Name, scale and the beginning of the hash."""
        return f"ImageModel({self.name!r}, scale={self.scale}, sha256={self.sha256[:12]}...)"

    def run(self, x: Tensor) -> Tensor:
        """Run over float32 [n, 3, h, w], one picture at a time -> float32 [n, 3, h s, w s].

        Sides that are not of the model's multiple are padded below and right by repeating the
        edge, and the output is cropped. Values are passed on and returned as they are: [0, 1] is
        what image models expect, and outputs may exceed it a little.

        Raises:
            InvalidArray: wrong dtype or shape, zero size, NaN or Inf.
            InvalidModel: the size is not the model's fixed one or is refused by the model, it takes
                too long, or the output is not finite.
            MemoryError: too little memory.
        """
        _check_tensor(x)
        count, _, height, width = x.shape
        pad_below = self._padding("height", self.fixed_sides[0], height)
        pad_right = self._padding("width", self.fixed_sides[1], width)
        y = np.empty((count, 3, height * self.scale, width * self.scale), np.float32)
        for i in range(count):
            padded = np.pad(x[i : i + 1], ((0, 0), (0, 0), (0, pad_below), (0, pad_right)), "edge")
            output = self._run_one(padded)
            if output.shape[2:] != (padded.shape[2] * self.scale, padded.shape[3] * self.scale):
                raise InvalidModel(
                    f"{self.name}: {width} x {height} px in gave"
                    f" {output.shape[3]} x {output.shape[2]} px out, not x{self.scale}"
                )
            y[i] = output[0, :, : y.shape[2], : y.shape[3]]
        if not np.isfinite(y).all():
            raise InvalidModel(f"{self.name}: the output holds NaN or Inf")
        return y

    def output(self, picture: Picture) -> Tensor:
        """Run over a uint8 RGB picture divided by 255 -> float32 [3, h s, w s], as it comes.

        Raises:
            InvalidArray: not a uint8 picture [h, w, 3].
            InvalidModel: as :meth:`run`.
        """
        check_picture(picture)
        y: Tensor = self.run(as_planes(picture))[0]
        return y

    def __call__(self, picture: Picture) -> Picture:
        """:meth:`output` clipped to [0, 1] and rounded half up: uint8 [h s, w s, 3]."""
        y = np.clip(self.output(picture), 0, 1) * np.float32(255) + np.float32(0.5)
        return np.ascontiguousarray(y.astype(np.uint8).transpose(1, 2, 0))

    def _padding(self, side: str, fixed_px: int | None, given_px: int) -> int:
        if fixed_px is None:
            return -given_px % self.multiple
        if given_px != fixed_px:
            raise InvalidModel(f"{self.name}: {side} is fixed to {fixed_px} px, not {given_px} px")
        return 0

    def _run_one(self, x: Tensor) -> Tensor:
        """Run as it is over [1, 3, h, w] and check the output's type and rank, not its size."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        try:
            with _ended_after(self._limit_s, options):
                (output,) = self._session.run(None, {self._input_name: x}, options)
        except Exception as error:  # onnxruntime's errors share no base but Exception
            if options.terminate:
                raise InvalidModel(
                    f"{self.name}: takes more than {self._limit_s:g} s"
                    f" for {x.shape[3]} x {x.shape[2]} px"
                ) from None
            _check_memory(error)
            raise InvalidModel(
                f"{self.name}: does not run on {x.shape[3]} x {x.shape[2]} px: {_one_line(error)}"
            ) from error
        if not isinstance(output, np.ndarray) or output.dtype != np.float32:
            raise InvalidModel(f"{self.name}: the output is not a float32 tensor")
        if output.ndim != 4 or output.shape[:2] != (1, 3):
            raise InvalidModel(
                f"{self.name}: the output is {list(output.shape)}, not [n, 3, height, width]"
            )
        return output

    def _probe(self) -> tuple[int, int]:
        """Find the scale, and the smallest multiple of sides at which all probes agree on it."""
        refusal: InvalidModel | None = None
        for multiple in _PROBED_MULTIPLES:
            try:
                scales = {
                    self._scale_at(height, width) for height, width in self._probe_sizes(multiple)
                }
            except InvalidModel as error:
                refusal = refusal or error
                continue
            if len(scales) == 1:
                return scales.pop(), multiple
        raise refusal or InvalidModel(f"{self.name}: the output's size does not follow the input's")

    def _probe_sizes(self, multiple: int) -> Iterator[tuple[int, int]]:
        """Sizes of this multiple, at first of no higher power of two, then of one."""
        times = _SMALLEST_PROBE_PX // multiple | 1
        for height, width in ((times, times + 2), (times + 5, times + 1)):
            yield (
                self.fixed_sides[0] or height * multiple,
                self.fixed_sides[1] or width * multiple,
            )

    def _scale_at(self, height: int, width: int) -> int:
        noise = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        output = self._run_one(noise)
        scale = int(output.shape[2]) // height
        if scale < 1 or output.shape[2:] != (height * scale, width * scale):
            raise InvalidModel(
                f"{self.name}: not image-to-image: {width} x {height} px in,"
                f" {output.shape[3]} x {output.shape[2]} px out"
            )
        return scale


def as_planes(picture: Picture) -> Tensor:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]."""
    planes = picture.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    return np.ascontiguousarray(planes / np.float32(255))


def read_model(model: StrPath | bytes) -> tuple[bytes, str]:
    """A model's bytes, and what to call it: the file's stem, or "model".

    Raises:
        InvalidModel: the file cannot be read.
    """
    if isinstance(model, bytes):
        return model, "model"
    try:
        return Path(model).read_bytes(), Path(model).stem
    except OSError as error:
        raise InvalidModel(f"{model}: {error.strerror}") from error


def parse_model(data: bytes, name: str) -> onnx.ModelProto:
    """The ONNX model that ``data`` holds, all of it: weights in external files are refused.

    Raises:
        InvalidModel: not an ONNX file with a graph, or weights in external files.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError; protobuf has no types
        raise InvalidModel(f"{name}: not an ONNX file") from error
    if not model.graph.node:
        raise InvalidModel(f"{name}: not an ONNX file with a graph")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise InvalidModel(f"{name}: weights in external files; save the model as a single file")
    return model


def open_session(data: bytes, name: str, threads: int) -> Any:
    """Open an onnxruntime session on the CPU that prints nothing.

    Raises:
        InvalidModel: onnxruntime does not load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors share no base but Exception
        _check_memory(error)
        raise InvalidModel(f"{name}: does not load: {_one_line(error)}") from error


@contextmanager
def _ended_after(limit_s: float | None, options: Any) -> Iterator[None]:
    """Have onnxruntime end the run of these RunOptions before its next node once it is too late."""
    if limit_s is None:
        yield
        return
    timer = threading.Timer(limit_s, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of a graph, those of nodes and of nested graphs among them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for nested in (attribute.g, *attribute.graphs):
                yield from _tensors(nested)


def _check_interface(session: Any, name: str) -> tuple[str, int | None, int | None]:
    """Check the declared input and output; return the input's name and fixed height and width."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidModel(
            f"{name}: not image-to-image: {len(inputs)} inputs and {len(outputs)} outputs"
        )
    try:
        input_name, declared = inputs[0].name, inputs[0].shape
    except UnicodeDecodeError:
        raise InvalidModel(f"{name}: the input's name or shape is not UTF-8") from None
    for role, port in (("input", inputs[0]), ("output", outputs[0])):
        if port.type != "tensor(float)":
            raise InvalidModel(f"{name}: the {role} is {port.type}, not a float32 tensor")
    axes = declared or [None] * 4  # an unknown rank shows as no axes
    shape = [side if isinstance(side, int) and side > 0 else None for side in axes]
    if len(shape) != 4:
        raise InvalidModel(f"{name}: the input has {len(shape)} axes, not [n, 3, height, width]")
    batch, channels, height, width = shape
    if channels not in (3, None):
        raise InvalidModel(f"{name}: the input is {declared}, not [n, 3, height, width]")
    if batch not in (1, None):
        raise InvalidModel(f"{name}: the input is fixed to batches of {batch}; 1 or free is needed")
    return input_name, height, width


def _check_tensor(x: Tensor) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        found = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidArray(f"a model's input must be a float32 array, not {found}")
    if x.ndim != 4 or x.shape[1] != 3 or x.size == 0:
        raise InvalidArray(f"a model's input must be [n, 3, height, width], not {list(x.shape)}")
    if not np.isfinite(x).all():
        raise InvalidArray("a model's input holds NaN or Inf")


def _check_memory(error: Exception) -> None:
    """What onnxruntime could not do for want of memory is not the model's fault."""
    if any(said in str(error) for said in ("Failed to allocate memory", "bad_alloc", "bad alloc")):
        raise MemoryError from error


def _one_line(error: Exception) -> str:
    """The telling end of onnxruntime's message, on one line of bounded length."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ")[:200]
