"""Native core of birthmark: the fused pass and the statistics (see cpp/contract/CONTRACT.md)."""

from typing import Any

import numpy as np
import numpy.typing as npt

CONTRACT_VERSION: int
TAP_SUM_MAX: int
TONES: int
ORBITS: int

def available_kernels() -> list[str]:
    """Names of the kernels that this machine can run, plainest first."""

def orbits() -> list[tuple[int, int]]:
    """The orbits (i, j) in the order of the gains; tap distances are doubled."""

def statistics(picture: npt.NDArray[Any], kernel: str | None = None) -> npt.NDArray[np.int64]:
    """int64 [tones, orbits + 1]: sums over the picture (contract, step 13)."""

def fields(
    picture: npt.NDArray[Any], kernel: str | None = None
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """(texture int16 [h, w], tone uint8 [h, w], orbit sums int16 [orbits, h, w])."""

def write_mark(id: bytes, gains: npt.NDArray[np.int16]) -> bytes:
    """Bytes of a mark file."""

def read_mark(data: bytes) -> tuple[bytes, npt.NDArray[np.int16]]:
    """(id, gains int16 [orbits, tones])."""

class Embedder:
    def __init__(self, mark: bytes | None, kernel: str | None = None) -> None: ...
    def embed(
        self, x: npt.NDArray[Any], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]: ...
    @property
    def kernel(self) -> str: ...
