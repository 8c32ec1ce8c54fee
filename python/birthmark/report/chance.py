"""The report's check that keys nobody used find what chance foretells."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from birthmark.calibration import FloatArray
from birthmark.keys import MarkKey
from birthmark.report.wording import can_plot, figure, power, table
from birthmark.tails import log10_p_of_cosine
from birthmark.verdict import Verdict

UNUSED_KEYS = 20_000


def null_log10_p(estimate: FloatArray) -> FloatArray:
    """log10 p of the cosine test of UNUSED_KEYS random directions on this estimate, sorted.

    Any key's direction is uniform on the sphere. They are drawn afresh, not the decoys of the
    verdict; the seed is public and fixed by the estimate.
    """
    data = estimate.astype("<f8").tobytes()
    seed = hashlib.sha256(b"birthmark unused keys\0" + data).digest()
    directions = MarkKey.random(seed).gaussians("unused", (UNUSED_KEYS, len(estimate)))
    lengths = np.linalg.norm(directions, axis=1) * np.linalg.norm(estimate)
    cosines = np.sort(directions @ estimate / lengths)[::-1]
    # Exact at 500 places; between them a straight line in the logarithm is right to 1e-4.
    places = np.linspace(cosines[-1], cosines[0], 500)
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
    """The section of the report, HTML."""
    log10_p = null_log10_p(verdict.estimate)
    svg = ""
    if can_plot():
        from birthmark.report import plots

        svg = plots.quantiles(log10_p, verdict.tests.log10_p_cosine)
    kolmogorov = kolmogorov_p(10.0**log10_p)
    rows = []
    for level in (-1, -2, -3, -4):
        rate = 10.0**level
        spread = 1.96 * math.sqrt(UNUSED_KEYS * rate * (1 - rate))
        most, least = UNUSED_KEYS * rate + spread, max(0.0, UNUSED_KEYS * rate - spread)
        rows.append(
            (
                power(level),
                str(int((log10_p < level).sum())),
                f"{UNUSED_KEYS * rate:.0f} ({math.ceil(least)} to {math.floor(most)})",
            )
        )
    return figure(
        svg,
        f"Quantile plot: the p-values of {UNUSED_KEYS} unused keys lie on the line of chance",
        f"The same pictures, read with {UNUSED_KEYS} more random keys that nobody ever used. Each"
        " dot is a p-value of theirs against the one that chance foretells at its rank; the band"
        " holds each dot with 95 %. Whether all are uniform, by Kolmogorov and Smirnov:"
        f" p = {kolmogorov:.2f}.",
        table(
            rows,
            "How many unused keys fall below a p-value, and how many chance foretells (95 %)",
            ("p below", "Keys found", "Keys foretold"),
        ),
    )
