"""The eight orientations of a picture, and what a suspect answers to all of them.

The mark turns with the picture, to the byte. What a network gets wrong does not: it differs from
one orientation to the next. So in the mean of the eight answers, each turned back, all of the mark
is left, and less of the errors beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from birthmark.errors import InvalidArray
from birthmark.pictures import Picture, check_picture

ORIENTATIONS = 8


def turn(picture: Picture, symmetry: int) -> Picture:
    """One of the 8 symmetries of the square: ``symmetry % 4`` quarter turns, from 4 on mirrored."""
    turned = np.rot90(picture, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


def turned_back(picture: Picture, symmetry: int) -> Picture:
    """What :func:`turn` made this of."""
    return np.rot90(picture[:, ::-1] if symmetry >= 4 else picture, -(symmetry % 4))


def in_all_orientations(suspect: Callable[[Picture], Picture]) -> Callable[[Picture], Picture]:
    """A suspect that is asked each picture in all eight orientations, and answers with the mean.

    The function returned takes and gives uint8 RGB [h, w, 3]; means are rounded to even. It raises
    InvalidArray where the answers are no pictures, or not of one size, and whatever the suspect
    raises.
    """

    def answer(picture: Picture) -> Picture:
        total = np.zeros(())
        for symmetry in range(ORIENTATIONS):
            given = suspect(np.ascontiguousarray(turn(picture, symmetry)))
            check_picture(given)
            upright = turned_back(given, symmetry)
            if symmetry and upright.shape != total.shape:
                raise InvalidArray("the answers to a picture's eight orientations differ in size")
            total = total + upright
        return np.rint(total / ORIENTATIONS).astype(np.uint8)

    return answer
