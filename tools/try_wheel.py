"""Tries the installed package: its kernels, a grafted model, and how long the import takes.

Run by tools/wheel.sh and tools/wheel_aarch64.sh in a folder that holds nothing of the repository.
"""

import platform
import statistics
import subprocess
import sys

import numpy as np
import onnxruntime

from birthmark import Embedder, _core
from birthmark.errors import MissingLibrary
from birthmark.graft import graft, library_path
from birthmark.mark import Mark
from birthmark.resources import models_folder

IMPORTS = 15

mark = Mark(_core.write_mark(bytes(16), np.full((_core.GAIN_ROWS, _core.TONES), 100, np.int16)))
data = graft(models_folder() / "espcn_x2.onnx", mark, keep=True)
x = np.random.default_rng(0).random((1, 3, 40, 50), np.float32)


def check(name: str, options: onnxruntime.SessionOptions) -> None:
    """Fail unless a grafted model's bytes are those of every kernel."""
    marked, plain = onnxruntime.InferenceSession(data, options).run(None, {"input": x})
    for kernel in _core.available_kernels():
        if not np.array_equal(marked[0], Embedder(mark, kernel=kernel).embed(plain)):
            raise SystemExit(f"{name}: other bytes than the kernel {kernel}")
    print(f"{platform.machine()}: {name} agrees with", *_core.available_kernels())


check("the plain body", onnxruntime.SessionOptions())
try:
    with_library = onnxruntime.SessionOptions()
    with_library.register_custom_ops_library(library_path())
    check("the native operator", with_library)
except MissingLibrary as error:
    print(error)

if "--emulated" in sys.argv:
    sys.exit()  # times would say nothing
times = []
for _ in range(IMPORTS):
    code = "import time; t = time.perf_counter(); import birthmark; print(time.perf_counter() - t)"
    times.append(float(subprocess.check_output([sys.executable, "-c", code])))
print(f"import birthmark: {1000 * statistics.median(times):.1f} ms (median of {len(times)})")
