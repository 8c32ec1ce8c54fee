"""Pictures to look at: the mark, how it is learned, and how much evidence pictures hold.

    python bench/figures.py           # steal, measure, draw
    python bench/figures.py --draw    # draw again what was measured

Writes ``marked.png``, ``learning.svg``, ``pictures.svg`` and ``roc.svg`` for docs/figures.md, and
``figures.json``, which the three plots are drawn from. The thefts are those of the bench of thieves
(``surrogates/run.py``): its usual thief, who steals super-resolution, and the same for fewer steps.
They are kept in its ``--work``, and not repeated if they are there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent / "surrogates"))
import run as thieves

from birthmark.calibration import Calibration
from birthmark.extract import Pool, log10_p_of_sums
from birthmark.files import write_atomically
from birthmark.keys import MarkKey
from birthmark.mark import coordinates
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, psnr_db, ssim, through_jpeg, write_png
from birthmark.sums import Sums, total_of
from birthmark.verdict import verify

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
TASK = "sr"
EARLIER = (250, 500, 1000, 2000)  # steps of the thieves who stop early
COUNTS = (1, 2, 4, 8, 16, 32, 64)
SHOWN_COUNTS = (1, 4, 16, 64)
DRAWN = 40  # sets of squares of each size
OTHER_KEYS = 2000
PIECE_PX = 200
# Photograph, and row and column of a piece of the model's output, as shares of what there is room
# for: a bird before a blurred ground, a sky, fur.
PIECES = (
    ("bb_perchedosprey", 0.35, 0.5),
    ("ski_rocket", 0.1, 0.1),
    ("ski_chelsea", 0.3, 0.6),
)
GAIN = 20

FloatArray = npt.NDArray[np.float64]


def stolen(bench: thieves.Bench, steps: int, *, marked: bool = True) -> ImageModel:
    """What the usual thief has after so many steps, or his twin who got unmarked outputs."""
    usual, control = thieves.rows_of(bench.task)[:2]
    row = usual if marked else control
    name = thieves.slug(row)
    if steps != bench.options.steps:
        name += f"-{steps}-steps"
    inputs, outputs = bench.published(row)
    model = bench.theft(name, inputs, outputs, **{**row.options, "steps": steps})
    return ImageModel(model.SerializeToString(), name="surrogate")


def true_coordinates(bench: thieves.Bench) -> tuple[FloatArray, FloatArray]:
    """What the mark really has in echo and tint."""
    calibration = Calibration.from_bytes(bench.claim.calibration)
    key = bench.claim.mark_key(bench.key)
    return (
        coordinates(key, bench.claim, calibration.coordinates),
        coordinates(key.tint, bench.claim, calibration.tint_coordinates),
    )


def learning(bench: thieves.Bench) -> list[dict[str, float]]:
    """How much of the mark students have after so many steps, and how sure one can be of it.

    The last row, of no steps, is that of the marked outputs themselves.
    """
    answers = {x.tobytes(): y for x, y in zip(bench.held_out, bench.direct, strict=True)}
    rows = [
        {"steps": steps, **judged(bench, stolen(bench, steps))}
        for steps in (*(s for s in EARLIER if s < bench.options.steps), bench.options.steps)
    ]
    return [*rows, {"steps": 0, **judged(bench, lambda x: answers[x.tobytes()])}]


def judged(bench: thieves.Bench, suspect: Callable[[Picture], Picture]) -> dict[str, float]:
    """beta and log10 p of a suspect."""
    echo, tint = true_coordinates(bench)
    blind = verify([suspect(x) for x in bench.held_out], bench.claim, bench.key)
    informed = verify(
        None, bench.claim, bench.key, suspect=suspect, inputs=bench.held_out, model=bench.model
    )
    assert informed.tint_estimate is not None
    return {
        "blind_beta": share(blind.estimate, echo),
        "informed_beta": share(informed.estimate, echo),
        "tint_beta": share(informed.tint_estimate, tint),
        "blind_log10_p": round(blind.log10_p, 2),
        "informed_log10_p": round(informed.log10_p, 2),
    }


def share(estimate: FloatArray, true: FloatArray) -> float:
    """beta: the factor by which the true coordinates come nearest to those read."""
    return float(estimate @ true / (true @ true))


def by_pictures(bench: thieves.Bench) -> dict[str, Any]:
    """Evidence of sets of squares, for several suspects, and what other keys see in them."""
    thief, innocent = (stolen(bench, bench.options.steps, marked=m) for m in (True, False))
    answers = thieves.squares([thief(x) for x in bench.held_out])
    suspects: dict[str, list[Picture]] = {
        "marked outputs": thieves.squares(bench.direct),
        "surrogate": answers,
        "surrogate, JPEG 75": [through_jpeg(p, 75) for p in answers],
        "surrogate of unmarked outputs": thieves.squares([innocent(x) for x in bench.held_out]),
    }
    true, _ = true_coordinates(bench)
    n = len(true)
    others = [
        coordinates(MarkKey.random(f"{i}".encode()), bench.claim, n) for i in range(OTHER_KEYS)
    ]
    calibration = Calibration.from_bytes(bench.claim.calibration)

    def log10_p(sums: Sums, z: FloatArray) -> float:
        return round(log10_p_of_sums(sums, calibration, z / np.sqrt(n)), 2)

    curves: dict[str, dict[int, list[float]]] = {name: {} for name in suspects}
    null = {}
    for name, pictures in suspects.items():
        for count in (c for c in COUNTS if c <= len(pictures)):
            sets = drawn(pictures, count)
            curves[name][count] = [log10_p(sums, true) for sums in sets]
            if name == "surrogate" and count in SHOWN_COUNTS:
                null[count] = [log10_p(sets[i % DRAWN], z) for i, z in enumerate(others)]
    return {"coordinates": n, "curves": curves, "other_keys": null}


def drawn(pictures: list[Picture], count: int) -> list[Sums]:
    """Pooled statistics of sets of so many pictures, drawn at random."""
    pool = Pool()
    for i, picture in enumerate(pictures):
        pool.add(f"{i}", picture)
    rng = np.random.default_rng(count)
    order = [rng.permutation(len(pool.pictures))[:count] for _ in range(DRAWN)]
    return [total_of([pool.pictures[i].sums for i in chosen]) for chosen in order]


def draw_marked(bench: thieves.Bench, target: Path) -> list[dict[str, Any]]:
    """Pieces of outputs, pixel by pixel: host, residual x 20 about grey, marked."""
    rows, said = [], []
    files = gather_pictures([Path(bench.options.photos) / "eval"]).files
    for file, host, marked in zip(files, bench.own, bench.direct, strict=True):
        for name, *place in PIECES:
            if name != file.stem:
                continue
            room = (side - PIECE_PX for side in host.shape)
            top, left = (int(s * r) for s, r in zip(place, room, strict=False))
            cut = np.s_[top : top + PIECE_PX, left : left + PIECE_PX]
            residual = np.clip((marked.astype(int) - host) * GAIN + 128, 0, 255).astype(np.uint8)
            rows.append(np.hstack([p[cut] for p in (host, residual, marked)]))
            psnr, likeness = psnr_db(host, marked), ssim(host, marked)
            said.append({"photograph": name, "psnr_db": psnr, "ssim": likeness})
    write_png(target, np.ascontiguousarray(np.vstack(rows)))
    return said


INK, SOFT, LINE = "#1b1f24", "#6a737d", "#d9dde1"
COLOURS = ("#b5302a", "#2b6cb0", "#2f855a", "#8a8f98", "#b7791f")
STYLE = {
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "birthmark",  # the same figures give the same file
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def draw_learning(measured: list[dict[str, float]], target: Path) -> None:
    """Left: beta as a share of the marked outputs' own. Right: log10 p. Dashed: marked outputs.

    What is read of the marked outputs themselves is less than the mark's coordinates, since the
    residual runs into its bounds.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5), layout="constrained")
    *rows, direct = measured
    steps = [row["steps"] for row in rows]
    colours = dict(zip(("tint", "informed", "blind"), COLOURS, strict=False))
    labels = {"tint": "tint, informed", "informed": "echo, informed", "blind": "echo, blind"}
    for axes, kind, names in (
        (left, "beta", ("tint", "informed", "blind")),
        (right, "log10_p", ("informed", "blind")),
    ):
        for name in names:
            values = np.array([row[f"{name}_{kind}"] for row in rows])
            limit = direct[f"{name}_{kind}"]
            if kind == "beta":
                values, limit = values / limit, 1.0
            axes.plot(steps, values, "o-", color=colours[name], label=labels[name])
            axes.axhline(limit, color=colours[name], linestyle="--", linewidth=0.9)
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [f"{s:g}" for s in steps])
        axes.minorticks_off()
        axes.set_xlabel("the student's training steps")
    left.set_ylabel("share of the mark learned, β")
    left.set_ylim(bottom=0)
    right.set_ylabel("log10 p")
    right.invert_yaxis()
    right.set_ylim(bottom=0)
    left.plot([], [], "--", color=INK, linewidth=0.9, label="marked outputs")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    _save(figure, target)


