"""What must not carry the mark, read as the suspect is: inputs, the owner's outputs, references."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import CouldNotJudge
from birthmark.exact_tests import corrected_log10_p
from birthmark.extract import log10_p_of_sums
from birthmark.keys import MarkKey
from birthmark.mark import coordinates
from birthmark.measure import Measured
from birthmark.regression import Regression
from birthmark.sums import total_of
from birthmark.tails import log10_p_of_cosine

# An input that is this unlikely without the mark (after counting the inputs) is not fresh; pooled
# controls this unlikely are not null.
_STALE_LOG10_P = -4.0
_CONTROL_LOG10_P = -4.0


@dataclass(frozen=True)
class Control:
    """Pictures that must not carry the mark, pooled and read as the suspect's are."""

    name: str
    pictures: int
    log10_p: float


def check_controls(
    measured: Measured, calibration: Calibration, key: MarkKey, claim: Claim
) -> tuple[Control, ...]:
    """Read what must not carry the mark, and void the test where it does.

    What the suspect is compared with (the owner's outputs, references) must not carry the mark's
    negative either: beside that an innocent suspect would seem to carry the mark.

    Raises:
        CouldNotJudge: an input is not fresh, or a control is not null; names it.
    """
    if not measured.inputs:
        return ()
    n = calibration.coordinates
    direction = coordinates(key, claim, n) / math.sqrt(n)
    for entry in measured.inputs:
        log10_p = log10_p_of_sums(entry.sums, calibration, direction)
        log10_p += math.log10(len(measured.inputs))
        if log10_p < _STALE_LOG10_P:
            raise CouldNotJudge(
                f"{entry.name}: this input carries the mark itself (p = 10^{log10_p:.1f}); what"
                " once was marked carries it through any model, so ask fresh inputs only"
            )
    pooled = total_of(entry.sums for entry in measured.inputs)
    asked = len(measured.inputs)
    controls = [Control("inputs", asked, log10_p_of_sums(pooled, calibration, direction))]
    if measured.own is not None:
        both = (log10_p_of_sums(measured.own, calibration, sign * direction) for sign in (1, -1))
        controls.append(Control("the owner's unmarked outputs", asked, _least_of(both)))
    if measured.regression is not None:
        for i in range(measured.regression.references):
            try:
                cosines = _cosines(measured.regression.of_reference(i), calibration, key, claim)
            except CouldNotJudge:
                raise CouldNotJudge(
                    f"reference {i + 1} answers as the owner's model does: it is no reference"
                ) from None
            both = (log10_p_of_cosine(sign * c, n) for c, n in cosines for sign in (1, -1))
            controls.append(Control(f"reference {i + 1}", asked, _least_of(both)))
    for control in controls:
        if control.log10_p < _CONTROL_LOG10_P:
            raise CouldNotJudge(
                f"control: {control.name}: marked, it seems (p = 10^{control.log10_p:.1f}), so"
                " nothing can be said beside it; ask other inputs, or without that reference"
            )
    return tuple(controls)


def without_references(
    measured: Measured, calibration: Calibration, key: MarkKey, claim: Claim, counted: int
) -> float | None:
    """log10 p of an informed verdict had no references been asked; None where none were.

    ``counted`` is how many hypotheses p is multiplied by.
    """
    if measured.regression is None or not measured.references:
        return None
    cosines = _cosines(measured.regression.alone(), calibration, key, claim)
    return corrected_log10_p([log10_p_of_cosine(c, n) for c, n in cosines], counted)


def _cosines(
    regression: Regression, calibration: Calibration, key: MarkKey, claim: Claim
) -> list[tuple[float, int]]:
    """Of echo and tint: the cosine of what is read with what is claimed, in how many dimensions."""
    parts = (regression.read(calibration), key), (regression.read_tint(calibration), key.tint)
    found = []
    for z, of_part in parts:
        claimed = coordinates(of_part, claim, len(z)) / math.sqrt(len(z))
        found.append((float(claimed @ z / np.linalg.norm(z)), len(z)))
    return found


def _least_of(log10_ps: Iterable[float]) -> float:
    """The least of several p-values, all counted."""
    found = list(log10_ps)
    return min(0.0, min(found) + math.log10(len(found)))
