"""The report's emblems: claimed and restored, certain or not, and noise called noise."""

from __future__ import annotations

import base64
import dataclasses
import re

import numpy as np

from birthmark import emblem
from birthmark.pictures import decode_picture
from birthmark.report import render
from birthmark.verdict import Verdict, verify


def pictures_in(text: str) -> list[tuple[str, np.ndarray]]:
    """Alternative text and pixels of each picture in a page."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"', text)
    return [(alt, decode_picture(base64.b64decode(data), alt)) for data, alt in found]


def test_shows_the_emblem_claimed_and_restored(verdict: Verdict, mark_key) -> None:
    restored = dataclasses.replace(
        verdict, payload=verdict.claim.emblem, payload_guess=verdict.claim.emblem
    )
    text = render(restored, key=mark_key)
    first = text[: text.index("For the expert")]
    (claimed, left), (found, right) = pictures_in(first)
    assert claimed == "Emblem in the claim" and "restored from the pictures" in found
    assert np.array_equal(left, right)
    assert np.array_equal(left, emblem.picture(verdict.claim.emblem, len(left)))
    assert "it is the claim's" in first and "agreement 1.00" in first
    other = dataclasses.replace(
        verdict, payload="12345678", payload_guess="12345678", payload_is_claimed=False
    )
    first = render(other)
    assert "is another one" in first and "it is the claim's" not in first
    doubted = dataclasses.replace(verdict, payload=None, payload_doubt=0.2)
    assert "at most about 20 in 100" in render(doubted)


def test_an_innocent_s_emblem_is_called_noise(session_claim, published) -> None:
    key, claim, _ = session_claim
    unmarked = verify(published.plain, claim, key)
    first = render(unmarked)[: render(unmarked).index("For the expert")]
    (_, claimed), (alt, shown) = pictures_in(first)
    assert alt == "Noise" and "Noise: nothing could be restored" in first
    assert "It shows nothing" in first and 'class="faint"' in first
    assert not np.array_equal(claimed, shown)
    assert abs(emblem.correlation(claim.emblem, unmarked.payload_guess)) < 0.6


def test_the_emblem_appears_with_the_pictures(verdict: Verdict, mark_key) -> None:
    section = re.search(r'id="restored".*?</section>', render(verdict, key=mark_key), re.S)
    assert section is not None
    shown = pictures_in(section[0])
    counts = [count for count, _ in verdict.curve]
    assert [int(re.findall(r"\d+", alt)[0]) for alt, _ in shown] == counts
    # The last is the verdict's own, where that was blind.
    assert np.array_equal(shown[-1][1], emblem.picture(verdict.payload_guess, 64))
    assert 'id="restored"' not in render(verdict)


def test_a_customer_s_emblem_is_read_with_his_key(session_claim, published, mark_key) -> None:
    """The claim's mark is none of his: what his key reads there is noise, on both pages."""
    key, claim, _ = session_claim
    verdict = verify(published.marked, claim, key, customer="Lyon")
    assert verdict.payload is None and verdict.payload_guess != claim.emblem
    section = re.search(r'id="restored".*?</section>', render(verdict, key=mark_key), re.S)
    assert section is not None
    last = pictures_in(section[0])[-1][1]
    assert np.array_equal(last, emblem.picture(verdict.payload_guess, 64))
