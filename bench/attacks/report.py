"""Tables and curves from the rows: RESULTS.md, curves.png, and the blocks in two documents."""

from __future__ import annotations

import io
import itertools
import json
import re
import textwrap
from pathlib import Path
from typing import Any

from birthmark.files import write_atomically

COMMAND = "python bench/attacks/run.py"
GROUPS = {
    "pictures": "Who has published pictures, and at most their inputs",
    "models": "Who has other networks, or trains one on photographs of his own",
    "pairs": "Who has the unmarked twins of what was published",
    "method": "Who knows the method and its code",
    "secrets": "Who has the mark file, other customers' copies, or a verifier that answers",
}
DEAR_DB = 35
"""A picture this far from the unmarked output has lost visibly."""
MARKED, UNMARKED = -6, -3
BLOCK = re.compile(r"(<!-- attacks -->\n).*?(<!-- /attacks -->)", re.S)
Rows = dict[str, dict[str, Any]]
Point = dict[str, Any]


def write(folder: Path, order: list[str], root: Path, out: Path) -> None:
    """Write everything from the rows in ``folder`` that are there, in the order given."""
    files = [folder / f"{name}.json" for name in order]
    rows = {file.stem: json.loads(file.read_text()) for file in files if file.exists()}
    if not rows:
        return
    attacks = [row for name, row in rows.items() if name.startswith("attack-")]
    write_atomically(out / "curves.png", _curves(attacks))
    missing = [name for name in order if name not in rows]
    results = "\n".join(_results(rows, attacks, missing)) + "\n"
    write_atomically(out / "RESULTS.md", results.encode())
    link = "[attacks](%sbench/attacks/RESULTS.md)"
    _fill(root / "docs/threat-model.md", _document(rows, attacks, link % "../", tuple(GROUPS)))
    _fill(root / "SECURITY.md", _document(rows, attacks, link % "", ("method", "secrets")))


def _fill(document: Path, lines: list[str]) -> None:
    """Put lines between the two marks of a document."""
    text = document.read_text()
    inside = "".join(f"{line}\n" for line in lines)
    filled, count = BLOCK.subn(lambda found: found[1] + inside + found[2], text)
    if count != 1:
        raise ValueError(f"{document}: the block of attacks stands there {count} times, not once")
    write_atomically(document, filled.encode())


def _number(value: Any, digits: int = 1) -> str:
    """As the documents print it: a true minus, and no zero before the point of a fraction."""
    return f"{value:.{digits}f}".replace("-", "−") if isinstance(value, float) else str(value)


def _p(value: float) -> str:
    return _number(float(value)).replace("−0.0", "0.0")


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---" if i == 0 else "---:" for i in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *lines)] + [""]


def _strength(row: Point, point: Point) -> str:
    """With its unit; of what is counted, the number first, and that of all where it is all."""
    unit, value = row["unit"], point["strength"]
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    if unit not in ("pairs", "outputs", "pictures"):
        return f"{unit} {text}".strip()
    if value >= row["collected"]:
        text = f"all {row['collected']}"
    return f"{text} {unit}" if value > 1 else f"{text} {unit.removesuffix('s')}"


def choice(points: list[Point]) -> Point:
    """The strength that the attacker chooses: least (blind) evidence for a fair price.

    Of equals the one that loses less; where every strength costs more than that, the least dear.
    """
    cheap = [p for p in points if p["psnr_db"] >= DEAR_DB]
    if cheap:
        return max(cheap, key=lambda p: (p["log10_p"], p["psnr_db"]))
    return max(points, key=lambda p: p["psnr_db"])


def _said(row: Point) -> str:
    point = choice(row["points"])
    return (
        f"blind {_p(point['log10_p'])}, informed {_p(row['informed_log10_p'])},"
        f" {point['psnr_db']:.1f} dB"
    )


def _document(rows: Rows, attacks: list[Point], link: str, groups: tuple[str, ...]) -> list[str]:
    """The table of a document: an attack a line, each as its attacker would choose it."""
    lines = ["| what | figure | command | from |", "|---|---|---|---|"]
    chosen = [row for row in _worst_first(attacks) if row["group"] in groups]
    said = [
        (f"{row['attack']}: {_strength(row, choice(row['points']))}".rstrip(": "), _said(row))
        for row in chosen
    ]
    said += [
        (
            f"what was learned of one customer's outputs ({row['name']})",
            f"his mark {_p(row['own_log10_p'])}, another's {_p(row['other_log10_p'])}",
        )
        for row in rows.get("customers", {}).get("rows", [])
    ]
    said += [
        (
            f"fresh questions to {row['name']}",
            f"blind {_p(row['log10_p'])} ({row['decision']}),"
            f" informed {_p(row['informed_log10_p'])} ({row['informed_decision']})",
        )
        for row in rows.get("trial", {}).get("rows", [])
    ]
    for what, figure in said:
        lines.append(f"| {what} | {figure} | `{COMMAND}` | {link} |")
    return lines


