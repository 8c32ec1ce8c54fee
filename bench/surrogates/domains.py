"""Pictures that are no photographs, for a thief who asks whatever he can make himself."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from birthmark.pictures import Picture

SIDE_PX = 640
_WORDS = ("image", "model", "query", "price", "list", "draft", "answer", "save", "search", "page")


def drawing(rng: np.random.Generator) -> Picture:
    """Flat shapes over each other, with outlines, as in a cartoon."""
    canvas = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(0, 256, 3), np.uint8)
    for size in np.geomspace(SIDE_PX / 2, 8, 60):
        place = rng.uniform(0, SIDE_PX, 2)
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        corners = place + size * rng.uniform(-1, 1, (int(rng.integers(3, 7)), 2))
        hull = cv2.convexHull(corners.astype(np.int32))
        axes = tuple(map(int, size * rng.uniform(0.3, 1, 2) + 1))
        for fill, shade in ((-1, colour), (2, (20, 20, 20))):
            if rng.integers(2):
                cv2.drawContours(canvas, [hull], -1, shade, fill, cv2.LINE_AA)
            else:
                middle = (int(place[0]), int(place[1]))
                cv2.ellipse(canvas, middle, axes, 30, 0, 360, shade, fill, cv2.LINE_AA)
    return canvas


def texture(rng: np.random.Generator) -> Picture:
    """Noise whose spectrum falls with a power of the frequency, other in each channel."""
    down, right = np.fft.fftfreq(SIDE_PX)[:, None], np.fft.rfftfreq(SIDE_PX)[None]
    # Longer one way than the other, like cloth, grass or bark.
    frequency = np.hypot(down * rng.uniform(1, 4), right) + 1 / SIDE_PX
    shape = (SIDE_PX, SIDE_PX)
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency ** -rng.uniform(0.6, 1.6)
        plane = np.fft.irfft2(spectrum, shape)
        planes.append(plane / plane.std())
    mixed = np.stack(planes, axis=2) @ (np.full((3, 3), 0.5) + 0.5 * np.eye(3))
    return np.clip(np.rint(128 + 45 * mixed), 0, 255).astype(np.uint8)


def screen(rng: np.random.Generator) -> Picture:
    """Text and boxes on plain ground, as on a screen."""
    light = bool(rng.integers(2))
    canvas = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(225, 256) if light else 35, np.uint8)
    for _ in range(12):
        left, top = (int(v) for v in rng.integers(0, SIDE_PX, 2))
        right, bottom = left + int(rng.integers(40, 300)), top + int(rng.integers(20, 120))
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, int(rng.choice([-1, 1, 2])))
    y = 20
    while y < SIDE_PX:
        size = float(rng.uniform(0.3, 0.9))
        words = " ".join(rng.choice(_WORDS, 14))
        shade = (30, 30, 30) if light else (220, 220, 220)
        cv2.putText(canvas, words, (10, y), cv2.FONT_HERSHEY_SIMPLEX, size, shade, 1, cv2.LINE_AA)
        y += int(24 + 30 * size)
    return canvas


DOMAINS: dict[str, Callable[[np.random.Generator], Picture]] = {
    "drawings": drawing,
    "textures of noise": texture,
    "screens": screen,
}
