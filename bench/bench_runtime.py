"""What marking costs beside everything else: formats, sizes, two cores, a whole model, rivals.

One process; outputs are verified before a time is printed; everything that is compared takes turns
in one run. Clocks: this thread's, except for two threads, where it is the wall's.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bench_embed
import cv2
import numpy as np
import onnxruntime

from birthmark import Embedder, Input, Mark, Output, _core
from birthmark.models import as_planes
from birthmark.pictures import read_picture

MODEL = "models/espcn_x2.onnx"
TURNS = 31
GROWTH = ((256, 256), (512, 512), (1280, 720), (1920, 1080), (3840, 2160), (7680, 4320))
PHOTOS = sorted(Path("tests/data/photos/eval").glob("*.jpg"))
# Rivals: how many times as long is aimed at, on how many photographs, in how many turns on each.
RIVALS = {
    "dwtDct": (20, 8, 3),
    "dwtDctSvd": (60, 8, 1),
    "blind-watermark": (200, 4, 1),
    "rivaGan": (1000, 2, 1),
}


def ratios(
    one: Callable[[], object],
    other: Callable[[], object],
    turns: int = TURNS,
    wall: bool = False,
    warm: bool = False,
) -> tuple[np.ndarray, float, float]:
    """Times of `one` over those of `other` in each turn, and both least times in ms.

    Both run once before that, but `one` does not if it is `warm`.
    """
    clock = time.perf_counter if wall else time.thread_time

    def took(run: Callable[[], object]) -> float:
        began = clock()
        run()
        return 1e3 * (clock() - began)

    if not warm:
        one()
    other()
    times = np.array([(took(one), took(other)) for _ in range(turns)])
    return times[:, 0] / times[:, 1], times[:, 0].min(), times[:, 1].min()


def say(name: str, found: tuple[np.ndarray, float, float], what: str) -> None:
    low, middle, high = np.percentile(found[0], [25, 50, 75])
    print(
        f"{name:44}{found[1]:9.2f} ms  / {found[2]:9.2f} ms{middle:9.2f}"
        f"  ({low:.2f} .. {high:.2f})  {what}",
        flush=True,
    )


def photo(width: int, height: int, path: str | Path = bench_embed.PHOTO) -> np.ndarray:
    picture = read_picture(path)
    return np.ascontiguousarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))


def formats(marked: Embedder, plain: Embedder) -> None:
    """Other inputs and outputs, against the same pass without the mark and a copy of the input."""
    picture = photo(1920, 1080)
    x = as_planes(picture)
    half = x.astype(np.float16)
    for name, given, output in (
        ("float32 NCHW -> RGB", x, Output()),
        ("float16 NCHW -> RGB", half, Output()),
        ("float16 NCHW -> NV12", half, Output("nv12")),
        ("uint8 RGB -> uint8 RGB", picture, Output()),
    ):
        copy = np.empty_like(given)

        def run(embedder: Embedder, given: np.ndarray = given, output: Output = output) -> object:
            return embedder.embed(given, input=Input(), output=output)

        def copied(copy: np.ndarray = copy, given: np.ndarray = given) -> None:
            np.copyto(copy, given)

        with_mark, without = partial(run, marked), partial(run, plain)
        say(name, ratios(with_mark, without), "/ ours without the mark")
        say(name, ratios(with_mark, copied), "/ memcpy of the input")


def growth(marked: Embedder) -> None:
    """Time for a pixel at each size, against 1920 x 1080."""
    base_x, base_out = as_planes(photo(1920, 1080)), np.empty((1080, 1920, 3), np.uint8)
    for width, height in GROWTH:
        x, out = as_planes(photo(width, height)), np.empty((height, width, 3), np.uint8)
        turns = max(3, min(TURNS, int(TURNS * 1920 * 1080 / (width * height))))
        repeat = max(1, 1920 * 1080 // (width * height))

        def many(x: np.ndarray = x, out: np.ndarray = out, repeat: int = repeat) -> None:
            for _ in range(repeat):
                marked.embed(x, out)

        found, least, base = ratios(many, lambda: marked.embed(base_x, base_out), turns)
        scaled = found * (1920 * 1080) / (width * height * repeat)
        say(f"{width} x {height}", (scaled, least / repeat, base), "a pixel, / at 1920 x 1080")


def two_cores(marked: Embedder) -> None:
    """One picture in two stripes, and a batch of four."""
    for name, batch in (("stripes of one 3840 x 2160 picture", 1), ("a batch of four 1080p", 4)):
        x = as_planes(photo(3840, 2160) if batch == 1 else photo(1920, 1080))
        x = np.repeat(x, batch, axis=0)
        shape = (batch, *x.shape[2:], 3) if batch > 1 else (*x.shape[2:], 3)
        out = np.empty(shape, np.uint8)
        given = x if batch > 1 else x[0]
        found = ratios(
            lambda g=given, o=out: marked.embed(g, o, threads=1),
            lambda g=given, o=out: marked.embed(g, o, threads=2),
            wall=True,
        )
        say(f"two threads: {name}", found, "times as fast as one")

    picture = photo(3840, 2160)
    found = ratios(
        lambda: _core.statistics(picture), lambda: _core.statistics(picture, threads=2), wall=True
    )
    say("two threads: statistics of a 3840 x 2160 picture", found, "times as fast as one")


def share_of_model(marked: Embedder) -> None:
    """Marking and rounding, as a share of the whole, for the smallest protected model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    x = as_planes(photo(256, 256))
    made = session.run(None, {name: x})[0]
    out = np.empty((*made.shape[2:], 3), np.uint8)

    def whole() -> None:
        marked.embed(session.run(None, {name: x})[0], out)

    found = ratios(lambda: marked.embed(made, out), whole)
    say("espcn_x2, 256 x 256 in: marking / model + marking", found, "of the whole")


