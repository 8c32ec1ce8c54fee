"""Tracing: how many colluders survive, by simulation on coordinates and on real marked pictures.

    python bench/tracing.py                         # seconds to minutes
    python bench/tracing.py --surrogates 4500       # also trains thieves, minutes each
    python bench/tracing.py --innocent 1000 --trials 0      # wrong names among real innocents
    python bench/tracing.py --trials 0 --key K --claim C --thieves S.onnx ...   # kept networks

The simulation takes the noise from a verdict: a suspect with one customer's mark and blind log10 p
of -12 has a cosine c, so noise of variance 1/c^2 - 1 for each coordinate of variance 1. Colluders
leave the mean of their marks in the same noise. Codes: random directions (ours); fair signs; and
the signs of Tardos (JACM 2008) with biases of arcsine law, read by the symmetric score of Skoric,
Katzenbeisser and Celik (2008), with p from the normal tail. All of them at a rate of wrong
names of 1e-3 for the whole search.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy import stats

from birthmark.calibration import COORDINATES, Calibration
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.extract import Pool, read_echo
from birthmark.keys import OwnerKey
from birthmark.mark import coordinates, provision
from birthmark.measure import measure
from birthmark.model_calibration import calibrate_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture, through_jpeg
from birthmark.regression import Regression
from birthmark.sums import total_of
from birthmark.tails import log10_p_of_cosine
from birthmark.trace import Customers, Trace
from birthmark.training.surrogates import steal

RATE = 1e-3
N = COORDINATES
LEVELS = (-6.0, -9.0, -12.0, -17.3, -24.0, -32.0)
MODEL = "models/espcn_x2.onnx"


def noise_of(log10_p: float) -> float:
    """Noise per coordinate, relative to one mark's, that gives this p in the middle."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if log10_p_of_cosine(middle, N) > log10_p else (low, middle)
    return float(np.sqrt(1 / low**2 - 1))


def simulate(customers: Customers, count: int, noise: float, trials: int) -> list[float]:
    """Shares of trials: anybody named, all named, anything found, anybody named wrongly."""
    total = np.zeros(4)
    for seed in range(trials):
        rng = np.random.default_rng([seed, count])
        members = rng.choice(len(customers.names), count, replace=False)
        z = customers.directions[members].astype(float).mean(axis=0) * np.sqrt(N)
        found = customers.trace(z + noise * rng.standard_normal(N), RATE)
        named = {one.customer for one in found.named}
        guilty = {customers.names[i] for i in members}
        total += [bool(named & guilty), guilty <= named, found.found, bool(named - guilty)]
    return [float(x) for x in total / trials]


def simulate_signs(
    count: int, noise: float, trials: int, candidates: int, *, biased: bool
) -> list[float]:
    """The same for sign codes and a decoder of one at a time: anybody, wrongly named."""
    total = np.zeros(2)
    for seed in range(trials):
        rng = np.random.default_rng([seed, count, 7])
        bias = np.sin(rng.uniform(0.1, np.pi / 2 - 0.1, N)) ** 2 if biased else np.full(N, 0.5)
        code = np.where(rng.random((candidates, N)) < bias, 1.0, -1.0)
        y = code[:count].mean(axis=0) + noise * rng.standard_normal(N)
        weight = np.where(code > 0, np.sqrt((1 - bias) / bias), -np.sqrt(bias / (1 - bias)))
        y = y - (2 * bias - 1)  # what all have in common tells nothing
        score = weight @ y / np.sqrt((y * y).sum())
        named = stats.norm.sf(score) * candidates < RATE
        total += [named[:count].any(), named[count:].any()]
    return [float(x) for x in total / trials]


def table(customers: Customers, trials: int) -> None:
    """Simulated shares for 1 to 6 colluders."""
    print(f"\n{len(customers.names)} customers, {trials} trials, wrong names at most {RATE:g}")
    print("   p alone  colluders  any named  all named  anything  wrong | signs: any  Tardos: any")
    for level, count in itertools.product(LEVELS, range(1, 7)):
        noise = noise_of(level)
        ours = simulate(customers, count, noise, trials)
        fair, tardos = (
            simulate_signs(count, noise, trials // 4, len(customers.names), biased=biased)
            for biased in (False, True)
        )
        print(
            f"{level:10.1f} {count:10d} {ours[0]:10.2f} {ours[1]:10.2f} {ours[2]:9.2f}"
            f" {ours[3]:6.3f} | {fair[0]:10.2f} {tardos[0]:12.2f}",
            flush=True,
        )


ATTACKS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "mean": lambda copies, rng: np.rint(copies.mean(axis=0)),
    "median": lambda copies, rng: np.rint(np.median(copies, axis=0)),
    "minimum": lambda copies, rng: copies.min(axis=0),
    "extremes in turn": lambda copies, rng: np.where(
        rng.random(copies.shape[1:]) < 0.5, copies.min(axis=0), copies.max(axis=0)
    ),
    "a pixel from each": lambda copies, rng: np.take_along_axis(
        copies, rng.integers(len(copies), size=(1, *copies.shape[1:3], 1)), axis=0
    )[0],
}


