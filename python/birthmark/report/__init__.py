"""Verdict -> one HTML file for people: no script, no outside request, light, dark and print.

Its first page is for a reader who is no engineer: whose claim, what the verdict is, how likely
chance is to do the same. What an expert asks follows. Plots are drawn by matplotlib, which the
extra ``report`` installs; without it the report says so once and holds the numbers as tables.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np

from birthmark import _core
from birthmark.bundle import HYPOTHESES, NOT_SAID, PROTOCOL
from birthmark.calibration import FloatArray
from birthmark.claim import Claim, code_version
from birthmark.extract import extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey
from birthmark.mark import claimed_chips, coordinates, rotation
from birthmark.pictures import Picture, encode_png
from birthmark.tails import log10_p_of_cosine
from birthmark.verdict import DECOYS, Decision, Verdict, decoy_cosines, payload_hex

_WITHOUT_PLOTS = (
    "Plots were left out because matplotlib is not installed (pip install 'birthmark[report]');"
    " the tables hold the same numbers."
)
UNUSED_KEYS = 20_000
AMPLIFIED = 20
# So that a report of 50 000 pictures stays a file that opens: 3 MB at most.
_MOST_ROWS = 1_000
_MOST_EXAMPLES = 12
_MOST_EXAMPLE_BYTES = 1_500_000
_EXAMPLE_SIDES_PX = (512, 384, 256, 192, 128)


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
    chips = degrees = ""
    if key is not None:
        of_whom = key if verdict.customer is None else key.customer(verdict.customer)
        chips = _chips(chip_agreement(verdict.estimate, of_whom, verdict.claim))
        degrees = _degrees(_by_degree(verdict.estimate, of_whom, verdict.claim))
    sections = [
        ("hypotheses", "The two hypotheses", _hypotheses(verdict)),
        ("tests", "Three tests", _tests(verdict)),
        ("curve", "p against the number of pictures", _curve(verdict)),
        ("decoys", "What other keys would have said", _decoys(verdict)),
        ("chips", "Evidence of each chip", chips),
        ("degrees", "Evidence by tone", degrees),
        ("alone", "Each picture alone", _pictures(verdict)),
        ("controls", "Controls", _controls(verdict)),
        ("counted", "Hypotheses counted, geometry searched", _counted(verdict)),
        ("examples", "Pictures of the case", _examples(examples)),
        ("claim", "The claim in full", _claim(verdict)),
        ("parameters", "Every parameter", _parameters(verdict, notes)),
        ("left", "Left out", _left_out(verdict)),
        ("protocol", "How it was done", _protocol()),
        ("uniform", "Is chance what it is said to be?", _uniform(verdict)),
        ("repeat", "How to repeat it", _repeat(verdict, bundle)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    expert = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{title}</h2>{content}</section>'
        for name, title, content in sections
    )
    plots = "" if _can_plot() else f'<p class="note">{_escape(_WITHOUT_PLOTS)}</p>'
    style = (resources.files("birthmark.report") / "page.css").read_text("utf-8")
    title = _escape(f"{verdict.decision}: {verdict.claim.model_name}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n"
        f'<body class="{verdict.decision}"><a class="skip" href="#first">Skip to the verdict</a>\n'
        f'<header><p class="kicker">birthmark: report of {_time(verdict.created)}</p></header>\n'
        f'<main id="first"><div class="first">{_first_page(verdict)}</div>\n'
        f'<nav aria-label="For the expert"><h2>For the expert</h2><ul>{links}</ul></nav>\n'
        f"{plots}{expert}</main>\n"
        f"<footer><p>Made by birthmark {_escape(code_version())}. This page loads nothing from"
        " elsewhere and holds no secret of the owner.</p></footer></body></html>\n"
    )


def amplified_difference(answer: Picture, own: Picture) -> Picture:
    """:data:`AMPLIFIED` times how two pictures of one shape differ, about a middle grey.

    A grey level brighter in ``answer`` is so many levels above 128; beyond 0..255 it is cut.
    """
    difference = answer.astype(np.int16) - own
    return np.asarray(np.clip(128 + AMPLIFIED * difference, 0, 255), np.uint8)


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


# The first page.


def _first_page(verdict: Verdict) -> str:
    claim = verdict.claim
    logo = ""
    if claim.logo is not None:
        logo = (
            f'<figure><img src="{_data_url(claim.logo)}" alt="Logo in the claim of'
            f' {_escape(claim.owner)}"><figcaption>Logo in the claim</figcaption></figure>'
        )
    facts = [
        ("Owner", _escape(claim.owner)),
        ("Model", _escape(claim.model_name)),
        ("Claim made", _time(claim.created)),
        ("Date proved", _escape(_dated(verdict))),
        ("Pictures judged", f"{verdict.pictures}, {_asked_how(verdict)}"),
        ("Number in the claim", f"<code>{payload_hex(claim.payload)}</code>"),
        ("Number read from the pictures", _read_number(verdict)),
    ]
    if verdict.customer is not None:
        facts.insert(2, ("Customer looked for", _escape(verdict.customer)))
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f"<h1>Verdict: {verdict.decision}</h1>"
        f'<p class="sentence">{_sentence(verdict)}</p>'
        f"{_odds(verdict)}"
        f'<h2>The claim</h2><div class="claim"><dl class="pairs">{pairs}</dl>{logo}</div>'
        f"<h2>What this does not say</h2><p>{_escape(NOT_SAID)}</p>{_doubt(verdict)}"
    )


def _sentence(verdict: Verdict) -> str:
    owner, model = _escape(verdict.claim.owner), _escape(verdict.claim.model_name)
    if verdict.decision is Decision.MARKED:
        return (
            f"These pictures carry the mark that {owner} puts on the outputs of {model}."
            " Whatever made them has learned from such outputs, or the pictures are such outputs."
        )
    if verdict.decision is Decision.UNMARKED:
        return f"No trace of the mark of {owner} ({model}) was found in these pictures."
    return (
        f"These pictures do not decide whether their maker saw marked outputs of {model}"
        f" ({owner}). That is not the same as finding no mark."
    )


def _odds(verdict: Verdict) -> str:
    """Three figures: how likely chance is, how that may be pictured, and which way it weighs."""
    log10_p = verdict.log10_p
    chance = f"1 in {_large(-log10_p)}"
    if log10_p < -6:
        chance += f"&nbsp;({_raised(math.floor(-log10_p + 1e-9))})" if log10_p > -19 else ""
    if log10_p > -1:
        chance, why = f"{100 * 10**log10_p:.0f} in 100", "this is what chance alone gives, too"
    else:
        why = "so often would chance alone give as much, had their maker never seen marked outputs"
    heads = math.floor(-log10_p / math.log10(2))
    coin = f"heads {heads} times in a row" if heads >= 5 else "an everyday event"
    support = _support(verdict.log10_likelihood_ratio)
    items = [
        (chance, why),
        (coin, "a fair coin does that as rarely" if heads >= 5 else "nothing to be surprised at"),
        (
            support,
            "for the owner's account against the other: the finding alone, without"
            " whatever else is known",
        ),
    ]
    cells = "".join(f"<li><strong>{big}</strong> <span>{small}</span></li>" for big, small in items)
    return f'<h2>The odds</h2><ul class="figures">{cells}</ul>'


def _doubt(verdict: Verdict) -> str:
    if verdict.claim_stamped is not None or verdict.decision is not Decision.MARKED:
        return ""
    doubted = verdict.log10_p_if_date_doubted
    rest = f"at most 1 in {_large(-doubted)}" if doubted < 0 else "nothing: chance could do as much"
    return (
        "<p>The claim has no time stamp, so its date is what the owner says. Who thinks that it"
        " was made after the pictures must allow for a search through 2<sup>64</sup> keys. What"
        f" is left then is <strong>{rest}</strong>.</p>"
    )


def _read_number(verdict: Verdict) -> str:
    if verdict.payload is None:
        return "none that could be trusted"
    same = "the same" if verdict.payload_is_claimed else "another one"
    return f"<code>{_escape(verdict.payload)}</code>: {same}"


def _asked_how(verdict: Verdict) -> str:
    if verdict.mode == "informed":
        return "answers of the suspect, compared with the owner's model"
    return "answers of the suspect" if verdict.measured.inputs else "as they were found"


# For the expert.


def _hypotheses(verdict: Verdict) -> str:
    return (
        '<dl class="pairs">'
        f"<dt>The owner's</dt><dd>{_escape(HYPOTHESES['prosecution'])}</dd>"
        f"<dt>The defence's</dt><dd>{_escape(HYPOTHESES['defence'])}</dd>"
        f"<dt>Likelihood ratio</dt><dd>{_escape(_likelihood(verdict.log10_likelihood_ratio))}</dd>"
        "</dl>"
    )


def _tests(verdict: Verdict) -> str:
    tests = verdict.tests
    rows = [
        (
            "Cosine with the secret direction (decides)",
            f"{tests.cosine:.3f} in {tests.coordinates} dimensions",
            _power(tests.log10_p_cosine),
        ),
        (
            "Chips that match under the secret pad",
            f"{tests.chips_matched} of {tests.coordinates}",
            _power(tests.log10_p_chips),
        ),
        (
            "Decoy keys that do as well",
            f"{tests.decoys_as_good} of {tests.decoys}",
            _power(math.log10((tests.decoys_as_good + 1) / (tests.decoys + 1))),
        ),
    ]
    agree = (
        "The three agree." if tests.agree else "The three do not agree; hence there is no verdict."
    )
    table = _table(
        rows,
        "Each is exact when the suspect never saw the mark: the only chance in it is that of the"
        " secret key",
        ("Test", "Result", "p"),
    )
    return f"{table}<p>{agree} Before correction for the hypotheses counted.</p>"


def _curve(verdict: Verdict) -> str:
    if len(verdict.curve) < 2:
        return ""
    svg = ""
    if _can_plot():
        from birthmark.report import plots

        svg = plots.p_against_pictures(
            verdict.curve,
            math.log10(verdict.false_positive_rate / verdict.tests_counted),
            verdict.claim.log10_unmarked_above - math.log10(verdict.tests_counted),
        )
    first, last = verdict.curve[0], verdict.curve[-1]
    return _figure(
        svg,
        "Line plot: the p-value falls as more pictures are pooled"
        if last[1] < first[1]
        else "Line plot: the p-value does not fall as more pictures are pooled",
        f"From {_power(first[1])} with one picture to {_power(last[1])} with all {last[0]}. The"
        " blind test, with the pictures pooled in the order given; the dashed lines are the"
        " decision's thresholds, corrected for the hypotheses counted.",
        _table(
            [(str(count), _power(p)) for count, p in verdict.curve],
            "p of the blind test after pooling the first pictures",
            ("Pictures", "p"),
        ),
    )


def _decoys(verdict: Verdict) -> str:
    cosines, tests = decoy_cosines(verdict.estimate), verdict.tests
    svg = ""
    if _can_plot():
        from birthmark.report import plots

        svg = plots.decoys(cosines, tests.cosine, tests.coordinates)
    levels = (("lowest", 0), ("1 %", 1), ("25 %", 25), ("median", 50), ("75 %", 75), ("99 %", 99))
    rows = [(f"decoys, {name}", f"{np.percentile(cosines, q):.3f}") for name, q in levels]
    rows += [
        ("decoys, highest", f"{cosines.max():.3f}"),
        ("the claimed key", f"{tests.cosine:.3f}"),
    ]
    return _figure(
        svg,
        f"Histogram of the other keys' cosines around 0, and a line for the claimed key at"
        f" {tests.cosine:.2f}",
        f"Bars: cosines of the same pictures with {DECOYS} other random keys; the curve is what"
        f" theory says of them. Line: the claimed key, at {tests.cosine:.2f}."
        f" {tests.decoys_as_good} of the others do as well.",
        _table(
            rows, "Cosine of the pictures with other keys and the claimed one", ("Key", "Cosine")
        ),
    )


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


def _uniform(verdict: Verdict) -> str:
    log10_p = null_log10_p(verdict.estimate)
    svg = ""
    if _can_plot():
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
                _power(level),
                str(int((log10_p < level).sum())),
                f"{UNUSED_KEYS * rate:.0f} ({math.ceil(least)} to {math.floor(most)})",
            )
        )
    return _figure(
        svg,
        f"Quantile plot: the p-values of {UNUSED_KEYS} unused keys lie on the line of chance",
        f"The same pictures, read with {UNUSED_KEYS} more random keys that nobody ever used. Each"
        " dot is a p-value of theirs against the one that chance foretells at its rank; the band"
        " holds each dot with 95 %. Whether all are uniform, by Kolmogorov and Smirnov:"
        f" p = {kolmogorov:.2f}.",
        _table(
            rows,
            "How many unused keys fall below a p-value, and how many chance foretells (95 %)",
            ("p below", "Keys found", "Keys foretold"),
        ),
    )


def _chips(agreement: FloatArray) -> str:
    svg = ""
    if _can_plot():
        from birthmark.report import plots

        svg = plots.chips(agreement)
    n, matched = len(agreement), int((agreement > 0).sum())
    ordered = np.sort(agreement)[::-1]
    rows = [
        (f"{i + 1} to {min(i + 12, n)}", ", ".join(f"{v:+.2f}" for v in ordered[i : i + 12]))
        for i in range(0, n, 12)
    ]
    return _figure(
        svg,
        f"Bar plot of {n} chips by their agreement with the claim; {matched} are above zero",
        f"{matched} of {n} chips point the claim's way (bars above zero). The dashed line is what"
        " any other key gives: as many above as below. In units of an average chip; sorted.",
        _table(rows, "Agreement of each chip with the claim, best first", ("Chips", "Agreement")),
    )


def _degrees(degrees: Sequence[_Degree]) -> str:
    rows = [
        (
            f"{i}: {d.name}",
            str(d.coordinates),
            f"{100 * d.share:.0f} %",
            f"{d.cosine:.2f}",
            _power(d.log10_p),
        )
        for i, d in enumerate(degrees)
    ]
    return "<p>A network learns first what is alike in all tones.</p>" + _table(
        rows,
        "The cosine test within the coordinates of each degree; informative, the whole decides",
        ("Degree in the tone", "Coordinates", "Share of the estimate", "Cosine", "p"),
    )


def _pictures(verdict: Verdict) -> str:
    svg = ""
    if _can_plot() and len(verdict.evidence) >= 4:
        from birthmark.report import plots

        svg = plots.pictures_alone([e.log10_p for e in verdict.evidence])
    rows = [
        (e.name, f"{e.width_px}\u00a0×\u00a0{e.height_px}", _power(e.log10_p), e.sha256[:16])
        for e in verdict.evidence[:_MOST_ROWS]
    ]
    table = _table(
        rows,
        f"Size and p of each picture{_first_of(len(verdict.evidence))}",
        ("Picture", "Size", "p alone", "SHA-256 begins"),
    )
    alone = sum(e.log10_p < -2 for e in verdict.evidence)
    text = f"{alone} of {len(verdict.evidence)} pictures reach p = 0.01 each by itself."
    alt = "Histogram of the p-values of single pictures"
    return (_figure(svg, alt, text) if svg else f"<p>{text}</p>") + table


def _controls(verdict: Verdict) -> str:
    if not verdict.controls:
        return (
            "<p>None: pictures were given, and no suspect was asked. What was asked of whoever"
            " made them is not known here.</p>"
        )
    rows = [(c.name, str(c.pictures), _power(c.log10_p)) for c in verdict.controls]
    return _table(
        rows,
        "What must not carry the mark, pooled and read as the suspect's pictures are",
        ("Control", "Pictures", "p"),
    )


def _counted(verdict: Verdict) -> str:
    geometry = verdict.measured.geometry or Geometry()
    rows = [
        ("Scales and angles tried", str(geometry.tried)),
        ("Other tests of this suspect, as stated", str(verdict.tests_counted // geometry.tried)),
        ("Hypotheses counted: the product", str(verdict.tests_counted)),
        ("p before", _power(verdict.tests.log10_p_cosine)),
        ("p after (Bonferroni)", _power(verdict.log10_p)),
        ("Scale that was undone", f"{geometry.scale:.4g}"),
        ("Rotation that was undone", f"{geometry.degrees:.4g} degrees counter-clockwise"),
        ("Queries", _queries(verdict)),
    ]
    return _table(rows, "What p was multiplied by, and why")


def _examples(examples: Sequence[tuple[str, Picture]]) -> str:
    if not examples:
        return ""
    shown = examples[:_MOST_EXAMPLES]
    for side in _EXAMPLE_SIDES_PX:
        urls = [_data_url(encode_png(_middle(picture, side))) for _, picture in shown]
        if sum(map(len, urls)) <= _MOST_EXAMPLE_BYTES:
            break
    figures = "".join(
        f'<figure><img src="{url}" alt="{_escape(caption)}" width="{min(side, p.shape[1])}"'
        f' height="{min(side, p.shape[0])}"><figcaption>{_escape(caption)}</figcaption></figure>'
        for (caption, p), url in zip(shown, urls, strict=True)
    )
    return (
        f"<p>At most the middle {side} × {side} pixels of each.</p>"
        f'<div class="examples">{figures}</div>'
    )


def _middle(picture: Picture, side: int) -> Picture:
    top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def _claim(verdict: Verdict) -> str:
    claim = verdict.claim
    rows = [
        ("Owner", claim.owner),
        ("Contact", claim.contact or "none given"),
        ("Model", claim.model_name),
        ("Model's SHA-256", claim.model_sha256),
        ("Claim made", f"{claim.created}; {_dated(verdict)}"),
        ("Claim's digest", claim.digest.hex()),
        ("Public key", claim.public_key.hex()),
        ("Commitment to the secret", claim.commitment),
        ("Calibration's SHA-256 (frozen in the claim)", claim.calibration_sha256),
        ("Code version of the claim", claim.code_version),
    ]
    return _table(rows, "What the owner signed before the suspect was seen")


def _parameters(verdict: Verdict, notes: Sequence[tuple[str, str]]) -> str:
    claim, tests = verdict.claim, verdict.tests
    # Coordinates have variance 1 in a mark, so the estimate's part along it has length sqrt(n).
    beta = float(np.linalg.norm(verdict.estimate)) * tests.cosine / math.sqrt(tests.coordinates)
    rows = [
        ("Verdict given", verdict.created),
        ("Test", verdict.mode),
        ("Pictures", str(verdict.pictures)),
        ("p-value, corrected", _power(verdict.log10_p)),
        ("log10 of it", f"{verdict.log10_p:.4f}"),
        (
            "p-value for a reader who doubts the claim's date (2^64 keys counted)",
            _power(verdict.log10_p_if_date_doubted),
        ),
        ("False-positive rate asked for", f"{verdict.false_positive_rate:g}"),
        ("UNMARKED above p of", f"{10.0**claim.log10_unmarked_above:g}"),
        (
            "β: the mark's strength here, in that of a published one",
            f"{beta:.2f} (too low: weights and, if informed, local means take from it)",
        ),
        ("Coordinates", str(tests.coordinates)),
        ("Payload", f"{claim.payload_length_bits} bits: {payload_hex(claim.payload)}"),
        ("Payload read", verdict.payload or "none that could be trusted"),
        ("Customer", verdict.customer or "none: the claim's own mark"),
        ("Arithmetic contract", str(_core.CONTRACT_VERSION)),
        ("Code version of the verdict", code_version()),
        ("Code that reads marks (SHA-256)", _extractor(claim)),
        *notes,
    ]
    return _table(rows, "Everything that the verdict depends on")


def _left_out(verdict: Verdict) -> str:
    if not verdict.rejected:
        return ""
    caption = f"Not judged, and why{_first_of(len(verdict.rejected))}"
    return _table(verdict.rejected[:_MOST_ROWS], caption, ("Picture", "Reason"))


def _protocol() -> str:
    return "<ul>" + "".join(f"<li>{_escape(sentence)}</li>" for sentence in PROTOCOL) + "</ul>"


def _repeat(verdict: Verdict, bundle: StrPath | None) -> str:
    name = "V.zip" if bundle is None else Path(os.fsdecode(bundle)).name
    line = f"birthmark recheck {_escape(shlex.quote(name))}"
    whose = "which the owner has to hand over" if bundle is None else "which goes with this report"
    roots = stamped = ""
    if verdict.claim.stamp is not None:
        roots = " --tsa-roots ca.pem"
        stamped = (
            "<p>The claim's time stamp is checked with the certificate of its authority, here"
            " <code>ca.pem</code>.</p>"
        )
    return (
        f"<p>Needed are the verdict's bundle {_escape(name)}, {whose}, and birthmark"
        f" (this report was made by version {_escape(code_version())}) on any machine with Python;"
        " no network.</p>"
        f"<pre><code>{line}{roots}</code></pre>"
        f"{stamped}<p>That repeats every step but those that need the secret direction. These too,"
        " once the owner has disclosed this one claim's secret to the expert"
        " (<code>birthmark disclose</code>; the owner's other claims stay secret):</p>"
        f"<pre><code>{line} --claim-key for-the-expert.key{roots}</code></pre>"
        "<p>Compare the public key above with one that is known to be the owner's.</p>"
    )


# How things are written.


def _can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _escape(text: str) -> str:
    """Text for HTML; what cannot be encoded (a file name's stray bytes) is shown as such."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _time(iso: str) -> str:
    when = datetime.fromisoformat(iso)
    return f'<time datetime="{iso}">{when.day} {when:%B %Y, %H:%M} UTC</time>'


def _raised(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _power(log10_p: float) -> str:
    """A p-value for people: .012, or 7.0 x 10 to a power in raised digits."""
    if log10_p > -3:
        return f"{10**log10_p:.3f}"
    exponent = math.floor(log10_p + 0.02)  # 9.95 and more is written as 1.0 of the next power
    return f"{max(1.0, 10 ** (log10_p - exponent)):.1f}\u00a0×\u00a0{_raised(exponent)}"


def _large(log10: float) -> str:
    """A large number for people, rounded down to one digit: in words, or as a power of ten."""
    digits = math.floor(log10 + 1e-9)
    if digits > 18:
        return _raised(digits)
    first = math.floor(10 ** (log10 - digits) + 1e-9)
    if digits < 6:
        return f"{first * 10**digits:,}".replace(",", "\u00a0")
    names = {
        0: "million",
        1: "thousand million",
        2: "million million",
        3: "thousand million million",
    }
    names[4] = "million million million"
    return f"{first * 10 ** (digits % 3)}\u00a0{names[digits // 3 - 2]}"


def _dated(verdict: Verdict) -> str:
    stamp = verdict.claim.stamp_read
    if stamp is None:
        return "no time stamp: the date is what the owner says"
    return (
        f"time stamp of {verdict.claim_stamped} by {stamp.authority}; recheck --tsa-roots checks it"
    )


def _support(log10_ratio: float) -> str:
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


def _likelihood(log10_ratio: float) -> str:
    """In figures and in words."""
    if log10_ratio < 0:
        return f"{10**log10_ratio:.2g}: slightly more likely without the mark than with it"
    figure = f"{10**log10_ratio:.3g}" if log10_ratio < 4 else f"10 to the power {log10_ratio:.1f}"
    return f"{figure}: {_support(log10_ratio)} for the owner's hypothesis against the defence's"


def _queries(verdict: Verdict) -> str:
    trial = verdict.measured.trial
    if trial is None:
        asked = len(verdict.measured.inputs)
        return f"{asked} asked, none declared before" if asked else "none: pictures were given"
    both = "both parties' nonces" if trial.accused_nonce else "the owner's nonce alone"
    return (
        f"{trial.queries} of {len(trial.inputs)} inputs, declared on {trial.created},"
        f" chosen by {both}"
    )


def _extractor(claim: Claim) -> str:
    now = extractor_sha256()
    return f"{now}, the claim's" if now == claim.extractor_sha256 else f"{now}, not the claim's"


def _first_of(count: int) -> str:
    return (
        "" if count <= _MOST_ROWS else f": the first {_MOST_ROWS} of {count}; all are in the bundle"
    )


def _table(rows: Sequence[Sequence[str]], caption: str, head: Sequence[str] | None = None) -> str:
    """A table with row headers; it scrolls by itself where the page is narrow."""
    text = _escape(caption)
    out = [
        f'<div class="scroll" role="region" aria-label="{text}" tabindex="0">'
        f"<table><caption>{text}</caption>"
    ]
    if head:
        cells = "".join(f'<th scope="col">{_escape(h)}</th>' for h in head)
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td{_long(cell)}>{_escape(cell)}</td>" for cell in rest)
        out.append(f'<tr><th scope="row"{_long(first)}>{_escape(first)}</th>{cells}</tr>')
    out.append("</tbody></table></div>")
    return "".join(out)


def _long(text: str) -> str:
    """Hashes and paths may be broken anywhere; words and figures may not."""
    return ' class="long"' if any(len(word) > 24 for word in text.split()) else ""


def _figure(svg: str, alt: str, text: str, table: str = "") -> str:
    """A plot that says in words what it shows; its numbers are folded away beneath it."""
    if not svg:
        return f"<p>{_escape(text)}</p>{table}"
    numbers = f"<details><summary>The numbers</summary>{table}</details>" if table else ""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{_escape(alt)}"', 1)
    return f"<figure>{svg}<figcaption>{_escape(text)}</figcaption></figure>{numbers}"
