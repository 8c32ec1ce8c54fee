"""The same marks on pictures that lie on an NVIDIA card: one fused kernel, the same bytes.

Nothing here is loaded by ``import birthmark``, and no array library is needed: pictures come as
whatever has ``__dlpack__`` (torch, cupy, jax) or ``__cuda_array_interface__`` (also numba). Memory
is the caller's, and so are streams.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from birthmark.errors import CudaUnavailable, InvalidArray
from birthmark.files import StrPath
from birthmark.mark import Mark

DEFAULT_STREAM = 1
"""The legacy default stream, where torch and cupy work if they are not told otherwise."""

_MOST_PIXELS_A_SIDE = 1 << 20

_Array = TypeVar("_Array")


class CudaEmbedder:
    """Puts a mark on pictures on a card: what :class:`birthmark.Embedder` does, byte for byte.

    An object keeps one word of memory that says whether a value was not finite; use one object for
    each stream that works at the same time.

    Args:
        mark: the mark (:func:`birthmark.provision`) or the path of a mark file.

    Raises:
        CudaUnavailable: this build has no CUDA in it, or there is no driver or card to run it.
        InvalidMarkFile: the path is not that of a mark file.
    """

    def __init__(self, mark: Mark | StrPath) -> None:
        if not isinstance(mark, Mark):
            mark = Mark.load(mark)
        self._module = _load()
        self._native = self._module.Embedder(mark.data)

    def embed(
        self, x: Any, out: _Array, *, stream: int = DEFAULT_STREAM, wait: bool = True
    ) -> _Array:
        """Mark a model's output.

        Args:
            x: float16 or float32 [n, 3, h, w] or [3, h, w], RGB in [0, 1] (clamped), or uint8
                [n, h, w, 3] or [h, w, 3], on a card. Each row must be contiguous; other strides are
                free. Whole words are read at once, and so fastest, where addresses and strides are
                multiples of 8 (float16), 16 (float32) or 4 bytes (uint8).
            out: where to write: uint8 [n, h, w, 3] (or [h, w, 3] for one picture) on the same card,
                rows contiguous, apart from ``x``.
            stream: handle of the CUDA stream to work on, e.g. ``torch_stream.cuda_stream``.
            wait: wait until it is done. Without it the call returns at once: this object, ``x`` and
                ``out`` must live until the stream is done, and :meth:`check` says whether all was
                well.

        Returns:
            ``out``.

        Raises:
            InvalidArray: no array of a card, wrong dtype, shape or strides, zero size, read-only or
                overlapping ``out``, arrays on two cards; and, if ``wait``, NaN or Inf (``out`` is
                then unspecified).
            CudaFailed: the driver refused, or the kernel failed.
        """
        stream = stream or DEFAULT_STREAM
        source = _array_on_card("x", x, stream)
        target = _array_on_card("out", out, stream)
        pictures = _Pictures.of(source)
        pictures.check_out(target)
        device = self._module.device_of(source.address)
        for array in (source, target):
            if device < 0 or self._module.device_of(array.address) != device:
                raise InvalidArray("x and out must both lie in the memory of one card")
            if array.stream not in (None, stream):
                self._module.wait_for(device, array.stream, stream)
        self._native.launch(
            format=getattr(self._module.Format, _FORMATS[source.dtype]),
            planes=pictures.planes,
            row_stride=pictures.row_stride,
            picture_stride=pictures.picture_stride,
            out=target.address,
            out_row_stride=target.strides[-3],
            out_picture_stride=target.strides[0] if pictures.count > 1 else 0,
            pictures=pictures.count,
            height=pictures.height,
            width=pictures.width,
            device=device,
            stream=stream,
        )
        if wait:
            self.check(device, stream=stream)
        return out

    def check(self, device: int = 0, *, stream: int = DEFAULT_STREAM) -> None:
        """Wait for a card's stream, and see whether all pictures since the last check were finite.

        Raises:
            InvalidArray: a picture held NaN or Inf; what was published of it is unspecified.
            CudaFailed: a kernel failed.
        """
        if not self._native.finish(device, stream or DEFAULT_STREAM):
            raise InvalidArray("the picture holds a value that is not finite (NaN or Inf)")


def device_count() -> int:
    """How many cards there are, at least 1.

    Raises:
        CudaUnavailable: as :class:`CudaEmbedder`.
    """
    count: int = _load().device_count()
    return count


def _load() -> ModuleType:
    """The native module, with a driver and a card behind it."""
    try:
        module = importlib.import_module("birthmark._cuda")
    except ImportError as error:
        raise CudaUnavailable(
            "this build of birthmark has no CUDA in it: it needs nvcc when it is built "
            f"(BIRTHMARK_CUDA=ON says what is missing): {error}"
        ) from None
    try:
        module.device_count()
    except CudaUnavailable as error:
        raise CudaUnavailable(f"no usable CUDA driver or card here: {error}") from None
    return module


# --- Arrays on a card ----------------------------------------------------------------------------

# A source's dtype and the kernel's name of the format.
_FORMATS = {"float32": "PLANAR_FLOAT", "float16": "PLANAR_HALF", "uint8": "RGB8"}
_ITEM_BYTES = {"float32": 4, "float16": 2, "uint8": 1}


@dataclass(frozen=True)
class _CardArray:
    """What one needs to know of an array that lies on a card. Strides are in bytes."""

    name: str  # of the argument
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    read_only: bool
    stream: int | None  # whose work must be done first, if the array does not see to that itself
    owner: object  # keeps the memory alive

    def rows_are_contiguous(self, first_axis: int) -> bool:
        """Whether the axes from `first_axis` on lie one item behind the other."""
        step = _ITEM_BYTES[self.dtype]
        for axis in range(len(self.shape) - 1, first_axis - 1, -1):
            if self.shape[axis] > 1 and self.strides[axis] != step:
                return False
            step *= self.shape[axis]
        return True

    def extent(self) -> tuple[int, int]:
        """Addresses of its first byte and of the one behind its last."""
        reach = [(side - 1) * step for side, step in zip(self.shape, self.strides, strict=True)]
        first = self.address + sum(min(r, 0) for r in reach)
        last = self.address + sum(max(r, 0) for r in reach)
        return first, last + _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class _Pictures:
    """A checked batch."""

    source: _CardArray
    count: int
    height: int
    width: int
    planes: tuple[int, int, int]
    row_stride: int
    picture_stride: int

    @classmethod
    def of(cls, x: _CardArray) -> _Pictures:
        """The batch that an array holds. Raises InvalidArray."""
        if x.dtype not in _FORMATS:
            raise InvalidArray(f"a picture is float32, float16 or uint8, not {x.dtype}")
        if len(x.shape) not in (3, 4):
            raise InvalidArray(f"a picture has 3 axes and a batch 4, not {x.shape}")
        count = x.shape[0] if len(x.shape) == 4 else 1
        if count < 1:
            raise InvalidArray("the batch is empty")
        if x.dtype == "uint8":
            (height, width, channels), wanted = x.shape[-3:], "[h, w, 3] or [n, h, w, 3]"
            row, row_axis, plane = x.strides[-3], -2, 1
        else:
            (channels, height, width), wanted = x.shape[-3:], "[3, h, w] or [n, 3, h, w]"
            row, row_axis, plane = x.strides[-2], -1, x.strides[-3]
        if channels != 3:
            raise InvalidArray(f"{x.dtype} pictures are {wanted}, not {x.shape}")
        for side in (height, width):
            if not 1 <= side <= _MOST_PIXELS_A_SIDE:
                raise InvalidArray(
                    f"a side of {side} pixels: 1 to {_MOST_PIXELS_A_SIDE} are allowed"
                )
        if not x.rows_are_contiguous(len(x.shape) + row_axis):
            raise InvalidArray("each row must be contiguous in memory")
        item = _ITEM_BYTES[x.dtype]
        if any(value % item for value in (x.address, *x.strides)):
            raise InvalidArray("the picture is not aligned in memory")
        first = x.address
        planes = (first, first + plane, first + 2 * plane)
        return cls(x, count, height, width, planes, row, x.strides[0] if count > 1 else 0)

    def check_out(self, out: _CardArray) -> None:
        """Whether the marked pictures fit into an array. Raises InvalidArray."""
        wanted = (self.height, self.width, 3)
        shapes = [(self.count, *wanted)] + ([wanted] if self.count == 1 else [])
        if out.dtype != "uint8" or out.shape not in shapes:
            raise InvalidArray(f"out must be uint8 {list(shapes[-1])}")
        if out.read_only:
            raise InvalidArray("out is read-only")
        if not out.rows_are_contiguous(len(out.shape) - 2):
            raise InvalidArray("each row of out must be contiguous in memory")
        row = 3 * self.width
        if self.height > 1 and abs(out.strides[-3]) < row:
            raise InvalidArray("rows of out share memory")
        picture = (self.height - 1) * abs(out.strides[-3]) + row
        if self.count > 1 and abs(out.strides[0]) < picture:
            raise InvalidArray("pictures of out share memory")
        first, end = out.extent()
        source_first, source_end = self.source.extent()
        if first < source_end and source_first < end:
            raise InvalidArray("out shares memory with the input")


def _array_on_card(name: str, array: Any, stream: int) -> _CardArray:
    """Look at an array through whichever interface it has. Raises InvalidArray."""
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        return _from_dlpack(name, array, stream)
    if hasattr(array, "__cuda_array_interface__"):
        return _from_interface(name, array)
    raise InvalidArray(
        f"{name} must be an array on a card (with __dlpack__ or __cuda_array_interface__), "
        f"not {type(array).__name__}"
    )


def _contiguous_strides(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides = []
    for side in reversed(shape):
        strides.append(item)
        item *= side
    return tuple(reversed(strides))


def _from_interface(name: str, array: Any) -> _CardArray:
    """Read `__cuda_array_interface__` (versions 2 and 3)."""
    try:
        said = array.__cuda_array_interface__
        shape = tuple(int(side) for side in said["shape"])
        address, read_only = said["data"]
        kind = str(said["typestr"])
        strides = said.get("strides")
        masked = said.get("mask") is not None
        stream = said.get("stream")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidArray(f"{name} has an unusable __cuda_array_interface__: {error}") from None
    if masked:
        raise InvalidArray(f"{name} is a masked array")
    dtype = {"<f4": "float32", "<f2": "float16", "|u1": "uint8", "<u1": "uint8"}.get(kind, kind)
    if dtype not in _ITEM_BYTES:
        raise InvalidArray(f"{name} is of type {kind}: float32, float16 and uint8 are known")
    if strides is None:
        strides = _contiguous_strides(shape, _ITEM_BYTES[dtype])
    return _CardArray(
        name,
        int(address or 0),
        shape,
        tuple(map(int, strides)),
        dtype,
        bool(read_only),
        stream,
        array,
    )


# DLPack's structures, and what of its numbers is used here.
class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DL_CUDA, _DL_CUDA_MANAGED = 2, 13
_DL_DTYPES = {(2, 32, 1): "float32", (2, 16, 1): "float16", (1, 8, 1): "uint8"}


def _from_dlpack(name: str, array: Any, stream: int) -> _CardArray:
    """Read a DLPack capsule, which stays the array's own: it is never marked as used."""
    kind, _ = array.__dlpack_device__()
    if int(kind) not in (_DL_CUDA, _DL_CUDA_MANAGED):
        raise InvalidArray(
            f"{name} ({type(array).__name__}) does not lie on a card (its DLPack device is "
            f"{int(kind)}): birthmark.Embedder marks arrays in the host's memory"
        )
    try:
        capsule = array.__dlpack__(stream=stream)
    except (BufferError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidArray(f"{name} cannot be handed over by DLPack: {error}") from None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    dtype = _DL_DTYPES.get((tensor.code, tensor.bits, tensor.lanes))
    if dtype is None:
        raise InvalidArray(
            f"{name} is of DLPack type {tensor.code} with {tensor.bits} bits: "
            "float32, float16 and uint8 are known"
        )
    item = _ITEM_BYTES[dtype]
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = (
        tuple(item * tensor.strides[i] for i in range(tensor.ndim))
        if tensor.strides
        else _contiguous_strides(shape, item)
    )
    address = (tensor.data or 0) + tensor.byte_offset
    # This version of the protocol cannot say that memory is read-only.
    return _CardArray(name, address, shape, strides, dtype, False, None, capsule)
