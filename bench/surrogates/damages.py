"""What may happen to a suspect's pictures before the owner sees them."""

from __future__ import annotations

import importlib.util
import sys
import types

import cv2
import numpy as np

from birthmark.damages import Damage, blurred, compressed, median, noisy, rescaled
from birthmark.pictures import Picture, turned_and_rescaled

DEGREES = 2.0


def _turned(picture: Picture) -> Picture:
    """By a few degrees, with what is outside mirrored in."""
    return turned_and_rescaled(picture, picture.shape[:2], 1.0, DEGREES, cv2.INTER_CUBIC)


def _marked_again(picture: Picture) -> Picture:
    """With the mark of another scheme (invisible-watermark's dwtDct) on top."""
    # The package always imports torch, which only another method of it uses. What stands in for it
    # must not stay: scipy takes whatever is called so for the real one.
    stands_in = "torch" not in sys.modules and importlib.util.find_spec("torch") is None
    if stands_in:
        sys.modules["torch"] = types.ModuleType("torch")
    try:
        import imwatermark
    finally:
        if stands_in:
            del sys.modules["torch"]

    encoder = imwatermark.WatermarkEncoder()
    encoder.set_watermark("bytes", b"test")
    bgr = encoder.encode(np.ascontiguousarray(picture[..., ::-1]), "dwtDct")
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


DAMAGES: dict[str, Damage] = {
    "none": lambda p: p,
    "JPEG 90": compressed(90),
    "JPEG 75": compressed(75),
    "JPEG 50": compressed(50),
    "cropped to the middle half": lambda p: np.ascontiguousarray(
        p[p.shape[0] // 4 : -(p.shape[0] // 4), p.shape[1] // 4 : -(p.shape[1] // 4)]
    ),
    "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
    "quarter turn": lambda p: np.ascontiguousarray(np.rot90(p)),
    "blurred, sigma .7": blurred(0.7),
    "noise of 3 levels": noisy(3),
    "to 75 % and back": rescaled(0.75),
    "median of 3 x 3": median,
    "mean of 3 x 3": lambda p: np.asarray(cv2.blur(p, (3, 3)), np.uint8),
    "turned by 2 degrees": _turned,
}
# Left out of a row where the package is not installed: `make bench` does that.
if importlib.util.find_spec("imwatermark"):
    DAMAGES["marked again by dwtDct"] = _marked_again
