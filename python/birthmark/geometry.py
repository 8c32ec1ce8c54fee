"""How a suspect's pictures lie to what the model publishes: their scale and a small rotation.

The mark turns and mirrors with a picture exactly, and does not mind where it is cut; but its echoes
lie whole pixels apart, so pictures that were rescaled or turned by a few degrees have to be brought
back before it can be read. :func:`find_geometry` tries scales and angles, coarsely on a few squares
and finely around the best, and counts every try: a verdict's p-value is multiplied by their number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import Claim
from birthmark.errors import CouldNotJudge
from birthmark.extract import log10_p_of_sums
from birthmark.keys import OwnerKey
from birthmark.mark import coordinates
from birthmark.pictures import Picture, check_picture, turned_and_rescaled
from birthmark.sums import sums_of, total_of

SMALLEST_SCALE, LARGEST_SCALE = 0.5, 2.0
MOST_DEGREES = 12.0
# An echo ten pixels away is missed by less than a third of a pixel half-way between two tries.
_SCALE_STEP = 1.06
_DEGREES_STEP = 3.0
_FINEST = 8  # parts of a coarse step
LOOKED_AT = 6  # pictures
_SQUARE_PX = 320  # as the model published them
_KEPT = 4

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Geometry:
    """What was done to pictures after they were made, as far as it can be undone.

    Attributes:
        scale: how many times as large they are as they were.
        degrees: how far they were turned, counter-clockwise.
        tried: how many geometries were tried before this one was taken; hypotheses to count.
    """

    scale: float = 1.0
    degrees: float = 0.0
    tried: int = 1

    def undone(self, picture: Picture) -> Picture:
        """The picture brought back: uint8 [h, w, 3] of other sides.

        Of a turned picture the middle rectangle is kept that needs nothing from outside.

        Raises:
            InvalidArray: not a picture.
            CouldNotJudge: nothing would be left of it.
        """
        check_picture(picture)
        if self.scale == 1.0 and self.degrees == 0.0:
            return picture
        return _resampled(picture, 1 / self.scale, -self.degrees)


def find_geometry(
    pictures: Sequence[Picture],
    claim: Claim,
    key: OwnerKey,
    *,
    customer: str | None = None,
    progress: Progress | None = None,
) -> Geometry:
    """The scale (.5 to 2) and rotation (12 degrees either way) at which the mark is read best.

    The result goes into :func:`birthmark.verify`, which counts what was tried here. Mirroring and
    quarter turns need no search.

    Args:
        pictures: the suspect's, uint8 RGB [h, w, 3], all of one geometry; the middle of six
            of them is looked at.
        claim: the owner's claim.
        key: the owner's key that signed it.
        customer: whose mark to look for; the claim's own by default.
        progress: called as (done, total, message).

    Raises:
        InvalidArray: something is not a picture.
        InvalidClaim: the claim is not whole, or not this key's.
        InvalidCustomer: the customer's name cannot be one.
        CouldNotJudge: there is no picture, or no texture in them.
    """
    calibration = Calibration.from_bytes(claim.calibration)
    n = calibration.coordinates
    mark_key = claim.mark_key(key, customer)
    direction = coordinates(mark_key, claim, n) / math.sqrt(n)
    some = _spread(pictures)
    report = progress or (lambda done, total, message: None)

    steps = round(math.log(LARGEST_SCALE / SMALLEST_SCALE) / 2 / math.log(_SCALE_STEP))
    turns = round(MOST_DEGREES / _DEGREES_STEP)
    coarse = [
        (_SCALE_STEP**i, _DEGREES_STEP * j)
        for i in range(-steps, steps + 1)
        for j in range(-turns, turns + 1)
    ]
    rounds = int(math.log2(_FINEST))
    total = len(coarse) + _KEPT * 8 * rounds
    found: dict[tuple[float, float], float] = {}

    def look(candidates: Sequence[tuple[float, float]]) -> None:
        for scale, degrees in candidates:
            if (scale, degrees) not in found:
                report(min(len(found), total), total, "looking for scale and rotation")
                found[scale, degrees] = _read(some, scale, degrees, calibration, direction)

    look(coarse)
    for i in range(1, rounds + 1):
        best = sorted(found, key=lambda at: found[at])[:_KEPT]
        factor, angle = _SCALE_STEP ** (0.5**i), _DEGREES_STEP * 0.5**i
        for scale, degrees in best:
            near = itertools.product((1 / factor, 1.0, factor), (-angle, 0.0, angle))
            look([(scale * f, degrees + a) for f, a in near])
    report(total, total, "looked")
    scale, degrees = min(found, key=lambda at: found[at])
    # As they are, unless something else is clearly better.
    if found[1.0, 0.0] <= found[scale, degrees] + math.log10(len(found)):
        scale, degrees = 1.0, 0.0
    return Geometry(float(scale), float(degrees), len(found))


def _spread(pictures: Sequence[Picture]) -> list[Picture]:
    """Some of the pictures, spread evenly over them."""
    if not pictures:
        raise CouldNotJudge("no picture to find a geometry in")
    for picture in pictures:
        check_picture(picture)
    return [pictures[i] for i in sorted({i * len(pictures) // LOOKED_AT for i in range(LOOKED_AT)})]


def _middle(picture: Picture, scale: float) -> Picture:
    """The middle square that was published as some 320 pixels a side."""
    rows, columns = (
        slice(max(0, side - round(_SQUARE_PX * scale)) // 2, None) for side in picture.shape[:2]
    )
    side = round(_SQUARE_PX * scale)
    return np.ascontiguousarray(picture[rows, columns][:side, :side])


def _read(
    pictures: list[Picture],
    scale: float,
    degrees: float,
    calibration: Calibration,
    direction: FloatArray,
) -> float:
    """log10 p of the pictures brought back from one geometry; 0 where nothing can be read."""
    try:
        undone = [Geometry(scale, degrees).undone(_middle(p, scale)) for p in pictures]
    except CouldNotJudge:
        return 0.0
    return log10_p_of_sums(total_of([*map(sums_of, undone)]), calibration, direction)


def _resampled(picture: Picture, factor: float, degrees: float) -> Picture:
    import cv2

    height, width = picture.shape[:2]
    inner_width, inner_height = _inner_rectangle(width, height, math.radians(abs(degrees)))
    out_width, out_height = int(inner_width * factor), int(inner_height * factor)
    if min(out_width, out_height) < 1:
        raise CouldNotJudge(f"a picture of {width} x {height} px is too small to be turned back")
    size = (out_height, out_width)
    return turned_and_rescaled(picture, size, factor, degrees, cv2.INTER_LANCZOS4)


def _inner_rectangle(width: int, height: int, radians: float) -> tuple[float, float]:
    """The largest upright rectangle of the same shape inside a turned one.

    It is the old one shrunk until its corners lie on the turned one's sides.
    """
    sine, cosine = math.sin(radians), math.cos(radians)
    ratio = max((width * cosine + height * sine) / width, (width * sine + height * cosine) / height)
    return width / ratio, height / ratio