def _worst_first(attacks: list[Point]) -> list[Point]:
    return sorted(attacks, key=lambda row: -choice(row["points"])["log10_p"])


def _results(rows: Rows, attacks: list[Point], missing: list[str]) -> list[str]:
    any_row = next(iter(rows.values()))
    lines = [
        "# Attacks, what they leave of the mark, and what they cost",
        "",
        f"    {COMMAND} --photos PHOTOS --models MODELS",
        "",
        f"`{COMMAND}` runs what is missing and writes this file. Judged are"
        f" {any_row['pictures']} marked outputs of espcn_x2",
        f"(512 × 512 pixels at most) under one key; the attacker collected {any_row['collected']}"
        " others. Networks trained for",
        f"{any_row['steps']} steps, some for half as many.",
        "`blind` and `informed` are log10 of the p-value over all of them; below −6 is MARKED,"
        " above −3 UNMARKED; the claim's",
        "draws are counted. Blind verdicts rest on the echo, informed ones on echo and tint. `left`"
        " is the strength of the echo",
        "that was read, 1 before the attack; attacks change what is read besides, so where the"
        " p-value is gone it says little.",
        "PSNR and SSIM are to the *unmarked* output. State of the extractor:"
        f" {any_row['extractor'][:12]}.",
        "",
        *([f"Not run: {', '.join(missing)}.", ""] if missing else []),
        "![Evidence against quality, a curve an attack](curves.png)",
        "",
        f"## The attacker's choice: least evidence at {DEAR_DB} dB or more",
        "",
        f"Where no strength keeps {DEAR_DB} dB, the least dear one.",
        "",
    ]
    lines += _table(
        ["attack", "what he has", "strength", "informed", *FIGURES],
        [
            [
                row["attack"],
                row["group"],
                _strength(row, choice(row["points"])),
                _p(row["informed_log10_p"]),
                *_figures(choice(row["points"])),
            ]
            for row in _worst_first(attacks)
        ],
    )
    for group, title in GROUPS.items():
        lines += [f"## {title}", ""]
        lines += _table(
            ["attack", "strength", *FIGURES],
            [
                [row["attack"], _strength(row, point), *_figures(point)]
                for row in attacks
                if row["group"] == group
                for point in row["points"]
            ],
        )
    return lines + _surrogates(rows) + _curated(rows) + _forgery(rows) + _measures(rows)


FIGURES = ["blind", "left", "PSNR dB", "SSIM"]


def _figures(point: Point) -> list[str]:
    return [
        _p(point["log10_p"]),
        _number(float(point["left"]), 2),
        f"{point['psnr_db']:.1f}",
        f"{point['ssim']:.3f}",
    ]


def _surrogates(rows: Rows) -> list[str]:
    found = [row for name, row in rows.items() if name.startswith("surrogate-")]
    if not found:
        return []
    return [
        "## Surrogates trained on pictures after an attack",
        "",
        "A residual network each. `task` is its PSNR to the photographs less the owner's model's.",
        "",
        *_table(
            ["attack on what was published", "strength", "blind", "informed", "task dB"],
            [
                [
                    row["attack"],
                    _strength(row, row),
                    _p(row["log10_p"]),
                    _p(row["informed_log10_p"]),
                    f"{row['task_db']:+.2f}".replace("-", "−"),
                ]
                for row in found
            ],
        ),
    ]


def _curated(rows: Rows) -> list[str]:
    if "curated" not in rows:
        return []
    levels = rows["curated"]["levels"]
    return [
        "## How much of the mark curated questions show",
        "",
        "Root mean square of what the mark adds, in grey levels.",
        "",
        *_table(list(levels), [[f"{level:.2f}" for level in levels.values()]]),
    ]


def _forgery(rows: Rows) -> list[str]:
    lines = []
    if "forgery" in rows:
        lines += [
            "## Forged and inherited marks",
            "",
            "`left` is the strength of the echo read (1: as strong as the owner's own), the four"
            " parts that of each quarter of",
            "its coordinates, from echoes that are alike in all tones to those that change most.",
            "",
            *_table(
                ["pictures", "decision", "blind", "informed", "left", "1st", "2nd", "3rd", "4th"],
                [
                    [
                        row["name"],
                        row["decision"],
                        _p(row["log10_p"]),
                        _p(row["informed_log10_p"]),
                        _number(float(row["left"]), 2),
                        *(_number(float(x), 2) for x in row["quarters"]),
                    ]
                    for row in rows["forgery"]["rows"]
                ],
            ),
        ]
    if "trial" in rows:
        lines += [
            "The same put to the accused's *model*, with questions that both sides chose after the"
            " pictures were found",
            "(`birthmark declare`, `birthmark join`):",
            "",
            *_table(
                ["who is asked", "questions", "blind", "decision", "informed", "decision"],
                [
                    [
                        row["name"],
                        str(row["queries"]),
                        _p(row["log10_p"]),
                        row["decision"],
                        _p(row["informed_log10_p"]),
                        row["informed_decision"],
                    ]
                    for row in rows["trial"]["rows"]
                ],
            ),
        ]
    return lines


