"""The report's emblems: claimed and restored side by side, and restored from ever more pictures."""

from __future__ import annotations

from collections.abc import Collection

from birthmark import emblem, payload
from birthmark.calibration import Calibration
from birthmark.extract import read_echo
from birthmark.keys import MarkKey
from birthmark.mark import rotation
from birthmark.pictures import encode_png
from birthmark.report.wording import data_url
from birthmark.sums import texture, total_of
from birthmark.verdict import Decision, Verdict

_SIDE_PX, _SMALL_SIDE_PX = 128, 64


def emblems(verdict: Verdict) -> str:
    """The emblem of the claim beside the one in the pictures, for the first page: HTML."""
    claimed, guess = verdict.claim.emblem, verdict.payload_guess
    nc = emblem.correlation(claimed, guess)
    if verdict.decision is not Decision.MARKED:
        found, alt = "Noise: nothing could be restored", "Noise"
        said = (
            "The picture on the right is the likeliest one, but chance gives such a picture too."
            " It shows nothing."
        )
    elif verdict.payload is None:
        found, alt = "Likeliest, not certain", "The likeliest picture, which is not certain"
        wrong = max(1, round(100 * verdict.payload_doubt))
        said = (
            "The mark is there, but the small picture that it carries could not be read for certain"
            f" (chance of an error: at most about {wrong} in 100)."
        )
    elif verdict.payload_is_claimed:
        found, alt = "Restored from the pictures", "The same picture, restored from the pictures"
        said = (
            "The mark carries a small picture. The one on the right was read out of the pictures"
            " that were judged; it is the claim's."
        )
    else:
        found, alt = "Restored from the pictures", "Another picture, restored from the pictures"
        said = "The picture that was read out of the pictures that were judged is another one."
    left = _figure(claimed, "Emblem in the claim", "In the claim", _SIDE_PX)
    caption = f"{found} (agreement {nc:.2f})"
    return (
        f'<h2>The emblem</h2><div class="emblems">{left}'
        f"{_figure(guess, alt, caption, _SIDE_PX, faint=verdict.decision is not Decision.MARKED)}"
        f"<p>{said} Agreement is 1 where all cells are the same, and about 0 by chance.</p></div>"
    )


def emblems_by_count(verdict: Verdict, key: MarkKey) -> str:
    """The emblem in the first 1, 2, 4 ... pictures, read without the owner's model: HTML.

    ``key`` is that of the mark that was looked for. Not every one is trusted; the likeliest is
    shown.
    """
    figures = []
    for count, guess in likeliest_by_count(verdict, key, [n for n, _ in verdict.curve]).items():
        nc = emblem.correlation(verdict.claim.emblem, guess)
        pooled = f"{count} picture{'s' if count > 1 else ''}"
        alt = f"Likeliest emblem in {pooled}; its agreement with the claim's is {nc:.2f}"
        figures.append(_figure(guess, alt, f"{pooled}: {nc:.2f}", _SMALL_SIDE_PX))
    return (
        "<p>The likeliest emblem, trusted or not, after the first pictures were pooled, and its"
        " normalised correlation (NC) with the claim's. Read from the echo alone, without the"
        f' owner\'s model.</p><div class="emblems small">{"".join(figures)}</div>'
    )


def likeliest_by_count(verdict: Verdict, key: MarkKey, counts: Collection[int]) -> dict[int, str]:
    """The likeliest emblem in the first so many pictures, read from the echo alone.

    Args:
        verdict: on these pictures.
        key: that of the mark that was looked for.
        counts: of pictures; left out are those that there are not, and whose pictures hold no
            texture.
    """
    calibration = Calibration.from_bytes(verdict.claim.calibration)
    n = calibration.coordinates
    code = payload.payload_code((n,), len(verdict.claim.payload))
    turn, pad = rotation(key, n), payload.chip_pad(key, n)
    running, found = total_of([]), {}
    for count, picture in enumerate(verdict.measured.pool.pictures, 1):
        running += picture.sums
        if count in counts and texture(running):
            soft = turn.T @ read_echo(running, calibration)
            decoded = code.decode(payload.half_log_ratios(soft, verdict.tests.cosine), pad)
            found[count] = emblem.from_bits(decoded.bits)
    return found


def _figure(drawn: str, alt: str, caption: str, side: int, *, faint: bool = False) -> str:
    url = data_url(encode_png(emblem.picture(drawn, side)))
    kind = ' class="faint"' if faint else ""
    return (
        f'<figure{kind}><img src="{url}" alt="{alt}" width="{side}" height="{side}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
