"""Steal models in many ways, and judge every surrogate: the table of thieves.

    python bench/surrogates/run.py --task sr                  # all rows not yet there
    python bench/surrogates/run.py --task sr --only students  # one group of them
    python bench/surrogates/run.py --write                    # RESULTS.md from the rows there

Each row is one theft, written to ``rows/<task>/<row>.json`` when it is finished, so a run that
was cut off goes on where it stopped; a theft itself goes on from its checkpoint. Key, claim and
checkpoints are kept in ``--work``. Judged are photographs that nobody was trained on, cut into
squares of 256 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from damages import DAMAGES
from domains import DOMAINS
from weather import haze, rain

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.emblem import correlation
from birthmark.files import write_atomically
from birthmark.geometry import find_geometry
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.orientations import in_all_orientations
from birthmark.pictures import (
    Picture,
    gather_pictures,
    psnr_db,
    read_picture,
    through_jpeg,
)
from birthmark.progress import Progress
from birthmark.resources import calibration_photographs
from birthmark.training.alterations import perturb, prune, quantise
from birthmark.training.surrogates import steal
from birthmark.verdict import Verdict, verify

HERE = Path(__file__).parent
SIDE_PX = 256
FEW = 20
NOISE_LEVELS = 25
WORST_DB = -1.0  # a surrogate that is worse than the model by more is no product
# Some 10 thousand and 2 million parameters.
SMALLEST = {"resnet": {"width": 11, "depth": 4}, "unet": {"width": 7}}
# So large a residual network diverges at the rate that the others learn with.
LARGEST = {"resnet": {"width": 128, "depth": 7, "lr": 5e-4}, "unet": {"width": 104, "lr": 1e-3}}


@dataclass(frozen=True)
class Task:
    """A model and how its inputs are made from photographs."""

    model: str
    student: str
    factor: float
    noise: float = 0.0
    jpeg: int = 0
    weather: Callable[[Picture, np.random.Generator], Picture] | None = None


TASKS = {
    "sr": Task("espcn_x2.onnx", "resnet", 0.5),
    "fsrcnn": Task("fsrcnn_x2.onnx", "resnet", 0.5),
    "denoise": Task("denoise_small.onnx", "unet", 0.75, noise=NOISE_LEVELS),
    "photo-x2": Task("waifu2x_photo_x2.onnx", "resnet", 0.5),
    "derain": Task("derain_small.onnx", "unet", 0.75, weather=rain),
    "dehaze": Task("aodnet_dehaze.onnx", "unet", 0.75, weather=haze),
    "jpeg-x2": Task("waifu2x_photo_noise2_x2.onnx", "resnet", 0.5, jpeg=60),
}


@dataclass(frozen=True)
class Row:
    """One theft: what the thief gets, how he trains, and what he does afterwards."""

    group: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    """Of the published pictures that carry the mark."""
    pairs: int = 0
    """How many pictures he has; 0 for all."""
    published_jpeg: int = 0
    domain: str = ""
    """What he asks instead of photographs, of ``DOMAINS``."""
    after: str = ""
    damages: bool = False


def rows_of(task: Task) -> list[Row]:
    """All rows of a task, the plain one first."""
    base = {"student": task.student}
    students = [
        ("plain CNN", {"student": "cnn"}),
        *((f"residual, {n} blocks", {"student": "resnet", "depth": n}) for n in (0, 1, 6, 9)),
        ("residual, 64 wide", {"student": "resnet", "width": 64}),
        ("10 thousand parameters", {**base, **SMALLEST[task.student]}),
        ("2 million parameters", {**base, **LARGEST[task.student]}),
        ("U-Net", {"student": "unet"}),
        ("sub-pixel, tanh", {"student": "espcn", "lr": 1e-3}),
        ("depth-wise separable", {"student": "separable"}),
        ("normalised, gated", {"student": "nafnet"}),
    ]
    return [
        Row("plain", "the usual thief", base, damages=True),
        Row("plain", "control: unmarked outputs", base, share=0.0),
        *(Row("students", name, options) for name, options in students),
        *(
            Row("losses", name, {**base, "loss": name})
            for name in ("l1", "charbonnier", "perceptual", "adversarial")
        ),
        *(
            Row("disturbed while training", name, {**base, "disturbances": (name,)})
            for name in ("rescale", "rotate", "jpeg", "blur", "noise")
        ),
        Row("disturbed while training", "no symmetries", {**base, "augment": False}),
        *(
            Row("published as JPEG", str(quality), base, published_jpeg=quality)
            for quality in (95, 75)
        ),
        *(
            Row("marked share", f"{share:.0%}", base, share=share)
            for share in (0.5, 0.1, 0.05, 0.01)
        ),
        *(Row("few pairs", str(n), base, pairs=n) for n in (20, 8)),
        *(Row("no photographs asked", name, base, domain=name) for name in DOMAINS),
        *(
            Row("after the theft", name, base, after=name)
            for name in (
                "fine-tuned on unmarked pairs",
                "pruned 30 %",
                "pruned 50 %",
                "pruned 70 %",
                "weights of 8 bits",
                "noise of 5 % on weights",
                "distilled once more",
            )
        ),
    ]


def squares(pictures: list[Picture]) -> list[Picture]:
    """Squares of 256 pixels, side by side, from all pictures in turn."""
    cut = [
        [
            np.ascontiguousarray(p[y : y + SIDE_PX, x : x + SIDE_PX])
            for y in range(0, p.shape[0] - SIDE_PX + 1, SIDE_PX)
            for x in range(0, p.shape[1] - SIDE_PX + 1, SIDE_PX)
        ]
        for p in pictures
    ]
    return [c[i] for i in range(max(map(len, cut))) for c in cut if i < len(c)]


class Bench:
    """A task with its owner, its published pictures, and what is judged."""

    def __init__(self, task: Task, options: argparse.Namespace) -> None:
        self.task, self.options = task, options
        self.work = Path(options.work) / options.task
        self.work.mkdir(parents=True, exist_ok=True)
        self.model = ImageModel(Path(options.models) / task.model)
        self.train = [x for _, x in self._inputs("train", 1)]
        pairs = self._inputs("eval", 2)
        self.truth, self.held_out = [p for p, _ in pairs], [x for _, x in pairs]
        self.key, self.claim = self._owner()
        plain, marked = Embedder(None), Embedder(provision(self.key, self.claim))
        outputs = [self.model.output(x) for x in self.train]
        self.unmarked = [plain.embed(y) for y in outputs]
        self.marked = [marked.embed(y) for y in outputs]
        self._embedder = marked
        own = [self.model.output(x) for x in self.held_out]
        self.own, self.direct = ([e.embed(y) for y in own] for e in (plain, marked))

    def _inputs(self, split: str, seed: int) -> list[tuple[Picture, Picture]]:
        """Photographs as they should come out, and as the model gets them."""
        rng = np.random.default_rng(seed)
        files = gather_pictures([Path(self.options.photos) / split]).files
        return [self._asked(read_picture(file), rng) for file in files]

    def _asked(self, picture: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
        """A picture as it should come out, and as the model gets it."""
        rows, columns = (side // 4 * 4 for side in picture.shape[:2])
        picture, factor = np.ascontiguousarray(picture[:rows, :columns]), self.task.factor
        x = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        truth = picture if self.model.scale > 1 else np.asarray(x, np.uint8)
        if self.task.noise:
            noise = self.task.noise * rng.standard_normal(x.shape)
            x = np.clip(np.rint(x + noise), 0, 255)
        x = np.ascontiguousarray(x, np.uint8)
        if self.task.weather:
            x = self.task.weather(x, rng)
        return truth, through_jpeg(x, self.task.jpeg) if self.task.jpeg else x

    def _owner(self) -> tuple[OwnerKey, Claim]:
        key_file, claim_file = self.work / "owner.key", self.work / "claim.json"
        if key_file.exists() and claim_file.exists():
            return OwnerKey.load(key_file, "bench"), Claim.load(claim_file)
        key = OwnerKey.generate()
        path = Path(self.options.models) / self.task.model
        claim = claim_model(key, "Bench", self.model, path, self.train)
        key.save(key_file, "bench")
        claim.save(claim_file)
        return key, claim

    def published(self, row: Row) -> tuple[list[Picture], list[Picture]]:
        """What the thief collects: inputs and outputs."""
        rng = np.random.default_rng(5)
        if row.domain:
            # As many as there are photographs.
            made = (DOMAINS[row.domain](rng) for _ in self.train)
            asked = [self._asked(picture, rng)[1] for picture in made]
            return asked, [self._embedder.embed(self.model.output(x)) for x in asked]
        chosen = rng.permutation(len(self.train))[: row.pairs or None]
        carries = set(rng.permutation(chosen)[: round(row.share * len(chosen))].tolist())
        outputs = [(self.marked if i in carries else self.unmarked)[i] for i in chosen]
        if row.published_jpeg:
            outputs = [through_jpeg(y, row.published_jpeg) for y in outputs]
        return [self.train[i] for i in chosen], outputs

    def theft(
        self, name: str, inputs: list[Picture], outputs: list[Picture], **options: Any
    ) -> onnx.ModelProto:
        """A surrogate; kept, and taken from where it was kept."""
        kept = self.work / f"{name}.onnx"
        if kept.exists():
            return onnx.load(kept)
        progress = Progress(name)
        surrogate = steal(
            inputs,
            outputs,
            checkpoint=self.work / f"{name}.npz",
            progress=progress,
            **{"steps": self.options.steps, "seed": self.options.seed, **options},
        )
        progress.close()
        surrogate.save(kept)
        return surrogate.model

    def run(self, row: Row) -> dict[str, Any]:
        """One row's figures."""
        began = time.monotonic()
        inputs, outputs = self.published(row)
        name = slug(row) if not row.after else slug(rows_of(self.task)[0])
        model = self.theft(name, inputs, outputs, **row.options)
        if row.after:
            model = self._afterwards(row, model)
        suspect = ImageModel(model.SerializeToString(), name="surrogate")
        answers = [suspect(x) for x in self.held_out]
        tiles = squares(answers)
        blind = self._judge(tiles)
        informed, turned = (self._beside(suspect, turned=turned) for turned in (False, True))
        referred = self._beside(suspect, references=[self._reference()])
        quality = [
            float(np.mean([psnr_db(a, b) for a, b in zip(pictures, self.truth, strict=True)]))
            for pictures in (self.own, answers)
        ]
        error = [
            np.mean((a.astype(float) - b) ** 2) for a, b in zip(answers, self.own, strict=True)
        ]
        damaged = self._damaged(suspect, answers) if row.damages else {}
        return {
            "group": row.group,
            "row": row.name,
            "steps": self.options.steps,
            "seconds": round(time.monotonic() - began),
            "parameters": sum(
                int(np.prod(t.dims))
                for t in model.graph.initializer
                if t.name.endswith((".weight", ".bias"))
            ),
            "mse_to_model": round(float(np.mean(error)), 2),
            "model_psnr_db": round(quality[0], 2),
            "surrogate_psnr_db": round(quality[1], 2),
            "pictures": blind.pictures,
            "blind_log10_p": round(blind.log10_p, 1),
            "blind_few_log10_p": round(self._judge(tiles[:FEW]).log10_p, 1),
            "jpeg75_log10_p": round(self._judge([through_jpeg(t, 75) for t in tiles]).log10_p, 1),
            "informed_log10_p": round(informed.log10_p, 1),
            "turned_log10_p": round(turned.log10_p, 1),
            "referred_log10_p": round(referred.log10_p, 1),
            "decision": str(blind.decision),
            "informed_decision": str(informed.decision),
            "payload": blind.payload_is_claimed,
            "informed_payload": informed.payload_is_claimed,
            "emblem_nc": [self._likeness(blind), self._likeness(informed)],
            "damages": {damage: round(p, 1) for damage, p in damaged.items()},
        }

    def _damaged(self, suspect: ImageModel, answers: list[Picture]) -> dict[str, float]:
        """log10 p, blind, of a suspect's answers after what may be done to them."""
        found = {
            damage: self._judge(squares([change(a) for a in answers])).log10_p
            for damage, change in DAMAGES.items()
        }
        averaged = map(in_all_orientations(suspect), self.held_out)
        found["averaged over eight turned inputs"] = self._judge(squares([*averaged])).log10_p
        turned = [DAMAGES["turned by 2 degrees"](a) for a in answers]
        geometry = find_geometry(turned, self.claim, self.key)
        brought_back = verify(turned, self.claim, self.key, geometry=geometry)
        found["turned by 2 degrees, and brought back"] = brought_back.log10_p
        return found

    def _likeness(self, verdict: Verdict) -> float:
        """Normalised correlation of the likeliest emblem with the claim's."""
        return round(correlation(verdict.payload_guess, self.claim.emblem), 2)

    def _judge(self, pictures: list[Picture]) -> Verdict:
        return verify(pictures, self.claim, self.key)

    def _reference(self) -> ImageModel:
        """What the owner trains on his model's unmarked outputs for the package's photographs."""
        rng = np.random.default_rng(7)
        asked = [self._asked(read_picture(file), rng)[1] for file in calibration_photographs()]
        answers = [self.model(x) for x in asked]
        options = {"student": self.task.student, "seed": self.options.seed + 1000}
        model = self.theft("reference", asked, answers, **options)
        return ImageModel(model.SerializeToString(), name="reference")

    def _beside(
        self, suspect: ImageModel, *, turned: bool = False, references: Sequence[ImageModel] = ()
    ) -> Verdict:
        """The informed verdict, each input asked once or in eight orientations."""
        return verify(
            None,
            self.claim,
            self.key,
            suspect=suspect,
            inputs=self.held_out,
            model=self.model,
            references=references,
            turned=turned,
        )

    def _afterwards(self, row: Row, model: onnx.ModelProto) -> onnx.ModelProto:
        simple: dict[str, Callable[[], onnx.ModelProto]] = {
            "pruned 30 %": lambda: prune(model, 0.3),
            "pruned 50 %": lambda: prune(model, 0.5),
            "pruned 70 %": lambda: prune(model, 0.7),
            "weights of 8 bits": lambda: quantise(model, 8),
            "noise of 5 % on weights": lambda: perturb(model, 0.05, seed=1),
        }
        if row.after in simple:
            return simple[row.after]()
        if row.after == "distilled once more":
            suspect = ImageModel(model.SerializeToString(), name="surrogate")
            answers = [suspect(x) for x in self.train]
            return self.theft(slug(row), self.train, answers, **row.options)
        steps = self.options.steps // 4
        return self.theft(
            slug(row),
            self.train,
            self.unmarked,
            start=model,
            **{**row.options, "steps": steps, "lr": 1e-3},
        )


