"""Verdict -> one HTML file for people: no script, no outside request, light, dark and print."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence

import numpy as np

from birthmark import _core
from birthmark.bundle import HYPOTHESES, NOT_SAID, PROTOCOL
from birthmark.claim import Claim, code_version
from birthmark.extract import extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.pictures import Picture, encode_png
from birthmark.verdict import DECOYS, Decision, Verdict, decoy_cosines

_STYLE = """
:root{color-scheme:light dark;--ink:#1a1d21;--soft:#5b6470;--line:#d5dae0;--paper:#fff;
--bar:#9db4cc;--mark:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a0a8b2;--line:#3a4149;
--paper:#15181b;--bar:#48617b;--mark:#ff8a80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.15rem;margin:2em 0 .4em}
.sentence{font-size:1.25rem;border-left:.35rem solid var(--mark);padding:.2rem 1rem;margin:1rem 0}
.soft,figcaption,caption{color:var(--soft)}caption{text-align:left;padding-bottom:.3rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:anywhere;min-width:7rem}
dt{font-weight:bold}dd{margin:0 0 .5rem}li{margin:.2rem 0}
figure{margin:1rem 0}svg{width:100%;height:auto}img{max-width:100%;image-rendering:auto}
.row{display:flex;flex-wrap:wrap;gap:1rem}.row figure{flex:1 1 14rem;margin:0}
.scroll{overflow-x:auto}
@media print{body{max-width:none;padding:0;font-size:10pt}h2{break-after:avoid}
figure,tr{break-inside:avoid}}
"""


def write_report(
    verdict: Verdict,
    path: StrPath,
    *,
    examples: Sequence[tuple[str, Picture]] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the report of a verdict.

    Args:
        verdict: what to report.
        path: the HTML file, written atomically.
        examples: captions and uint8 RGB pictures to show.
        notes: more rows (what, value) for the table of parameters, such as controls.

    Raises:
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    write_atomically(path, render(verdict, examples, notes).encode())


def render(
    verdict: Verdict,
    examples: Sequence[tuple[str, Picture]] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """The report as HTML text."""
    claim, tests = verdict.claim, verdict.tests
    logo = ""
    if claim.logo is not None:
        logo = f'<figure><img width="128" src="{_data_url(claim.logo)}" alt="logo claimed by'
        logo += f' {_escape(claim.owner)}"><figcaption>Logo in the claim</figcaption></figure>'
    facts = [
        ("Owner", claim.owner),
        ("Contact", claim.contact or "none given"),
        ("Model", f"{claim.model_name}, SHA-256 {claim.model_sha256}"),
        ("Claim made", f"{claim.created}; {_dated(verdict)}"),
        ("Claim digest", claim.digest.hex()),
        ("Public key", claim.public_key.hex()),
        ("Verdict given", verdict.created),
        ("Pictures judged", f"{verdict.pictures} ({verdict.mode} test)"),
        ("p-value", _power(verdict.log10_p)),
        ("Likelihood ratio", _likelihood(verdict.log10_likelihood_ratio)),
        ("Payload read", _payload(verdict)),
    ]
    if verdict.customer is not None:
        facts.insert(3, ("Customer whose mark was looked for", verdict.customer))
    three = [
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
    parameters = [
        ("p-value, corrected", _power(verdict.log10_p)),
        ("Hypotheses counted (Bonferroni)", str(verdict.tests_counted)),
        ("False-positive rate asked for", f"{verdict.false_positive_rate:g}"),
        ("The three tests agree", "yes" if tests.agree else "no: hence no verdict"),
        (
            "p-value for a reader who doubts the claim's date (2^64 keys counted)",
            _power(verdict.log10_p_if_date_doubted),
        ),
        ("Queries", _queries(verdict)),
        *(
            (f"Control: {c.name} ({c.pictures}), which must not be marked", _power(c.log10_p))
            for c in verdict.controls
        ),
        ("Code that reads marks (SHA-256)", _extractor(claim)),
        ("Calibration SHA-256 (frozen in the claim)", claim.calibration_sha256),
        ("Code version of the claim", claim.code_version),
        ("Code version of the verdict", code_version()),
        ("Arithmetic contract", str(_core.CONTRACT_VERSION)),
        *notes,
    ]
    evidence = [
        (e.name, f"{e.width_px} x {e.height_px}", _power(e.log10_p), e.sha256[:16])
        for e in verdict.evidence
    ]
    body = [
        f"<h1>Verdict: {verdict.decision}</h1>",
        f'<p class="sentence">{_sentence(verdict)}</p>',
        f'<div class="row"><div>{_table(facts, "The claim")}</div>{logo}</div>',
        "<h2>What it does not say</h2>",
        f"<p>{_escape(NOT_SAID)}</p>",
        "<h2>The two hypotheses</h2>",
        "<dl>",
        f"<dt>The owner's</dt><dd>{_escape(HYPOTHESES['prosecution'])}</dd>",
        f"<dt>The defence's</dt><dd>{_escape(HYPOTHESES['defence'])}</dd>",
        "</dl>",
        "<h2>Three tests</h2>",
        _table(
            three,
            "Each is exact when the suspect never saw the mark: the only chance in it is"
            " that of the secret key.",
            ("Test", "Result", "p"),
        ),
        _curve_figure(verdict),
        _decoy_figure(verdict),
        _example_figures(examples),
        "<h2>Parameters</h2>",
        _table(parameters, "Everything that the verdict depends on"),
        "<h2>Pictures</h2>",
        _table(evidence, "Each picture alone", ("Picture", "Size", "p alone", "SHA-256")),
    ]
    if verdict.rejected:
        rejected = _table(list(verdict.rejected), "Left out", ("Picture", "Reason"))
        body += ["<h2>Left out</h2>", rejected]
    body += [
        "<h2>How it was done</h2>",
        "<ul>" + "".join(f"<li>{_escape(sentence)}</li>" for sentence in PROTOCOL) + "</ul>",
        "<h2>How to repeat it</h2>",
        "<p><code>birthmark recheck V.zip</code> repeats from the verdict bundle, without a"
        " network, every step but those that need the secret direction;"
        " <code>--key owner.key</code> repeats these too. Compare the public key above with one"
        " that is known to be the owner's.</p>",
    ]
    title = _escape(f"{verdict.decision}: {claim.model_name}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>"
        + "\n".join(part for part in body if part)
        + "</main></body></html>\n"
    )


def _escape(text: str) -> str:
    """Text for HTML; what cannot be encoded (a file name's stray bytes) is shown as such."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _power(log10_p: float) -> str:
    """A p-value for people: .012, or 7.0 x 10 to a power in raised digits."""
    if log10_p > -3:
        return f"{10**log10_p:.3f}"
    exponent = math.floor(log10_p + 0.02)  # 9.95 and more is written as 1.0 of the next power
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{max(1.0, 10 ** (log10_p - exponent)):.1f}\u00a0×\u00a010{raised}"


def _dated(verdict: Verdict) -> str:
    stamp = verdict.claim.stamp_read
    if stamp is None:
        return "no time stamp: the date is what the owner says"
    return (
        f"time stamp of {verdict.claim_stamped} by {stamp.authority}; recheck --tsa-roots checks it"
    )


def _likelihood(log10_ratio: float) -> str:
    """In figures, and in words: the scale of ENFSI's Guideline for Evaluative Reporting, 2015."""
    if log10_ratio < 0:
        return f"{10**log10_ratio:.2g}: slightly more likely without the mark than with it"
    scale = ((6, "extremely strong"), (4, "very strong"), (3, "strong"), (2, "moderately strong"))
    words = [
        word for least, word in (*scale, (1, "moderate"), (0.3, "weak")) if log10_ratio >= least
    ]
    support = words[0] if words else "no"
    figure = f"{10**log10_ratio:.3g}" if log10_ratio < 4 else f"10 to the power {log10_ratio:.1f}"
    return f"{figure}: {support} support for the owner's hypothesis against the defence's"


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


def _payload(verdict: Verdict) -> str:
    if verdict.payload is None:
        return "none that could be trusted"
    same = "the claim's" if verdict.payload_is_claimed else "not the claim's"
    return f"{verdict.payload} ({same})"


def _sentence(verdict: Verdict) -> str:
    owner, model = _escape(verdict.claim.owner), _escape(verdict.claim.model_name)
    if verdict.decision is Decision.MARKED:
        odds = f"10<sup>{-verdict.log10_p:.0f}</sup>"
        return (
            f"These pictures carry the mark that {owner} puts on the outputs of {model}."
            f" Had their maker never seen such outputs, chance would do this once in {odds} cases."
        )
    if verdict.decision is Decision.UNMARKED:
        return f"No trace of the mark of {owner} ({model}) was found in these pictures."
    return (
        f"These pictures do not decide whether their maker saw marked outputs of {model}"
        f" ({owner}). That is not the same as finding no mark."
    )


def _table(rows: Sequence[Sequence[str]], caption: str, head: Sequence[str] | None = None) -> str:
    out = [f'<div class="scroll"><table><caption>{_escape(caption)}</caption>']
    if head:
        cells = "".join(f'<th scope="col">{_escape(h)}</th>' for h in head)
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{_escape(cell)}</td>" for cell in rest)
        out.append(f'<tr><th scope="row">{_escape(first)}</th>{cells}</tr>')
    out.append("</tbody></table></div>")
    return "".join(out)


def _figure(svg: str, text: str) -> str:
    alt = _escape(text)
    frame = f'<svg viewBox="0 0 640 240" role="img" aria-label="{alt}">{svg}</svg>'
    return f"<figure>{frame}<figcaption>{alt}</figcaption></figure>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="currentColor"'
        f' text-anchor="{anchor}">{_escape(text)}</text>'
    )


def _curve_figure(verdict: Verdict) -> str:
    """Blind log10 p against the number of pictures."""
    if len(verdict.curve) < 2:
        return ""
    lowest = min(-1.0, *(p for _, p in verdict.curve))
    last = math.log2(verdict.curve[-1][0])

    def place(count: int, p: float) -> tuple[float, float]:
        return 60 + 540 * math.log2(count) / last, 20 + 180 * p / lowest

    points = [place(*point) for point in verdict.curve]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    svg = '<path d="M60 20V200H600" fill="none" stroke="var(--line)"/>'
    svg += f'<polyline points="{line}" fill="none" stroke="var(--mark)" stroke-width="2"/>'
    for (x, y), (count, _) in zip(points, verdict.curve, strict=True):
        svg += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--mark)"/>'
        svg += _text(x, 216, str(count), "middle")
    svg += _text(52, 24, "0", "end") + _text(52, 204, f"{lowest:.0f}", "end")
    svg += _text(330, 234, "pictures pooled", "middle")
    return "<h2>p against number of pictures</h2>" + _figure(
        svg,
        "log10 of the blind test's p-value after pooling the first 1, 2, 4 ... pictures:"
        f" {verdict.curve[-1][1]:.1f} with all {verdict.curve[-1][0]}",
    )