def say(what: str, found: Trace, guilty: list[str]) -> None:
    named = [one.customer for one in found.named]
    wrong = sorted(set(named) - set(guilty))
    group = f", group {found.group.customers}" if found.group else ""
    best = ", ".join(f"{one.log10_p:.1f}" for one in found.named)
    print(
        f"{what}: named {len(set(named) & set(guilty))} of {len(guilty)} (p {best}){group}", end=""
    )
    print(f"; WRONG {wrong}" if wrong else "", flush=True)


def halved(picture: Picture) -> Picture:
    """What a x2 super-resolution model is asked."""
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small, np.uint8)


def inputs_of(folder: Path) -> list[Picture]:
    return [halved(read_picture(file)) for file in gather_pictures([folder]).files]


def on_pictures(
    key: OwnerKey, claim: Claim, customers: Customers, model: ImageModel, steps: int, photos: Path
) -> None:
    """Real outputs: copies of 1, 2, 3 and 5 customers merged; surrogates of pooled outputs."""
    calibration = Calibration.from_bytes(claim.calibration)
    inputs = inputs_of(photos / "eval")
    outputs = [model.output(x) for x in inputs]
    names = list(customers.names[:5])
    embedders = {name: Embedder(provision(key, claim, name)) for name in names}
    rng = np.random.default_rng(0)

    mark_key = claim.mark_key(key)

    def judge(pictures: list[Picture]) -> Trace:
        return customers.trace(measure(pictures, claim, mark_key).estimate(calibration), RATE)

    def judge_beside_the_model(suspect: ImageModel) -> Trace:
        measured = measure(None, claim, mark_key, suspect=suspect, inputs=inputs, model=model)
        tint = measured.tint_estimate(calibration)
        return customers.trace(measured.estimate(calibration), RATE, tint=tint)

    print(f"\nmarked pictures ({len(outputs)}), {len(customers.names)} customers")
    copies = {name: [e.embed(y) for y in outputs] for name, e in embedders.items()}
    say("one customer", judge(copies[names[0]]), names[:1])
    for count, (attack, merge) in itertools.product((2, 3, 5), ATTACKS.items()):
        who = names[:count]
        merged = [
            merge(np.stack([copies[name][i] for name in who]).astype(float), rng).astype(np.uint8)
            for i in range(len(outputs))
        ]
        say(f"{count} customers, {attack}", judge(merged), who)
    if not steps:
        return
    train = inputs_of(photos / "train")
    answers = [model.output(x) for x in train]
    for guilty in [[name] for name in names] + [names[:2], names[:3]]:
        count = len(guilty)
        published = [embedders[guilty[i % count]].embed(y) for i, y in enumerate(answers)]
        began = time.monotonic()
        stolen = steal(train, published, student="resnet", steps=steps, seed=count)
        thief = ImageModel(stolen.model.SerializeToString(), name="surrogate", threads=1)
        took = f"{time.monotonic() - began:.0f} s"
        say(f"surrogate of {count}, {took}, blind", judge([thief(x) for x in inputs]), guilty)
        say(f"surrogate of {count}, informed", judge_beside_the_model(thief), guilty)


