"""Pictures and gains that tests draw: every kind of content, gains up to the contract's bound."""

from __future__ import annotations

import numpy as np

from reference import (
    GAIN_ROWS,
    ORBITS,
    TAP_SUM_MAX,
    TINT_GAIN_MAX,
    TONES,
    Bytes,
    Gains,
    Picture,
    plain,
)

KINDS = (
    "noise",
    "faint",
    "gradient",
    "constant",
    "text",
    "checkerboard",
    "specks",
    "outside",
    "denormal",
    "ties",
)
GAIN_KINDS = ("zero", "typical", "strong", "bound", "positive", "highest", "lowest", "pair")


def draw_picture(
    kind: str, height: int, width: int, rng: np.random.Generator, pixels: bool = False
) -> Picture:
    """A picture of a kind of content: float32 [3, h, w], or uint8 [h, w, 3] if `pixels`."""
    shape = (3, height, width)
    noise = rng.random(shape)
    y, x = np.mgrid[:height, :width]
    if kind == "noise":
        value = noise
    elif kind == "faint":
        value = rng.random() + 0.02 * noise
    elif kind == "gradient":
        slopes = rng.uniform(-0.05, 0.05, (2, 3, 1, 1))
        value = 0.5 + 0.5 * np.sin(slopes[0] * x + slopes[1] * y + 7 * rng.random())
    elif kind == "constant":
        value = np.broadcast_to(rng.random((3, 1, 1)), shape)
    elif kind == "text":
        # Strokes of random cells: black on white, or white on black.
        cells = rng.random((height // 4 + 1, width // 2 + 1)) < 0.4
        value = np.broadcast_to(np.kron(cells, np.ones((4, 2)))[:height, :width], shape)
    elif kind == "checkerboard":
        # All taps of a pixel see the same phase, so the echo reaches its limits.
        low, high = np.sort(rng.random(2))
        value = np.broadcast_to(np.where((x + y) % 2 == 0, low, high), shape)
    elif kind == "specks":
        value = np.where(noise[:1] < 0.01, 1 - rng.integers(2), rng.random()) + 0 * noise
    elif kind == "outside":
        value = np.where(noise < 0.1, rng.normal(0, 1e30, shape), rng.uniform(-1, 2, shape))
    elif kind == "denormal":
        value = rng.choice([0.0, -0.0, 1e-45, -1e-45, 1e-39, 1.17549435e-38, 3e-5, 1.0], shape)
    elif kind == "ties":
        # Where grey levels and their sixty-fourths round, and the two floats around that.
        steps = rng.choice([255.0, 510.0, 16320.0, 32640.0])
        exact = (rng.integers(0, int(steps) + 1, shape) / steps).astype(np.float32)
        towards = rng.choice(np.array([-9, 9], np.float32), shape)
        value = np.where(rng.random(shape) < 0.3, exact, np.nextafter(exact, towards))
    else:
        raise ValueError(kind)
    picture: Picture = np.ascontiguousarray(value, np.float32)
    return plain(picture) if pixels else picture


def draw_gains(kind: str, rng: np.random.Generator) -> Gains:
    """Gains [GAIN_ROWS, tones] of a kind, within the contract's bounds; not all have a tint."""
    count = len(ORBITS)
    gains = np.zeros((count, TONES), np.int64)
    if kind in ("typical", "strong"):
        # A typical residual stays within two grey levels, a strong one is mostly clamped.
        limit = 150 if kind == "typical" else 3500
        gains = rng.integers(-limit, limit + 1, gains.shape)
    elif kind in ("bound", "positive"):
        # The magnitudes of each tone sum to the bound exactly.
        gains = np.floor(TAP_SUM_MAX / 2 * rng.dirichlet(np.ones(count), TONES).T).astype(np.int64)
        missing = TAP_SUM_MAX - gains.sum(axis=0)
        gains[0] += missing // 2
        gains[1] += missing - missing // 2
        assert (gains.sum(axis=0) == TAP_SUM_MAX).all()
        if kind == "bound":
            gains *= rng.choice([-1, 1], gains.shape)
    elif kind in ("highest", "lowest"):
        gains[rng.integers(count)] = 32767 if kind == "highest" else -32768
    elif kind == "pair":
        for column in gains.T:
            first, second = rng.choice(count, 2, replace=False)
            column[first] = 32767
            column[second] = rng.choice([-1, 1]) * (TAP_SUM_MAX - 32767)
    elif kind != "zero":
        raise ValueError(kind)
    assert np.abs(gains).sum(axis=0).max() <= TAP_SUM_MAX
    tint = np.zeros((GAIN_ROWS - count, TONES), np.int64)
    if kind == "typical":
        tint = rng.integers(-400, 401, tint.shape) * rng.integers(2)
    elif kind != "zero":
        tint = rng.integers(-TINT_GAIN_MAX, TINT_GAIN_MAX + 1, tint.shape) * rng.integers(2)
        tint[rng.random(tint.shape) < 0.5] = rng.choice([-1, 1]) * TINT_GAIN_MAX * rng.integers(2)
    drawn: Gains = np.concatenate([rng.permuted(gains, axis=0), tint]).astype(np.int16)
    return drawn


def photo_gains() -> Gains:
    """A mark like a real one: gains of a few thousandths that change slowly with the tone."""
    o, t = np.mgrid[:GAIN_ROWS, :TONES]
    gains: Gains = np.round(150 * np.sin(1.7 * o + 0.2 * t)).astype(np.int16)
    return gains


def as_planes(picture: Bytes) -> Picture:
    """A uint8 picture [h, w, 3] as what a model puts out: float32 [3, h, w] in [0, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / np.float32(255)
