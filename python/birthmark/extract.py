"""Suspect pictures -> statistics, pooled and each alone."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Self

import numpy as np

from birthmark import _core
from birthmark.calibration import Calibration, FloatArray
from birthmark.errors import CouldNotJudge
from birthmark.extractor import foreseen, trained_sha256
from birthmark.pictures import Picture, check_picture
from birthmark.sums import SHAPE, Sums, sums_of, texture, total_of
from birthmark.tails import log10_p_of_cosine

IN_MEMORY = 4_096
"""The sums of so many pictures are kept in memory: 28 MB."""
_SUMS_BYTES = 8 * math.prod(SHAPE)
_ELSEWHERE: Sums = np.zeros(SHAPE, np.int64)

_EXTRACTOR_MODULES = (
    *("calibration", "controls", "damages", "exact_tests", "extract", "extractor", "geometry"),
    *("keys", "mark", "measure", "orientations", "payload", "pictures", "regression", "sums"),
    *("tails", "verdict"),
)


@dataclass(frozen=True)
class PictureStatistics:
    """What one picture contributes. All that the blind test uses of it is ``sums``."""

    name: str
    sha256: str
    """Of the decoded pixels (uint8 [h, w, 3], C order): the same picture twice counts once."""
    height_px: int
    width_px: int
    sums: Sums
    """int64 [parts, tones, orbits + 1]."""
    input_sha256: str = ""
    """Of the input's pixels, where a suspect was asked."""

    @classmethod
    def of(cls, name: str, picture: Picture, input_sha256: str = "") -> Self:
        """Measure a picture (uint8 [h, w, 3]).

        Raises:
            InvalidArray: not such a picture.
        """
        check_picture(picture)
        height, width, _ = picture.shape
        return cls(name, pixels_sha256(picture), height, width, sums_of(picture), input_sha256)


class Statistics:
    """What many pictures contribute, one after another: a list that may be longer than memory.

    The sums of all but the first :data:`IN_MEMORY` stand in a temporary file without a name (where
    TMPDIR says), which is gone with this object. Those of a picture are read when it is asked for.
    """

    def __init__(self, pictures: Iterable[PictureStatistics] = ()) -> None:
        self._kept: list[PictureStatistics] = []
        self._file: io.FileIO | None = None
        for one in pictures:
            self.append(one)

    def append(self, one: PictureStatistics) -> None:
        """Take one more.

        Raises:
            OSError: it cannot be written to the file.
        """
        place = (len(self._kept) - IN_MEMORY) * _SUMS_BYTES
        if place >= 0:
            self._write(one.sums.astype("<i8").tobytes(), place)
            one = replace(one, sums=_ELSEWHERE)
        self._kept.append(one)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def __getitem__(self, index: int) -> PictureStatistics:
        """One of them, also counted from the end."""
        index = range(len(self._kept))[index]
        one = self._kept[index]
        if one.sums is not _ELSEWHERE:
            return one
        assert self._file is not None
        place = (index - IN_MEMORY) * _SUMS_BYTES
        data = os.pread(self._file.fileno(), _SUMS_BYTES, place)
        return replace(one, sums=np.frombuffer(data, "<i8").reshape(SHAPE))

    def __iter__(self) -> Iterator[PictureStatistics]:
        """All of them, in order."""
        return (self[i] for i in range(len(self)))

    def _write(self, data: bytes, place: int) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            while data:
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


@dataclass
class Pool:
    """Statistics of the pictures seen so far. Memory hardly grows with their number."""

    pictures: Statistics = field(default_factory=Statistics)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason of what was left out."""
    _seen: set[str] = field(init=False)

    def __post_init__(self) -> None:
        """Remember what is there already."""
        self._seen = {picture.sha256 for picture in self.pictures}

    def add(self, name: str, picture: Picture, input_sha256: str = "") -> None:
        """Measure a picture (uint8 [h, w, 3]); one seen before is rejected as a duplicate.

        Raises:
            InvalidArray: not such a picture.
        """
        self.include(PictureStatistics.of(name, picture, input_sha256))

    def include(self, one: PictureStatistics) -> None:
        """Take a picture that was measured; one seen before is rejected as a duplicate."""
        if one.sha256 in self._seen:
            self.rejected.append((one.name, "the same pixels as an earlier picture; counted once"))
            return
        self.pictures.append(one)
        self._seen.add(one.sha256)

    def total(self) -> Sums:
        """Sum over the pictures. Raises CouldNotJudge when there are none."""
        if not self.pictures:
            why = f": {self.rejected[0][1]}" if self.rejected else ""
            raise CouldNotJudge(f"no picture could be used{why}")
        return total_of(picture.sums for picture in self.pictures)


@functools.cache
def extractor_sha256() -> str:
    """SHA-256 of what reads marks: its modules' text, the trained extractor, and the core's answer
    to a fixed picture.

    A claim states it, so that it can be shown later whether the extractor was changed after a
    suspect was seen. Hex.
    """
    noise = np.frombuffer(hashlib.shake_128(b"birthmark extractor").digest(64 * 64 * 3), np.uint8)
    whole = hashlib.sha256(f"contract {_core.CONTRACT_VERSION}\n".encode())
    whole.update(sums_of(noise.reshape(64, 64, 3)).astype("<i8").tobytes())
    whole.update(f"trained {trained_sha256()}\n".encode())
    for name in _EXTRACTOR_MODULES:
        text = (resources.files("birthmark") / f"{name}.py").read_bytes()
        whole.update(f"{name} {len(text)}\n".encode() + text)
    return whole.hexdigest()


def read_echo(sums: Sums, calibration: Calibration) -> FloatArray:
    """Coordinates of the echo as pictures alone show it, up to scale: float64 [n].

    Generalised least squares with the calibration's response, less what the trained extractor
    foresees for unmarked pictures of this kind.

    Args:
        sums: int64 [parts, tones, orbits + 1], summed over pictures.
        calibration: the claim's.

    Raises:
        CouldNotJudge: the pictures hold no texture.
    """
    return calibration.read(sums) - foreseen(sums, calibration)


def log10_p_of_sums(sums: Sums, calibration: Calibration, direction: FloatArray) -> float:
    """log10 p of the cosine test on statistics alone; 0 where they hold no texture or no mark.

    Args:
        sums: int64 [parts, tones, orbits + 1].
        direction: of the mark looked for, float64 [n], of length 1.
    """
    if texture(sums) <= 0:
        return 0.0
    estimate = read_echo(sums, calibration)
    norm = float(np.linalg.norm(estimate))
    return log10_p_of_cosine(float(estimate @ direction) / norm, len(direction)) if norm else 0.0


def pixels_sha256(picture: Picture) -> str:
    """SHA-256 over height, width and pixels, hex."""
    height, width, _ = picture.shape
    header = height.to_bytes(4, "little") + width.to_bytes(4, "little")
    return hashlib.sha256(header + np.ascontiguousarray(picture).tobytes()).hexdigest()
