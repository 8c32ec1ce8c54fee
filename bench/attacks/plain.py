"""Attacks on published pictures by somebody who has nothing else, and models of other people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scene import Published, Scene, halved

from birthmark.models import ImageModel
from birthmark.pictures import Picture, through_jpeg

Change = Callable[[Scene, Published, Any], list[Picture]]


def each(change: Callable[[Picture, float], object]) -> Change:
    """An attack that treats every picture by itself."""
    return lambda scene, of, strength: [
        np.ascontiguousarray(change(p, strength), np.uint8) for p in of.marked
    ]


def nothing(scene: Scene, of: Published, _: object) -> list[Picture]:
    """The pictures as they were published."""
    return of.marked


def blurred(picture: Picture, sigma_px: float) -> object:
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)


def median(picture: Picture, side_px: float) -> object:
    return cv2.medianBlur(picture, int(side_px))


def bilateral(picture: Picture, sigma_levels: float) -> object:
    return cv2.bilateralFilter(picture, 9, sigma_levels, 3)


def non_local_means(picture: Picture, levels: float) -> object:
    return cv2.fastNlMeansDenoisingColored(picture, None, levels, levels, 5, 15)


def jpeg(picture: Picture, quality: float) -> object:
    return through_jpeg(picture, int(quality))


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    smaller = size[0] < picture.shape[1]
    kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=kind), np.uint8)


def rescaled(picture: Picture, factor: float) -> object:
    height, width = picture.shape[:2]
    small = _resized(picture, (round(width * factor), round(height * factor)))
    return _resized(small, (width, height))


def rescaled_often(picture: Picture, turns: float) -> object:
    """Up by a half and back to an odd size, over and over, as shared pictures are."""
    height, width = picture.shape[:2]
    for turn in range(int(turns)):
        factor = (0.83, 1.31, 0.71, 1.13)[turn % 4]
        picture = _resized(picture, (round(width * factor), round(height * factor)))
        picture = _resized(picture, (width, height))
    return picture


def noisy(picture: Picture, sigma_levels: float) -> object:
    noise = np.random.default_rng(picture.shape[1]).standard_normal(picture.shape)
    return np.clip(np.rint(picture + sigma_levels * noise), 0, 255)


def fewer_bits(picture: Picture, bits: float) -> object:
    step = 2 ** (8 - int(bits))
    return np.clip(picture // step * step + step // 2, 0, 255)


def zoo(folder: Path) -> list[str]:
    """Models that pictures can be washed with, by name."""
    return sorted(file.stem for file in folder.glob("*.onnx"))


def washed(scene: Scene, of: Published, name: str) -> list[Picture]:
    """Through another model; one that enlarges gets the picture at half size.

    The owner's own model is among them: its answers to halved pictures, without the mark.
    """
    model = ImageModel(scene.models / f"{name}.onnx", threads=1)
    return [model(p if model.scale == 1 else halved(p)) for p in of.marked]


def noised_and_denoised(scene: Scene, of: Published, sigma_levels: float) -> list[Picture]:
    """Noise that drowns the mark, and a denoiser that takes both away."""
    denoiser = ImageModel(scene.models / "denoise_small.onnx", threads=1)
    return [denoiser(np.asarray(noisy(p, sigma_levels), np.uint8)) for p in of.marked]
