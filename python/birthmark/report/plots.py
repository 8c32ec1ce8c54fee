"""Plots of the report: matplotlib's SVG, made part of the page and drawn in the page's colours.

Each function returns one ``<svg>`` element without ids that nothing refers to, without outside
addresses and without styles that would reach beyond it. Its colours are CSS variables of the page,
so that it follows light, dark and print; its text stays text.
"""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from birthmark.calibration import FloatArray
from birthmark.report.wording import raised

# Stand-ins that no colour map makes, and what the page calls them.
_INK, _SOFT, _LINE, _BAR, _MARK = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {_INK: "ink", _SOFT: "soft", _LINE: "line", _BAR: "bar", _MARK: "mark"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "birthmark",
    "font.size": 11.0,
    "text.color": _INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# matplotlib's settings are the process's own; the verifier's page draws from several threads.
_lock = threading.Lock()


def p_against_pictures(
    curve: Sequence[tuple[int, float]], log10_marked: float, log10_unmarked: float
) -> str:
    """log10 p after pooling 1, 2, 4 ... pictures, with the two thresholds of the decision."""
    counts, values = zip(*curve, strict=True)

    def draw(axes: Axes) -> None:
        axes.plot(counts, values, "-o", color=_MARK, linewidth=2, markersize=5)
        for level, name, below in (
            (log10_marked, "below: MARKED", True),
            (log10_unmarked, "above: UNMARKED", False),
        ):
            axes.axhline(level, color=_SOFT, linewidth=1, linestyle="--")
            axes.annotate(
                name,
                (1, level),
                (-2, -4 if below else 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="top" if below else "bottom",
                fontsize=10,
                color=_SOFT,
            )
        lowest = min(*values, log10_marked)
        axes.set_ylim(lowest * 1.12 - 0.5, max(0.6, -0.05 * lowest))
        axes.set_xscale("log", base=2)
        # Some of them, the last in any case, so that no two numbers touch.
        apart = [c for c in counts[:-1] if counts[-1] >= 1.5 * c] + [counts[-1]]
        ticks = apart[:: -math.ceil(len(apart) / 7)]
        axes.set_xticks(ticks, [str(count) for count in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
        axes.set_xlabel("pictures pooled")
        axes.set_ylabel("p of the blind test")
        axes.grid(axis="y", linewidth=0.6)

    return _svg(draw, "curve")


def decoys(cosines: FloatArray, claimed: float, n: int) -> str:
    """Histogram of the decoys' cosines with the exact null density, and the claimed key's."""
    widest = min(1.0, max(5 / math.sqrt(n), 1.25 * abs(claimed)))
    edges = np.linspace(-widest, widest, 81)

    def draw(axes: Axes) -> None:
        axes.hist(np.clip(cosines, -widest, widest), bins=edges.tolist(), color=_BAR)
        x = np.linspace(-widest, widest, 401)
        # Density of a fixed vector's cosine with a uniform direction, times what a bin would hold.
        log_density = (n - 3) / 2 * np.log(np.maximum(1 - x * x, 1e-300))
        log_density += math.lgamma(n / 2) - math.lgamma((n - 1) / 2) - 0.5 * math.log(math.pi)
        expected = np.exp(log_density) * len(cosines) * (edges[1] - edges[0])
        axes.plot(x, expected, color=_INK, linewidth=1.2)
        axes.axvline(claimed, color=_MARK, linewidth=2.2)
        axes.annotate(
            f"the claimed key: {claimed:.2f}",
            (claimed, 0.9),
            (-6 if claimed > 0 else 6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if claimed > 0 else "left",
            color=_MARK,
            fontweight="bold",
        )
        axes.set_xlim(-widest, widest)
        axes.set_ylim(0, max(axes.get_ylim()[1], float(expected.max())) * 1.25)
        axes.set_xlabel("cosine with the pictures' estimate")
        axes.set_ylabel("number of other keys")

    return _svg(draw, "decoys")


def quantiles(
    foretold: FloatArray, found: FloatArray, count: int, whose: str, claimed: float | None = None
) -> str:
    """p-values (log10, sorted) against what chance foretells at their ranks among ``count``.

    The band holds each with 95 %: the k-th smallest of N uniform values is Beta(k, N + 1 - k),
    whose quantiles are those of a gamma distribution by Wilson and Hilferty (1931), narrowed at the
    far end. ``claimed`` is the claimed key's p-value, to be shown beside them.
    """
    ranks = np.rint(10.0**foretold * (count + 1))
    spread = 1.96 * np.sqrt(np.maximum(0, 1 - ranks / (count + 1))) / (3 * np.sqrt(ranks))
    middle = 1 - 1 / (9 * ranks)
    low, high = (
        np.minimum(0, foretold + 3 * np.log10(np.maximum(middle + side * spread, 1e-3)))
        for side in (-1, 1)
    )

    def draw(axes: Axes) -> None:
        ends = [foretold[0], 0]
        axes.fill_between(foretold, low, high, color=_LINE, linewidth=0)
        axes.plot(ends, ends, color=_INK, linewidth=1, linestyle="--")
        axes.plot(foretold, found, "o", color=_SOFT, markersize=3)
        floor = 1.4 * foretold[0]
        if claimed is not None:
            axes.axhline(max(claimed, floor), color=_MARK, linewidth=2.2)
            axes.annotate(
                "the claimed key" + (" (far below)" if claimed < floor else ""),
                (0.98, max(claimed, floor)),
                (0, 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                color=_MARK,
                fontweight="bold",
            )
        axes.set_ylim(1.05 * floor, 0.2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(7, integer=True))
            axis.set_major_formatter(FuncFormatter(_power_of_ten))
        axes.set_xlabel("p that chance foretells")
        axes.set_ylabel(f"p of {whose}")

    return _svg(draw, "quantiles" if claimed is not None else "suspects")


def chips(agreement: FloatArray) -> str:
    """Agreement of each chip with the claim, sorted, beside that of a key that knows nothing."""
    ordered = np.sort(agreement)[::-1]
    n = len(ordered)

    def draw(axes: Axes) -> None:
        places = np.arange(n)
        colours = [_MARK if value > 0 else _BAR for value in ordered]
        axes.bar(places, ordered, width=0.8, color=colours)
        normal = [NormalDist().inv_cdf(1 - (i + 0.5) / n) for i in range(n)]
        axes.plot(places, normal, color=_INK, linewidth=1.4, linestyle="--", label="any other key")
        axes.axhline(0, color=_SOFT, linewidth=0.8)
        axes.set_xlim(-1, n)
        axes.set_xlabel("chips, best first")
        axes.set_ylabel("agreement")
        axes.legend(frameon=False, loc="upper right")

    return _svg(draw, "chips")


def pictures_alone(log10_p: Sequence[float]) -> str:
    """Histogram of the pictures' own p-values, with what unmarked pictures would give."""
    lowest = math.floor(min(log10_p) - 1e-9)
    edges = np.linspace(lowest, 0, min(40, max(8, 4 * -lowest)) + 1)

    def draw(axes: Axes) -> None:
        axes.hist(log10_p, bins=edges.tolist(), color=_BAR)
        expected = len(log10_p) * np.diff(10.0**edges)
        axes.stairs(
            expected,
            edges.tolist(),
            color=_INK,
            linewidth=1.4,
            linestyle="--",
            label="if nothing were there",
        )
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(_power_of_ten))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("p of a picture alone")
        axes.set_ylabel("pictures")
        axes.legend(frameon=False, loc="upper left")

    return _svg(draw, "alone")


def _power_of_ten(value: float, _position: int | None = None) -> str:
    if value == 0:
        return "1"
    return raised(round(value))


def _svg(draw: Callable[[Axes], None], prefix: str) -> str:
    stream = io.StringIO()
    with _lock, matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return _for_page(stream.getvalue(), prefix)


def _for_page(svg: str, prefix: str) -> str:
    """What an HTML page can hold of an SVG file."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg.split(">", 1)[0]) + (
        ">" + svg.split(">", 1)[1]
    )
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(
        r' id="([^"]*)"',
        lambda m: f' id="{prefix}-{m[1]}"' if m[1] in referred else "",
        svg,
    )
    svg = re.sub(r'(xlink:)?href="#', f'href="#{prefix}-', svg).replace("url(#", f"url(#{prefix}-")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.strip()
