"""A DLPack tensor over a numpy array, as another library would hand one out."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT, UINT, INT, BFLOAT = 2, 1, 0, 4


class _DlTensor(ctypes.Structure):
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


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _DlTensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_CODES = {"f": FLOAT, "u": UINT, "i": INT}


class Tensor:
    """Has `__dlpack__` and nothing else that numpy would take.

    Args:
        array: the memory.
        code: another type than the array's: `BFLOAT` over uint16.
        device: what it claims to be on.
        lanes: values in one element.
        compact: leave out the strides; the array must be contiguous.
    """

    def __init__(
        self,
        array: npt.NDArray[Any],
        code: int | None = None,
        device: int = 1,
        lanes: int = 1,
        compact: bool = False,
    ) -> None:
        self.array = array
        self.device = device
        count = ctypes.c_int64 * max(array.ndim, 1)
        self.shape = count(*array.shape)
        self.strides = count(*(stride // array.itemsize for stride in array.strides))
        offset = 16  # data and byte_offset both count
        tensor = _DlTensor(
            array.ctypes.data - offset,
            device,
            0,
            array.ndim,
            _CODES[array.dtype.kind] if code is None else code,
            8 * array.itemsize,
            lanes,
            self.shape,
            None if compact else self.strides,
            offset,
        )
        self.managed = _Managed(tensor, None, None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self) -> object:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        capsule: object = new(ctypes.byref(self.managed), b"dltensor", None)
        return capsule


def bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of float32 values cut to bfloat16."""
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
