"""Marks that sit at places of the picture, beside ours, under the same theft: the table of rivals.

    python bench/baseline/run.py           # all rows not yet there, then RESULTS.md
    python bench/baseline/run.py --write   # RESULTS.md from the rows there

Three marks of one strength are put on the same squares: ours, a fixed keyed pattern at the
square's coordinates, and a logo hidden by trained networks (``logo_networks.py``). The same
student learns from each, on whole squares or on pieces of them, turned and mirrored or not.
Each row is one theft, written to ``rows/<row>.json`` when it is finished; keys, networks and
surrogates are kept in ``--work``, and a training goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from logo_networks import LogoNetworks, likeness

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.files import write_atomically
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, psnr_db, read_picture
from birthmark.progress import Progress
from birthmark.tails import log10_p_of_cosine
from birthmark.training.surrogates import steal
from birthmark.verdict import verify

HERE = Path(__file__).parent
MODEL = "espcn_x2.onnx"
SCALE = 2
SIDE_PX = 128
PIECE_PX = 64
# It knows where in the square it is. A U-Net of three levels does not: of the pattern on whole
# squares it learned nothing in 2 000 steps (informed log10 p -0.7).
STUDENT = {"student": "pix2pix"}
# The pattern's cosines have this many half periods in a square: slow enough to be learned (the
# shortest wave is 23 pixels long), fast enough to be told from what photographs show.
WAVES = range(4, 12)
FOUND = 0.95  # a logo so like the right one counts as found, as with Zhang et al.
REFERENCE = {"student": "pix2pix", "width": 16, "seed": 7}
MARKS = ("pattern", "ours", "logo")
DIRECT, UNMARKED = "no theft: the marked squares", "unmarked"

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A mark and what is done with what carries it."""

    mark: str
    thief: str


@dataclass(frozen=True)
class Thief:
    """How the squares are used: batches hold the same number of pixels in all ways."""

    name: str
    options: dict[str, Any]


