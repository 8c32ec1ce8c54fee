"""The mark's arithmetic in plain numpy, written from cpp/contract/CONTRACT.md and nothing else.

Slow and plain on purpose: whole pictures in 64-bit integers, one function for each step of the
contract. Every kernel must give the same integers, and so the same published bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Gains = npt.NDArray[np.int16]
Picture = npt.NDArray[np.float32] | Bytes  # float32 [3, h, w] or uint8 [h, w, 3]

K9 = (1, 4, 8, 12, 14, 12, 8, 4, 1)
K15 = (1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1)
TONES = 16
ORBITS = [(i, j) for i in range(1, 6) for j in range(i + 1) if i * i + j * j <= 32]
TAP_SUM_MAX = 60000
TINT_GAIN_MAX = 16384
LINE_REACH = 4
GRADIENT_UNIT_Q6 = 8
LINE_FLOOR = 6221
LINE_SHARE = np.float32(0.25)
GAIN_ROWS = len(ORBITS) + 3 * 4

# How far a pixel's echo can see: the farthest tap, then each filter's reach.
TAP_REACH = 10
K15_REACH = 7
K9_REACH = 4
REACH = TAP_REACH + K15_REACH + K9_REACH


def mul_round_15(a: Ints, b: Ints) -> Ints:
    """`a * b / 2^15`, rounded to nearest, ties upwards."""
    return (a * b + 2**14) >> 15


def crop(field: Ints, margin: int) -> Ints:
    """`field` without `margin` pixels on each side."""
    height, width = field.shape
    return field[margin : height - margin, margin : width - margin]


def load(x: Picture) -> Ints:
    """Step 1: `v_q6` [h, w, 3]."""
    if x.dtype == np.uint8:
        return 64 * x.astype(np.int64)
    if x.dtype != np.float32 or not np.isfinite(x).all():
        raise ValueError("a picture is uint8 or finite float32")
    return np.stack(load_real(x), axis=-1)


def load_real(x: npt.NDArray[np.float32]) -> Ints:
    """Step 1 for float32 of [0, 1]."""
    scaled = np.minimum(np.maximum(x, np.float32(0)), np.float32(1)) * np.float32(16320)
    rounded = scaled + np.float32(0.5)
    assert rounded.dtype == np.float32
    return np.trunc(rounded).astype(np.int64)


def in_unit_range(
    values: npt.NDArray[Any],
    scale: npt.NDArray[np.float32],
    offset: npt.NDArray[np.float32],
    quantum: float = 1 / 255,
    zero_point: int = 0,
) -> npt.NDArray[np.float32]:
    """Step 1: what takes the place of x, for any element and range. Channels are the last axis."""
    if values.dtype in (np.uint8, np.int8):
        difference = (values.astype(np.int64) - zero_point).astype(np.float32)
        x = difference * np.float32(quantum)
    else:
        x = values.astype(np.float32)
    with np.errstate(over="ignore"):
        result = (x * scale).astype(np.float32) + offset
    assert x.dtype == result.dtype == np.float32
    if not np.isfinite(result).all():
        raise ValueError("a value is not finite")
    return result


def luma(v_q6: Ints) -> Ints:
    """Step 3: centred luma `y_q2` [h, w]."""
    weighted = mul_round_15(v_q6, np.array([9798, 19235, 3735]))
    luma_q6: Ints = np.sum(weighted, axis=-1)
    return ((luma_q6 + 8) >> 4) - 512


def continued(y_q2: Ints) -> Ints:
    """Step 4: the picture's luma with `REACH` pixels of the infinite plane on each side."""
    return np.pad(y_q2, REACH, mode="edge")


def smooth(field: Ints, kernel: tuple[int, ...]) -> Ints:
    """`kernel` in both directions, where all its taps lie inside `field`."""
    height, width = field.shape
    rows, columns = height - len(kernel) + 1, width - len(kernel) + 1
    across = np.zeros((height, columns), np.int64)
    for k, weight in enumerate(kernel):
        across += weight * field[:, k : k + columns]
    both = np.zeros((rows, columns), np.int64)
    for k, weight in enumerate(kernel):
        both += weight * across[k : k + rows]
    return both


def texture(y_q2: Ints, low: Ints) -> Ints:
    """Step 5: texture `b_q6`, where `low` is known."""
    return (4096 * crop(y_q2, K9_REACH) - low + 128) >> 8


