"""How protecting and verifying scale with Dask's workers on one machine.

    python bench/scaling.py [--pictures 400] [--side 512] [--workers 1 2]

Pictures a second by the clock, and processor milliseconds a picture of all processes together: what
a busy machine changes least, and what engines cost. Workers are started before the clock is.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from verify_load import MODEL, ROOT, write_crops

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.engine import Engine, open_engine
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import calibrate_model, calibration_inputs
from birthmark.models import ImageModel
from birthmark.pictures import gather_pictures, read_picture
from birthmark.publish import publish
from birthmark.verdict import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", type=Path, default=ROOT / "tests/data/photos/eval")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--side", type=int, default=512, help="in px")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    key, model = OwnerKey.generate(), ImageModel(MODEL, threads=1)
    calibration = calibrate_model(model, calibration_inputs(model, None))
    claim = Claim.create(key, "Bench", MODEL, calibration.to_bytes())
    mark = provision(key, claim)
    photos = [read_picture(file) for file in gather_pictures([options.photos]).files]
    with tempfile.TemporaryDirectory() as name:
        given = Path(name) / "given"
        write_crops(given, photos, Embedder(mark), options.pictures, options.side)

        def protecting(engine: Engine) -> None:
            output = Path(tempfile.mkdtemp(dir=name))
            publish([given], output, mark, model=MODEL, threads=1, engine=engine)

        def verifying(engine: Engine) -> None:
            verify([given], claim, key, engine=engine)

        print(f"{'':10} {'engine':>10} {'pictures/s':>11} {'processor ms/picture':>21}")
        for what, work in (("protect", protecting), ("verify", verifying)):
            measured("here", 0, what, work, options.pictures)
            for workers in options.workers:
                measured("dask", workers, what, work, options.pictures)


def measured(
    where: str, workers: int, what: str, work: Callable[[Engine], None], pictures: int
) -> None:
    before = processor_s()
    with open_engine(where, workers) as engine:
        list(engine.map(warm, range(8 * max(1, workers))))
        began, started = time.perf_counter(), processor_s()
        work(engine)
        clock = time.perf_counter() - began
    # A worker's time is known when it has ended; its start is in it too.
    spent = processor_s() - (started if where == "here" else before)
    name = where if where == "here" else f"{where} {workers}"
    print(
        f"{what:10} {name:>10} {pictures / clock:11.1f} {1000 * spent / pictures:21.2f}", flush=True
    )


def warm(_: int) -> list[int]:
    """Load what the work needs."""
    import cv2  # noqa: F401
    import onnxruntime  # noqa: F401

    return []


def processor_s() -> float:
    """Of this process and of those that it started and that have ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))


if __name__ == "__main__":
    main()
