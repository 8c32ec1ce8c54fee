"""Calibrate on a model: run it over typical inputs and measure its outputs; and claim it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.calibration import TINT_LEVELS, Calibration, calibrate, squares
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim
from birthmark.extract import log10_p_of_sums
from birthmark.files import StrPath
from birthmark.keys import OwnerKey
from birthmark.mark import coordinates, provision
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture, through_jpeg
from birthmark.progress import Progress
from birthmark.remote import AnyPath
from birthmark.resources import calibration_photographs
from birthmark.sums import sums_of, total_of

DRAWS = 32
# Of a model whose outputs are as large as its inputs (denoising and the like) a thief's network
# learns the tint, and next to nothing of the echo. So the tint gets twice as much, and to draw for
# a better echo would cost evidence and give none.
SAME_SIZE_TINT_LEVELS = 2 * TINT_LEVELS
# From the tint alone fewer bits can be read.
SAME_SIZE_EMBLEM_ROWS = 4
_JPEG_QUALITY = 75
# What is measured on is kept in memory: this many pieces, of this side, at the most.
MOST_INPUTS = 128
_MOST_SIDE_PX = 960


def calibration_inputs(
    model: ImageModel, given: Sequence[StrPath] | None
) -> list[AnyPath | Picture]:
    """The owner's own inputs (files and folders), or the package's photographs at input size.

    Of more than :data:`MOST_INPUTS` files some are taken, evenly.

    Raises:
        InvalidPicture: a path is missing, or a folder holds no picture.
    """
    import cv2

    if given:
        files = gather_pictures(given).files
        return list(files[:: -(-len(files) // MOST_INPUTS)])
    pictures: list[AnyPath | Picture] = []
    for path in calibration_photographs():
        photograph = read_picture(path)
        height, width = (max(1, side // model.scale) for side in photograph.shape[:2])
        small = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA)
        pictures.append(np.ascontiguousarray(small, np.uint8))
    return pictures


def calibrate_model(model: ImageModel, inputs: Sequence[AnyPath | Picture]) -> Calibration:
    """Run a model over inputs and calibrate on its outputs, with progress on standard error.

    Raises:
        InvalidPicture, InvalidModel: an input cannot be read, or the model refuses it.
        InvalidArray, CouldNotJudge: as :func:`birthmark.calibrate`.
    """
    return _calibrated(model, _outputs(model, inputs))


def claim_model(
    key: OwnerKey,
    owner: str,
    model: ImageModel,
    model_path: StrPath,
    inputs: Sequence[AnyPath | Picture],
    *,
    draws: int | None = None,
    **stated: Any,
) -> Claim:
    """Calibrate on a model and claim it, with progress on standard error.

    Marks differ in how well they can be read: the square of a mark disturbs it more or less. So
    ``draws`` claims are made, which differ in nothing but their number, and the one is kept whose
    mark reads best in the model's own outputs, as they are and as JPEG of quality 75. No suspect is
    there yet, so this favours none; still the claim states the number, and verdicts count it.

    Args:
        key: the owner's key.
        owner: the name to stand in the claim.
        model: the model at ``model_path``.
        model_path: the owner's model file.
        inputs: typical ones: paths, or pictures uint8 [h, w, 3].
        draws: how many claims are tried, 1 to :data:`birthmark.claim.MAX_DRAWS`; by default
            :data:`DRAWS`, or 1 where the model's outputs are as large as its inputs.
        **stated: what else :meth:`birthmark.Claim.create` takes. The emblem has half as many rows
            where the model's outputs are as large as its inputs.

    Raises:
        InvalidPicture, InvalidModel, InvalidArray, CouldNotJudge: as :func:`calibrate_model`.
        InvalidClaim: as :meth:`birthmark.Claim.create`.
    """
    if draws is None:
        draws = 1 if model.scale == 1 else DRAWS
    if model.scale == 1:
        stated = {"emblem_rows": SAME_SIZE_EMBLEM_ROWS, **stated}
    outputs = _outputs(model, inputs)
    calibration = _calibrated(model, outputs)
    frozen, pictures = calibration.to_bytes(), squares(outputs)
    progress = Progress("drawing a mark")
    best: tuple[float, Claim] | None = None
    for draw in range(1, draws + 1):
        progress(draw - 1, draws)
        claim = Claim.create(key, owner, model_path, frozen, draw=draw, draws=draws, **stated)
        log10_p = _legibility(key, claim, calibration, pictures)
        if best is None or log10_p < best[0]:
            best = log10_p, claim
    progress.close()
    if best is None:
        raise InvalidClaim("at least one claim has to be drawn")
    return best[1]


def _legibility(
    key: OwnerKey,
    claim: Claim,
    calibration: Calibration,
    pictures: Sequence[npt.NDArray[np.float32]],
) -> float:
    """The sum of log10 p over published pictures and over their JPEGs; the lower, the better."""
    embedder = _core.Embedder(provision(key, claim).data)
    n = calibration.coordinates
    direction = coordinates(claim.mark_key(key), claim, n) / np.sqrt(n)
    published = [embedder.embed(picture) for picture in pictures]
    compressed = [through_jpeg(picture, _JPEG_QUALITY) for picture in published]
    return sum(
        log10_p_of_sums(total_of([*map(sums_of, some)]), calibration, direction)
        for some in (published, compressed)
    )


def loaded(given: AnyPath | Picture) -> Picture:
    """One of :func:`calibration_inputs`, read where it is a file.

    Raises:
        InvalidPicture: the file is no picture.
    """
    return given if isinstance(given, np.ndarray) else read_picture(given)


def _outputs(
    model: ImageModel, inputs: Sequence[AnyPath | Picture]
) -> list[npt.NDArray[np.float32]]:
    progress = Progress("running the model")
    outputs = []
    for i, given in enumerate(inputs):
        progress(i, len(inputs))
        outputs.append(_middle(model.output(loaded(given))))
    progress.close()
    return outputs


def _calibrated(model: ImageModel, outputs: Sequence[npt.NDArray[np.float32]]) -> Calibration:
    progress = Progress("calibrating")
    levels = SAME_SIZE_TINT_LEVELS if model.scale == 1 else TINT_LEVELS
    calibration = calibrate(outputs, tint_levels=levels, progress=progress)
    progress.close()
    return calibration


def _middle(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The middle of a large output, float32 [3, h, w]."""
    rows, columns = (
        slice(max(0, side - _MOST_SIDE_PX) // 2, (side + _MOST_SIDE_PX) // 2)
        for side in output.shape[1:]
    )
    return np.ascontiguousarray(output[:, rows, columns])
