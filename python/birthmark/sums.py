"""A picture -> the integer statistics that everything else is read from, in three parts.

The first two are of the picture itself: of its pixels apart from lines and edges, and of those on
them, where a photograph's own texture is most like an echo. The third is of the picture at half the
size, where next to nothing is left of a mark's echo, but much of what a photograph's own texture is
like; the trained extractor foresees from it what the others would show without a mark.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.pictures import Picture

Sums = npt.NDArray[np.int64]

OWN = _core.PARTS
"""Parts of a picture's statistics that are of the picture itself: they come first."""
PARTS = OWN + 1
SHAPE = (PARTS, _core.TONES, _core.ORBITS + 1)
# Statistics say S[orbit] in units that are this many times those of S[energy].
ORBIT_SCALE = 16


def sums_of(picture: Picture) -> Sums:
    """The statistics of a picture (uint8 [h, w, 3]): int64 [parts, tones, orbits + 1].

    They add over pictures. ``cpp/contract/CONTRACT.md``, steps 19 and 20, says what they are.

    Raises:
        InvalidArray: not such a picture.
    """
    half = _core.statistics(_halved(picture)).sum(axis=0, keepdims=True)
    return np.concatenate([_core.statistics(picture), half])


def total_of(pictures: Iterable[Sums]) -> Sums:
    """The sum over pictures, int64 [parts, tones, orbits + 1]; zeros for none."""
    total = np.zeros(SHAPE, np.int64)
    for sums in pictures:
        total += sums
    return total


def texture(sums: Sums) -> int:
    """The energy of the texture that they were measured on, in the contract's units."""
    return int(sums[:OWN, :, -1].sum())


def rho_of(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Normalised correlations, float64 [..., tones, orbits]; 0 where there is no texture."""
    rho: npt.NDArray[np.float64] = sums[..., :-1] / np.maximum(sums[..., -1:], 1) * ORBIT_SCALE
    return rho


def _halved(picture: Picture) -> Picture:
    """Means of 2 x 2 pixels, rounded half up; an odd last row or column is left out."""
    rows, columns = (side // 2 * 2 for side in picture.shape[:2])
    if not rows * columns:
        return np.zeros((1, 1, 3), np.uint8)
    x = picture[:rows, :columns].astype(np.uint16)
    total = x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
