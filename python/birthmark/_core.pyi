"""Native core of birthmark: the fused pass and the statistics (see cpp/contract/CONTRACT.md)."""

from typing import Any

import numpy as np
import numpy.typing as npt

CONTRACT_VERSION: int
TAP_SUM_MAX: int
PARTS: int
TONES: int
ORBITS: int
GAIN_ROWS: int
TINT_FIELDS: int
TINT_GAIN_MAX: int
TINT_MAX_LEVELS: float
HALO: int

def available_kernels() -> list[str]:
    """Names of the kernels that this machine can run, plainest first."""

def orbits() -> list[tuple[int, int]]:
    """The orbits (i, j) in the order of the gains; tap distances are doubled."""

def statistics(
    picture: npt.NDArray[Any], kernel: str | None = None, threads: int = 1
) -> npt.NDArray[np.int64]:
    """int64 [parts, tones, orbits + 1]: sums over the picture, apart from lines and on them
    (contract, steps 19 and 20), the same for any number of threads."""

def fields(
    picture: npt.NDArray[Any], kernel: str | None = None
) -> tuple[
    npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.int16], npt.NDArray[np.int16]
]:
    """Texture int16 [h, w], tone uint8 [h, w], orbit sums int16 [orbits, h, w], and what a tint is
    made of (blueness, redness, roughness) int16 [3, h, w]."""

def write_mark(id: bytes, gains: npt.NDArray[np.int16]) -> bytes:
    """Bytes of a mark file."""

def read_mark(data: bytes) -> tuple[bytes, npt.NDArray[np.int16]]:
    """(id, gains int16 [gain rows, tones]: the orbits', then four of each channel's tint)."""

class InputFormat:
    def __init__(
        self,
        *,
        channels_first: bool | None,
        reversed: bool,
        scale: list[float],
        offset: list[float],
        quantum: float | None,
        zero_point: int,
    ) -> None: ...

class OutputFormat:
    def __init__(
        self,
        *,
        kind: str,
        planes: bool,
        dtype: str,
        scale: list[float],
        offset: list[float],
        bt709: bool,
        limited: bool,
    ) -> None: ...

class Embedder:
    def __init__(self, mark: bytes | None, kernel: str | None = None) -> None: ...
    def embed(
        self,
        x: Any,
        out: Any = None,
        threads: int = 1,
        window: tuple[int | None, int | None, int | None, int | None] | None = None,
        input: InputFormat | None = None,
        output: OutputFormat | None = None,
    ) -> Any: ...
    @property
    def kernel(self) -> str: ...

class View:
    """Memory that may lie anywhere, as :func:`lay_out` takes it. Strides are in bytes."""

    def __init__(
        self,
        *,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: str,
        writeable: bool,
    ) -> None: ...

def lay_out(
    x: View,
    out: View | tuple[View, ...],
    input: InputFormat | None = None,
    output: OutputFormat | None = None,
) -> dict[str, Any]:
    """What another device is asked to do, checked, as plain numbers. Nothing is read."""

class RowStream:
    def __init__(
        self,
        embedder: Embedder,
        width: int,
        input: InputFormat | None = None,
        output: OutputFormat | None = None,
    ) -> None: ...
    def push(self, rows: Any) -> Any: ...
    def finish(self) -> Any: ...