def slug(row: Row) -> str:
    """A row's name as a file's."""
    text = f"{row.group} {row.name}".lower().replace("%", "percent")
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def emblem_of(row: dict[str, Any]) -> str:
    """How well the emblem was restored, blind and informed."""
    if "emblem_nc" not in row:
        return "–"
    trusted = (row["payload"], row["informed_payload"])
    return ", ".join(
        f"**{nc:.2f}**" if read else f"{nc:.2f}"
        for nc, read in zip(row["emblem_nc"], trusted, strict=True)
    )


def write_results() -> None:
    """RESULTS.md from the rows that are there."""
    lines = [
        "# Surrogates, and what they betray",
        "",
        "One theft a line. `blind` is log10 of the p-value over all squares of 256 x 256 pixels of"
        " photographs that",
        f"nobody was trained on, `{FEW}` over the first {FEW} of them, `JPEG 75` over all after"
        " compression, `informed` beside",
        "the owner's own model, `turned` the same with each input asked in eight orientations,"
        " `reference` with a",
        "network of the owner's beside it that learned the model's unmarked outputs (usual student,"
        " another seed, twelve photographs).",
        "`PSNR` is the surrogate's less the model's, against the photographs themselves.",
        "`emblem` is the normalised correlation of the likeliest emblem with the claim's, blind and"
        " informed: bold where the",
        "verdict trusts it and it is the claimed one. A row without one was read before there were"
        " extractor and emblem; `turned` and",
        "`reference` were read of rows that matter to them.",
        "",
    ]
    for folder in sorted(p for p in (HERE / "rows").iterdir() if p.is_dir()):
        found = [json.loads(p.read_text()) for p in folder.glob("*.json")]
        order = {slug(row): i for i, row in enumerate(rows_of(TASKS[folder.name]))}
        found.sort(key=lambda r: order.get(slug(Row(r["group"], r["row"])), len(order)))
        lines += [
            f"## {folder.name}: {TASKS[folder.name].model}",
            "",
            f"    python bench/surrogates/run.py --task {folder.name}",
            "",
            "| thief | parameters | MSE to the model | PSNR dB | pictures | blind | "
            f"{FEW} | JPEG 75 | informed | turned | reference | emblem |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for r in found:
            better = r["surrogate_psnr_db"] - r["model_psnr_db"]
            turned, referred = (
                f"{r[name]:.1f}" if name in r else "–"
                for name in ("turned_log10_p", "referred_log10_p")
            )
            lines.append(
                f"| {r['group']}: {r['row']} | {r['parameters']} | {r['mse_to_model']:.1f}"
                f" | {better:+.2f} | {r['pictures']} | {r['blind_log10_p']:.1f}"
                f" | {r['blind_few_log10_p']:.1f} | {r['jpeg75_log10_p']:.1f}"
                f" | {r['informed_log10_p']:.1f} | {turned} | {referred} | {emblem_of(r)} |"
            )
        lines.append("")
        worse = [
            f"{r['group']}: {r['row']}"
            for r in found
            if r["surrogate_psnr_db"] - r["model_psnr_db"] < WORST_DB
        ]
        if worse:
            lines += [
                f"Worse than the model by more than 1 dB, no products: {'; '.join(worse)}.",
                "",
            ]
        for r in found:
            if r["damages"]:
                lines += [
                    f"The pictures of `{r['row']}` after:",
                    "",
                    "| damage | blind |",
                    "|---|---:|",
                    *(f"| {name} | {p:.1f} |" for name, p in r["damages"].items()),
                    "",
                ]
    write_atomically(HERE / "RESULTS.md", "\n".join(lines).encode())


def main() -> int:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", choices=sorted(TASKS), default="sr")
    parser.add_argument("--only", help="one group of rows")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--models", default="models", help="holds the ONNX files")
    parser.add_argument("--work", default="surrogates-work", help="key, claim and checkpoints")
    parser.add_argument("--rows", default=str(HERE / "rows"), help="where rows are written")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md, steal nothing")
    options = parser.parse_args()
    if options.write:
        write_results()
        return 0
    out = Path(options.rows) / options.task
    out.mkdir(parents=True, exist_ok=True)
    task = TASKS[options.task]
    bench = None
    for row in rows_of(task):
        target = out / f"{slug(row)}.json"
        if target.exists() or (options.only and row.group != options.only):
            continue
        bench = bench or Bench(task, options)
        figures = bench.run(row)
        write_atomically(target, (json.dumps(figures, indent=1) + "\n").encode())
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
