"""Whether innocent suspects get p-values that are uniform: many keys times many kinds of suspects.

    python bench/nulls.py --keys 10000
    python bench/nulls.py --keys 10000 --surrogates unmarked-1.onnx unmarked-2.onnx

Each key is a fresh owner's, with the whole way from claim to direction; each suspect never saw its
mark. Every suspect is tested under keys of its own, so all p-values of a table are independent and
its last line tests them together. Blind suspects are pictures; informed ones are answers beside the
owner's model, with the p-value of echo and tint joined as a verdict joins them. No number of draws
is counted: that only makes a p-value larger.

A count of false alarms has its binomial interval of 99 % beside it. With --write the quantiles go
into the file that reports show.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import stats
from tracing import MODEL, halved

from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.exact_tests import corrected_log10_p
from birthmark.extract import Pool, extractor_sha256, read_echo
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import coordinates, provision
from birthmark.model_calibration import calibrate_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture, through_jpeg
from birthmark.regression import Regression
from birthmark.tails import log10_p_of_cosine

RATES = (1e-2, 1e-3, 1e-4)
WRITTEN = Path("python/birthmark/data/nulls.json")
# Of the quantiles that are written: ranks in equal steps of the logarithm.
PLACES = 120
Kinds = dict[str, Callable[[int], Picture]]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", type=int, default=10_000, help="for each suspect")
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    parser.add_argument(
        "--surrogates", nargs="*", default=[], help="x2 networks that learned unmarked outputs"
    )
    parser.add_argument("--write", action="store_true", help=f"into {WRITTEN}")
    options = parser.parse_args()
    photos = {
        split: [read_picture(f) for f in gather_pictures([options.photos / split]).files]
        for split in ("train", "eval")
    }
    model = ImageModel(MODEL)
    calibration = calibrate_model(model, [halved(p) for p in photos["train"]])
    stranger = OwnerKey.generate()
    claim = Claim.create(stranger, "Owner", MODEL, calibration.to_bytes())
    of_stranger = Embedder(provision(stranger, claim))
    small = [halved(p) for p in photos["eval"]]
    outputs = [model.output(x) for x in small]
    plain = [Embedder(None).embed(y) for y in outputs]
    marked = [of_stranger.embed(y) for y in outputs]

    pools = {
        kind: pool_of(make, len(small))
        for kind, make in blind_kinds(photos["train"], photos["eval"], small, plain, marked).items()
    }
    found = [(kind, [read_echo(pool.total(), calibration)]) for kind, pool in pools.items()]
    blind = print_table("blind", found, claim, options.keys)

    kinds = informed_kinds(photos["eval"], small, plain, marked)
    networks = [ImageModel(path, threads=1) for path in options.surrogates]
    answers = [[network(x) for x in small] for network in networks]
    for i, of_network in enumerate(answers, 1):
        kinds[f"surrogate of unmarked outputs {i}"] = of_network.__getitem__
    found = [(kind, beside_the_model(make, plain, calibration)) for kind, make in kinds.items()]
    for i, of_network in enumerate(answers):
        others = [other for j, other in enumerate(answers) if j != i]
        if others:
            read = beside_the_model(of_network.__getitem__, plain, calibration, others)
            found.append((f"surrogate {i + 1} beside a reference", read))
    informed = print_table("informed, echo and tint together", found, claim, options.keys)
    if options.write:
        facts = {"extractor_sha256": extractor_sha256(), "keys": options.keys}
        facts |= {"blind": in_short(blind), "informed": in_short(informed)}
        WRITTEN.write_text(json.dumps(facts, indent=1) + "\n")


def blind_kinds(
    train: list[Picture],
    photos: list[Picture],
    small: list[Picture],
    plain: list[Picture],
    marked: list[Picture],
) -> Kinds:
    """Pictures without the owner's mark."""
    rng = np.random.default_rng(0)
    return {
        "photographs": photos.__getitem__,
        "photographs, JPEG 50": lambda i: through_jpeg(photos[i], 50),
        "photographs, blurred": lambda i: cv2.GaussianBlur(photos[i], (0, 0), 1.5),
        "calibration photographs": train.__getitem__,
        "the model's unmarked outputs": plain.__getitem__,
        "the same, JPEG 50": lambda i: through_jpeg(plain[i], 50),
        "bicubic x2": lambda i: enlarged(small[i], cv2.INTER_CUBIC),
        "another owner's marked outputs": marked.__getitem__,
        "white noise": lambda i: rng.integers(0, 256, (256, 256, 3), np.uint8),
        "one photograph": lambda i: photos[0],
        "flat with text": lettered,
        "grey photographs": lambda i: grey(photos[i]),
    }