def _decoy_figure(verdict: Verdict) -> str:
    """Histogram of the decoys' cosines with the suspect's in it."""
    counts, edges = np.histogram(decoy_cosines(verdict.estimate), bins=60, range=(-1.0, 1.0))
    svg = '<path d="M60 200H600" stroke="var(--line)"/>'
    for count, left in zip(counts, edges[:-1], strict=True):
        height = 170 * count / max(1, counts.max())
        x = 60 + 270 * (left + 1)
        svg += f'<rect x="{x:.1f}" y="{200 - height:.1f}" width="8" height="{height:.1f}"'
        svg += ' fill="var(--bar)"/>'
    x = 60 + 270 * (verdict.tests.cosine + 1)
    svg += f'<path d="M{x:.1f} 20V200" stroke="var(--mark)" stroke-width="2"/>'
    svg += _text(x, 14, f"claimed key {verdict.tests.cosine:.2f}", "middle")
    for tick in (-1, 0, 1):
        svg += _text(60 + 270 * (tick + 1), 216, str(tick), "middle")
    svg += _text(330, 234, "cosine", "middle")
    return "<h2>What other keys would have said</h2>" + _figure(
        svg,
        f"Cosines of the same pictures with {DECOYS} other random keys (bars), and with the claimed"
        f" key (line at {verdict.tests.cosine:.2f})",
    )


def _example_figures(examples: Sequence[tuple[str, Picture]]) -> str:
    if not examples:
        return ""
    figures = "".join(
        f'<figure><img src="{_data_url(encode_png(picture))}" alt="{_escape(caption)}">'
        f"<figcaption>{_escape(caption)}</figcaption></figure>"
        for caption, picture in examples
    )
    return f'<h2>Pictures of the case</h2><div class="row">{figures}</div>'
