"""Verdict -> one HTML file for people: no script, no outside request, light, dark and print.

Its first page is for a reader who is no engineer: whose claim, what the verdict is, how likely
chance is to do the same. What an expert asks follows. Plots are drawn by matplotlib, which the
extra ``report`` installs; without it the report says so once and holds the numbers as tables.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from birthmark import _core
from birthmark.calibration import FloatArray
from birthmark.claim import Claim, code_version
from birthmark.exact_tests import DECOYS, decoy_cosines
from birthmark.extract import extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey
from birthmark.mark import claimed_chips, coordinates, rotation
from birthmark.payload import MOST_DOUBT
from birthmark.pictures import Picture
from birthmark.protocol import HYPOTHESES, PROTOCOL
from birthmark.report.chance import innocent_suspects, unused_keys
from birthmark.report.emblems import emblems_by_count
from birthmark.report.examples import pictures_of_the_case
from birthmark.report.first_page import first_page
from birthmark.report.wording import (
    can_plot,
    dated,
    escape,
    figure,
    likelihood,
    power,
    queries,
    references,
    table,
    time_element,
    uncounted_log10_p,
)
from birthmark.tails import log10_p_of_cosine
from birthmark.verdict import Verdict

_WITHOUT_PLOTS = (
    "Plots were left out because matplotlib is not installed (pip install 'birthmark[report]');"
    " the tables hold the same numbers."
)
# So that a report of 50 000 pictures stays a file that opens: 3 MB at most.
_MOST_ROWS = 1_000


@dataclass(frozen=True)
class _Degree:
    """The coordinates that share a degree of the polynomial of the tone."""

    name: str
    coordinates: int
    share: float
    """Of the estimate's square."""
    cosine: float
    """Within these coordinates."""
    log10_p: float


