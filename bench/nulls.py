"""Whether innocent suspects get p-values that are uniform: many keys times many kinds of pictures.

    python bench/nulls.py --keys 10000

Each key is a fresh owner's, with the whole way from claim to direction; each suspect is a set of
pictures that never saw its mark. p-values of one suspect under different keys are independent;
those of one key on different suspects need not be, so each suspect is also tested alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy import stats
from tracing import MODEL, halved

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.extract import Pool
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import coordinates, provision
from birthmark.model_calibration import calibrate_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture, through_jpeg
from birthmark.tails import log10_p_of_cosine


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    options = parser.parse_args()
    photos = {
        split: [read_picture(f) for f in gather_pictures([options.photos / split]).files]
        for split in ("train", "eval")
    }

    model = ImageModel(MODEL)
    calibration = calibrate_model(model, [halved(p) for p in photos["train"]])
    data = calibration.to_bytes()
    stranger = OwnerKey.generate()
    of_stranger = Embedder(provision(stranger, Claim.create(stranger, "Other", MODEL, data)))
    plain = Embedder(None)
    small = [halved(p) for p in photos["eval"]]
    outputs = [model.output(x) for x in small]
    rng = np.random.default_rng(0)
    kinds: dict[str, Callable[[int], Picture]] = {
        "photographs": lambda i: photos["eval"][i],
        "photographs, JPEG 50": lambda i: through_jpeg(photos["eval"][i], 50),
        "photographs, blurred": lambda i: cv2.GaussianBlur(photos["eval"][i], (0, 0), 1.5),
        "calibration photographs": lambda i: photos["train"][i],
        "the model's unmarked outputs": lambda i: plain.embed(outputs[i]),
        "the same, JPEG 50": lambda i: through_jpeg(plain.embed(outputs[i]), 50),
        "bicubic x2": lambda i: cv2.resize(small[i], None, fx=2, fy=2, interpolation=3),
        "another owner's marked outputs": lambda i: of_stranger.embed(outputs[i]),
        "white noise": lambda i: rng.integers(0, 256, (256, 256, 3), np.uint8),
        "one photograph": lambda i: photos["eval"][0],
        "flat with text": lambda i: lettered(i),
        "grey photographs": lambda i: np.repeat(photos["eval"][i][..., 1:2], 3, axis=2),
    }
    units = []
    for kind, make in kinds.items():
        pool = Pool()
        for i in range(len(small)):
            pool.add(f"{kind} {i}", np.ascontiguousarray(make(i)))
        estimate = calibration.read(pool.total())
        units.append(estimate / np.linalg.norm(estimate))
    suspects = np.stack(units)
    claim = Claim.create(stranger, "Owner", MODEL, data)
    n = calibration.coordinates
    began = time.monotonic()
    cosines = np.stack(
        [
            suspects @ coordinates(MarkKey.random(f"null {i}".encode()), claim, n) / math.sqrt(n)
            for i in range(options.keys)
        ]
    )
    p = 10 ** np.vectorize(lambda c: log10_p_of_cosine(float(c), n))(cosines)
    print(f"{p.size} nulls: {options.keys} keys, {len(kinds)} suspects; smallest p {p.min():.1e}")
    print(f"{time.monotonic() - began:.0f} s\n\n{'':32} KS p    at 1e-2   1e-3   1e-4")
    for kind, column in [*zip(kinds, p.T, strict=True), ("all", p.reshape(-1))]:
        alarms = [int((column < rate).sum()) for rate in (1e-2, 1e-3, 1e-4)]
        inside = all(
            stats.binom.ppf(0.0005, column.size, rate)
            <= count
            <= stats.binom.ppf(0.9995, column.size, rate)
            for count, rate in zip(alarms, (1e-2, 1e-3, 1e-4), strict=True)
        )
        ks = stats.kstest(column, "uniform").pvalue
        print(f"{kind:32} {ks:.3f} {alarms[0]:9d} {alarms[1]:6d} {alarms[2]:6d}", end="")
        print("" if inside else "   outside its binomial interval of 99.9 %")


def lettered(seed: int) -> Picture:
    """A page of text."""
    page = np.full((300, 400, 3), 240, np.uint8)
    for line in range(9):
        where = (10, 30 + 32 * line)
        cv2.putText(page, f"line {line} of page {seed}", where, 0, 0.9, (20, 20, 20), 2)
    return page


if __name__ == "__main__":
    main()
