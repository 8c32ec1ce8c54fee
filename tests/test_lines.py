"""Statistics tell lines and edges from the rest, however the picture lies."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from birthmark import _core
from birthmark.sums import OWN, sums_of, texture
from conftest import Picture


def share_on_lines(picture: Picture) -> float:
    """Of the texture's energy."""
    energy = _core.statistics(picture)[..., -1].sum(axis=1)
    return float(energy[1] / energy.sum())


def grey(values: np.ndarray) -> Picture:
    return np.repeat(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 120])
def test_stripes_are_lines_in_every_direction(degrees: float) -> None:
    y, x = np.mgrid[:120, :140]
    along = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    assert share_on_lines(grey(128 + 60 * np.sin(2 * np.pi * along / 12))) > 0.99


def test_noise_and_checks_are_none(eval_photos: list[Picture]) -> None:
    rng = np.random.default_rng(0)
    assert share_on_lines(grey(rng.normal(128, 25, (160, 160)))) < 0.25
    y, x = np.mgrid[:120, :120]
    assert share_on_lines(grey(128 + 40 * np.sin(x / 2.5) * np.sin(y / 2.5))) < 0.05
    for photo in eval_photos:
        assert 0.2 < share_on_lines(photo) < 0.95


def test_what_is_nearly_flat_is_none() -> None:
    _, x = np.mgrid[:120, :140]
    assert share_on_lines(grey(128 + np.sin(x / 2))) == 0
    assert not _core.statistics(np.full((40, 40, 3), 77, np.uint8)).any()


def test_both_parts_make_up_the_whole(eval_photos: list[Picture]) -> None:
    """The sums of all pixels alike, as the reference says them in one piece."""
    square = np.ascontiguousarray(eval_photos[0][:90, :110])
    w, tones, orbits, _ = reference.fields(square)
    together = _core.statistics(square).sum(axis=0)
    for tone in range(reference.TONES):
        here = tones == tone
        assert together[tone, -1] == np.sum(w[here] ** 2)
        assert together[tone, 0] == np.sum(w[here] * (orbits[0][here] >> 4))
    assert texture(sums_of(square)) == np.sum(w**2)
    assert np.array_equal(sums_of(square)[:OWN], _core.statistics(square))