def informed_kinds(
    photos: list[Picture], small: list[Picture], plain: list[Picture], marked: list[Picture]
) -> Kinds:
    """Answers of suspects that learned nothing from the owner's marked outputs."""
    rng = np.random.default_rng(1)

    def noisy(i: int) -> Picture:
        return bytes_of(plain[i] + 3 * rng.standard_normal(plain[i].shape))

    def warmer(i: int) -> Picture:
        return bytes_of(plain[i] * np.array([1.03, 1, 0.97]) + 1)

    return {
        "bicubic x2": lambda i: enlarged(small[i], cv2.INTER_CUBIC),
        "Lanczos x2": lambda i: enlarged(small[i], cv2.INTER_LANCZOS4),
        "linear x2": lambda i: enlarged(small[i], cv2.INTER_LINEAR),
        "the photographs themselves": lambda i: np.asarray(
            cv2.resize(photos[i], plain[i].shape[1::-1]), np.uint8
        ),
        "the model itself, JPEG 75": lambda i: through_jpeg(plain[i], 75),
        "the model itself, JPEG 50": lambda i: through_jpeg(plain[i], 50),
        "the model itself, blurred": lambda i: cv2.GaussianBlur(plain[i], (0, 0), 0.7),
        "the model itself, sharpened": lambda i: bytes_of(
            1.5 * plain[i].astype(float) - 0.5 * cv2.GaussianBlur(plain[i], (0, 0), 1.0)
        ),
        "the model itself, with noise": noisy,
        "the model itself, warmer": warmer,
        "the model itself, grey": lambda i: grey(plain[i]),
        "another owner's marked outputs": marked.__getitem__,
    }


def pool_of(make: Callable[[int], Picture], count: int) -> Pool:
    """What a blind test measures."""
    pool = Pool()
    for i in range(count):
        pool.add(str(i), np.ascontiguousarray(make(i)))
    return pool


def beside_the_model(
    make: Callable[[int], Picture],
    own: list[Picture],
    calibration: Calibration,
    references: Sequence[list[Picture]] = (),
) -> list[FloatArray]:
    """Echo and tint as an informed test reads them."""
    regression = Regression.empty(len(references))
    for i, picture in enumerate(own):
        besides = [reference[i] for reference in references]
        regression.add(np.ascontiguousarray(make(i)), picture, besides)
    return [regression.read(calibration), regression.read_tint(calibration)]


def log10_ps(kind: str, parts: Sequence[FloatArray], claim: Claim, keys: int) -> FloatArray:
    """log10 p of one suspect under so many keys: float64 [keys]."""
    cosines = np.empty((keys, len(parts)))
    for i in range(keys):
        key = MarkKey.random(f"null {len(parts)} {kind} {i}".encode())
        for j, (part, of_part) in enumerate(zip(parts, (key, key.tint), strict=False)):
            n = len(part)
            direction = coordinates(of_part, claim, n) / math.sqrt(n)
            cosines[i, j] = part @ direction / np.linalg.norm(part)
    sizes = [len(part) for part in parts]
    return np.array(
        [
            corrected_log10_p(
                [log10_p_of_cosine(float(c), n) for c, n in zip(row, sizes, strict=True)], 1
            )
            for row in cosines
        ]
    )


def print_table(
    title: str, found: list[tuple[str, list[FloatArray]]], claim: Claim, keys: int
) -> list[FloatArray]:
    """A line for each suspect, and one for all together; returns each suspect's p-values."""
    began = time.monotonic()
    rows = [(kind, 10 ** log10_ps(kind, parts, claim, keys)) for kind, parts in found]
    everything = np.concatenate([p for _, p in rows])
    print(f"\n{title}: {everything.size} nulls, {time.monotonic() - began:.0f} s")
    print(f"{'':36} {'KS p':>6} {'smallest':>9}", *(f"{f'p < {r:g}':>18}" for r in RATES))
    for kind, p in [*rows, ("all", everything)]:
        cells = []
        for rate in RATES:
            least, most = (int(stats.binom.ppf(q, p.size, rate)) for q in (0.005, 0.995))
            count = int((p < rate).sum())
            outside = "" if least <= count <= most else " !"
            cells.append(f"{f'{count} ({least} to {most}){outside}':>18}")
        ks = stats.kstest(p, "uniform").pvalue
        print(f"{kind:36} {ks:6.3f} {p.min():9.1e}", *cells, flush=True)
    return [p for _, p in rows]


def in_short(of_suspects: list[FloatArray]) -> dict[str, Any]:
    """What a report shows of so many p-values; quantiles as log10 of foretold and found."""
    p = np.sort(np.concatenate(of_suspects))
    ranks = np.unique(np.geomspace(1, p.size, PLACES).astype(int))
    return {
        "suspects": len(of_suspects),
        "nulls": int(p.size),
        "kolmogorov_p": round(float(stats.kstest(p, "uniform").pvalue), 3),
        "below": [[rate, int((p < rate).sum())] for rate in RATES],
        "quantiles": np.log10([ranks / (p.size + 1), p[ranks - 1]]).round(4).T.tolist(),
    }


def enlarged(picture: Picture, how: int) -> Picture:
    """Twice as large."""
    return np.asarray(cv2.resize(picture, None, fx=2, fy=2, interpolation=how), np.uint8)


def bytes_of(picture: FloatArray) -> Picture:
    """Rounded and cut to bytes."""
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def grey(picture: Picture) -> Picture:
    """Its green in all three channels."""
    return np.repeat(picture[..., 1:2], 3, axis=2)


def lettered(seed: int) -> Picture:
    """A page of text."""
    page = np.full((300, 400, 3), 240, np.uint8)
    for line in range(9):
        where = (10, 30 + 32 * line)
        cv2.putText(page, f"line {line} of page {seed}", where, 0, 0.9, (20, 20, 20), 2)
    return page


if __name__ == "__main__":
    main()
