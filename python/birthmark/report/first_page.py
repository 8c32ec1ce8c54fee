"""The report's first page, for a reader who is no engineer: who claims what, and the odds."""

from __future__ import annotations

import math

from birthmark.protocol import NOT_SAID
from birthmark.report.emblems import emblems
from birthmark.report.wording import data_url, dated, escape, large, raised, support, time_element
from birthmark.verdict import Decision, Verdict


def first_page(verdict: Verdict) -> str:
    """The content of the first page, HTML."""
    claim = verdict.claim
    logo = ""
    if claim.logo is not None:
        logo = (
            f'<figure><img src="{data_url(claim.logo)}" alt="Logo in the claim of'
            f' {escape(claim.owner)}"><figcaption>Logo in the claim</figcaption></figure>'
        )
    facts = [
        ("Owner", escape(claim.owner)),
        ("Model", escape(claim.model_name)),
        ("Claim made", time_element(claim.created)),
        ("Date proved", escape(dated(verdict))),
        ("Pictures judged", f"{verdict.pictures}, {_asked_how(verdict)}"),
    ]
    if verdict.customer is not None:
        facts.insert(2, ("Customer looked for", escape(verdict.customer)))
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f"<h1>Verdict: {verdict.decision}</h1>"
        f'<p class="sentence">{_sentence(verdict)}</p>'
        f"{_odds(verdict)}"
        f'<h2>The claim</h2><div class="claim"><dl class="pairs">{pairs}</dl>{logo}</div>'
        f"{emblems(verdict)}"
        f"<h2>What this does not say</h2><p>{escape(NOT_SAID)}</p>{_doubt(verdict)}"
    )


def _sentence(verdict: Verdict) -> str:
    owner, model = escape(verdict.claim.owner), escape(verdict.claim.model_name)
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
    chance = f"1 in {large(-log10_p)}"
    if log10_p < -6:
        chance += f"&nbsp;({raised(math.floor(-log10_p + 1e-9))})" if log10_p > -19 else ""
    if log10_p > -1:
        chance, why = f"{100 * 10**log10_p:.0f} in 100", "this is what chance alone gives, too"
    else:
        why = "so often would chance alone give as much, had their maker never seen marked outputs"
    heads = math.floor(-log10_p / math.log10(2))
    coin = f"heads {heads} times in a row" if heads >= 5 else "an everyday event"
    items = [
        (chance, why),
        (coin, "a fair coin does that as rarely" if heads >= 5 else "nothing to be surprised at"),
        (
            support(verdict.log10_likelihood_ratio),
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
    rest = f"at most 1 in {large(-doubted)}" if doubted < 0 else "nothing: chance could do as much"
    return (
        "<p>The claim has no time stamp, so its date is what the owner says. Who thinks that it"
        " was made after the pictures must allow for a search through 2<sup>64</sup> keys. What"
        f" is left then is <strong>{rest}</strong>.</p>"
    )


def _asked_how(verdict: Verdict) -> str:
    if verdict.mode == "informed":
        return "answers of the suspect, compared with the owner's model"
    return "answers of the suspect" if verdict.measured.inputs else "as they were found"
