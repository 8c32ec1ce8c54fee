"""Steal one model with one student under several seeds, and judge: the rows of the README's table.

    python bench/steal.py --task sr --student resnet --steps 4500 --seeds 0 1 2
    python bench/steal.py --task denoise --student resnet --steps 9000 --seeds 0

One key; every seed is another thief. Prints blind and informed verdicts on photographs that nobody
was trained on, the same after JPEG 75, the same from one picture alone (median), and how 200 other
keys would have judged the first thief: their p-values must look uniform (Kolmogorov-Smirnov).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from scipy import stats

from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.exact_tests import run_tests
from birthmark.extract import Pool, read_echo
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, psnr_db, read_picture, through_jpeg
from birthmark.progress import Progress
from birthmark.training.surrogates import steal
from birthmark.verdict import verify

MODELS = {"sr": "models/espcn_x2.onnx", "denoise": "models/denoise_small.onnx"}
NOISE_LEVELS = 25


def inputs_of(task: str, folder: Path, seed: int) -> list[Picture]:
    """What the model is asked: half-size photographs, or photographs with Gaussian noise."""
    rng = np.random.default_rng(seed)
    out = []
    for file in gather_pictures([folder]).files:
        photo = read_picture(file)
        factor = 0.5 if task == "sr" else 0.75
        small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if task == "denoise":
            noisy = small + NOISE_LEVELS * rng.standard_normal(small.shape)
            small = np.clip(np.rint(noisy), 0, 255)
        out.append(np.ascontiguousarray(small, np.uint8))
    return out


def other_keys(pictures: list[Picture], claim: Claim, count: int) -> tuple[float, float]:
    """Smallest p-value of other keys on the same pictures, and the KS test's p for uniformity."""
    pool = Pool()
    for i, picture in enumerate(pictures):
        pool.add(str(i), picture)
    estimate = read_echo(pool.total(), Calibration.from_bytes(claim.calibration))
    tests = (run_tests(estimate, MarkKey.random(str(i).encode()), claim) for i in range(count))
    p = [10**t.log10_p_cosine for t in tests]
    return min(p), float(stats.kstest(p, "uniform").pvalue)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", choices=sorted(MODELS), default="sr")
    parser.add_argument("--student", default="resnet")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--unmarked", action="store_true", help="the control: steal plain outputs")
    options = parser.parse_args()
    model = ImageModel(MODELS[options.task])
    train = inputs_of(options.task, Path(options.photos) / "train", 1)
    held_out = inputs_of(options.task, Path(options.photos) / "eval", 2)
    key = OwnerKey.generate()
    claim = claim_model(key, "Bench", model, MODELS[options.task], train)
    plain, marked = Embedder(None), Embedder(provision(key, claim))
    outputs = [model.output(x) for x in train]
    own = [model.output(x) for x in held_out]
    host, direct = ([e.embed(y) for y in own] for e in (plain, marked))
    psnr = [psnr_db(a, b) for a, b in zip(host, direct, strict=True)]
    print(f"{options}\nPSNR of marked outputs: min {min(psnr):.2f}, mean {np.mean(psnr):.2f} dB")
    print(f"directly marked, blind: log10 p {verify(direct, claim, key).log10_p:.1f}")
    published = [(plain if options.unmarked else marked).embed(y) for y in outputs]
    for seed in options.seeds:
        began = time.monotonic()
        surrogate = steal(
            train,
            published,
            student=options.student,
            steps=options.steps,
            seed=seed,
            progress=Progress(f"seed {seed}"),
        )
        seconds = time.monotonic() - began
        thief = ImageModel(surrogate.model.SerializeToString(), name="surrogate")
        answers = [thief(x) for x in held_out]
        error = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(answers, host, strict=True)]
        blind = verify(answers, claim, key)
        informed = verify(None, claim, key, suspect=thief, inputs=held_out, model=model)
        compressed = verify([through_jpeg(a, 75) for a in answers], claim, key)
        alone = np.median([e.log10_p for e in blind.evidence])
        print(
            f"seed {seed}: {seconds:.0f} s, MSE to the model {np.mean(error):.2f};"
            f" blind {blind.decision} {blind.log10_p:.1f} ({blind.pictures} pictures;"
            f" one alone {alone:.1f}), JPEG 75 {compressed.log10_p:.1f},"
            f" informed {informed.decision} {informed.log10_p:.1f}",
            flush=True,
        )
        if seed == options.seeds[0]:
            smallest, uniform = other_keys(answers, claim, 200)
            print(f"200 other keys: smallest p {smallest:.4f}, KS p {uniform:.3f}", flush=True)


if __name__ == "__main__":
    main()
