"""The fused pass against plain post-processing and against invisible-watermark's dwtDct.

One process, one core, one tensor. Each contestant takes turns with the plain pass, and the ratio is
taken within a turn, so that whatever else the machine does hits both. The clock is that of this
thread: it stands still while another program has the core. Every output is checked before a time is
printed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable

import cv2
import numpy as np

from birthmark import _core
from birthmark.models import as_planes
from birthmark.pictures import read_picture

PHOTO = "tests/data/photos/eval/bb_casamila.jpg"
TURNS = 61
WIDTH, HEIGHT = 1920, 1080
# Marks without a tint; the first two leave the orbits beyond i = 3 or 4 alone.
ECHOES_ALONE = (9, 14, _core.ORBITS)


def cpu_ms(run: Callable[[], object]) -> float:
    """Milliseconds of this thread that one run takes."""
    began = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - began)


def row(
    name: str, run: Callable[[], object], plain: Callable[[], object], turns: int = TURNS
) -> None:
    """Time `run` and `plain` in turns, and print the row of `run`."""
    run()
    times = np.array([(cpu_ms(plain), cpu_ms(run)) for _ in range(turns)])
    low, middle, high = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
    least, median = times[:, 1].min(), np.median(times[:, 1])
    print(
        f"{name:40}{least:8.2f}{median:8.2f} ms{middle:8.2f} x plain  ({low:.2f} .. {high:.2f})",
        flush=True,
    )


def main() -> None:
    """Measure on a photograph enlarged to 1920 x 1080."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    picture = cv2.resize(read_picture(PHOTO), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    x = as_planes(picture)
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    gains = np.random.default_rng(0).integers(-1000, 1000, (_core.GAIN_ROWS, _core.TONES), np.int16)

    def embedder(rows: int, kernel: str | None = None) -> _core.Embedder:
        kept = gains.copy()
        kept[rows:] = 0
        return _core.Embedder(_core.write_mark(bytes(16), kept), kernel)

    def with_numpy() -> np.ndarray:
        planes = (np.clip(x[0], 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def with_opencv() -> np.ndarray:
        return cv2.merge([cv2.convertScaleAbs(plane, alpha=255) for plane in x[0]])

    plain = _core.Embedder(None)
    for name, run in (("numpy", with_numpy), ("OpenCV", with_opencv)):
        if np.abs(run().astype(int) - plain.embed(x)).max() > 1:
            sys.exit(f"{name} does not give the same picture")

    def without_mark() -> np.ndarray:
        return plain.embed(x, out)

    print(
        f"{WIDTH} x {HEIGHT}, one core: least and median time,\n"
        "and the ratio to our pass with the mark switched off: its median and middle half\n"
    )
    copy = np.empty_like(x)
    row("plain: numpy", with_numpy, without_mark)
    row("plain: OpenCV (convertScaleAbs, merge)", with_opencv, without_mark)
    row("plain: birthmark", without_mark, without_mark)
    row("memcpy of the tensor", lambda: np.copyto(copy, x), without_mark)
    kernels = _core.available_kernels()
    marked = embedder(_core.GAIN_ROWS, kernels[0]).embed(x)
    for kernel in reversed(kernels):
        turns = TURNS if kernel != "scalar" else 5
        one = embedder(_core.GAIN_ROWS, kernel)
        if not np.array_equal(one.embed(x), marked):
            sys.exit(f"{kernel}: the mark is not what it should be")
        row(f"marked: {kernel}", lambda e=one: e.embed(x, out), without_mark, turns)
        row(
            f"statistics: {kernel}",
            lambda k=kernel: _core.statistics(marked, k),
            without_mark,
            turns // 3 + 1,
        )
    for orbits in ECHOES_ALONE:
        short = embedder(orbits)
        if not np.array_equal(short.embed(x), embedder(orbits, kernels[0]).embed(x)):
            sys.exit(f"{orbits} orbits: the mark is not what it should be")
        row(
            f"marked: {short.kernel}, {orbits} orbits, no tint",
            lambda e=short: e.embed(x, out),
            without_mark,
        )
    package = invisible_watermark()
    if package is not None:
        rival = rival_encoder(package, picture, "dwtDct")
        row("marked: invisible-watermark, dwtDct", rival, without_mark, 5)


def invisible_watermark() -> types.ModuleType | None:
    """The rival's package; None, and a line that says so, where it is not installed."""
    # It always imports torch, which only rivaGan uses.
    if importlib.util.find_spec("torch") is None:
        sys.modules.setdefault("torch", types.ModuleType("torch"))
    try:
        import imwatermark
    except ImportError:
        print("invisible-watermark is not installed: `make bench` does that\n")
        return None
    return imwatermark


def rival_encoder(
    package: types.ModuleType, picture: np.ndarray, method: str
) -> Callable[[], object]:
    """The rival's encoder on a picture."""
    encoder = package.WatermarkEncoder()
    encoder.set_watermark("bytes", b"test")
    bgr = np.ascontiguousarray(picture[..., ::-1])
    return lambda: encoder.encode(bgr, method)


if __name__ == "__main__":
    main()
