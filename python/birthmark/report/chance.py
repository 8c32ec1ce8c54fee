"""The report's check that p-values are what chance foretells where there is nothing to find."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from importlib import resources

import numpy as np

from birthmark.calibration import FloatArray
from birthmark.extract import extractor_sha256
from birthmark.keys import MarkKey
from birthmark.report.wording import can_plot, figure, power, spaced, table, uncounted_log10_p
from birthmark.tails import log10_p_of_cosine
from birthmark.verdict import Verdict

UNUSED_KEYS = 20_000
_DOTS = (
    "Each dot is a p-value against the one that chance foretells at its rank; the band holds each"
    " dot with 95 %. Whether all are uniform, by Kolmogorov and Smirnov:"
)


def null_log10_p(parts: Sequence[FloatArray]) -> FloatArray:
    """log10 p of UNUSED_KEYS random keys on these estimates, sorted.

    Any key's direction is uniform on the sphere. They are drawn afresh, not the decoys of the
    verdict; the seed is public and fixed by the estimate.

    Args:
        parts: the estimate of the echo and, of an informed verdict, that of the tint, whose
            p-values are put together as the verdict's are.
    """
    together = np.sum([_null_log10_p_of_part(part) for part in parts], axis=0)
    if len(parts) == 2:  # Fisher's method, as log10_p_of_both has it
        together = np.minimum(0.0, together + np.log10(1 - together * math.log(10)))
    return np.asarray(np.sort(together), np.float64)


def _null_log10_p_of_part(estimate: FloatArray) -> FloatArray:
    data = estimate.astype("<f8").tobytes()
    seed = hashlib.sha256(b"birthmark unused keys\0" + data).digest()
    directions = MarkKey.random(seed).gaussians("unused", (UNUSED_KEYS, len(estimate)))
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(estimate)
    cosines = directions @ estimate / lengths
    # Exact at 500 places; between them a straight line in the logarithm is right to 1e-4.
    places = np.linspace(cosines.min(), cosines.max(), 500)
    exact = [log10_p_of_cosine(float(c), len(estimate)) for c in places]
    return np.asarray(np.interp(cosines, places, exact), np.float64)


def kolmogorov_p(p: FloatArray) -> float:
    """Kolmogorov and Smirnov's p that these values (sorted, many) are uniform.

    Stephens, "Use of the Kolmogorov-Smirnov ... statistics", J. Roy. Stat. Soc. B 32(1), 1970.
    """
    n = len(p)
    steps = np.arange(n + 1) / n
    distance = float(max(np.abs(p - steps[:-1]).max(), np.abs(p - steps[1:]).max()))
    x = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if x < 0.3:  # where the series has not begun to converge, it is 1 to five digits
        return 1.0
    terms = (math.copysign(1, k % 2 - 0.5) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return min(1.0, 2 * math.fsum(terms))


def unused_keys(verdict: Verdict) -> str:
    """Keys that nobody used, on this suspect: HTML."""
    tint = verdict.tint_estimate
    parts = [verdict.estimate] if tint is None else [verdict.estimate, tint]
    log10_p = null_log10_p(parts)
    svg = ""
    if can_plot():
        from birthmark.report import plots

        ranks = np.unique(np.geomspace(1, UNUSED_KEYS, 150).round().astype(int))
        foretold = np.log10(ranks / (UNUSED_KEYS + 1))
        claimed = uncounted_log10_p(verdict)
        svg = plots.quantiles(
            foretold, log10_p[ranks - 1], UNUSED_KEYS, "an unused key", claimed=claimed
        )
    below = [(10.0**level, int((log10_p < level).sum())) for level in (-1, -2, -3, -4)]
    return figure(
        svg,
        f"Quantile plot: the p-values of {UNUSED_KEYS} unused keys lie on the line of chance",
        f"The same pictures, read{'' if tint is None else ' (echo and tint together)'} with"
        f" {spaced(UNUSED_KEYS)} more random keys that nobody ever used. {_DOTS}"
        f" p\u00a0=\u00a0{kolmogorov_p(10.0**log10_p):.2f}.",
        table(
            _beside_chance(below, UNUSED_KEYS),
            "How many unused keys fall below a p-value, and how many chance foretells (95 %)",
            ("p below", "Keys found", "Keys foretold"),
        ),
    )


def innocent_suspects(verdict: Verdict) -> str:
    """Other suspects, who had no part in anything, under other keys: HTML.

    What it shows was measured by bench/nulls.py and comes with the package.
    """
    data = json.loads((resources.files("birthmark") / "data" / "nulls.json").read_text("utf-8"))
    found, count = data[verdict.mode], int(data[verdict.mode]["nulls"])
    svg = ""
    if can_plot():
        from birthmark.report import plots

        of_chance, of_suspects = np.array(found["quantiles"]).T
        svg = plots.quantiles(of_chance, of_suspects, count, "an innocent suspect")
    same = data["extractor_sha256"] == extractor_sha256()
    by = "this version of birthmark" if same else "an earlier version of birthmark"
    together = ", echo and tint together" if verdict.mode == "informed" else ""
    return figure(
        svg,
        f"Quantile plot: the p-values of {count} innocent cases lie on the line of chance",
        f"Other cases, measured by {by}: {found['suspects']} kinds of innocent suspects"
        f" ({verdict.mode}{together}), each under {spaced(data['keys'])} keys of its own:"
        f" {spaced(count)} p-values."
        f" {_DOTS} p\u00a0=\u00a0{found['kolmogorov_p']:.2f}.",
        table(
            _beside_chance(found["below"], count),
            "How many innocent cases fall below a p-value, and how many chance foretells (95 %)",
            ("p below", "Cases found", "Cases foretold"),
        ),
    )


def _beside_chance(below: Sequence[tuple[float, int]], count: int) -> list[tuple[str, str, str]]:
    """Rows: a rate, how many p-values are below it, and how many should be, with 95 %."""
    rows = []
    for rate, found in below:
        spread = 1.96 * math.sqrt(count * rate * (1 - rate))
        most, least = math.floor(count * rate + spread), math.ceil(max(0.0, count * rate - spread))
        foretold = f"{count * rate:.0f} ({least} to {most})"
        rows.append((power(math.log10(rate)), str(found), foretold))
    return rows