def rivals(marked: Embedder) -> None:
    """Other watermarks on the same photographs, each on one core; only those that are installed."""
    package = bench_embed.invisible_watermark()
    for method, (target, photos, turns) in RIVALS.items():
        encoder = encoder_of(method, package)
        if encoder is None:
            continue
        found = []
        for path in PHOTOS[:photos]:
            picture = photo(1920, 1080, path)
            bgr = np.ascontiguousarray(picture[..., ::-1])
            published = np.asarray(encoder(bgr))
            difference = np.abs(published.astype(float) - bgr).mean()
            if published.shape != bgr.shape or not 0 < difference < 10:
                sys.exit(f"{method}: not the same picture with a mark on it")
            x, out = as_planes(picture), np.empty_like(picture)
            embed = partial(marked.embed, x, out)
            found.append(ratios(partial(encoder, bgr), embed, turns, warm=True))
        every = np.concatenate([times for times, _, _ in found])
        least = tuple(min(one[i] for one in found) for i in (1, 2))
        what = f"times as long ({target} aimed at), {photos} photographs"
        say(f"{method} / ours", (every, *least), what)
    if package is None:
        return
    picture = photo(1920, 1080)
    decoder = package.WatermarkDecoder("bytes", 32)
    bgr = np.ascontiguousarray(picture[..., ::-1])
    published = marked.embed(picture)
    found_here = ratios(
        lambda: decoder.decode(bgr, "dwtDct"), lambda: _core.statistics(published), 5
    )
    say("dwtDct's extraction / our statistics", found_here, "times as long (5 aimed at)")


def encoder_of(
    method: str, package: types.ModuleType | None
) -> Callable[[np.ndarray], np.ndarray] | None:
    """A rival's encoder of BGR pictures, on this thread alone; None, and a line why, without it."""
    if method == "blind-watermark":
        try:
            import blind_watermark
        except ImportError:
            print("blind-watermark is not installed: `make bench` does that")
            return None
        blind_watermark.bw_notes.close()  # it advertises itself otherwise

        def encode(bgr: np.ndarray) -> np.ndarray:
            mark = blind_watermark.WaterMark(password_img=1, password_wm=1)
            mark.read_img(img=bgr)
            mark.read_wm("test", mode="str")
            return np.asarray(mark.embed())

        return encode
    if package is None:
        return None
    encoder = package.WatermarkEncoder()
    encoder.set_watermark("bytes", b"test")
    if method == "rivaGan":
        if not hasattr(sys.modules["torch"], "from_numpy"):
            print("rivaGan is left out: it needs torch, which is not installed")
            return None
        sys.modules["torch"].set_num_threads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        network = Path(str(package.__file__)).parent / "rivagan_encoder.onnx"
        from imwatermark.rivaGan import RivaWatermark

        RivaWatermark.encoder = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
    return lambda bgr: np.asarray(encoder.encode(bgr, method))


def memory(mark: Mark) -> None:
    """How much more the process needs at its peak while an 8K picture is marked (Linux)."""
    x, out = as_planes(photo(7680, 4320)), np.ones((4320, 7680, 3), np.uint8)  # pages are there
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _peak_kib()
    Embedder(mark).embed(x, out)
    print(f"{'memory above the buffers, 7680 x 4320':44}{(_peak_kib() - before) / 1024:9.2f} MB")


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    cv2.setNumThreads(1)
    gains = np.random.default_rng(0).integers(-1000, 1000, (_core.GAIN_ROWS, _core.TONES), np.int16)
    mark = Mark(_core.write_mark(bytes(16), gains))
    marked = Embedder(mark)
    plain = Embedder(None)
    x = as_planes(photo(640, 360))
    slow = Embedder(mark, kernel="scalar")
    if not np.array_equal(marked.embed(x), slow.embed(x)):
        sys.exit("the mark is not what it should be")
    print(f"kernel {marked.kernel}: least times, ratio in the middle of turns (middle half)\n")
    memory(mark)
    formats(marked, plain)
    growth(marked)
    share_of_model(marked)
    two_cores(marked)
    rivals(marked)


if __name__ == "__main__":
    main()
