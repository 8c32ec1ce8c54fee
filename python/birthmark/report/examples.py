"""The report's pictures: some of the case, and how a suspect's answers differ from the owner's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from birthmark.pictures import Picture, encode_png
from birthmark.report.wording import data_url, escape

AMPLIFIED = 20
# So that a report stays a file that opens.
_MOST_EXAMPLES = 12
_MOST_EXAMPLE_BYTES = 1_500_000
_EXAMPLE_SIDES_PX = (512, 384, 256, 192, 128)


def amplified_difference(answer: Picture, own: Picture) -> Picture:
    """:data:`AMPLIFIED` times how two pictures of one shape differ, about a middle grey.

    A grey level brighter in ``answer`` is so many levels above 128; beyond 0..255 it is cut.
    """
    difference = answer.astype(np.int16) - own
    return np.asarray(np.clip(128 + AMPLIFIED * difference, 0, 255), np.uint8)


def pictures_of_the_case(examples: Sequence[tuple[str, Picture]]) -> str:
    """The section of the report, HTML; of large pictures, the middle."""
    if not examples:
        return ""
    taken = examples[:_MOST_EXAMPLES]
    for side in _EXAMPLE_SIDES_PX:
        urls = [data_url(encode_png(_middle(picture, side))) for _, picture in taken]
        if sum(map(len, urls)) <= _MOST_EXAMPLE_BYTES:
            break
    figures = "".join(
        f'<figure><img src="{url}" alt="{escape(caption)}" width="{min(side, p.shape[1])}"'
        f' height="{min(side, p.shape[0])}"><figcaption>{escape(caption)}</figcaption></figure>'
        for (caption, p), url in zip(taken, urls, strict=True)
    )
    return (
        f"<p>At most the middle {side} × {side} pixels of each.</p>"
        f'<div class="examples">{figures}</div>'
    )


def _middle(picture: Picture, side: int) -> Picture:
    top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + side, left : left + side])
