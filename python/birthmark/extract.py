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
import numpy.typing as npt

from birthmark import _core
from birthmark.calibration import (
    DIRECTIONS,
    Calibration,
    Fields,
    FloatArray,
    echoes_by_tone,
    tint_fields,
)
from birthmark.damages import compressed, median
from birthmark.errors import CouldNotJudge, InvalidArray
from birthmark.extractor import foreseen, trained_sha256
from birthmark.pictures import Picture, check_picture
from birthmark.sums import SHAPE, Sums, sums_of, texture, total_of
from birthmark.tails import log10_p_of_cosine

IN_MEMORY = 4_096
"""The sums of so many pictures are kept in memory: 19 MB."""
_SUMS_BYTES = 8 * math.prod(SHAPE)
_ELSEWHERE: Sums = np.zeros(SHAPE, np.int64)

_OUTLIER_LEVELS = 12.0
_SURROUNDINGS_PX = 3.0
# What a surrogate does to the owner's picture besides: it rounds edges off, and it smooths away
# what compression would. Each of these differences is read beside the mark.
_FAILINGS = (median, compressed(50))
_FAILING_RIDGE = 1e-6
# Rows of the informed test's equations in each tone: an echo for each orbit, then failings.
_FEATURES = _core.ORBITS + len(_FAILINGS)
_BLOCK_PX = 16
_TINT_ROWS = _core.TINT_FIELDS * _core.TONES
_EXTRACTOR_MODULES = (
    *("calibration", "exact_tests", "extract", "extractor", "geometry", "keys", "mark"),
    *("measure", "orientations", "payload", "pictures", "sums", "tails", "verdict"),
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
    """int64 [sizes, tones, orbits + 1]."""
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
        sums: int64 [sizes, tones, orbits + 1], summed over pictures.
        calibration: the claim's.

    Raises:
        CouldNotJudge: the pictures hold no texture.
    """
    return calibration.read(sums) - foreseen(sums, calibration)


def log10_p_of_sums(sums: Sums, calibration: Calibration, direction: FloatArray) -> float:
    """log10 p of the cosine test on statistics alone; 0 where they hold no texture or no mark.

    Args:
        sums: int64 [sizes, tones, orbits + 1].
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


@dataclass
class Regression:
    """Normal equations of the informed test: the suspect's deviation from M on M's own carriers.

    For each tone, ``gram`` sums products of features and ``projection`` sums features times the
    deviation, both in grey levels. Features are the orbits' echoes, and what two damages (a
    median of 3 x 3 pixels, JPEG of quality 50) do to M's picture: a surrogate fails in such ways
    too, which is not to be taken for a mark. ``tint_gram`` and ``tint_projection`` do the same for
    what a tint is made of (fields times tones, in this order) and the deviations of red, green and
    blue.
    """

    gram: FloatArray = field(default_factory=lambda: np.zeros((_core.TONES, _FEATURES, _FEATURES)))
    projection: FloatArray = field(default_factory=lambda: np.zeros((_core.TONES, _FEATURES)))
    tint_gram: FloatArray = field(default_factory=lambda: np.zeros((_TINT_ROWS, _TINT_ROWS)))
    tint_projection: FloatArray = field(default_factory=lambda: np.zeros((_TINT_ROWS, 3)))

    def add(self, suspect: Picture, own: Picture) -> None:
        """Add one pair: the suspect's and the owner's unmarked output for the same input.

        The deviation is the difference of luma (BT.601) less its local mean, so that a
        suspect that is brighter or softer over wide areas does not drown the mark, and is cut at
        12 levels, so that a suspect's few gross errors do not either. For the tint it is the other
        way round: means over blocks of 16 x 16 pixels are compared, since the finest colours of a
        suspect are never right. Where the two differ by v in the square, in the mean over the
        surroundings (over the block), a pixel (block) counts 1 / (1 + v) of one where they agree:
        least squares weighted by the errors' variance.

        Raises:
            InvalidArray: the two differ in size.
        """
        if suspect.shape != own.shape:
            raise InvalidArray(
                f"the suspect answers with {suspect.shape[1]} x {suspect.shape[0]} px where the"
                f" owner's model gives {own.shape[1]} x {own.shape[0]} px"
            )
        import cv2

        deviation = _fine_difference(suspect, own)
        np.clip(deviation, -_OUTLIER_LEVELS, _OUTLIER_LEVELS, out=deviation)
        weight = 1 / (1 + cv2.GaussianBlur(deviation**2, (0, 0), _SURROUNDINGS_PX)).reshape(-1)
        deviation = deviation.reshape(-1)
        failings = np.stack([_fine_difference(fail(own), own).reshape(-1) for fail in _FAILINGS])
        fields = _core.fields(own)
        for t, held, echoes in echoes_by_tone(fields):
            features = np.concatenate([echoes, failings[:, held]])
            weighted = features * weight[held]
            self.gram[t] += weighted @ features.T
            self.projection[t] += weighted @ deviation[held]
        self._add_tint(suspect, own, fields)

    def _add_tint(self, suspect: Picture, own: Picture, fields_of_own: Fields) -> None:
        rows, columns = (side // _BLOCK_PX for side in own.shape[:2])
        if not rows * columns:
            return
        inside = np.s_[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
        tone, fields = (part[..., *inside] for part in tint_fields(fields_of_own))
        y, x = (np.arange(side) // _BLOCK_PX for side in tone.shape)
        block = y[:, None] * columns + x
        place = (block * _core.TONES + tone).reshape(-1)
        sums = [
            np.bincount(place, of_field.reshape(-1), rows * columns * _core.TONES)
            for of_field in fields
        ]
        means = np.stack(sums).reshape(_core.TINT_FIELDS, -1, _core.TONES) / _BLOCK_PX**2
        features = means.transpose(0, 2, 1).reshape(_TINT_ROWS, -1)
        deviation = suspect[inside].astype(np.float64) - own[inside]
        shape = (rows, _BLOCK_PX, columns, _BLOCK_PX, 3)
        variance = (deviation**2).reshape(shape).mean(axis=(1, 3, 4)).reshape(-1)
        np.clip(deviation, -_OUTLIER_LEVELS, _OUTLIER_LEVELS, out=deviation)
        blocks = deviation.reshape(shape).mean(axis=(1, 3)).reshape(-1, 3)
        weighted = features / (1 + variance)
        self.tint_gram += weighted @ features.T
        self.tint_projection += weighted @ blocks

    def read(self, calibration: Calibration) -> FloatArray:
        """Estimate the coordinates z of the suspect's mark: float64 [n].

        Raises:
            CouldNotJudge: the suspect's outputs equal the owner's, or hold no texture.
        """
        n = calibration.coordinates
        # A failing is the same in all tones.
        unknowns = np.zeros((_FEATURES, _core.TONES, n + len(_FAILINGS)))
        unknowns[: _core.ORBITS, :, :n] = calibration.spread
        unknowns[_core.ORBITS :, :, n:] = np.eye(len(_FAILINGS))[:, None]
        information = np.einsum("otn,top,ptm->nm", unknowns, self.gram, unknowns, optimize=True)
        projection = np.einsum("otn,to->n", unknowns, self.projection)
        own = np.diag(information)
        if own[:n].sum() <= 0 or not projection[:n].any():
            raise CouldNotJudge("the suspect's outputs tell nothing about a mark")
        mean = own[:n].mean()
        ridge = np.concatenate([np.full(n, 1e-3 * mean), _FAILING_RIDGE * (own[n:] + mean)])
        return np.linalg.solve(information + np.diag(ridge), projection)[:n]

    def read_tint(self, calibration: Calibration) -> FloatArray:
        """Estimate the coordinates of the suspect's tint: float64 [m].

        Raises:
            CouldNotJudge: the suspect's colours equal the owner's, or there is not one whole block.
        """
        functions = calibration.tint.astype(np.float64).reshape(_TINT_ROWS, -1)
        constant = np.repeat([1.0, 0.0], [_core.TONES, _TINT_ROWS - _core.TONES])
        basis = np.column_stack([functions, constant])
        information = basis.T @ self.tint_gram @ basis
        projection = basis.T @ self.tint_projection
        if np.trace(information) <= 0 or not projection.any():
            raise CouldNotJudge("the suspect's outputs tell nothing about a tint")
        information += 1e-3 * np.diag(np.diag(information))
        of_channels = np.linalg.lstsq(information, projection, rcond=None)[0][:-1]
        z: FloatArray = of_channels @ np.linalg.inv(DIRECTIONS)
        return z.reshape(-1)


def _fine_difference(picture: Picture, own: Picture) -> npt.NDArray[np.float32]:
    """Difference of luma less its local mean, float32 [h, w]."""
    import cv2

    difference = _luma(picture) - _luma(own)
    return np.asarray(difference - cv2.GaussianBlur(difference, (0, 0), 2.0), np.float32)


def _luma(picture: Picture) -> npt.NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return (picture.astype(np.float32) @ weights).astype(np.float32)
