"""The golden set: fixed pictures and marks, and the hashes of what the contract makes of them.

The pictures follow from integer formulas, so any implementation in any language can rebuild them.
Written by the reference alone: `cd tests && python -m vectors.generate`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import reference
from reference import GAIN_ROWS, ORBITS, TINT_GAIN_MAX, TONES, Gains, Ints, Picture

GOLDEN = Path(__file__).with_name("golden.json")


def scramble(x: Ints, y: Ints, c: Ints, bits: int) -> Ints:
    """A number of `bits` bits without visible order."""
    mixed = (73 * x + 151 * y + 199 * c + 31 * x * y + 17 * x * x) * 2654435761
    scrambled: Ints = (mixed >> 13) & (2**bits - 1)
    return scrambled


def pictures() -> dict[str, Picture]:
    """The six pictures: float32 [3, h, w] and uint8 [h, w, 3]."""

    def build(height: int, width: int, formula: Callable[[Ints, Ints, Ints], Ints]) -> Ints:
        c, y, x = np.indices((3, height, width), np.int64)
        return formula(x, y, c)

    def pixels(values: Ints) -> Picture:
        return np.ascontiguousarray(values.transpose(1, 2, 0).astype(np.uint8))

    def planes(values: Ints, unit: int) -> Picture:
        # The quotient of two small integers, rounded to float32 once.
        return values.astype(np.float32) / np.float32(unit)

    return {
        "noise": pixels(build(70, 61, lambda x, y, c: scramble(x, y, c, 8))),
        "ramp": pixels(
            build(64, 96, lambda x, y, c: (2 * x + 3 * y + 9 * c + scramble(x, y, c, 4)) % 256)
        ),
        "text": pixels(
            build(48, 80, lambda x, y, c: 255 - 250 * (scramble(x // 3, y // 5, 0 * c, 2) // 3))
        ),
        "planes": planes(build(66, 40, lambda x, y, c: scramble(x, y, c, 10)), 1024),
        "wide": planes(
            build(9, 1100, lambda x, y, c: x + 40 * y + scramble(x, y, c, 8) - 128), 1024
        ),
        "ties": planes(build(33, 17, lambda x, y, c: 2 * (3 * x + 5 * y + c) + 1), 510),
    }


def marks() -> dict[str, Gains]:
    """The two tables of gains [GAIN_ROWS, tones]: a common one and one at the contract's bound."""
    o, tone = np.indices((len(ORBITS), TONES), np.int64)
    common = 30 * ((7 * o + 3 * tone) % 23 - 11)
    bound = 32767 * (o == tone) - 27233 * (o == (tone + 5) % len(ORBITS))
    row, tone = np.indices((GAIN_ROWS - len(ORBITS), TONES), np.int64)
    tint = np.where(row % 4 == 0, 1, 60) * ((5 * row + 7 * tone) % 41 - 20)
    most = TINT_GAIN_MAX * ((row + tone) % 3 - 1)
    return {
        "common": np.concatenate([common, tint]).astype(np.int16),
        "bound": np.concatenate([bound, most]).astype(np.int16),
    }


def digest(values: npt.NDArray[Any]) -> str:
    """SHA-256 of the values in C order, little-endian."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()


def golden(
    published: Callable[[Picture, Gains | None], npt.NDArray[np.uint8]],
    statistics: Callable[[npt.NDArray[np.uint8]], Ints],
) -> dict[str, Any]:
    """The golden set as an implementation sees it; no gains ask for the plain output."""
    result: dict[str, Any] = {}
    tables: dict[str, Gains | None] = {"plain": None, **marks()}
    for name, picture in pictures().items():
        result[name] = {
            "shape": list(picture.shape),
            "dtype": picture.dtype.name,
            "sha256": digest(picture),
        }
        for mark, gains in tables.items():
            output = published(picture, gains)
            result[name][mark] = {
                "published_sha256": digest(output),
                "statistics_sha256": digest(statistics(output)),
            }
    return result


def reference_published(picture: Picture, gains: Gains | None) -> npt.NDArray[np.uint8]:
    """What the reference publishes with a mark, or without one."""
    return reference.plain(picture) if gains is None else reference.published(picture, gains)


if __name__ == "__main__":
    found = golden(reference_published, reference.statistics)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