def tone(low: Ints) -> Ints:
    """Step 6: 0 (black) to 15 (white)."""
    return (low + 2**21) >> 18


def activity(b_q6: Ints) -> Ints:
    """Step 7: smoothed magnitude of the texture `act_q14`, where it is known."""
    return smooth((np.abs(b_q6) + 8) >> 4, K15)


def normalised_texture(b_q6: Ints, act_q14: Ints) -> Ints:
    """Step 8: texture `w` relative to the texture around it, where that is known."""
    above = crop(b_q6, K15_REACH).astype(np.float32) * np.float32(524288)
    below = act_q14.astype(np.float32) + np.float32(98304)
    ratio = above / below
    assert ratio.dtype == np.float32
    limited = np.minimum(np.maximum(ratio, np.float32(-2047)), np.float32(2047))
    return np.trunc(limited).astype(np.int64)


def orbit_taps(i: int, j: int) -> set[tuple[int, int]]:
    """Step 9: the distinct taps (dx, dy) of the orbit of (i, j)."""
    return {
        (2 * sign_x * x, 2 * sign_y * y)
        for x, y in ((i, j), (j, i))
        for sign_x in (1, -1)
        for sign_y in (1, -1)
    }


def orbit_sums(w: Ints) -> Ints:
    """Step 9: `t_o` [orbits, h, w], where all taps are known."""
    height, width = crop(w, TAP_REACH).shape
    sums = np.zeros((len(ORBITS), height, width), np.int64)
    for o, (i, j) in enumerate(ORBITS):
        for dx, dy in orbit_taps(i, j):
            top, left = TAP_REACH + dy, TAP_REACH + dx
            sums[o] += w[top : top + height, left : left + width]
    return sums


def tint_fields(v_q6: Ints, act_q14: Ints) -> Ints:
    """Step 10: blueness, redness and roughness [3, h, w]."""
    red, green, blue = np.moveaxis(v_q6, -1, 0)
    return np.stack(
        [
            np.clip(blue - green, -3072, 3072),
            np.clip(red - green, -3072, 3072),
            64 * np.minimum(act_q14 >> 14, 15),
        ]
    )


def fields(picture: Picture) -> tuple[Ints, Ints, Ints, Ints]:
    """Steps 1 to 10: `w` [h, w], tone [h, w], `t_o` [orbits, h, w], tint fields [3, h, w]."""
    return fields_of(load(picture))