def write_report(
    verdict: Verdict,
    path: StrPath,
    *,
    key: MarkKey | None = None,
    bundle: StrPath | None = None,
    examples: Sequence[tuple[str, Picture]] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the report of a verdict.

    Args:
        verdict: what to report.
        path: the HTML file, written atomically.
        key: the key of the claim's mark, for the evidence of each chip and tone. Nothing else of
            it is written; see :func:`chip_agreement`.
        bundle: the verdict's bundle, for the line that repeats it.
        examples: captions and uint8 RGB pictures to show; of large ones, the middle.
        notes: more rows (what, value) for the table of parameters, such as controls.

    Raises:
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    text = render(verdict, key=key, bundle=bundle, examples=examples, notes=notes)
    write_atomically(path, text.encode())


def render(
    verdict: Verdict,
    *,
    key: MarkKey | None = None,
    bundle: StrPath | None = None,
    examples: Sequence[tuple[str, Picture]] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """The report as HTML text; arguments as :func:`write_report`."""
    chips = degrees = restored = ""
    if key is not None:
        of_whom = key if verdict.customer is None else key.customer(verdict.customer)
        chips = _chips(chip_agreement(verdict.estimate, of_whom, verdict.claim))
        restored = emblems_by_count(verdict, of_whom)
        degrees = _degrees(_by_degree(verdict.estimate, of_whom, verdict.claim))
    sections = [
        ("hypotheses", "The two hypotheses", _hypotheses(verdict)),
        ("tests", "Three tests", _tests(verdict)),
        ("curve", "p against the number of pictures", _curve(verdict)),
        ("decoys", "What other keys would have said", _decoys(verdict)),
        ("chips", "Evidence of each chip", chips),
        ("restored", "The emblem against the number of pictures", restored),
        ("degrees", "Evidence by tone", degrees),
        ("alone", "Each picture alone", _pictures(verdict)),
        ("controls", "Controls", _controls(verdict)),
        ("counted", "Hypotheses counted, geometry searched", _counted(verdict)),
        ("examples", "Pictures of the case", pictures_of_the_case(examples)),
        ("claim", "The claim in full", _claim(verdict)),
        ("parameters", "Every parameter", _parameters(verdict, notes)),
        ("left", "Left out", _left_out(verdict)),
        ("protocol", "How it was done", _protocol()),
        (
            "uniform",
            "Is chance what it is said to be?",
            unused_keys(verdict) + innocent_suspects(verdict),
        ),
        ("repeat", "How to repeat it", _repeat(verdict, bundle)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    expert = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{content}</section>'
        for name, title, content in sections
    )
    plots = "" if can_plot() else f'<p class="note">{escape(_WITHOUT_PLOTS)}</p>'
    style = (resources.files("birthmark.report") / "page.css").read_text("utf-8")
    title = escape(f"{verdict.decision}: {verdict.claim.model_name}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f'<body class="{verdict.decision}"><a class="skip" href="#first">Skip to the verdict</a>\n'
        f'<header><p class="kicker">birthmark: report of {time_element(verdict.created)}</p>'
        "</header>\n"
        f'<main id="first"><div class="first">{first_page(verdict)}</div>\n'
        f'<nav aria-label="For the expert"><h2>For the expert</h2><ul>{links}</ul></nav>\n'
        f"{plots}{expert}</main>\n"
        f"<footer><p>Made by birthmark {escape(code_version())}. This page loads nothing from"
        " elsewhere and holds no secret of the owner.</p></footer></body></html>\n"
    )


def chip_agreement(estimate: FloatArray, key: MarkKey, claim: Claim) -> FloatArray:
    """How well each chip agrees with the claim: float64 [n], mean the cosine, mean square 1.

    The estimate is turned back to chips by the key's rotation, and each is multiplied by the
    claim's. Under the null hypothesis the vector is uniform on its sphere. It may be published: the
    rotation with the chips in it is Haar-random, so that given the estimate, all directions of the
    same cosine stay equally likely.
    """
    n = len(estimate)
    turned = rotation(key, n).T @ (estimate / np.linalg.norm(estimate))
    agreement: FloatArray = turned * claimed_chips(key, claim, n) * math.sqrt(n)
    return agreement


def _by_degree(estimate: FloatArray, key: MarkKey, claim: Claim) -> list[_Degree]:
    """The cosine test within the coordinates of each degree of the tone.

    Each is exact, as the whole is: a part of a uniform direction has a uniform direction.
    These few cosines, rounded, say as much of the direction as so many verdicts would.
    """
    names = ("alike in all tones", "from dark to light", "middle tones against both ends", "cubic")
    direction = coordinates(key, claim, len(estimate))
    found = []
    for i, name in enumerate(names):
        part = slice(i * _core.ORBITS, (i + 1) * _core.ORBITS)
        a, d = estimate[part], direction[part]
        size = float(np.linalg.norm(a) * np.linalg.norm(d))
        if len(a) >= 2 and size > 0:
            cosine = float(a @ d) / size
            share = float(a @ a) / float(estimate @ estimate)
            found.append(_Degree(name, len(a), share, cosine, log10_p_of_cosine(cosine, len(a))))
    return found


# For the expert, a function a section.


def _hypotheses(verdict: Verdict) -> str:
    return (
        '<dl class="pairs">'
        f"<dt>The owner's</dt><dd>{escape(HYPOTHESES['prosecution'])}</dd>"
        f"<dt>The defence's</dt><dd>{escape(HYPOTHESES['defence'])}</dd>"
        f"<dt>Likelihood ratio</dt><dd>{escape(likelihood(verdict.log10_likelihood_ratio))}</dd>"
        "</dl>"
    )


def _tests(verdict: Verdict) -> str:
    tests, tint = verdict.tests, verdict.tint_tests
    rows = [
        (
            f"{'C' if tint is None else 'Echo: c'}osine with the secret direction (decides)",
            f"{tests.cosine:.3f} in {tests.coordinates} dimensions",
            power(tests.log10_p_cosine),
        ),
        (
            "Chips that match under the secret pad",
            f"{tests.chips_matched} of {tests.coordinates}",
            power(tests.log10_p_chips),
        ),
        (
            "Decoy keys that do as well",
            f"{tests.decoys_as_good} of {tests.decoys}",
            power(math.log10((tests.decoys_as_good + 1) / (tests.decoys + 1))),
        ),
    ]
    if tint is not None:
        rows += [
            (
                "Tint: cosine with its own secret direction (decides together with the first)",
                f"{tint.cosine:.3f} in {tint.coordinates} dimensions; {tint.chips_matched} chips"
                f" match, {tint.decoys_as_good} of {tint.decoys} decoys do as well",
                power(tint.log10_p_cosine),
            ),
            (
                "Echo and tint together",
                "the two are independent; Fisher's method",
                power(uncounted_log10_p(verdict)),
            ),
        ]
    agree = (
        "The three agree."
        if tests.agree and (tint is None or tint.agree)
        else "The three do not agree; hence there is no verdict."
    )
    numbers = table(
        rows,
        "Each is exact when the suspect never saw the mark: the only chance in it is that of the"
        " secret key",
        ("Test", "Result", "p"),
    )
    return f"{numbers}<p>{agree} Before correction for the hypotheses counted.</p>"


def _curve(verdict: Verdict) -> str:
    if len(verdict.curve) < 2:
        return ""
    svg, counted = "", verdict.tests_counted * verdict.claim.draws
    if can_plot():
        from birthmark.report import plots

        svg = plots.p_against_pictures(
            verdict.curve,
            math.log10(verdict.false_positive_rate / counted),
            verdict.claim.log10_unmarked_above - math.log10(counted),
        )
    first, last = verdict.curve[0], verdict.curve[-1]
    return figure(
        svg,
        "Line plot: the p-value falls as more pictures are pooled"
        if last[1] < first[1]
        else "Line plot: the p-value does not fall as more pictures are pooled",
        f"From {power(first[1])} with one picture to {power(last[1])} with all {last[0]}. The"
        " blind test, with the pictures pooled in the order given; the dashed lines are the"
        " decision's thresholds, corrected for the hypotheses counted.",
        table(
            [(str(count), power(p)) for count, p in verdict.curve],
            "p of the blind test after pooling the first pictures",
            ("Pictures", "p"),
        ),
    )


def _decoys(verdict: Verdict) -> str:
    cosines, tests = decoy_cosines(verdict.estimate), verdict.tests
    svg = ""
    if can_plot():
        from birthmark.report import plots

        svg = plots.decoys(cosines, tests.cosine, tests.coordinates)
    levels = (("lowest", 0), ("1 %", 1), ("25 %", 25), ("median", 50), ("75 %", 75), ("99 %", 99))
    rows = [(f"decoys, {name}", f"{np.percentile(cosines, q):.3f}") for name, q in levels]
    rows += [
        ("decoys, highest", f"{cosines.max():.3f}"),
        ("the claimed key", f"{tests.cosine:.3f}"),
    ]
    return figure(
        svg,
        f"Histogram of the other keys' cosines around 0, and a line for the claimed key at"
        f" {tests.cosine:.2f}",
        f"Bars: cosines of the same pictures with {DECOYS} other random keys; the curve is what"
        f" theory says of them. Line: the claimed key, at {tests.cosine:.2f}."
        f" {tests.decoys_as_good} of the others do as well.",
        table(
            rows, "Cosine of the pictures with other keys and the claimed one", ("Key", "Cosine")
        ),
    )


def _chips(agreement: FloatArray) -> str:
    svg = ""
    if can_plot():
        from birthmark.report import plots

        svg = plots.chips(agreement)
    n, matched = len(agreement), int((agreement > 0).sum())
    ordered = np.sort(agreement)[::-1]
    rows = [
        (f"{i + 1} to {min(i + 12, n)}", ", ".join(f"{v:+.2f}" for v in ordered[i : i + 12]))
        for i in range(0, n, 12)
    ]
    return figure(
        svg,
        f"Bar plot of {n} chips by their agreement with the claim; {matched} are above zero",
        f"{matched} of {n} chips point the claim's way (bars above zero). The dashed line is what"
        " any other key gives: as many above as below. In units of an average chip; sorted.",
        table(rows, "Agreement of each chip with the claim, best first", ("Chips", "Agreement")),
    )


def _degrees(degrees: Sequence[_Degree]) -> str:
    rows = [
        (
            f"{i}: {d.name}",
            str(d.coordinates),
            f"{100 * d.share:.0f} %",
            f"{d.cosine:.2f}",
            power(d.log10_p),
        )
        for i, d in enumerate(degrees)
    ]
    return "<p>A network learns first what is alike in all tones.</p>" + table(
        rows,
        "The cosine test within the coordinates of each degree; informative, the whole decides",
        ("Degree in the tone", "Coordi\u00adnates", "Share of the esti\u00admate", "Cosine", "p"),
    )


def _pictures(verdict: Verdict) -> str:
    svg = ""
    if can_plot() and len(verdict.evidence) >= 4:
        from birthmark.report import plots

        svg = plots.pictures_alone([e.log10_p for e in verdict.evidence])
    rows = [
        (e.name, f"{e.width_px}\u00a0×\u00a0{e.height_px}", power(e.log10_p), e.sha256[:16])
        for e in verdict.evidence[:_MOST_ROWS]
    ]
    numbers = table(
        rows,
        f"Size and p of each picture{_first_of(len(verdict.evidence))}",
        ("Picture", "Size", "p alone", "SHA-256 begins"),
    )
    alone = sum(e.log10_p < -2 for e in verdict.evidence)
    text = f"{alone} of {len(verdict.evidence)} pictures reach p = 0.01 each by itself."
    alt = "Histogram of the p-values of single pictures"
    return (figure(svg, alt, text) if svg else f"<p>{text}</p>") + numbers


def _controls(verdict: Verdict) -> str:
    if not verdict.controls:
        return (
            "<p>None: pictures were given, and no suspect was asked. What was asked of whoever"
            " made them is not known here.</p>"
        )
    rows = [(c.name, str(c.pictures), power(c.log10_p)) for c in verdict.controls]
    return table(
        rows,
        "What must not carry the mark, pooled and read as the suspect's pictures are",
        ("Control", "Pictures", "p"),
    )


def _counted(verdict: Verdict) -> str:
    geometry = verdict.measured.geometry or Geometry()
    rows = [
        ("Scales and angles tried", str(geometry.tried)),
        ("Tests of this suspect in all, as stated", str(verdict.tests_counted // geometry.tried)),
        ("Marks among which the owner drew", str(verdict.claim.draws)),
        ("Hypotheses counted: the product", str(verdict.tests_counted * verdict.claim.draws)),
        ("p before", power(uncounted_log10_p(verdict))),
        ("p after (Bonferroni)", power(verdict.log10_p)),
        ("Scale that was undone", f"{geometry.scale:.4g}"),
        ("Rotation that was undone", f"{geometry.degrees:.4g} degrees counter-clockwise"),
        ("Queries", queries(verdict)),
    ]
    return table(rows, "What p was multiplied by, and why")


def _claim(verdict: Verdict) -> str:
    claim = verdict.claim
    rows = [
        ("Owner", claim.owner),
        ("Contact", claim.contact or "none given"),
        ("Model", claim.model_name),
        ("Model's SHA-256", claim.model_sha256),
        ("Claim made", f"{claim.created}; {dated(verdict)}"),
        ("Claim's digest", claim.digest.hex()),
        ("Public key", claim.public_key.hex()),
        ("Commitment to the secret", claim.commitment),
        ("Calibration's SHA-256 (frozen in the claim)", claim.calibration_sha256),
        ("Code version of the claim", claim.code_version),
    ]
    return table(rows, "What the owner signed before the suspect was seen")


def _parameters(verdict: Verdict, notes: Sequence[tuple[str, str]]) -> str:
    claim, tests = verdict.claim, verdict.tests
    # Coordinates have variance 1 in a mark, so the estimate's part along it has length sqrt(n).
    beta = float(np.linalg.norm(verdict.estimate)) * tests.cosine / math.sqrt(tests.coordinates)
    rows = [
        ("Verdict given", verdict.created),
        ("Test", verdict.mode),
        ("Pictures", str(verdict.pictures)),
        ("p-value, corrected", power(verdict.log10_p)),
        ("log10 of it", f"{verdict.log10_p:.4f}"),
        (
            "p-value for a reader who doubts the claim's date (2^64 keys counted)",
            power(verdict.log10_p_if_date_doubted),
        ),
        ("False-positive rate asked for", f"{verdict.false_positive_rate:g}"),
        ("UNMARKED above p of", f"{10.0**claim.log10_unmarked_above:g}"),
        (
            "β: the mark's strength here, in that of a published one",
            f"{beta:.2f} (less than it is: weights and, if informed, local means take from it)",
        ),
        ("Coordinates", str(tests.coordinates)),
        ("Emblem", f"{len(claim.payload)} bits: {claim.emblem}"),
        ("Emblem read", verdict.payload or "none that could be trusted"),
        ("Likeliest emblem", verdict.payload_guess),
        (
            f"Estimated chance that it is wrong (trusted up to {MOST_DOUBT:g})",
            f"{verdict.payload_doubt:.1e}",
        ),
        ("Customer", verdict.customer or "none: the claim's own mark"),
        ("Arithmetic contract", str(_core.CONTRACT_VERSION)),
        ("Code version of the verdict", code_version()),
        ("Code that reads marks (SHA-256)", _extractor(claim)),
        *references(verdict),
        *notes,
    ]
    return table(rows, "Everything that the verdict depends on")


def _left_out(verdict: Verdict) -> str:
    if not verdict.rejected:
        return ""
    caption = f"Not judged, and why{_first_of(len(verdict.rejected))}"
    return table(verdict.rejected[:_MOST_ROWS], caption, ("Picture", "Reason"))


def _protocol() -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in PROTOCOL) + "</ul>"


def _repeat(verdict: Verdict, bundle: StrPath | None) -> str:
    name = "V.zip" if bundle is None else Path(os.fsdecode(bundle)).name
    line = f"birthmark recheck {escape(shlex.quote(name))}"
    whose = "which the owner has to hand over" if bundle is None else "which goes with this report"
    roots = stamped = ""
    if verdict.claim.stamp is not None:
        roots = " --tsa-roots ca.pem"
        stamped = (
            "<p>The claim's time stamp is checked with the certificate of its authority, here"
            " <code>ca.pem</code>.</p>"
        )
    return (
        f"<p>Needed are the verdict's bundle {escape(name)}, {whose}, and birthmark"
        f" (this report was made by version {escape(code_version())}) on any machine with Python;"
        " no network.</p>"
        f"<pre><code>{line}{roots}</code></pre>"
        f"{stamped}<p>That repeats every step but those that need the secret direction. These too,"
        " once the owner has disclosed this one claim's secret to the expert"
        " (<code>birthmark disclose</code>; the owner's other claims stay secret):</p>"
        f"<pre><code>{line} --claim-key for-the-expert.key{roots}</code></pre>"
        "<p>Compare the public key above with one that is known to be the owner's.</p>"
    )


def _extractor(claim: Claim) -> str:
    now = extractor_sha256()
    return f"{now}, the claim's" if now == claim.extractor_sha256 else f"{now}, not the claim's"


def _first_of(count: int) -> str:
    return (
        "" if count <= _MOST_ROWS else f": the first {_MOST_ROWS} of {count}; all are in the bundle"
    )