def draw_pictures(measured: dict[str, Any], target: Path) -> None:
    """log10 p against the number of squares: median, and the middle eight tenths."""
    figure, axes = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
    for (name, curve), colour in zip(measured["curves"].items(), COLOURS, strict=False):
        counts = sorted(map(int, curve))
        low, middle, high = np.quantile([curve[str(c)] for c in counts], (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(counts, middle, "o-", color=colour, markersize=4)
        axes.annotate(
            name,
            (counts[-1], middle[-1]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(COUNTS, [str(c) for c in COUNTS])
    axes.minorticks_off()
    axes.set_xlim(0.9, COUNTS[-1] * 1.1)
    axes.invert_yaxis()
    axes.set_xlabel(f"squares of {thieves.SIDE_PX} × {thieves.SIDE_PX} pixels")
    axes.set_ylabel("log10 p, blind")
    _save(figure, target)


def draw_roc(measured: dict[str, Any], target: Path) -> None:
    """Left: p of other keys, which must be uniform. Right: how many sets are found at what cost."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.9), layout="constrained")
    null, surrogate = measured["other_keys"], measured["curves"]["surrogate"]
    ranks = np.arange(1, OTHER_KEYS + 1)
    expected = (ranks - 0.5) / OTHER_KEYS
    # The k-th smallest of m uniform numbers is Beta(k, m + 1 - k).
    spread = stats.beta(ranks, OTHER_KEYS + 1 - ranks)
    left.fill_between(expected, spread.ppf(0.005), spread.ppf(0.995), color=LINE, linewidth=0)
    left.plot(expected, expected, "--", color=INK, linewidth=0.9)
    for (count, values), colour in zip(null.items(), COLOURS, strict=False):
        label = "1 square" if count == "1" else f"{count} squares"
        left.plot(expected, 10.0 ** np.sort(values), color=colour, linewidth=1.2, label=label)
    left.set(xscale="log", yscale="log")
    left.set_xlabel(f"rank among {OTHER_KEYS} other keys, as a share")
    left.set_ylabel("p, blind")
    chance = 10.0 ** np.linspace(-12, 0, 200)
    right.plot(chance, chance, "--", color=INK, linewidth=0.9)
    for count, colour in zip(null, COLOURS, strict=False):
        for values, line in ((surrogate[count], "-"), (null[count], ":")):
            found = np.concatenate([[-12], np.maximum(np.sort(values), -12), [0]])
            sets = np.concatenate([[0], np.arange(1, len(values) + 1) / len(values), [1]])
            right.plot(10.0**found, sets, line, color=colour, drawstyle="steps-post")
    right.set(xscale="log", xlim=(1e-12, 1), ylim=(0, 1.02))
    right.set_xlabel("false alarms, p")
    right.set_ylabel("sets found; dotted: by other keys")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=4000, help="of the usual thief")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--models", default="models", help="holds the ONNX files")
    parser.add_argument("--work", default="surrogates-work", help="key, claim and checkpoints")
    parser.add_argument("--out", default=str(ROOT / "docs/figures"), help="where the pictures go")
    parser.add_argument("--data", default=str(ROOT / "bench/figures.json"), help="what is drawn")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    options.task = TASK
    out, data = Path(options.out), Path(options.data)
    out.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        bench = thieves.Bench(thieves.TASKS[TASK], options)
        measured = {
            "pieces": draw_marked(bench, out / "marked.png"),
            "learning": learning(bench),
            "by_pictures": by_pictures(bench),
        }
        write_atomically(data, (json.dumps(measured) + "\n").encode())
    measured = json.loads(data.read_text())
    with plt.rc_context(STYLE):
        draw_learning(measured["learning"], out / "learning.svg")
        draw_pictures(measured["by_pictures"], out / "pictures.svg")
        draw_roc(measured["by_pictures"], out / "roc.svg")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
