"""The emblem: the small picture that a claim states and its mark carries.

A grid of eight columns, the right half the mirror of the left, in two colours. It is written as
hexadecimal digits, a digit a row from the top: its highest bit is the outermost cell, its lowest
the one beside the middle; 1 is ink. So eight rows are 32 bits: as many as can be read from what a
thief's network puts out, and still a picture that a person recognises.
"""

from __future__ import annotations

import hashlib
import itertools
import re

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidClaim
from birthmark.pictures import Picture, decode_picture

COLUMNS = 8
MIN_ROWS, MAX_ROWS = 4, 16
_HALF = COLUMNS // 2
_LEAST_CONTRAST = 2.0  # grey levels
_INK, _PAPER = (27, 31, 36), (255, 255, 255)

Bits = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float64]


def is_emblem(text: object, rows: int) -> bool:
    """Whether it is an emblem of so many rows as this module writes it."""
    return isinstance(text, str) and bool(re.fullmatch(f"[0-9a-f]{{{rows}}}", text))


def check_emblem(emblem: object) -> None:
    """Return if it is an emblem of 4 to 16 rows and of two colours.

    Raises:
        InvalidClaim: it is not.
    """
    if not isinstance(emblem, str) or not (
        MIN_ROWS <= len(emblem) <= MAX_ROWS and is_emblem(emblem, len(emblem))
    ):
        raise InvalidClaim(
            f"claim: the emblem is not {MIN_ROWS} to {MAX_ROWS} lower-case hex digits"
        )
    if set(emblem) in ({"0"}, {"f"}):
        raise InvalidClaim("claim: the emblem is all of one colour")


def to_bits(emblem: str) -> Bits:
    """The emblem's payload, int8 [4 rows] of 0 and 1: row by row, from outside to the middle."""
    return np.array([int(digit, 16) >> i & 1 for digit in emblem for i in (3, 2, 1, 0)], np.int8)


def from_bits(bits: Bits) -> str:
    """The emblem of a payload, int8 [4 rows] of 0 and 1; what :func:`to_bits` takes apart."""
    return "".join(f"{int(''.join(map(str, row)), 2):x}" for row in bits.reshape(-1, _HALF))


def cells(emblem: str) -> npt.NDArray[np.bool_]:
    """The whole grid, bool [rows, 8]: True is ink."""
    half = to_bits(emblem).reshape(-1, _HALF).astype(bool)
    return np.concatenate([half, half[:, ::-1]], axis=1)


def correlation(a: str, b: str) -> float:
    """Normalised correlation (NC) of two emblems of one size, ink as 1 and paper as -1.

    1 where they are the same, 0 in the mean where one of them is chance, -1 of a negative.
    """
    return float(np.mean(np.where(cells(a) == cells(b), 1.0, -1.0)))


def make(logo: bytes | None, public_key: bytes, rows: int) -> str:
    """The emblem of a logo; or, without one or of one that gives no picture, of the public key.

    Args:
        logo: a PNG file's bytes.
        public_key: the owner's, 32 bytes.
        rows: 4 to 16.

    Raises:
        InvalidClaim: another number of rows.
        InvalidPicture: the logo cannot be read.
    """
    if not MIN_ROWS <= rows <= MAX_ROWS:
        raise InvalidClaim(f"claim: an emblem has {MIN_ROWS} to {MAX_ROWS} rows, not {rows}")
    drawn = None if logo is None else from_logo(logo, rows)
    return from_key(public_key, rows) if drawn is None else drawn


def from_logo(logo: bytes, rows: int) -> str | None:
    """A logo in ``rows`` x 8 cells, made symmetric; None where that is all of one colour.

    Its margins are cut off, and the rest is fitted into a square (on the colour of its border),
    averaged over the cells and with its mirror image, and cut at the threshold that correlates best
    with the averages, which is Otsu's ("A threshold selection method from gray-level histograms",
    IEEE Trans. SMC 9(1), 1979). Dark is ink. A logo that is transparent is seen on white, or else
    on black.

    Raises:
        InvalidPicture: the logo cannot be read.
    """
    import cv2

    for luma in _seen(logo):
        around = np.sort(np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]]))
        border = around[len(around) // 2]
        for shown in (_without_margins(luma, border), luma):
            height, width = shown.shape
            side = max(height, width, COLUMNS, rows)
            square = np.full((side, side), border)
            top, left = (side - height) // 2, (side - width) // 2
            square[top : top + height, left : left + width] = shown
            small = cv2.resize(square, (COLUMNS, rows), interpolation=cv2.INTER_AREA)
            half = ((small + small[:, ::-1]) / 2)[:, :_HALF]
            if np.ptp(half) >= _LEAST_CONTRAST:
                return from_bits((half <= _threshold(half)).astype(np.int8).reshape(-1))
    return None


def from_key(public_key: bytes, rows: int) -> str:
    """An emblem that follows from the owner's public key, as good as no other owner's.

    The first of SHA-256("birthmark emblem" + NUL + key + number), number = 0, 1, ... in one byte,
    whose first bits are neither ink nor paper to more than three quarters.
    """
    for number in itertools.count():
        digest = hashlib.sha256(b"birthmark emblem\0" + public_key + bytes([number])).hexdigest()
        if 0.25 <= to_bits(digest[:rows]).mean() <= 0.75:
            return digest[:rows]
    raise AssertionError("one half of all numbers and more are such")


def picture(emblem: str, side: int = 128) -> Picture:
    """The emblem as a square picture, uint8 [side, side, 3]; four rows are cells twice as tall."""
    grid = cells(emblem)
    rows, columns = (np.arange(side) * length // side for length in grid.shape)
    chosen = grid[rows][:, columns]
    return np.where(chosen[:, :, np.newaxis], np.array(_INK, np.uint8), np.array(_PAPER, np.uint8))


def text(emblem: str) -> list[str]:
    """The emblem for a terminal: eight lines of sixteen characters, two to the width of a cell."""
    grid = cells(emblem)
    lines = []
    for y in range(8):
        upper, lower = (grid[(2 * y + i) * len(grid) // 16] for i in (0, 1))
        lines.append(
            "".join(2 * " ▄▀█"[2 * int(u) + int(v)] for u, v in zip(upper, lower, strict=True))
        )
    return lines


def _without_margins(luma: FloatArray, border: float) -> FloatArray:
    """What is left of [h, w] without rows and columns of the border's own colour alone."""
    apart = np.abs(luma - border)
    if apart.max() == 0:
        return luma
    rows, columns = (np.flatnonzero(apart.max(axis=i) > apart.max() / 4) for i in (1, 0))
    return luma[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _seen(logo: bytes) -> list[FloatArray]:
    """A logo's luma in grey levels, [h, w]: as it is; of a transparent one, on white and black."""
    import cv2

    rgb = decode_picture(logo, "the logo").astype(np.float64)
    luma = rgb @ [0.299, 0.587, 0.114]
    whole = cv2.imdecode(np.frombuffer(logo, np.uint8), cv2.IMREAD_UNCHANGED)
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4:
        return [luma]
    opacity = whole[:, :, 3].astype(np.float64) / (65535 if whole.dtype == np.uint16 else 255)
    return [luma * opacity + ground * (1 - opacity) for ground in (255.0, 0.0)]


def _threshold(values: FloatArray) -> float:
    """The value up to which all are dark, that correlates best with the values."""

    def explained(level: float) -> float:
        dark = values <= level
        apart = values[dark].mean() - values[~dark].mean()
        return float(dark.mean() * (1 - dark.mean()) * apart**2)

    return float(max(np.unique(values)[:-1].tolist(), key=explained))