WHOLE = {"crop": SIDE_PX, "batch": 1}
PIECES = {"crop": PIECE_PX, "batch": (SIDE_PX // PIECE_PX) ** 2}
THIEVES = (
    Thief("whole squares", {**WHOLE, "augment": False}),
    Thief("whole squares, turned and mirrored", {**WHOLE, "augment": True}),
    Thief("pieces", {**PIECES, "augment": False}),
    Thief("pieces, turned and mirrored", {**PIECES, "augment": True}),
)


@dataclass(frozen=True)
class Suspect:
    """Who is judged: what he makes of the inputs, and what the owner's model makes of them."""

    answer: Callable[[Picture], Picture]
    inputs: list[Picture]
    answers: list[Picture]
    own: list[Picture]


class Mark(Protocol):
    """A way to mark squares, and to look for the mark."""

    def put(self, outputs: Sequence[Picture]) -> list[Picture]:
        """The marked pictures."""

    def find(self, suspect: Suspect) -> dict[str, float]:
        """Figures of a suspect."""


class Pattern:
    """Keyed cosines at the picture's coordinates, the same in every picture and channel.

    The 64 amplitudes are a direction that the key draws uniformly, so that the test of a cosine
    is exact, as for our mark.
    """

    def __init__(self, rms_levels: float, unmarked: Sequence[Picture]) -> None:
        self._rms = rms_levels
        drawn = MarkKey.random(b"bench").gaussians("pattern", len(WAVES) ** 2)
        self._direction = drawn / np.linalg.norm(drawn)
        places = (np.arange(SIDE_PX) + 0.5) / SIDE_PX
        self._lines = np.sqrt(2) * np.cos(np.pi * np.outer(list(WAVES), places))
        usual = np.stack([self._coordinates(picture) for picture in unmarked])
        self._offset, self._variance = usual.mean(axis=0), usual.var(axis=0)

    def put(self, outputs: Sequence[Picture]) -> list[Picture]:
        """Add the pattern, and round."""
        amplitudes = self._rms * self._direction.reshape(len(WAVES), -1)
        pattern = (self._lines.T @ amplitudes @ self._lines)[..., None]
        return [np.clip(np.rint(y + pattern), 0, 255).astype(np.uint8) for y in outputs]

    def find(self, suspect: Suspect) -> dict[str, float]:
        """The cosine test, blind on the answers and informed on what they differ by."""
        read = np.stack([self._coordinates(a) for a in suspect.answers])
        beside = read - np.stack([self._coordinates(y) for y in suspect.own])
        # What photographs show there is the noise; each amplitude counts by how little it has.
        noise = self._variance / len(read) + self._rms**2 / len(self._direction)
        return {
            "blind_log10_p": self._log10_p((read.mean(axis=0) - self._offset) / noise),
            "informed_log10_p": self._log10_p(beside.mean(axis=0)),
            # Of the pattern's own amplitude.
            "learned": float(beside.mean(axis=0) @ self._direction) / self._rms,
        }

    def _coordinates(self, picture: Picture) -> FloatArray:
        grey = picture.astype(np.float64).mean(axis=2)
        return np.asarray(self._lines @ grey @ self._lines.T / SIDE_PX**2).ravel()

    def _log10_p(self, read: FloatArray) -> float:
        cosine = float(read @ self._direction) / float(np.linalg.norm(read))
        return log10_p_of_cosine(cosine, len(read))


class HiddenLogo:
    """A logo hidden by a trained network and shown by another: there is no p-value to it."""

    def __init__(self, networks: LogoNetworks) -> None:
        self.networks = networks

    def put(self, outputs: Sequence[Picture]) -> list[Picture]:
        """Run the embedder."""
        return self.networks.mark(outputs)

    def find(self, suspect: Suspect) -> dict[str, float]:
        """How like the logo is what the extractor shows: of each picture, and of their mean."""
        shown = self.networks.show(suspect.answers)
        each = [likeness(s) for s in shown]
        return {
            "likeness_median": float(np.median(each)),
            "likeness_of_mean": likeness(np.mean(shown, axis=0)),
            "found_share": float(np.mean([value > FOUND for value in each])),
        }


class Ours:
    """Our mark, of a claim on the model."""

    def __init__(self, key: OwnerKey, claim: Claim, model: ImageModel) -> None:
        self._key, self._claim, self._model = key, claim, model
        self._embedder = Embedder(provision(key, claim))

    def put(self, outputs: Sequence[Picture]) -> list[Picture]:
        """Mark finished pictures."""
        return [self._embedder.embed(y) for y in outputs]

    def find(self, suspect: Suspect) -> dict[str, float]:
        """The verdicts, blind and informed."""
        blind = verify(suspect.answers, self._claim, self._key)
        informed = verify(
            None,
            self._claim,
            self._key,
            suspect=suspect.answer,
            inputs=suspect.inputs,
            model=self._model,
        )
        return {"blind_log10_p": blind.log10_p, "informed_log10_p": informed.log10_p}


class Bench:
    """Photographs, the three marks, and the thefts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._work = Path(options.work)
        self._work.mkdir(parents=True, exist_ok=True)
        path = Path(options.models) / MODEL
        self._model = ImageModel(path, threads=1)
        photos = {split: self._inputs(split) for split in ("train", "eval")}
        self._train, self._held_out = (squares(photos[split]) for split in ("train", "eval"))
        self._hosts = [self._model(x) for x in self._train]
        self._own = [self._model(x) for x in self._held_out]
        ours = Ours(*self._owner(path, photos["train"]), self._model)
        direct = [psnr_db(a, b) for a, b in zip(ours.put(self._hosts), self._hosts, strict=True)]
        rms = float(np.sqrt(np.mean([255**2 * 10 ** (-db / 10) for db in direct])))
        self.marks: dict[str, Mark] = {
            "ours": ours,
            "pattern": Pattern(rms, self._hosts),
            "logo": HiddenLogo(LogoNetworks(SIDE_PX, rms)),
        }
        self._ready = False

    def run(self, row: Row) -> dict[str, Any]:
        """One row's figures."""
        marks = [row.mark] if row.mark in self.marks else list(self.marks)
        if "logo" in marks:
            self._train_logo()
        figures: dict[str, Any] = {"mark": row.mark, "thief": row.thief}
        if row.thief == DIRECT:
            published = self.marks[row.mark].put(self._own)
            psnr = [psnr_db(a, b) for a, b in zip(published, self._own, strict=True)]
            figures |= {"psnr_least_db": min(psnr), "psnr_mean_db": float(np.mean(psnr))}
            answers = {x.tobytes(): y for x, y in zip(self._held_out, published, strict=True)}
            suspect = self._suspect(lambda x: answers[x.tobytes()])
        else:
            options = next(t.options for t in THIEVES if t.name == row.thief)
            suspect = self._suspect(self._theft(row.mark, row.thief, {**STUDENT, **options}))
            error = [
                np.mean((a.astype(float) - y) ** 2)
                for a, y in zip(suspect.answers, suspect.own, strict=True)
            ]
            figures |= {"steps": self._options.steps, "mse_to_model": float(np.mean(error))}
        return figures | {
            "squares": len(suspect.answers),
            "found": {name: self.marks[name].find(suspect) for name in marks},
        }

    def _inputs(self, split: str) -> list[Picture]:
        files = gather_pictures([Path(self._options.photos) / split]).files
        return [
            np.asarray(
                cv2.resize(read_picture(file), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
                np.uint8,
            )
            for file in files
        ]

    def _owner(self, path: Path, photos: list[Picture]) -> tuple[OwnerKey, Claim]:
        key_file, claim_file = self._work / "owner.key", self._work / "claim.json"
        if not claim_file.exists():
            key = OwnerKey.generate()
            claim = claim_model(key, "Bench", self._model, path, photos[::2])
            key.save(key_file, "bench")
            claim.save(claim_file)
        return OwnerKey.load(key_file, "bench"), Claim.load(claim_file)

    def _train_logo(self) -> None:
        """The networks, then a reference surrogate of theirs, then the adversarial stage."""
        hidden = self.marks["logo"]
        if self._ready or not isinstance(hidden, HiddenLogo):
            return
        steps = self._options.logo_steps
        hidden.networks.train(self._hosts, steps, self._work / "logo.npz")
        options = {**REFERENCE, **WHOLE, "augment": False}
        reference = self._theft("logo", "reference", options)
        marked = hidden.networks.mark(self._hosts)
        stolen = [reference(x) for x in self._train]
        kinds = [marked, stolen]
        hidden.networks.harden(kinds, self._hosts, steps // 2, self._work / "logo-hardened.npz")
        self._ready = True

    def _theft(self, mark: str, thief: str, options: dict[str, Any]) -> ImageModel:
        name = slug(Row(mark, thief))
        kept = self._work / f"{name}.onnx"
        if not kept.exists():
            outputs = self.marks[mark].put(self._hosts) if mark in self.marks else self._hosts
            progress = Progress(name)
            surrogate = steal(
                self._train,
                outputs,
                steps=self._options.steps,
                checkpoint=self._work / f"{name}.npz",
                progress=progress,
                **options,
            )
            progress.close()
            surrogate.save(kept)
        return ImageModel(kept, threads=1, name="surrogate")

    def _suspect(self, answer: Callable[[Picture], Picture]) -> Suspect:
        answers = [answer(x) for x in self._held_out]
        return Suspect(answer, self._held_out, answers, self._own)


def rows() -> list[Row]:
    """All rows, what tells most first."""
    whole, whole_turned, pieces, pieces_turned = (thief.name for thief in THIEVES)
    order = (DIRECT, whole, pieces_turned)
    return [
        *(Row(mark, thief) for thief in order for mark in MARKS),
        Row(UNMARKED, whole),
        *(Row(mark, thief) for thief in (whole_turned, pieces) for mark in MARKS),
    ]


def slug(row: Row) -> str:
    """A row's name as a file's."""
    return "-".join(re.findall(r"\w+", f"{row.mark} {row.thief}"))


def squares(inputs: Sequence[Picture]) -> list[Picture]:
    """Squares that give outputs of SIDE_PX, side by side, from all pictures in turn."""
    side = SIDE_PX // SCALE
    cut = [
        [
            np.ascontiguousarray(p[y : y + side, x : x + side])
            for y in range(0, p.shape[0] - side + 1, side)
            for x in range(0, p.shape[1] - side + 1, side)
        ]
        for p in inputs
    ]
    return [c[i] for i in range(max(map(len, cut))) for c in cut if i < len(c)]


def write_results(folder: Path) -> None:
    """RESULTS.md from the rows that are there."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found = {(row["mark"], row["thief"]): row for row in rows}
    direct = [row for row in rows if row["thief"] == DIRECT]
    trained = [row for row in rows if row["thief"] != DIRECT]
    psnr = ", ".join(f"{row['mark']} {row['psnr_mean_db']:.1f}" for row in direct)
    judged = ", ".join(sorted({str(row["squares"]) for row in rows}))
    steps = ", ".join(sorted({str(row["steps"]) for row in trained}))
    lines = [
        "# Marks that sit at places of the picture, beside ours",
        "",
        "    python bench/baseline/run.py --photos photos --models models",
        "",
        *textwrap.wrap(
            f"The squares of {SIDE_PX} x {SIDE_PX} pixels that {MODEL} makes of photographs carry a"
            " fixed keyed pattern at the square's coordinates, or our mark, or a logo hidden by"
            " trained networks (after Zhang et al., AAAI 2020; small ones, with their adversarial"
            f" stage). All are equally strong (mean PSNR in dB: {psnr}). One student, a U-Net down"
            f" to a few cells, learns from each for {steps} steps and answers with {judged} squares"
            " of photographs that nobody was trained on. Pattern and ours: log10 p of the same"
            " exact test, blind; informed. Logo: median likeness of what the extractor shows, and"
            f" the share of squares where it is above {FOUND:g}; there is no p-value to a logo that"
            " the extractor has in its weights.",
            110,
        ),
        "",
        "| thief | MSE to the model | pattern | ours | logo |",
        "|---|---:|---:|---:|---:|",
    ]
    for thief in (DIRECT, *(thief.name for thief in THIEVES)):
        of_marks = {mark: found.get((mark, thief)) for mark in MARKS}
        cells = [_cell(row, mark) for mark, row in of_marks.items()]
        errors = [r["mse_to_model"] for r in of_marks.values() if r and "mse_to_model" in r]
        span = f"{min(errors):.1f} to {max(errors):.1f}" if errors else ""
        lines.append(f"| {thief} | {span} | {' | '.join(cells)} |")
    control = found.get((UNMARKED, THIEVES[0].name))
    if control:
        cells = [_cell(control, mark) for mark in MARKS]
        error = f"{control['mse_to_model']:.1f}"
        lines.append(f"| control: whole squares, unmarked | {error} | {' | '.join(cells)} |")
    write_atomically(HERE / "RESULTS.md", ("\n".join(lines) + "\n").encode())


def _cell(row: dict[str, Any] | None, mark: str) -> str:
    if row is None:
        return "–"
    found = row["found"][mark]
    if mark == "logo":
        return f"{found['likeness_median']:.2f}; {found['found_share']:.0%}"
    return f"{found['blind_log10_p']:.1f}; {found['informed_log10_p']:.1f}"


def main() -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=3000, help="of each surrogate")
    parser.add_argument("--logo-steps", type=int, default=1500, help="of embedder and extractor")
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--models", default="models", help="holds the ONNX files")
    parser.add_argument("--work", default="baseline-work", help="keys, networks, surrogates")
    parser.add_argument("--rows", default=str(HERE / "rows"), help="where rows are written")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md, steal nothing")
    options = parser.parse_args()
    folder = Path(options.rows)
    folder.mkdir(parents=True, exist_ok=True)
    bench = None
    for row in rows() if not options.write else ():
        target = folder / f"{slug(row)}.json"
        if target.exists():
            continue
        bench = bench or Bench(options)
        figures = bench.run(row)
        write_atomically(target, (json.dumps(figures, indent=1) + "\n").encode())
        print(json.dumps(figures), flush=True)
    write_results(folder)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
