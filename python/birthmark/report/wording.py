"""How a report writes numbers, times, tables and figures: as HTML, in words for people."""

from __future__ import annotations

import base64
import html
import importlib.util
import math
from collections.abc import Sequence
from datetime import datetime

from birthmark.exact_tests import corrected_log10_p
from birthmark.verdict import Verdict


def can_plot() -> bool:
    """Whether the library that draws plots is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def escape(text: str) -> str:
    """Text for HTML; what cannot be encoded (a file name's stray bytes) is shown as such."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def data_url(png: bytes) -> str:
    """A PNG picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def time_element(iso: str) -> str:
    """A time such as 2026-01-31T12:00:00Z for people."""
    when = datetime.fromisoformat(iso)
    return f'<time datetime="{iso}">{when.day} {when:%B %Y, %H:%M} UTC</time>'


def raised(power: int) -> str:
    """A power of ten in raised digits."""
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def power(log10_p: float) -> str:
    """A p-value for people: .012, or 7.0 x 10 to a power in raised digits."""
    if log10_p > -3:
        return f"{10**log10_p:.3f}"
    exponent = math.floor(log10_p + 0.02)  # 9.95 and more is written as 1.0 of the next power
    return f"{max(1.0, 10 ** (log10_p - exponent)):.1f}\u00a0×\u00a0{raised(exponent)}"


def spaced(number: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{number:,}".replace(",", "\u00a0")


def large(log10: float) -> str:
    """A large number for people, rounded down to one digit: in words, or as a power of ten."""
    digits = math.floor(log10 + 1e-9)
    if digits > 18:
        return raised(digits)
    first = math.floor(10 ** (log10 - digits) + 1e-9)
    if digits < 6:
        return spaced(first * 10**digits)
    names = {
        0: "million",
        1: "thousand million",
        2: "million million",
        3: "thousand million million",
    }
    names[4] = "million million million"
    return f"{first * 10 ** (digits % 3)}\u00a0{names[digits // 3 - 2]}"


def uncounted_log10_p(verdict: Verdict) -> float:
    """log10 p of the verdict before it is multiplied by anything; of echo and tint together."""
    parts = [verdict.tests] if verdict.tint_tests is None else [verdict.tests, verdict.tint_tests]
    return corrected_log10_p([part.log10_p_cosine for part in parts], 1)


def dated(verdict: Verdict) -> str:
    """What proves the claim's date."""
    stamp = verdict.claim.stamp_read
    if stamp is None:
        return "no time stamp: the date is what the owner says"
    return (
        f"time stamp of {verdict.claim_stamped} by {stamp.authority}; recheck --tsa-roots checks it"
    )


def support(log10_ratio: float) -> str:
    """In words: the scale of ENFSI's Guideline for Evaluative Reporting, 2015."""
    scale = (
        (6.0, "extremely strong"),
        (4.0, "very strong"),
        (3.0, "strong"),
        (2.0, "moderately strong"),
        (1.0, "moderate"),
        (0.3, "weak"),
    )
    return next((word for least, word in scale if log10_ratio >= least), "no") + " support"


def likelihood(log10_ratio: float) -> str:
    """In figures and in words."""
    if log10_ratio < 0:
        return f"{10**log10_ratio:.2g}: slightly more likely without the mark than with it"
    odds = f"{10**log10_ratio:.3g}" if log10_ratio < 4 else f"10 to the power {log10_ratio:.1f}"
    return f"{odds}: {support(log10_ratio)} for the owner's hypothesis against the defence's"


def queries(verdict: Verdict) -> str:
    """How many questions were asked, and who chose them."""
    trial = verdict.measured.trial
    if trial is None:
        asked = len(verdict.measured.inputs)
        if not asked:
            return "none: pictures were given"
        each = ", each in eight orientations" if verdict.measured.turned else ""
        return f"{asked} asked{each}, none declared before"
    both = "both parties' nonces" if trial.accused_nonce else "the owner's nonce alone"
    return (
        f"{trial.queries} of {len(trial.inputs)} inputs, declared on {trial.created},"
        f" chosen by {both}; whose mark, the threshold and the number of tests were declared too"
    )


def references(verdict: Verdict) -> list[tuple[str, str]]:
    """Rows about the references that were asked beside the suspect."""
    without = verdict.log10_p_without_references
    if without is None:
        return []
    named = [
        (f"Reference {i} (SHA-256)", sha256)
        for i, sha256 in enumerate(verdict.measured.references, 1)
    ]
    return [*named, ("p-value, corrected, without the references", power(without))]


def table(rows: Sequence[Sequence[str]], caption: str, head: Sequence[str] | None = None) -> str:
    """A table with row headers; it scrolls by itself where the page is narrow."""
    text = escape(caption)
    out = [
        f'<div class="scroll" role="region" aria-label="{text}" tabindex="0">'
        f"<table><caption>{text}</caption>"
    ]
    if head:
        cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td{_long(cell)}>{escape(cell)}</td>" for cell in rest)
        out.append(f'<tr><th scope="row"{_long(first)}>{escape(first)}</th>{cells}</tr>')
    out.append("</tbody></table></div>")
    return "".join(out)


def _long(text: str) -> str:
    """Hashes and paths may be broken anywhere; words and figures may not."""
    return ' class="long"' if any(len(word) > 24 for word in text.split()) else ""


def figure(svg: str, alt: str, text: str, numbers: str = "") -> str:
    """A plot that says in words what it shows; its table of numbers is folded away beneath it."""
    if not svg:
        return f"<p>{escape(text)}</p>{numbers}"
    if numbers:
        numbers = f"<details><summary>The numbers</summary>{numbers}</details>"
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>{numbers}"
