"""Calibrate on a model: run it over typical inputs and measure its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birthmark.calibration import Calibration, calibrate
from birthmark.files import StrPath
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.progress import Progress
from birthmark.remote import AnyPath
from birthmark.resources import calibration_photographs

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
    progress = Progress("running the model")
    outputs = []
    for i, given in enumerate(inputs):
        progress(i, len(inputs))
        picture = given if isinstance(given, np.ndarray) else read_picture(given)
        outputs.append(_middle(model.output(picture)))
    progress.close()
    progress = Progress("calibrating")
    calibration = calibrate(outputs, progress=progress)
    progress.close()
    return calibration


def _middle(output: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The middle of a large output, float32 [3, h, w]."""
    rows, columns = (
        slice(max(0, side - _MOST_SIDE_PX) // 2, (side + _MOST_SIDE_PX) // 2)
        for side in output.shape[1:]
    )
    return np.ascontiguousarray(output[:, rows, columns])