def fields_of(v_q6: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Steps 3 to 10, of loaded values [h, w, 3]."""
    y_q2 = continued(luma(v_q6))
    low = smooth(y_q2, K9)
    b_q6 = texture(y_q2, low)
    act_q14 = activity(b_q6)
    w = normalised_texture(b_q6, act_q14)
    return (
        crop(w, TAP_REACH),
        crop(tone(low), TAP_REACH + K15_REACH),
        orbit_sums(w),
        tint_fields(v_q6, crop(act_q14, TAP_REACH)),
    )


def residual(tones: Ints, sums: Ints, colour: Ints, gains: Gains) -> Ints:
    """Steps 11 and 12: `r_q6` [h, w, 3] of a mark with gains [GAIN_ROWS, tones]."""
    g = gains.astype(np.int64)
    echo = np.zeros(tones.shape, np.int64)
    for o in range(len(ORBITS)):
        echo += mul_round_15(sums[o], g[o][tones])
    channels = []
    for c in range(3):
        h = g[len(ORBITS) + 4 * c :][:4, tones]
        tint = h[0] + sum(mul_round_15(colour[f], h[f + 1]) for f in range(3))
        tint = np.clip(tint, -64, 64)
        left = 128 - np.abs(tint)
        channels.append(tint + np.clip(echo, -left, left))
    return np.stack(channels, axis=-1)


def plain(x: Picture) -> Bytes:
    """Step 2: what is published without a mark, uint8 [h, w, 3]."""
    return ((load(x) + 32) >> 6).astype(np.uint8)


def published(x: Picture, gains: Gains) -> Bytes:
    """Step 13: what is published with a mark, uint8 [h, w, 3]."""
    _, tones, sums, colour = fields(x)
    r_q6 = residual(tones, sums, colour, gains)
    value: Ints = np.clip((load(x) + r_q6 + 32) >> 6, 0, 255)
    return value.astype(np.uint8)


def marked(v_q6: Ints, gains: Gains) -> Ints:
    """Step 14: `p_q6` [h, w, 3] of loaded values [h, w, 3]."""
    _, tones, sums, colour = fields_of(v_q6)
    return np.clip(v_q6 + residual(tones, sums, colour, gains), 0, 16320)


def as_bytes(p_q6: Ints) -> Bytes:
    """Step 15: uint8."""
    return ((p_q6 + 32) >> 6).astype(np.uint8)


def as_floats(
    p_q6: Ints, scale: npt.NDArray[np.float32], offset: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Step 15: float32. Channels are the last axis."""
    result = (p_q6.astype(np.float32) * scale).astype(np.float32) + offset
    assert result.dtype == np.float32
    return result


# Steps 16 to 18: red, blue, luma, offset, cb, cr; by matrix and whether the range is full.
YUV = {
    ("bt601", True): (9798, 3735, 32767, 0, 18492, 23372),
    ("bt601", False): (9798, 3735, 28142, 1024, 16244, 20531),
    ("bt709", True): (6966, 2366, 32767, 0, 17659, 20808),
    ("bt709", False): (6966, 2366, 28142, 1024, 15512, 18278),
}


def grey(p_q6: Ints, red: int, blue: int) -> Ints:
    """Step 16: `grey_q6` of [..., 3], not clamped."""
    r, g, b = p_q6[..., 0], p_q6[..., 1], p_q6[..., 2]
    return g + mul_round_15(r - g, np.int64(red)) + mul_round_15(b - g, np.int64(blue))


def yuv(p_q6: Ints, matrix: str, full_range: bool) -> tuple[Ints, Ints]:
    """Steps 17 and 18: `luma_q6` [h, w], and `cb_q6` and `cr_q6` [h / 2, w / 2, 2]."""
    red, blue, luma_scale, offset, cb, cr = YUV[matrix, full_range]
    luma_q6 = mul_round_15(grey(p_q6, red, blue), np.int64(luma_scale)) + offset
    height, width, _ = p_q6.shape
    even = np.pad(p_q6, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    four = even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]
    mean_q6 = (four + 2) >> 2
    middle = grey(mean_q6, red, blue)
    differences = [
        np.minimum(mul_round_15(mean_q6[..., c] - middle, np.int64(weight)) + 8192, 16320)
        for c, weight in ((2, cb), (0, cr))
    ]
    return luma_q6, np.stack(differences, axis=-1)


def as_ten_bits(q6: Ints) -> npt.NDArray[np.uint16]:
    """Step 17: ten bits, in the upper ones of sixteen."""
    return (((q6 + 8) >> 4) << 6).astype(np.uint16)


def lines(picture: Picture) -> npt.NDArray[np.bool_]:
    """Step 19: which pixels lie on a line."""
    y_q2 = np.pad(luma(load(picture)), K9_REACH + LINE_REACH + 1, mode="edge")
    smooth_q6 = (smooth(y_q2, K9) + 127) >> 8
    dx, dy = (
        np.trunc((after - before) / GRADIENT_UNIT_Q6).astype(np.int64)
        for after, before in (
            (smooth_q6[1:-1, 2:], smooth_q6[1:-1, :-2]),
            (smooth_q6[2:, 1:-1], smooth_q6[:-2, 1:-1]),
        )
    )
    side = 2 * LINE_REACH + 1
    across, down, both = (
        np.lib.stride_tricks.sliding_window_view(product, (side, side)).sum(axis=(2, 3))
        for product in (dx * dx, dy * dy, dx * dy)
    )
    difference, twice = ((across - down).astype(np.float32), (2 * both).astype(np.float32))
    whole = (across + down + LINE_FLOOR).astype(np.float32)
    found: npt.NDArray[np.bool_] = difference**2 + twice**2 > LINE_SHARE * (whole * whole)
    return found


def statistics(picture: Picture) -> Ints:
    """Step 20: `S` [2, tones, orbits + 1] of a suspect picture."""
    w, tones, sums, _ = fields(picture)
    on_line = lines(picture)
    result = np.zeros((2, TONES, len(ORBITS) + 1), np.int64)
    for part, held in enumerate((~on_line, on_line)):
        for value in range(TONES):
            here = (tones == value) & held
            for o in range(len(ORBITS)):
                result[part, value, o] = np.sum(w[here] * (sums[o][here] >> 4))
            result[part, value, len(ORBITS)] = np.sum(w[here] * w[here])
    return result
