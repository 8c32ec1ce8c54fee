"""How much time and memory a verdict takes: 500 pictures of 512 x 512, and many small ones.

    python bench/verify_load.py [--photos FOLDER] [--pictures 500] [--stream 5000 50000]

Each verdict is a process of its own, `birthmark verify` with bundle and report, on one core. Its
pictures are crops of photographs, marked. Seconds are of the processor as well as of the clock, so
that a busy machine is seen; memory is the most that the process had at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import calibrate_model, calibration_inputs
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "espcn_x2.onnx"
PASSPHRASE = "bench"
# In a small process in between, since Linux counts what a process held before it began a program.
MEASURED = """
import os, resource, subprocess, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, default=ROOT / "tests/data/photos/eval")
    parser.add_argument("--pictures", type=int, default=500, help="of 512 x 512 px")
    parser.add_argument("--stream", type=int, nargs="*", default=[5_000, 50_000])
    parser.add_argument("--side", type=int, default=96, help="of the streamed ones, in px")
    options = parser.parse_args()
    photos = [read_picture(file) for file in gather_pictures([options.photos]).files]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = OwnerKey.generate()
        key.save(folder / "owner.key", PASSPHRASE)
        model = ImageModel(MODEL)
        calibration = calibrate_model(model, calibration_inputs(model, None))
        claim = Claim.create(key, "Bench", MODEL, calibration.to_bytes())
        claim.save(folder / "claim.json")
        embedder = Embedder(provision(key, claim))
        print(f"{'pictures':>9} {'side px':>8} {'clock s':>8} {'processor s':>12} {'MB':>6}")
        for count, side in ((options.pictures, 512), *((n, options.side) for n in options.stream)):
            write_crops(folder / "pictures", photos, embedder, count, side)
            clock, processor, megabytes = verify(folder)
            print(f"{count:9} {side:8} {clock:8.1f} {processor:12.1f} {megabytes:6.0f}", flush=True)
            shutil.rmtree(folder / "pictures")


def write_crops(
    folder: Path, photos: list[Picture], embedder: Embedder, count: int, side: int
) -> None:
    """Marked crops, no two the same: PNG if large, JPEG if small."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    marked = [embedder.embed(enlarged(photo, 2 * side)) for photo in photos]
    suffix = "png" if side >= 512 else "jpg"
    taken = set()
    while len(taken) < count:
        i = int(rng.integers(len(marked)))
        height, width = marked[i].shape[:2]
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        if (i, y, x) in taken:
            continue
        taken.add((i, y, x))
        crop = marked[i][y : y + side, x : x + side, ::-1]
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == "jpg" else []
        assert cv2.imwrite(str(folder / f"{len(taken):06}.{suffix}"), crop, quality)


def enlarged(photo: Picture, side: int) -> Picture:
    """Large enough to hold many crops."""
    factor = max(1.0, side / min(photo.shape[:2]))
    large = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large, np.uint8)


def verify(folder: Path) -> tuple[float, float, float]:
    """Clock and processor seconds, and megabytes, of one `birthmark verify`."""
    for name in ("v.zip", "r.html"):
        (folder / name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "birthmark", "verify", "--key", "owner.key"]
    command += ["--claim", "claim.json", "pictures", "--verdict", "v.zip", "--report", "r.html"]
    one_core = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "BIRTHMARK_PASSPHRASE": PASSPHRASE,
    }
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        cwd=folder,
        env={**os.environ, **one_core},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    clock = time.perf_counter() - began
    code, processor, megabytes = map(float, done.stdout.split())
    if code not in (0, 1):
        raise SystemExit("birthmark verify failed")
    return clock, processor, megabytes


if __name__ == "__main__":
    main()
