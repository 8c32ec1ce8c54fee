"""The whole way on real files: protect a model, have it stolen, prove it, and clear the innocent.

``python -m birthmark.demo`` (or ``make demo``), from the repository's root. The exit code is 0 only
if the thief's surrogate is convicted and neither control is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.managers import DictProxy
from pathlib import Path
from typing import Any

import numpy as np

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.errors import BirthmarkError, InvalidModel
from birthmark.files import new_folder, write_atomically
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, psnr_db, read_picture, write_png
from birthmark.progress import Progress
from birthmark.report import write_report
from birthmark.report.examples import AMPLIFIED, amplified_difference
from birthmark.verdict import Verdict, verify

STEPS = 5000
CONVICTED_BELOW = -6.0
INNOCENT_ABOVE = -3.0
_TRAIN_DIVISORS = (2, 3)
_EVAL_DIVISORS = (2, 3, 4)


@dataclass(frozen=True)
class Row:
    """One line of the table: who was judged, and how."""

    who: str
    verdict: Verdict
    guilty: bool

    @property
    def as_it_should_be(self) -> bool:
        """Convicted if guilty, and well clear of it if not."""
        if self.guilty:
            return self.verdict.decision == "MARKED" and self.verdict.log10_p < CONVICTED_BELOW
        return self.verdict.decision != "MARKED" and self.verdict.log10_p > INNOCENT_ABOVE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="birthmark.demo", description=__doc__)
    parser.add_argument("--model", default="models/espcn_x2.onnx", help="a x2 model to protect")
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--out", default="demo-out")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each surrogate's training")
    parser.add_argument("--student", default="resnet", help="the thief's network")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        return _whole_way(options)
    except (BirthmarkError, OSError) as error:
        print(f"birthmark.demo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbirthmark.demo: interrupted", file=sys.stderr)
        return 130


def _whole_way(options: argparse.Namespace) -> int:
    began = time.monotonic()
    out = new_folder(options.out, into_existing=True)
    photos = Path(options.photos)
    train = _inputs(photos / "train", _TRAIN_DIVISORS)
    held_out = _inputs(photos / "eval", _EVAL_DIVISORS)

    say("1  the owner: key, claim, mark file")
    model = ImageModel(options.model)
    key, claim = _owner(model, options.model, train, out)
    stranger, strangers_claim = _another_owner(claim, options.model)
    mark = provision(key, claim)
    mark.save(out / "m.mark")

    say(f"2  the model answers {len(train)} queries; what is published is marked")
    plain, marked = Embedder(None), Embedder(mark)
    outputs = _answers(model, train, "answering")
    published = [marked.embed(y) for y in outputs]
    unmarked = [plain.embed(y) for y in outputs]
    psnr = [psnr_db(a, b) for a, b in zip(unmarked, published, strict=True)]
    print(f"   PSNR of the published pictures: min {min(psnr):.2f}, mean {np.mean(psnr):.2f} dB")
    for i, picture in enumerate(published[:4]):
        write_png(out / f"published-{i + 1}.png", picture)

    say(f"3  the thief trains a {options.student} on the published pairs; the control on unmarked")
    guilty, innocent = _steal_both(train, (published, unmarked), options)
    write_atomically(out / "surrogate.onnx", guilty)

    say(f"4  the verdicts, on {len(held_out)} pictures that nobody was trained on")
    thief, control = (ImageModel(m, name="surrogate") for m in (guilty, innocent))
    answers = [thief(x) for x in held_out]
    blind = verify(answers, claim, key)
    informed = verify(None, claim, key, suspect=thief, inputs=held_out, model=model)
    rows = [
        Row("stolen surrogate, blind", blind, True),
        Row("stolen surrogate, informed", informed, True),
        Row(
            "control: surrogate of unmarked outputs",
            verify(map(control, held_out), claim, key),
            False,
        ),
        Row("control: another owner's key", verify(answers, strangers_claim, stranger), False),
    ]
    _print_rows(rows)
    _print_quality(photos / "eval", model, (plain, marked), (thief, control))
    blind.save(out / "verdict.zip", key)
    write_report(
        blind,
        out / "report.html",
        key=claim.mark_key(key),
        bundle=out / "verdict.zip",
        examples=_examples(unmarked[0], published[0]),
        notes=[(r.who, f"{r.verdict.decision}, log10 p {r.verdict.log10_p:.1f}") for r in rows],
    )
    print(f"\nverdict: {out}/verdict.zip   report: {out}/report.html")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if all(row.as_it_should_be for row in rows) else 1


def say(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n{text}", flush=True)


def _inputs(folder: Path, divisors: tuple[int, ...]) -> list[Picture]:
    """Photographs scaled down by area averaging: what a super-resolution model is asked."""
    import cv2

    pictures: list[Picture] = []
    for file in gather_pictures([folder]).files:
        photo = read_picture(file)
        for divisor in divisors:
            height, width = (side // divisor for side in photo.shape[:2])
            whole = photo[: height * divisor, : width * divisor]
            small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
            pictures.append(np.ascontiguousarray(small, np.uint8))
    return pictures


def _owner(
    model: ImageModel, model_path: str, inputs: list[Picture], out: Path
) -> tuple[OwnerKey, Claim]:
    if model.scale != 2:
        raise InvalidModel(f"the demonstration protects a x2 model; this one is x{model.scale}")
    key = OwnerKey.generate()
    key_file = out / "owner.key"
    key_file.unlink(missing_ok=True)
    key.save(key_file, secrets.token_hex(16))
    claim = claim_model(key, "Demo owner", model, model_path, inputs[:: len(_TRAIN_DIVISORS)])
    claim.save(out / "claim.json")
    print(f"   claim {claim.digest.hex()[:16]}...")
    return key, claim


def _another_owner(claim: Claim, model_path: str) -> tuple[OwnerKey, Claim]:
    """Somebody who claims the same model, with the same calibration."""
    key = OwnerKey.generate()
    return key, Claim.create(key, "Somebody else", model_path, claim.calibration)


def _answers(model: ImageModel, inputs: list[Picture], label: str) -> list[Any]:
    progress = Progress(label)
    outputs = []
    for i, picture in enumerate(inputs):
        progress(i, len(inputs))
        outputs.append(model.output(picture))
    progress.close()
    return outputs


def _train(
    name: str,
    inputs: list[Picture],
    outputs: list[Picture],
    options: argparse.Namespace,
    shared: DictProxy[str, Any],
) -> None:
    """In a process of its own: one thief on one core."""
    from birthmark.training.surrogates import steal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

    def progress(done: int, total: int, message: str) -> None:
        shared[name + " done"] = done
        shared[name + " says"] = message

    surrogate = steal(
        inputs,
        outputs,
        student=options.student,
        steps=options.steps,
        seed=options.seed,
        progress=progress,
    )
    shared[name + " model"] = surrogate.model.SerializeToString()


def _steal_both(
    inputs: list[Picture], outputs: tuple[list[Picture], list[Picture]], options: argparse.Namespace
) -> tuple[bytes, bytes]:
    """Train both surrogates at the same time; returns their ONNX files."""
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the two processes; they share two cores
    names = ("guilty", "control")
    with context.Manager() as manager:
        shared = manager.dict()
        processes = [
            context.Process(
                target=_train, args=(name, inputs, pictures, options, shared), daemon=True
            )
            for name, pictures in zip(names, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        progress = Progress("   stealing")
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            done = sum(shared.get(name + " done", 0) for name in names)
            says = "  ".join(f"{name}: {shared.get(name + ' says', '...')}" for name in names)
            progress(done, 2 * options.steps, says)
        progress.close()
        if any(process.exitcode for process in processes):
            raise BirthmarkError("a surrogate's training failed (see above)")
        return shared["guilty model"], shared["control model"]


def _print_rows(rows: list[Row]) -> None:
    print(f"\n{'':42}{'decision':>10}{'log10 p':>9}{'chips':>9}{'pictures':>10}")
    for row in rows:
        tests = row.verdict.tests
        chips = f"{tests.chips_matched}/{tests.coordinates}"
        print(
            f"{row.who:42}{row.verdict.decision:>10}{row.verdict.log10_p:9.1f}{chips:>9}"
            f"{row.verdict.pictures:10}{'' if row.as_it_should_be else '   NOT AS IT SHOULD BE'}"
        )


def _print_quality(
    folder: Path,
    model: ImageModel,
    embedders: tuple[Embedder, Embedder],
    surrogates: tuple[ImageModel, ImageModel],
) -> None:
    """How near everybody comes to the model, and to the photographs before they were halved."""
    inputs = _inputs(folder, (2,))
    outputs = _answers(model, inputs, "comparing")
    plain, marked = ([embedder.embed(y) for y in outputs] for embedder in embedders)
    photos = [read_picture(file) for file in gather_pictures([folder]).files]
    truth = [photo[: y.shape[0], : y.shape[1]] for photo, y in zip(photos, plain, strict=True)]
    stolen, control = ([surrogate(x) for x in inputs] for surrogate in surrogates)
    print(f"\n{'mean over ' + str(len(inputs)) + ' pictures':42}{'to the model':>19}{'truth':>10}")
    print(f"{'':42}{'PSNR dB':>10}{'MSE':>9}{'PSNR dB':>10}")
    for who, pictures in (
        ("the model, unmarked", plain),
        ("the model, marked: what is published", marked),
        ("stolen surrogate", stolen),
        ("control: surrogate of unmarked outputs", control),
    ):
        mse = np.mean([_mse(a, b) for a, b in zip(pictures, plain, strict=True)])
        near = np.mean([psnr_db(a, b) for a, b in zip(pictures, plain, strict=True)])
        to_truth = np.mean([psnr_db(a, b) for a, b in zip(pictures, truth, strict=True)])
        to_model = f"{near:10.2f}{mse:9.2f}" if mse else f"{'same':>10}{0:9.2f}"
        print(f"{who:42}{to_model}{to_truth:10.2f}")


def _mse(a: Picture, b: Picture) -> float:
    return float(np.mean((a.astype(np.float64) - b) ** 2))


def _examples(plain: Picture, marked: Picture) -> list[tuple[str, Picture]]:
    """A piece of a picture without the mark, the mark's residual, and the piece with it."""
    top, left = (max(0, (side - 256) // 2) for side in plain.shape[:2])
    a, b = (p[top : top + 256, left : left + 256] for p in (plain, marked))
    residual = amplified_difference(b, a)
    return [("host", a), (f"residual x {AMPLIFIED}", residual), ("published", b)]


if __name__ == "__main__":
    sys.exit(main())
