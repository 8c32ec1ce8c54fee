"""The report: well-formed, self-contained, and safe against hostile names."""

from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from birthmark.claim import Claim
from birthmark.report import render, write_report
from birthmark.verdict import Verdict, verify

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Fails on a tag that is closed in the wrong place; collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def verdict(session_claim, published) -> Verdict:
    key, claim, _ = session_claim
    return verify(published.marked, claim, key)


def test_is_one_well_formed_file(verdict: Verdict, tmp_path: Path) -> None:
    picture = np.full((16, 16, 3), 7, np.uint8)
    write_report(verdict, tmp_path / "r.html", examples=[("host", picture)])
    text = (tmp_path / "r.html").read_text()
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags
    assert all(url.startswith("data:image/png") for url in checker.fetched)
    assert not re.search(r"https?://|url\(|@import", text)
    assert checker.tags.count("svg") == 2
    assert checker.tags.count("caption") >= 4
    assert len(text) < 3_000_000


def test_first_screen_speaks_plainly(verdict: Verdict) -> None:
    text = render(verdict)
    assert "carry the mark that Owner puts on the outputs of espcn_x2" in text
    assert "once in 10<sup>" in text


def test_undecided_is_not_called_absent(verdict: Verdict) -> None:
    from birthmark.verdict import Decision

    text = render(dataclasses.replace(verdict, decision=Decision.UNDECIDED))
    assert "not the same as finding no mark" in text
    assert "No trace" not in text


def test_hostile_names_are_text(session_claim, published, models_folder) -> None:
    key, _claim, calibration = session_claim
    evil = '<script>alert("x")</script>'
    hostile = Claim.create(key, evil, models_folder / "espcn_x2.onnx", calibration.to_bytes())
    verdict = verify(published.plain, hostile, key)
    first = dataclasses.replace(verdict.evidence[0], name=f"{evil}\udcff.png")
    verdict = dataclasses.replace(verdict, evidence=(first, *verdict.evidence[1:]))
    checker = Checker()
    checker.feed(render(verdict))
    assert "script" not in checker.tags


@pytest.mark.parametrize(
    ("log10_p", "text"),
    [
        (0.0, "1.000"),
        (-2.0, "0.010"),
        (-3.0, "1.0 × 10⁻³"),
        (-16.155, "7.0 × 10⁻¹⁷"),
        (-5.001, "1.0 × 10⁻⁵"),
        (-400.5, "3.2 × 10⁻⁴⁰¹"),
    ],
)
def test_p_values_are_written_for_people(log10_p: float, text: str) -> None:
    from birthmark.report import _power

    assert _power(log10_p).replace("\u00a0", " ") == text


def test_says_how_it_was_done_and_what_it_does_not_say(verdict: Verdict) -> None:
    from birthmark.bundle import HYPOTHESES, NOT_SAID, PROTOCOL

    text = html.unescape(render(verdict))
    for sentence in (NOT_SAID, *HYPOTHESES.values(), *PROTOCOL):
        assert sentence in text
    assert verdict.claim.public_key.hex() in text
    assert verdict.created in text
