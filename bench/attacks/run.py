"""Remove, forge or detect the mark: what each attack leaves of it, and what it costs.

    python bench/attacks/run.py                       # all rows that are missing, then the tables
    python bench/attacks/run.py --only jpeg noise     # rows whose name holds one of these
    python bench/attacks/run.py --write               # the tables from the rows that are there

A row is an attack with all its strengths, written to ``rows/<row>.json`` when it is finished; a run
that was cut off goes on where it stopped. Rows of another state of the extractor are run anew.
``RESULTS.md``, its picture, and the blocks between ``<!-- attacks -->`` and ``<!-- /attacks -->``
in docs/threat-model.md and SECURITY.md are written from the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import evidence
import report
from insider import (
    asked_verifier,
    averaged,
    estimated,
    estimated_alone,
    estimated_without_claim,
    overwritten,
    subtracted,
)
from learned import (
    CURATED,
    colours_fitted,
    curated,
    least_squares,
    linear,
    mean_picture,
    mean_residual,
    proxy_remover,
    queried,
    regenerated,
    remover,
    residual_levels,
)
from plain import (
    Change,
    bilateral,
    blurred,
    each,
    fewer_bits,
    jpeg,
    median,
    noised_and_denoised,
    noisy,
    non_local_means,
    nothing,
    rescaled,
    rescaled_often,
    washed,
    zoo,
)
from scene import Scene, slug

from birthmark.extract import extractor_sha256
from birthmark.files import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALL = 64
"""More pairs than there are: all of them."""


@dataclass(frozen=True)
class Attack:
    """A way to remove the mark, with the strengths it is tried at."""

    name: str
    group: str
    """One of :data:`report.GROUPS`: what the attacker has."""
    unit: str
    change: Change
    strengths: tuple[Any, ...]


ATTACKS = (
    Attack("none", "pictures", "", nothing, ("",)),
    Attack("Gaussian blur", "pictures", "sigma px", each(blurred), (0.4, 0.6, 0.8, 1, 1.5, 2)),
    Attack("median", "pictures", "side px", each(median), (3, 5, 7)),
    Attack("bilateral", "pictures", "sigma levels", each(bilateral), (5, 10, 20, 40, 80)),
    Attack("non-local means", "pictures", "h levels", each(non_local_means), (2, 4, 8, 16)),
    Attack("JPEG", "pictures", "quality", each(jpeg), (90, 80, 70, 60, 50, 40, 30, 20, 10)),
    Attack("rescaled and back", "pictures", "factor", each(rescaled), (0.9, 0.75, 0.5, 0.35, 0.25)),
    Attack("rescaled over and over", "pictures", "turns", each(rescaled_often), (1, 2, 4, 8)),
    Attack("noise", "pictures", "sigma levels", each(noisy), (1, 2, 4, 8, 16)),
    Attack("fewer bits", "pictures", "bits", each(fewer_bits), (7, 6, 5, 4, 3)),
    Attack("mean picture subtracted", "pictures", "pictures", mean_picture, (4, 16, ALL)),
    Attack("colours fitted to the inputs", "pictures", "degree", colours_fitted, (3,)),
    Attack("noise, then a denoiser", "models", "sigma levels", noised_and_denoised, (4, 8, 16, 25)),
    Attack("washed by another model", "models", "", washed, ()),
    Attack("autoencoder", "models", "channels at a quarter", regenerated, (24, 12)),
    Attack("network from own marks", "models", "marks", proxy_remover, (16,)),
    Attack("mean residual subtracted", "pairs", "pairs", mean_residual, (4, 16, ALL)),
    Attack("linear filter from pairs", "pairs", "bands", linear, (1, 4, 16)),
    Attack("network from pairs", "pairs", "pairs", remover, (4, ALL)),
    Attack("gains from pairs", "method", "pairs", least_squares, (1, 4, 16, ALL)),
    Attack("overwritten", "method", "marks on top", overwritten, (1, 2, 4)),
    Attack("gains from curated pairs", "method", "", curated, tuple(CURATED)),
    Attack("read with the claim", "method", "outputs", estimated, (1, 4, 16, ALL)),
    Attack("read with the claim, each alone", "method", "strength", estimated_alone, (0.5, 1.0)),
    Attack("read without the claim", "method", "outputs", estimated_without_claim, (4, 16, ALL)),
    Attack("averaged with other customers' copies", "secrets", "copies", averaged, (2, 4, 8)),
    Attack("mark file subtracted", "secrets", "share", subtracted, (0.25, 0.5, 0.75, 1.0)),
    Attack("verifier asked for p", "secrets", "questions", asked_verifier, (34, 68, 136)),
)

STOLEN = (
    ("none", ""),
    ("Gaussian blur", 0.8),
    ("JPEG", 50),
    ("noise, then a denoiser", 8),
    ("overwritten", 1),
    ("averaged with other customers' copies", 4),
    ("network from pairs", ALL),
    ("read without the claim", ALL),
    ("colours fitted to the inputs", 3),
)
"""What a thief does to all the pictures that he then trains on."""

MARKS = 4
"""That the owner changes among."""


@dataclass(frozen=True)
class Row:
    """Something measured, by its name."""

    name: str
    run: Callable[[Scene], dict[str, Any]]


def attacked(attack: Attack, scene: Scene) -> dict[str, Any]:
    """The row of an attack."""
    strengths = attack.strengths or tuple(zoo(scene.models))
    made = [attack.change(scene, scene.judged, strength) for strength in strengths]
    points = [
        {"strength": strength, **scene.figures(pictures)}
        for strength, pictures in zip(strengths, made, strict=True)
    ]
    chosen = report.choice(points)
    informed = scene.informed(scene.answers(made[points.index(chosen)]))
    return {
        "attack": attack.name,
        "group": attack.group,
        "unit": attack.unit,
        "points": points,
        "informed_log10_p": round(informed, 1),
    }


def stolen(name: str, strength: Any, scene: Scene) -> dict[str, Any]:
    """The row of a surrogate trained on what an attack left."""
    (attack,) = (a for a in ATTACKS if a.name == name)
    outputs = attack.change(scene, scene.thiefs, strength)
    label = "of marked outputs" if name == "none" else f"after {name} {strength}"
    figures = scene.surrogate_figures(label, outputs)
    return {"attack": name, "strength": strength, "unit": attack.unit, **figures}


def control(scene: Scene) -> dict[str, Any]:
    """The row of a surrogate trained on unmarked outputs."""
    figures = scene.surrogate_figures("of unmarked outputs", scene.thiefs.host)
    return {"attack": "control: unmarked outputs", "strength": "", "unit": "", **figures}


def shown(scene: Scene) -> dict[str, Any]:
    """How much of the mark the answers to curated inputs show."""
    kinds = {kind: residual_levels(*queried(scene, kind)) for kind in CURATED}
    photographs = residual_levels(scene.judged.marked, scene.judged.host)
    levels = {"photographs": photographs, **kinds}
    return {"levels": {kind: round(level, 2) for kind, level in levels.items()}}


ROWS = (
    *(Row(f"attack {attack.name}", partial(attacked, attack)) for attack in ATTACKS),
    Row("curated", shown),
    Row("reading", lambda scene: {"rows": evidence.reading_rows(scene)}),
    Row("coordinates", lambda scene: {"rows": evidence.coordinates_rows()}),
    Row("customers", lambda scene: {"rows": evidence.customer_rows(scene)}),
    Row("surrogate control", control),
    *(Row(f"surrogate {name}", partial(stolen, name, strength)) for name, strength in STOLEN),
    Row("forgery", lambda scene: {"rows": evidence.forgery_rows(scene)}),
    Row("trial", lambda scene: {"rows": evidence.trial_rows(scene)}),
    Row("rotation", partial(evidence.rotation_row, marks=MARKS)),
)


def up_to_date(file: Path) -> bool:
    """Whether a row is there, and of this state of the extractor."""
    return file.exists() and json.loads(file.read_text())["extractor"] == extractor_sha256()


def main() -> int:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", default=ROOT / "tests/data/photos", type=Path)
    parser.add_argument("--models", default=ROOT / "models", type=Path)
    parser.add_argument("--work", default=Path("attacks-work"), type=Path)
    parser.add_argument("--rows", default=HERE / "rows", type=Path)
    parser.add_argument("--steps", default=1000, type=int, help="of a surrogate")
    parser.add_argument("--side", default=512, type=int, help="pictures are at most so large")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="rows whose name holds one of these"
    )
    parser.add_argument("--write", action="store_true", help="only write the tables")
    options = parser.parse_args()
    options.rows.mkdir(parents=True, exist_ok=True)
    scene = None
    for row in ROWS:
        file = options.rows / f"{slug(row.name)}.json"
        asked_for = any(text.lower() in row.name.lower() for text in options.only)
        if options.write or not asked_for or up_to_date(file):
            continue
        began = time.process_time()
        scene = scene or Scene(
            options.photos, options.models, options.work, options.steps, options.side
        )
        measured = {
            "row": row.name,
            "extractor": extractor_sha256(),
            "pictures": len(scene.judged.marked),
            "collected": len(scene.thiefs.marked),
            "steps": options.steps,
            **row.run(scene),
            "seconds": round(time.process_time() - began, 1),
        }
        write_atomically(file, (json.dumps(measured, indent=1) + "\n").encode())
        print(json.dumps(measured), flush=True)
    report.write(options.rows, [slug(row.name) for row in ROWS], ROOT, HERE)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