def _measures(rows: Rows) -> list[str]:
    lines = []
    if "reading" in rows:
        lines += [
            "## What the owner proves, anybody can read",
            "",
            "From the same outputs: the owner's blind p-value, and the cosine between his mark and"
            " what is read without a key.",
            "The one follows from the other: an estimate that convicts is an estimate that can be"
            " subtracted.",
            "",
            *_table(
                ["outputs", "blind", "cosine"],
                [
                    [str(row["outputs"]), _p(row["log10_p"]), _number(float(row["cosine"]), 2)]
                    for row in rows["reading"]["rows"]
                ],
            ),
        ]
    if "coordinates" in rows:
        found = rows["coordinates"]["rows"]
        lines += [
            "## Measures: more coordinates",
            "",
            "Computed, not measured: that cosine, by the number of a mark's coordinates and the"
            " owner's p-value.",
            "Subtracting an estimate of cosine c takes c² of the mark's energy away.",
            "",
            *_table(
                ["coordinates", *(f"10^{p}" for p in found[0]["cosines"])],
                [
                    [
                        str(row["coordinates"]),
                        *(_number(float(c), 2) for c in row["cosines"].values()),
                    ]
                    for row in found
                ],
            ),
        ]
    if "customers" in rows:
        lines += [
            "## Measures: a mark for each customer",
            "",
            "What an attacker learned from one customer's outputs, on that one's pictures and on"
            " another's (blind).",
            "",
            *_table(
                ["learned and applied", "his own", "another's"],
                [
                    [row["name"], _p(row["own_log10_p"]), _p(row["other_log10_p"])]
                    for row in rows["customers"]["rows"]
                ],
            ),
        ]
    if "rotation" in rows:
        row = rows["rotation"]
        lines += [
            f"## Measures: {row['marks']} marks in turn",
            "",
            "The owner changes among marks, and nobody knows which picture has which. `common`"
            " reads the sum of them in all",
            "pictures, `each` one mark in its own pictures (the middle one). The attacker pools all"
            " outputs, reads with the",
            "claim, and subtracts. The surrogate is of the outputs as they were published.",
            "",
            *_table(
                ["", "common", "each", "a surrogate, common"],
                [
                    [
                        when,
                        _p(row[f"common_log10_p_{when}"]),
                        _p(row[f"own_log10_p_{when}"]),
                        _p(row["surrogate_log10_p"]) if when == "before" else "",
                    ]
                    for when in ("before", "after")
                ],
            ),
        ]
    return lines


def _curves(attacks: list[Point]) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, 3, figsize=(16, 8), sharex=True, sharey=True, layout="constrained"
    )
    (start,) = [row["points"][0] for row in attacks if row["attack"] == "none"] or [None]
    for axis, (group, title) in zip(axes.flat, GROUPS.items(), strict=False):
        signs = itertools.cycle("os^v")  # there are fewer colours than attacks
        for row in attacks:
            if row["group"] != group or row["attack"] == "none":
                continue
            points = row["points"]
            x, y = [p["psnr_db"] for p in points], [-p["log10_p"] for p in points]
            joined = "-" if row["unit"] else ""
            axis.plot(
                x, y, f"{next(signs)}{joined}", label=row["attack"], markersize=4, linewidth=1
            )
        if start:
            axis.plot(start["psnr_db"], -start["log10_p"], "k*", label="published", markersize=10)
        axis.axhline(-MARKED, color="grey", linewidth=0.8)
        axis.axhline(-UNMARKED, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(textwrap.fill(title, 45), fontsize=9, loc="left")
        # Beside the curves: they fill the panels.
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes[0][0].set_xlim(15, 55)
    axes.flat[-1].axis("off")
    axes[0][-1].tick_params(labelbottom=True)
    axes.flat[-1].text(
        0, 0.5, "above the line: MARKED\nbelow the dots: UNMARKED\nright: little quality lost"
    )
    figure.supxlabel("PSNR to the unmarked output, dB")
    figure.supylabel("−log10 p, blind")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()
