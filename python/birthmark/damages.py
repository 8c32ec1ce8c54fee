"""What happens to pictures between a model and a verifier: compression, blur, noise and the like.

Each function makes a damage of a strength: it takes a picture, uint8 [h, w, 3], and gives another
of the same size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from birthmark.pictures import Picture, through_jpeg

Damage = Callable[[Picture], Picture]

_NOISE_SEED = 5


def compressed(quality: int) -> Damage:
    """Saved as JPEG of this quality, 1 to 100, and read again."""
    return lambda picture: through_jpeg(picture, quality)


def blurred(sigma_px: float) -> Damage:
    """Through a Gaussian filter."""

    def blur(picture: Picture) -> Picture:
        import cv2

        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.uint8)

    return blur


def sharpened(share: float) -> Damage:
    """With ``share`` of what a Gaussian filter of 1 px takes away added once more."""

    def sharpen(picture: Picture) -> Picture:
        import cv2

        fine = picture - cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.float32)
        return np.clip(np.rint(picture + share * fine), 0, 255).astype(np.uint8)

    return sharpen


def noisy(levels: float) -> Damage:
    """With Gaussian noise of this standard deviation, in grey levels; the same every time."""

    def add(picture: Picture) -> Picture:
        noise = np.random.default_rng(_NOISE_SEED).standard_normal(picture.shape, np.float32)
        return np.clip(np.rint(picture + levels * noise), 0, 255).astype(np.uint8)

    return add


def rescaled(factor: float) -> Damage:
    """Made smaller by area and brought back bicubically."""

    def rescale(picture: Picture) -> Picture:
        import cv2

        small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        size = picture.shape[1::-1]
        return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.uint8)

    return rescale


def median(picture: Picture) -> Picture:
    """The median of 3 x 3 pixels."""
    import cv2

    return np.asarray(cv2.medianBlur(picture, 3), np.uint8)
