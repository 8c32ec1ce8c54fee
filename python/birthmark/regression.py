"""What a suspect answers beside what the owner's model does: the informed test's equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from birthmark.pictures import Picture

_OUTLIER_LEVELS = 12.0
_SURROUNDINGS_PX = 3.0
# What a surrogate does to the owner's picture besides: it rounds edges off, and it smooths away
# what compression would. Each of these differences is read beside the mark.
_FAILINGS = (median, compressed(50))
_FAILING_RIDGE = 1e-6
# Rows of the informed test's equations in each tone: an echo for each orbit, failings, and then the
# deviation of each reference.
_FEATURES = _core.ORBITS + len(_FAILINGS)
_BLOCK_PX = 16
_TINT_ROWS = _core.TINT_FIELDS * _core.TONES


@dataclass
class Regression:
    """Normal equations of the informed test: the suspect's deviation from M on M's own carriers.

    For each tone, ``gram`` sums products of features and ``projection`` sums features times the
    deviation, both in grey levels. Features are the orbits' echoes, and what two damages (a
    median of 3 x 3 pixels, JPEG of quality 50) do to M's picture: a surrogate fails in such ways
    too, which is not to be taken for a mark. So are the deviations of *references*: surrogates that
    the owner trained on M's unmarked outputs, which fail as a suspect does for other reasons than a
    mark. ``tint_gram`` and ``tint_projection`` do the same for what a tint is made of (fields times
    tones, in this order; then each reference's red, green and blue) and the deviations of red,
    green and blue.
    """

    gram: FloatArray
    projection: FloatArray
    tint_gram: FloatArray
    tint_projection: FloatArray

    @classmethod
    def empty(cls, references: int = 0) -> Self:
        """Equations of no picture yet, with this number of references."""
        features, rows = _FEATURES + references, _TINT_ROWS + 3 * references
        return cls(
            np.zeros((_core.TONES, features, features)),
            np.zeros((_core.TONES, features)),
            np.zeros((rows, rows)),
            np.zeros((rows, 3)),
        )

    @property
    def references(self) -> int:
        """How many references stand beside the suspect."""
        return int(self.projection.shape[1]) - _FEATURES

    def add(self, suspect: Picture, own: Picture, references: Sequence[Picture] = ()) -> None:
        """Add the suspect's output, the owner's unmarked one, and the references', for one input.

        The deviation is the difference of luma (BT.601) less its local mean, so that a
        suspect that is brighter or softer over wide areas does not drown the mark, and is cut at
        12 levels, so that a suspect's few gross errors do not either. For the tint it is the other
        way round: means over blocks of 16 x 16 pixels are compared, since the finest colours of a
        suspect are never right. Where the two differ by v in the square, in the mean over the
        surroundings (over the block), a pixel (block) counts 1 / (1 + v) of one where they agree:
        least squares weighted by the errors' variance.

        Raises:
            InvalidArray: they differ in size.
        """
        for who, answer in [("the suspect", suspect), *(("a reference", r) for r in references)]:
            if answer.shape != own.shape:
                raise InvalidArray(
                    f"{who} answers with {answer.shape[1]} x {answer.shape[0]} px where the"
                    f" owner's model gives {own.shape[1]} x {own.shape[0]} px"
                )
        import cv2

        deviation = _deviation(suspect, own)
        weight = 1 / (1 + cv2.GaussianBlur(deviation**2, (0, 0), _SURROUNDINGS_PX)).reshape(-1)
        deviation = deviation.reshape(-1)
        besides = [_fine_difference(fail(own), own) for fail in _FAILINGS]
        besides += [_deviation(reference, own) for reference in references]
        failings = np.stack([one.reshape(-1) for one in besides])
        fields = _core.fields(own)
        for t, held, echoes in echoes_by_tone(fields):
            features = np.concatenate([echoes, failings[:, held]])
            weighted = features * weight[held]
            self.gram[t] += weighted @ features.T
            self.projection[t] += weighted @ deviation[held]
        self._add_tint(suspect, own, references, fields)

    def _add_tint(
        self, suspect: Picture, own: Picture, references: Sequence[Picture], fields_of_own: Fields
    ) -> None:
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
        shape = (rows, _BLOCK_PX, columns, _BLOCK_PX, 3)

        def in_blocks(answer: Picture) -> tuple[FloatArray, FloatArray]:
            deviation = answer[inside].astype(np.float64) - own[inside]
            variance = (deviation**2).reshape(shape).mean(axis=(1, 3, 4)).reshape(-1)
            np.clip(deviation, -_OUTLIER_LEVELS, _OUTLIER_LEVELS, out=deviation)
            return deviation.reshape(shape).mean(axis=(1, 3)).reshape(-1, 3), variance

        blocks, variance = in_blocks(suspect)
        features = np.vstack([features, *(in_blocks(reference)[0].T for reference in references)])
        weighted = features / (1 + variance)
        self.tint_gram += weighted @ features.T
        self.tint_projection += weighted @ blocks

    def read(self, calibration: Calibration) -> FloatArray:
        """Estimate the coordinates z of the suspect's mark: float64 [n].

        Raises:
            CouldNotJudge: the suspect's outputs equal the owner's, or hold no texture.
        """
        n, failings = calibration.coordinates, len(_FAILINGS) + self.references
        # A failing is the same in all tones.
        unknowns = np.zeros((_core.ORBITS + failings, _core.TONES, n + failings))
        unknowns[: _core.ORBITS, :, :n] = calibration.spread
        unknowns[_core.ORBITS :, :, n:] = np.eye(failings)[:, None]
        information = np.einsum("otn,top,ptm->nm", unknowns, self.gram, unknowns, optimize=True)
        projection = np.einsum("otn,to->n", unknowns, self.projection)
        own = np.diag(information)
        if own[:n].sum() <= 0 or not projection[:n].any():
            raise CouldNotJudge("the suspect's outputs tell nothing about a mark")
        mean = own[:n].mean()
        ridge = np.concatenate([np.full(n, 1e-3 * mean), _FAILING_RIDGE * (own[n:] + mean)])
        return np.linalg.solve(information + np.diag(ridge), projection)[:n]

    def of_reference(self, i: int) -> Regression:
        """The same equations with reference ``i`` in the suspect's place, and no references."""
        row, tint_rows = _FEATURES + i, _TINT_ROWS + 3 * i + np.arange(3)
        return Regression(
            self.gram[:, :_FEATURES, :_FEATURES],
            self.gram[:, :_FEATURES, row],
            self.tint_gram[:_TINT_ROWS, :_TINT_ROWS],
            self.tint_gram[:_TINT_ROWS, tint_rows],
        )

    def alone(self) -> Regression:
        """The same equations without the references."""
        return Regression(
            self.gram[:, :_FEATURES, :_FEATURES],
            self.projection[:, :_FEATURES],
            self.tint_gram[:_TINT_ROWS, :_TINT_ROWS],
            self.tint_projection[:_TINT_ROWS],
        )

    def read_tint(self, calibration: Calibration) -> FloatArray:
        """Estimate the coordinates of the suspect's tint: float64 [m].

        Raises:
            CouldNotJudge: the suspect's colours equal the owner's, or there is not one whole block.
        """
        functions = calibration.tint.astype(np.float64).reshape(_TINT_ROWS, -1)
        constant = np.repeat([1.0, 0.0], [_core.TONES, _TINT_ROWS - _core.TONES])
        besides = 3 * self.references
        basis = np.zeros((_TINT_ROWS + besides, functions.shape[1] + 1 + besides))
        basis[:_TINT_ROWS, : -besides or None] = np.column_stack([functions, constant])
        basis[_TINT_ROWS:, basis.shape[1] - besides :] = np.eye(besides)
        information = basis.T @ self.tint_gram @ basis
        projection = basis.T @ self.tint_projection
        if np.trace(information) <= 0 or not projection.any():
            raise CouldNotJudge("the suspect's outputs tell nothing about a tint")
        information += 1e-3 * np.diag(np.diag(information))
        of_channels = np.linalg.lstsq(information, projection, rcond=None)[0]
        of_channels = of_channels[: functions.shape[1]]
        z: FloatArray = of_channels @ np.linalg.inv(DIRECTIONS)
        return z.reshape(-1)


def _deviation(answer: Picture, own: Picture) -> npt.NDArray[np.float32]:
    """How an answer deviates from the owner's, cut, float32 [h, w]."""
    return np.clip(_fine_difference(answer, own), -_OUTLIER_LEVELS, _OUTLIER_LEVELS)


def _fine_difference(picture: Picture, own: Picture) -> npt.NDArray[np.float32]:
    """Difference of luma less its local mean, float32 [h, w]."""
    import cv2

    difference = _luma(picture) - _luma(own)
    return np.asarray(difference - cv2.GaussianBlur(difference, (0, 0), 2.0), np.float32)


def _luma(picture: Picture) -> npt.NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return (picture.astype(np.float32) @ weights).astype(np.float32)
