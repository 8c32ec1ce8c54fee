"""The fused pass against plain post-processing and against invisible-watermark's dwtDct.

One process, one core, one tensor: ratios within a run, medians with the spread of the middle half.
Every output is checked before a time is printed.
"""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable

import cv2
import numpy as np

from birthmark import _core
from birthmark.pictures import read_picture

PHOTO = "tests/data/photos/eval/bb_casamila.jpg"
REPEATS = 31


def timed(run: Callable[[], object], repeats: int = REPEATS) -> np.ndarray:
    """Milliseconds of each repeat."""
    run()
    out = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        out.append(1e3 * (time.perf_counter() - began))
    return np.array(out)


def line(name: str, times: np.ndarray, against: float) -> None:
    """Print one row."""
    low, middle, high = np.percentile(times, [25, 50, 75])
    print(f"{name:44}{middle:9.2f} ms  ({low:.2f} .. {high:.2f}){middle / against:9.2f} x plain")


def main() -> None:
    """Measure on a photograph enlarged to 1920 x 1080."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    picture = cv2.resize(read_picture(PHOTO), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    x = np.ascontiguousarray(picture.transpose(2, 0, 1)[np.newaxis], np.float32) / np.float32(255)
    out = np.empty((1080, 1920, 3), np.uint8)
    gains = np.random.default_rng(0).integers(-1000, 1000, (_core.ORBITS, _core.TONES))
    mark = _core.write_mark(bytes(16), gains.astype(np.int16))

    def with_numpy() -> np.ndarray:
        planes = (np.clip(x[0], 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def with_opencv() -> np.ndarray:
        return cv2.merge([cv2.convertScaleAbs(plane, alpha=255) for plane in x[0]])

    plain = _core.Embedder(None)
    for name, run in (("numpy", with_numpy), ("OpenCV", with_opencv)):
        if np.abs(run().astype(int) - plain.embed(x)).max() > 1:
            sys.exit(f"{name} does not give the same picture")
    rows = {
        "plain: numpy": timed(with_numpy),
        "plain: OpenCV (convertScaleAbs, merge)": timed(with_opencv),
        "plain: birthmark, mark switched off": timed(lambda: plain.embed(x, out)),
    }
    best = min(float(np.median(t)) for t in rows.values())
    for kernel in reversed(_core.available_kernels()):
        embedder = _core.Embedder(mark, kernel)
        if np.abs(embedder.embed(x).astype(int) - plain.embed(x)).max() != 2:
            sys.exit(f"{kernel}: the mark is not what it should be")
        rows[f"marked: birthmark, {kernel}"] = timed(lambda e=embedder: e.embed(x, out))
        rows[f"statistics: birthmark, {kernel}"] = timed(
            lambda k=kernel: _core.statistics(out, k), 9
        )
    rival = dwt_dct(picture)
    if rival is not None:
        rows["marked: invisible-watermark, dwtDct"] = timed(rival, 5)
    print("1920 x 1080, one core, medians (middle half); plain = the fastest of the first three\n")
    for name, times in rows.items():
        line(name, times, best)


def dwt_dct(picture: np.ndarray) -> Callable[[], object] | None:
    """The rival's encoder on the same picture; None where it is not installed."""
    # The package imports torch for another method; dwtDct does not use it.
    sys.modules.setdefault("torch", types.ModuleType("torch"))
    try:
        from imwatermark import WatermarkEncoder
    except ImportError:
        print("invisible-watermark is not installed: `make bench` does that\n")
        return None
    encoder = WatermarkEncoder()
    encoder.set_watermark("bytes", b"test")
    bgr = np.ascontiguousarray(picture[..., ::-1])
    return lambda: encoder.encode(bgr, "dwtDct")


if __name__ == "__main__":
    main()
