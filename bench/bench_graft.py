"""What the mark inside a model's graph costs, against the model alone, in one run.

python bench/bench_graft.py [--model models/espcn_x2.onnx] [--side 256] [--turns 60]

Three sessions of one thread each are run in turns: the model alone, the grafted model with the
native operator, and the grafted model with its body of plain operators. The clock is that thread's
own, so that others on the machine count less. The bytes of both grafted models are compared with
the embedder's before anything is timed. Medians over the turns, and the middle half of the ratios
of neighbouring runs.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime

from birthmark import _core
from birthmark.embed import Embedder
from birthmark.graft import graft, library_path
from birthmark.mark import Mark

ROOT = Path(__file__).resolve().parent.parent


def typical_mark() -> Mark:
    """Gains of a few thousandths that change slowly with the tone, as a real mark's."""
    orbit, tone = np.mgrid[: _core.GAIN_ROWS, : _core.TONES]
    gains = np.round(150 * np.sin(1.7 * orbit + 0.2 * tone)).astype(np.int16)
    return Mark(_core.write_mark(bytes(16), gains))


def open_model(data: bytes, library: str | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if library:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(ROOT / "models/espcn_x2.onnx"))
    parser.add_argument("--side", type=int, default=256, help="of the input, in pixels")
    parser.add_argument("--turns", type=int, default=60)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    mark = typical_mark()
    grafted = graft(options.model, mark)
    sessions = {
        "model alone": open_model(Path(options.model).read_bytes()),
        "with the native operator": open_model(grafted, library_path()),
        "with the plain body": open_model(grafted),
    }
    x = np.random.default_rng(0).random((1, 3, options.side, options.side), np.float32)
    feed = {sessions["model alone"].get_inputs()[0].name: x}
    answers = {name: session.run(None, feed)[0] for name, session in sessions.items()}
    expected = Embedder(mark).embed(answers.pop("model alone"))
    for name, published in answers.items():
        if not np.array_equal(published[0], expected):
            raise SystemExit(f"{name}: not the embedder's bytes")

    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(options.turns):
        for name, session in sessions.items():
            begin = time.thread_time()
            session.run(None, feed)
            seconds[name].append(time.thread_time() - begin)
    alone = np.array(seconds["model alone"])
    print(
        f"{Path(options.model).stem}, {options.side} x {options.side} px, one thread, bytes equal"
    )
    for name, values in seconds.items():
        ratios = np.array(values) / alone
        low, high = np.percentile(ratios, [25, 75])
        ms = np.median(values) * 1000
        ratio = np.median(values) / np.median(alone)
        print(f"  {name:25} {ms:8.2f} ms   x {ratio:.3f}   ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
