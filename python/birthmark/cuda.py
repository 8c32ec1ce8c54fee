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

from birthmark import _core
from birthmark.errors import CudaUnavailable, InvalidArray
from birthmark.files import StrPath
from birthmark.formats import Input, Output
from birthmark.mark import Mark

DEFAULT_STREAM = 1
"""The legacy default stream, where torch and cupy work if they are not told otherwise."""

_Out = TypeVar("_Out")


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
        self,
        x: Any,
        out: _Out,
        *,
        input: Input | None = None,
        output: Output | None = None,
        stream: int = DEFAULT_STREAM,
        wait: bool = True,
    ) -> _Out:
        """Mark a model's output.

        Args:
            x: an array on a card, of the types, shapes and strides that
                :meth:`birthmark.Embedder.embed` takes. Fastest are planes of float16, bfloat16 or
                float32 (NCHW) and, for packed RGB out, packed RGB of uint8, where addresses and
                strides are multiples of 8, 8, 16 and 4 bytes.
            out: where to write: an array of the result's shape and type, any strides, or a tuple of
                them for planes, on the same card, apart from ``x``. Fastest is packed uint8 RGB at
                multiples of 4 bytes.
            input: how ``x`` is to be read.
            output: what is to be published; by default uint8 RGB.
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
        parts = out if isinstance(out, tuple) else (out,)
        targets = [_array_on_card("out", part, stream) for part in parts]
        views = tuple(target.view() for target in targets)
        layout = _core.lay_out(
            source.view(),
            views if isinstance(out, tuple) else views[0],
            None if input is None else input.native,
            None if output is None else output.native,
        )
        device = self._module.device_of(source.address)
        for array in (source, *targets):
            if device < 0 or self._module.device_of(array.address) != device:
                raise InvalidArray("x and out must both lie in the memory of one card")
            if array.stream not in (None, stream):
                self._module.wait_for(device, array.stream, stream)
        self._native.launch(layout, device, stream)
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

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint16": 2, "uint8": 1, "int8": 1}
_KNOWN = "float32, float16, bfloat16, uint8 and int8 are known"


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

    def view(self) -> _core.View:
        """The same for the core. Raises InvalidArray."""
        item = _ITEM_BYTES[self.dtype]
        if any(value % item for value in (self.address, *self.strides)):
            raise InvalidArray(f"{self.name} is not aligned in memory")
        return _core.View(
            address=self.address,
            shape=self.shape,
            strides=self.strides,
            dtype=self.dtype,
            writeable=not self.read_only,
        )


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


# What `__cuda_array_interface__` calls them; it has no name for bfloat16.
_TYPE_STRINGS = {
    "<f4": "float32",
    "<f2": "float16",
    "<u2": "uint16",
    "|u1": "uint8",
    "<u1": "uint8",
    "|i1": "int8",
    "<i1": "int8",
}


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
    dtype = _TYPE_STRINGS.get(kind)
    if dtype is None:
        raise InvalidArray(f"{name} is of type {kind}: {_KNOWN}")
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
_DL_DTYPES = {
    (0, 8, 1): "int8",
    (1, 8, 1): "uint8",
    (1, 16, 1): "uint16",
    (2, 16, 1): "float16",
    (2, 32, 1): "float32",
    (4, 16, 1): "bfloat16",
}


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
            f"{name} is of DLPack type {tensor.code} with {tensor.bits} bits: {_KNOWN}"
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
