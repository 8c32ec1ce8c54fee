"""The ambiguity attack: what it costs to find a key whose mark fits an innocent model's pictures.

    python bench/ambiguity.py --tries 20000

An owner who may choose his key after he has seen the suspect (a claim without a time stamp, dated
back) draws owner's keys until one fits. Each try here is a whole one: key, claim with its
commitment, mark key, rotation, chips, cosine. Prints the best p against the number of tries, which
must be about 1/tries, the price of a try, and what it costs to reach the p that a verdict needs.
Then the same for a claim that is stamped: its commitment leaves one key, so there is no search.
"""

from __future__ import annotations

import argparse
import math
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim
from birthmark.keys import ClaimKey, MarkKey, OwnerKey
from birthmark.mark import coordinates
from birthmark.measure import measure
from birthmark.model_calibration import calibrate_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.tails import log10_p_of_cosine
from birthmark.verdict import LOG10_KEYS_IN_DOUBT

MODEL = "models/espcn_x2.onnx"


def inputs_of(folder: Path) -> list[Picture]:
    photos = [read_picture(f) for f in gather_pictures([folder]).files]
    shrunk = [cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in photos]
    return [np.ascontiguousarray(p, np.uint8) for p in shrunk]


def bicubic(picture: Picture) -> Picture:
    """An innocent suspect for x2: no network at all."""
    return cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=20_000)
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    options = parser.parse_args()
    calibration = calibrate_model(ImageModel(MODEL), inputs_of(options.photos / "train"))
    data = calibration.to_bytes()
    claim = Claim.create(OwnerKey.generate(), "Accuser", MODEL, data)
    measured = measure(
        None,
        claim,
        MarkKey(bytes(32)),
        suspect=bicubic,
        inputs=inputs_of(options.photos / "eval"),
    )
    estimate = measured.estimate(Calibration.from_bytes(claim.calibration))
    unit = estimate / np.linalg.norm(estimate)
    n = len(unit)
    when = datetime(2026, 1, 1, tzinfo=UTC)
    print(f"innocent suspect, n = {n}; a claim dated {when:%Y-%m-%d}, made today\n")
    print("     tries   seconds   best log10 p   expected")
    best, began, at = 0.0, time.monotonic(), 1
    for i in range(1, options.tries + 1):
        key = OwnerKey.generate()
        tried = Claim.create(key, "Accuser", MODEL, data, created=when)
        cosine = float(unit @ coordinates(tried.mark_key(key), tried, n)) / math.sqrt(n)
        best = min(best, log10_p_of_cosine(cosine, n))
        if i == at or i == options.tries:
            took = time.monotonic() - began
            print(f"{i:10d} {took:9.1f} {best:14.2f} {-math.log10(i):10.2f}", flush=True)
            at *= 4
    whole = (time.monotonic() - began) / options.tries
    began = time.monotonic()
    for i in range(500):
        coordinates(MarkKey.random(str(i).encode()), claim, n)
    bare = (time.monotonic() - began) / 500
    year = 365.25 * 86400
    print(f"\na try: {whole * 1e3:.2f} ms; without claim and signature {bare * 1e3:.2f} ms")
    for exponent, what in (
        (-6.0, "MARKED at one in a million"),
        (-12.3, "the README's stolen surrogate"),
        (-6 - LOG10_KEYS_IN_DOUBT, "MARKED after counting 2^64 keys"),
    ):
        years = 10**-exponent * bare / year
        print(f"log10 p = {exponent:6.1f}: {years:9.2g} core-years  ({what})")
    most = 10 ** (19.3) * bare / year
    print(f"2^64 tries: {most:.2g} core-years; the date in doubt costs 19.3 powers of ten")
    try:
        claim.mark_key(ClaimKey(bytes(32)))
    except InvalidClaim as error:
        print(f"\nanother secret for a stamped claim: refused ({error})")


if __name__ == "__main__":
    main()
