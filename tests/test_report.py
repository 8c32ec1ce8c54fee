"""The report: well-formed, self-contained, safe against hostile names, and fit for a browser."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import json
import os
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from birthmark.claim import Claim
from birthmark.geometry import Geometry
from birthmark.mark import coordinates
from birthmark.measure import Measured
from birthmark.report import chip_agreement, render, write_report
from birthmark.report.chance import UNUSED_KEYS, kolmogorov_p, null_log10_p
from birthmark.report.examples import amplified_difference
from birthmark.report.wording import power
from birthmark.tails import log10_p_of_both, log10_p_of_cosine
from birthmark.verdict import Decision, Verdict, verify

CHROMIUM = Path("/usr/bin/chromium")
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Fails on a tag that is closed in the wrong place; collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)

    def note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [v or "" for k, v in attrs if k == "id"]
        names = ("src", "href", "xlink:href", "data", "srcset")
        self.fetched += [v or "" for k, v in attrs if k in names]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Checker:
    """A report's tags and addresses, after checking that it is whole and asks for nothing."""
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags
    outside = [u for u in checker.fetched if not u.startswith(("#", "data:image/png;base64,"))]
    assert outside == []
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert len(checker.ids) == len(set(checker.ids))
    inside = {u[1:] for u in checker.fetched if u.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert inside <= set(checker.ids), "a link leads nowhere"
    return checker


def test_is_one_well_formed_file(verdict: Verdict, mark_key, tmp_path: Path) -> None:
    picture = np.full((16, 16, 3), 7, np.uint8)
    write_report(verdict, tmp_path / "r.html", key=mark_key, examples=[("host", picture)])
    text = (tmp_path / "r.html").read_text()
    checker = checked(text)
    assert checker.tags.count("svg") == 6
    assert checker.tags.count("caption") >= 8
    assert len(text) < 3_000_000


def test_first_page_speaks_plainly(verdict: Verdict) -> None:
    text = render(verdict)
    first = text[: text.index("For the expert")]
    assert "carry the mark that Owner puts on the outputs of espcn_x2" in first
    assert "1 in " in first and "a fair coin does that as rarely" in first
    assert "time stamp" in first and "2<sup>64</sup> keys" in first
    for jargon in ("cosine", "SHA-256", "Bonferroni", "log10"):
        assert jargon not in first


def test_undecided_is_not_called_absent(verdict: Verdict) -> None:
    text = render(dataclasses.replace(verdict, decision=Decision.UNDECIDED))
    assert "not the same as finding no mark" in text
    assert "No trace" not in text and "carry the mark that" not in text


def test_unmarked_claims_no_odds(session_claim, published) -> None:
    key, claim, _ = session_claim
    unmarked = verify(published.plain, claim, key)
    assert unmarked.decision is Decision.UNMARKED
    text = render(unmarked, key=claim.mark_key(key))
    assert "No trace of the mark" in text and "an everyday event" in text
    assert "no support" in text or "weak support" in text
    checked(text)


def test_chips_are_the_tests_own(verdict: Verdict, mark_key, other_claim) -> None:
    agreement = chip_agreement(verdict.estimate, mark_key, verdict.claim)
    assert agreement.mean() == pytest.approx(verdict.tests.cosine)
    assert (agreement**2).mean() == pytest.approx(1)
    assert int((agreement > 0).sum()) == verdict.tests.chips_matched
    stranger, theirs = other_claim
    of_stranger = chip_agreement(verdict.estimate, theirs.mark_key(stranger), theirs)
    assert abs(of_stranger.mean()) < 0.5 < agreement.mean()
    text = render(verdict, key=mark_key)
    assert f"{verdict.tests.chips_matched} of {verdict.tests.coordinates} chips" in text


def test_holds_no_secret(verdict: Verdict, session_claim, mark_key) -> None:
    key, claim, _ = session_claim
    text = render(verdict, key=mark_key)
    direction = coordinates(mark_key, claim, verdict.tests.coordinates)
    for secret in (key._secret, claim.claim_key(key)._secret, mark_key._secret):
        assert secret.hex() not in text
    assert f"{direction[0]:.2f}, {direction[1]:.2f}" not in text


def test_a_customer_s_chips_are_read_with_his_key(session_claim, published, mark_key) -> None:
    key, claim, _ = session_claim
    verdict = verify(published.marked, claim, key, customer="Lyon")
    text = render(verdict, key=mark_key)
    assert f"{verdict.tests.chips_matched} of {verdict.tests.coordinates} chips" in text
    assert "Lyon" in text[: text.index("For the expert")]


def test_repeats_by_the_bundle_s_own_name(verdict: Verdict) -> None:
    text = html.unescape(render(verdict, bundle=Path("/secret place/my case.zip")))
    assert "<code>birthmark recheck 'my case.zip'</code>" in text
    assert "secret place" not in text
    assert "birthmark recheck V.zip" in render(verdict)


def test_counts_what_was_searched(verdict: Verdict) -> None:
    measured = dataclasses.replace(verdict.measured, geometry=Geometry(1.5, -3.0, 120))
    claim = dataclasses.replace(verdict.claim, draws=32)
    text = render(dataclasses.replace(verdict, measured=measured, tests_counted=360, claim=claim))
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', text))
    assert rows["Scales and angles tried"] == "120"
    assert rows["Tests of this suspect in all, as stated"] == "3"
    assert rows["Marks among which the owner drew"] == "32"
    assert rows["Hypotheses counted: the product"] == "11520"
    assert rows["Scale that was undone"] == "1.5"


def test_unused_keys_find_what_chance_foretells(verdict: Verdict) -> None:
    log10_p = null_log10_p([verdict.estimate])
    assert len(log10_p) == UNUSED_KEYS >= 10_000
    assert (np.diff(log10_p) >= 0).all()
    exact = stats.kstest(10.0**log10_p, "uniform").pvalue
    assert kolmogorov_p(10.0**log10_p) == pytest.approx(exact, rel=0.02)
    assert exact > 0.001
    assert verdict.tests.log10_p_cosine < log10_p[0]
    # The straight lines between the exact places are right.
    cosine = float(np.cos(1.4))
    n = len(verdict.estimate)
    p = stats.beta.sf((cosine + 1) / 2, (n - 1) / 2, (n - 1) / 2)
    assert log10_p_of_cosine(cosine, n) == pytest.approx(np.log10(p))
    text = html.unescape(render(verdict))
    assert f"p\u00a0=\u00a0{kolmogorov_p(10.0**log10_p):.2f}" in text
    below = int((log10_p < -2).sum())
    assert f'<th scope="row">0.010</th><td>{below}</td><td>200 (173 to 227)</td>' in text


def test_what_echo_and_tint_say_together(session_claim, published, sr_model) -> None:
    """p before and after, and the unused keys, are of both parts, as the verdict is."""
    key, claim, _ = session_claim
    verdict = verify(
        None, claim, key, suspect=published.answer, inputs=published.inputs, model=sr_model
    )
    assert verdict.tint_tests is not None and verdict.tint_estimate is not None
    both = log10_p_of_both(verdict.tests.log10_p_cosine, verdict.tint_tests.log10_p_cosine)
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', render(verdict)))
    assert rows["p before"] == power(both)
    assert rows["p after (Bonferroni)"] == power(verdict.log10_p)
    together = null_log10_p([verdict.estimate, verdict.tint_estimate])
    assert (np.diff(together) >= 0).all() and together[-1] <= 0
    assert stats.kstest(10.0**together, "uniform").pvalue > 0.001
    alone = [null_log10_p([part]) for part in (verdict.estimate, verdict.tint_estimate)]
    assert all(abs(together - part).max() > 0.1 for part in alone)


@pytest.mark.parametrize("mode", ["blind", "informed"])
def test_innocent_suspects_find_what_chance_foretells(mode: str) -> None:
    """What bench/nulls.py measured and the package holds: enough of it, and uniform."""
    data = json.loads((resources.files("birthmark") / "data" / "nulls.json").read_text())
    found, count = data[mode], data[mode]["nulls"]
    assert count >= 100_000 and found["kolmogorov_p"] > 0.01
    for rate, below in found["below"]:
        low, high = stats.binom.ppf([0.005, 0.995], count, rate)
        assert low <= below <= high
    of_chance, of_suspects = np.array(found["quantiles"]).T
    assert (np.diff(of_chance) > 0).all() and (np.diff(of_suspects) >= 0).all()
    for rate, below in found["below"]:
        near = 10 ** np.interp(np.log10(rate), of_suspects, of_chance)
        assert near * count == pytest.approx(below, rel=0.25)


@given(st.floats(0.0, 1.0), st.integers(1, 9))
def test_values_that_are_not_uniform_are_seen(start: float, power: int) -> None:
    ranks = (np.arange(20_000) + 0.5) / 20_000
    assert kolmogorov_p(ranks) == 1.0
    if power > 1:
        assert kolmogorov_p(ranks**power) < 1e-9
    if start > 0.05:
        assert kolmogorov_p(start + (1 - start) * ranks) < 1e-9


def test_differences_are_shown_twenty_times() -> None:
    own = np.array([[[100, 100, 100], [0, 255, 9]]], np.uint8)
    answer = np.array([[[101, 98, 100], [255, 0, 9]]], np.uint8)
    shown = amplified_difference(answer, own)
    assert shown.tolist() == [[[148, 88, 128], [255, 0, 128]]]


def test_informed_report_shows_its_controls(session_claim, published, sr_model) -> None:
    key, claim, _ = session_claim
    verdict = verify(
        None, claim, key, suspect=published.answer, inputs=published.inputs, model=sr_model
    )
    assert isinstance(verdict.measured, Measured)
    text = render(verdict, key=claim.mark_key(key))
    assert len(verdict.controls) == 2
    for control in verdict.controls:
        assert f'<th scope="row">{html.escape(control.name)}</th>' in text


def test_stays_small_however_much_there_is(verdict: Verdict, mark_key, rng) -> None:
    many = tuple(
        dataclasses.replace(verdict.evidence[0], name=f"folder/suspect {i}.png", log10_p=-i % 7)
        for i in range(50_000)
    )
    left = tuple((f"broken {i}.png", "corrupt picture") for i in range(50_000))
    noise = rng.integers(0, 256, (1500, 1500, 3), np.uint8)
    text = render(
        dataclasses.replace(verdict, evidence=many, rejected=left),
        key=mark_key,
        examples=[(f"noise {i}", noise) for i in range(40)],
    )
    checked(text)
    assert len(text.encode()) < 3_000_000
    assert "the first 1000 of 50000" in text


def test_without_matplotlib_it_says_so_once(
    verdict: Verdict, mark_key, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    text = render(verdict, key=mark_key)
    checker = checked(text)
    assert "svg" not in checker.tags
    assert html.unescape(text).count("pip install 'birthmark[report]'") == 1
    assert "p of the blind test after pooling" in text and "best first" in text


def test_hostile_names_are_text(session_claim, published, models_folder) -> None:
    key, _claim, calibration = session_claim
    evil = '<script>alert("x")</script>'
    hostile = Claim.create(key, evil, models_folder / "espcn_x2.onnx", calibration.to_bytes())
    verdict = verify(published.plain, hostile, key)
    first = dataclasses.replace(verdict.evidence[0], name=f"{evil}\udcff.png")
    verdict = dataclasses.replace(verdict, evidence=(first, *verdict.evidence[1:]))
    checked(render(verdict, bundle="<script>x.zip", examples=[(evil, published.plain[0])]))


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
    assert power(log10_p).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("log10", "text"),
    [
        (0.0, "1"),
        (3.5, "3 000"),
        (6.0, "1 million"),
        (11.74, "500 thousand million"),
        (16.2, "10 thousand million million"),
        (18.5, "3 million million million"),
        (19.9, "10¹⁹"),
        (123.4, "10¹²³"),
    ],
)
def test_large_numbers_are_written_for_people(log10: float, text: str) -> None:
    from birthmark.report.wording import large

    assert large(log10).replace("\u00a0", " ") == text


@given(st.floats(0, 18.9))
def test_large_numbers_never_overstate(log10: float) -> None:
    from birthmark.report.wording import large

    words = large(log10).replace("\u00a0", " ").split(" ")
    number = int("".join(w for w in words if w.isdigit()))
    for word in words:
        number *= {"thousand": 10**3, "million": 10**6}.get(word, 1)
    assert number <= 10 ** (log10 + 1e-6) < 2.001 * number


def test_says_how_it_was_done_and_what_it_does_not_say(verdict: Verdict) -> None:
    from birthmark.protocol import HYPOTHESES, NOT_SAID, PROTOCOL

    text = html.unescape(render(verdict))
    for sentence in (NOT_SAID, *HYPOTHESES.values(), *PROTOCOL):
        assert sentence in text
    assert verdict.claim.public_key.hex() in text
    assert verdict.created in text


@pytest.fixture(scope="module")
def page(verdict: Verdict, mark_key, published, tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("report") / "r.html"
    examples = [("host", published.plain[0]), (f"folder/{'x' * 90}.png", published.marked[0])]
    write_report(verdict, path, key=mark_key, bundle="case.zip", examples=examples)
    return path


def axe_core() -> Path | None:
    """axe-core's script, where npm has installed it: below the root, or where NODE_PATH says."""
    roots = [Path(__file__).parents[1] / "node_modules"]
    roots += [Path(p) for p in os.environ.get("NODE_PATH", "").split(os.pathsep) if p]
    found = (root / "axe-core" / "axe.min.js" for root in roots)
    return next((path for path in found if path.exists()), None)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_real_browser(page: Path, width: int, scheme: Any, tmp_path: Path) -> None:
    """No error, no outside request, no wider than the screen; pictures and plots are there."""
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri(), timeout=120_000)
        assert tab.get_by_role("heading", level=1).inner_text() == "Verdict: MARKED"
        for landmark in ("banner", "main", "navigation", "contentinfo"):
            assert tab.get_by_role(landmark).count() == 1, landmark
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        sizes = tab.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
        assert len(sizes) == 8 and all(side > 0 and alt for side, alt in sizes)
        plots = tab.locator("svg[role=img]")
        assert plots.count() == 6
        for plot in plots.all():
            box = plot.bounding_box()
            assert box and 200 < box["width"] <= width and box["height"] > 100
            assert plot.get_attribute("aria-label")
        ink = tab.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert ink == tab.evaluate("getComputedStyle(document.body).color")
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.className") == "skip"
        summary = tab.get_by_text("The numbers").first
        summary.focus()
        tab.keyboard.press("Enter")
        assert tab.get_by_role("table", name="p of the blind test").is_visible()
        tab.screenshot(path=tmp_path / "r.png", full_page=True)
        browser.close()
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
def test_prints_its_first_page_on_one_sheet(page: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        # What A4 leaves within its margins, at 96 dots an inch.
        tab = browser.new_page(viewport={"width": 680, "height": 1001}, color_scheme="dark")
        tab.goto(page.as_uri(), timeout=120_000)
        tab.emulate_media(media="print", color_scheme="dark")
        bottom = tab.evaluate("document.querySelector('.first').getBoundingClientRect().bottom")
        assert 300 < bottom <= 1001
        assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        browser.close()


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
@pytest.mark.skipif(axe_core() is None, reason="no axe-core (npm install axe-core) here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Path, scheme: Any) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(page.as_uri(), timeout=120_000)
        tab.add_script_tag(path=str(axe_core()))
        found = tab.evaluate("axe.run().then(r => r.violations)")
        browser.close()
    assert found == [], json.dumps([(v["id"], v["help"]) for v in found])
