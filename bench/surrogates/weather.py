"""Rain and haze put on photographs: inputs for the models that take them off again."""

from __future__ import annotations

import cv2
import numpy as np

from birthmark.pictures import Picture


def rain(picture: Picture, rng: np.random.Generator) -> Picture:
    """Bright streaks of one direction, as a falling drop leaves them during an exposure."""
    height, width, _ = picture.shape
    drops = (rng.random((height, width)) < 0.005) * rng.uniform(0.5, 1.0, (height, width))
    length, angle = int(rng.integers(9, 22)), np.deg2rad(rng.uniform(-25, 25))
    streak = np.zeros((length, length), np.float32)
    middle = np.array([length // 2, length // 2])
    reach = (length / 2 * np.array([np.sin(angle), np.cos(angle)])).round().astype(int)
    ends = [tuple(map(int, middle + sign * reach)) for sign in (-1, 1)]
    cv2.line(streak, ends[0], ends[1], 1.0)
    falling = cv2.filter2D(drops.astype(np.float32), -1, streak)
    light = 200 * cv2.GaussianBlur(np.minimum(falling, 1), (0, 0), 0.7)
    return np.clip(np.rint(picture + light[..., None]), 0, 255).astype(np.uint8)


def haze(picture: Picture, rng: np.random.Generator) -> Picture:
    """I t + A (1 - t) with t = exp(-beta d) (Koschmieder 1924), d farther towards the top."""
    height, width, _ = picture.shape
    hills = cv2.resize(rng.random((4, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
    depth = np.linspace(1.2, 0.3, height)[:, None] + 0.4 * hills
    t = np.exp(-rng.uniform(0.3, 0.7) * depth)[..., None]
    air = 255 * rng.uniform(0.8, 1.0)
    return np.clip(np.rint(picture * t + air * (1 - t)), 0, 255).astype(np.uint8)
