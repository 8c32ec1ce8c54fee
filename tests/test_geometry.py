"""Pictures that were rescaled or turned a little: found, undone, and every try counted."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from birthmark.bundle import recheck
from birthmark.embed import Embedder
from birthmark.errors import CouldNotJudge, InvalidArray, InvalidCustomer
from birthmark.geometry import Geometry, find_geometry
from birthmark.mark import provision
from birthmark.pictures import Picture
from birthmark.verdict import Decision, verify


def changed(picture: Picture, scale: float, degrees: float) -> Picture:
    """Rescaled by another library's way than what undoes it, then turned."""
    height, width = (round(side * scale) for side in picture.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(picture, (width, height), interpolation=way)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(resized, matrix, (width, height), flags=cv2.INTER_CUBIC))


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "degrees"), [(0.83, 0.0), (1.37, 4.0)])
def test_a_scale_and_an_angle_are_found_and_counted(
    scale: float, degrees: float, session_claim, published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    suspects = [changed(p, scale, degrees) for p in published.marked]
    geometry = find_geometry(suspects, claim, key)
    # Where evidence is greatest need not be quite where the pictures were made.
    assert geometry.scale == pytest.approx(scale, rel=0.06)
    assert geometry.degrees == pytest.approx(degrees, abs=3)
    assert geometry.tried > 250
    found = verify(suspects, claim, key, geometry=geometry)
    as_they_are = verify(suspects, claim, key)
    assert found.decision is Decision.MARKED
    assert found.tests_counted == geometry.tried
    corrected = found.tests.log10_p_cosine + math.log10(geometry.tried)
    assert found.log10_p == pytest.approx(corrected)
    assert as_they_are.log10_p > found.log10_p + 2
    found.save(tmp_path / "v.zip", key)
    summary = recheck(tmp_path / "v.zip", key).summary
    assert summary["geometry"]["scale"] == geometry.scale
    assert summary["tests_counted"] == geometry.tried


@pytest.mark.slow
def test_a_customer_s_mark_is_searched_with_his_key(session_claim, published) -> None:
    key, claim, _ = session_claim
    embedder = Embedder(provision(key, claim, "Acme"))
    suspects = [changed(embedder.embed(p), 1.3, 0.0) for p in published.plain]
    geometry = find_geometry(suspects, claim, key, customer="Acme")
    assert geometry.scale == pytest.approx(1.3, rel=0.06)
    verdict = verify(suspects, claim, key, customer="Acme", geometry=geometry)
    assert verdict.decision is Decision.MARKED
    with pytest.raises(InvalidCustomer):
        find_geometry(suspects, claim, key, customer="")


@pytest.mark.slow
def test_searching_convicts_nobody(session_claim, published) -> None:
    key, claim, _ = session_claim
    geometry = find_geometry(published.plain, claim, key)
    verdict = verify(published.plain, claim, key, geometry=geometry)
    assert verdict.decision is not Decision.MARKED


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0, 1.7])
@pytest.mark.parametrize("degrees", [-9.0, 0.0, 3.5])
@pytest.mark.parametrize("size", [(200, 300), (301, 190)])
def test_undoing_gives_the_picture_back(
    scale: float, degrees: float, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(rng.normal(128, 900, (*size, 3)), (0, 0), 8)
    picture = np.clip(smooth, 0, 255).astype(np.uint8)
    undone = Geometry(scale, degrees).undone(changed(picture, scale, degrees))
    top, left = ((a - b) / 2 for a, b in zip(size, undone.shape[:2], strict=True))
    matrix = np.array([[1, 0, left], [0, 1, top]], np.float64)
    expected = cv2.warpAffine(
        picture, matrix, undone.shape[1::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    middle = (slice(20, -20), slice(20, -20))
    assert np.abs(undone[middle].astype(float) - expected[middle]).mean() < 2.0


def test_what_cannot_be_searched_or_undone(session_claim) -> None:
    key, claim, _ = session_claim
    with pytest.raises(CouldNotJudge, match="no picture"):
        find_geometry([], claim, key)
    with pytest.raises(InvalidArray):
        find_geometry([np.zeros((4, 4), np.uint8)], claim, key)
    with pytest.raises(CouldNotJudge, match="too small"):
        Geometry(2.0, 5.0).undone(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ValueError, match="blind"):
        verify(None, claim, key, suspect="s", inputs=[], model="m", geometry=Geometry())