def innocents(customers: Customers, claim: Claim, photos: Path, count: int) -> None:
    """Suspects without any mark, each some of many unmarked pictures: how often one is named."""
    model = ImageModel(claim_path(claim))
    calibration = Calibration.from_bytes(claim.calibration)
    inputs = inputs_of(photos / "eval") + inputs_of(photos / "train")
    pools, regressions = [], []
    for x in inputs:
        own = Embedder(None).embed(model.output(x))
        bicubic = cv2.resize(x, own.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        sharp = cv2.addWeighted(own, 1.5, cv2.GaussianBlur(own, (0, 0), 1.0), -0.5, 0)
        soft = cv2.GaussianBlur(own, (0, 0), 0.7)
        for made in (through_jpeg(own, 50), through_jpeg(bicubic, 80), bicubic, sharp, soft):
            picture = np.ascontiguousarray(made, np.uint8)
            pools.append(Pool())
            pools[-1].add("", picture)
            regressions.append(Regression.empty())
            regressions[-1].add(picture, own)
    wrong = {"blind": 0, "informed": 0}
    for seed in range(count):
        rng = np.random.default_rng([seed, 11])
        taken = rng.choice(len(pools), int(rng.integers(1, 12)), replace=False)
        echo = read_echo(total_of([pools[i].total() for i in taken]), calibration)
        wrong["blind"] += customers.trace(echo, RATE).found
        together = Regression.empty()
        for i in taken:
            for name, value in vars(regressions[i]).items():
                getattr(together, name).__iadd__(value)
        beside = together.read(calibration), together.read_tint(calibration)
        wrong["informed"] += customers.trace(beside[0], RATE, tint=beside[1]).found
    for kind, found in wrong.items():
        low, high = (int(stats.binom.ppf(q, count, RATE)) for q in (0.005, 0.995))
        print(
            f"{count} innocent suspects, {kind}, {len(customers.names)} customers: {found} times"
            f" anybody named; at a rate of {RATE:g} at most {low} to {high} (99 %)",
            flush=True,
        )


def claim_path(claim: Claim) -> str:
    """Where the claimed model lies."""
    return f"models/{claim.model_name}.onnx"


def caught(key: OwnerKey, claim: Claim, thieves: list[Path], photos: Path, count: int) -> None:
    """Networks that learned this claim's own mark, as if it were one of so many customers'."""
    mark_key = claim.mark_key(key)
    customers = Customers([f"customer {i}" for i in range(count)], claim, mark_key)
    calibration = Calibration.from_bytes(claim.calibration)
    for directions, of_part, n in (
        (customers.directions, mark_key, calibration.coordinates),
        (customers.tint_directions, mark_key.tint, calibration.tint_coordinates),
    ):
        directions[0] = coordinates(of_part, claim, n) / np.sqrt(n)
    model = ImageModel(claim_path(claim))
    inputs = inputs_of(photos / "eval")
    print(f"\nnetworks that learned one mark, {count} customers, {len(inputs)} pictures")
    for path in thieves:
        suspect = ImageModel(path, threads=1)
        beside = measure(None, claim, mark_key, suspect=suspect, inputs=inputs, model=model)
        blind = read_echo(beside.pool.total(), calibration)
        say(f"{path.stem}, blind", customers.trace(blind, RATE), ["customer 0"])
        tint = beside.tint_estimate(calibration)
        found = customers.trace(beside.estimate(calibration), RATE, tint=tint)
        say(f"{path.stem}, informed", found, ["customer 0"])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--customers", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--surrogates", type=int, default=0, metavar="STEPS")
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    parser.add_argument("--innocent", type=int, default=0, metavar="SUSPECTS")
    parser.add_argument("--thieves", type=Path, nargs="*", default=[], metavar="ONNX")
    parser.add_argument("--key", help="theirs; BIRTHMARK_PASSPHRASE opens it")
    parser.add_argument("--claim")
    options = parser.parse_args()
    if options.thieves:
        key = OwnerKey.load(options.key, os.environ["BIRTHMARK_PASSPHRASE"])
        for count in options.customers:
            caught(key, Claim.load(options.claim), options.thieves, options.photos, count)
        return
    model = ImageModel(MODEL)
    calibration = calibrate_model(model, inputs_of(options.photos / "train"))
    key = OwnerKey.generate()
    claim = Claim.create(key, "Bench", MODEL, calibration.to_bytes())
    for count in options.customers:
        began = time.monotonic()
        customers = Customers([f"customer {i}" for i in range(count)], claim, claim.mark_key(key))
        print(f"{count} customers derived in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        for seed in range(20):
            customers.trace(np.random.default_rng(seed).standard_normal(N), RATE)
        print(f"one search: {(time.monotonic() - began) / 20 * 1000:.0f} ms")
        if options.innocent:
            innocents(customers, claim, options.photos, options.innocent)
        if options.trials:
            on_pictures(key, claim, customers, model, options.surrogates, options.photos)
            table(customers, options.trials)


if __name__ == "__main__":
    main()
