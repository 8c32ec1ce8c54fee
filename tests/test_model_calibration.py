"""Calibrating on a model: which inputs it is run over, and how much of its outputs is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from birthmark import model_calibration
from birthmark.errors import InvalidPicture
from birthmark.model_calibration import MOST_INPUTS, calibrate_model, calibration_inputs
from birthmark.models import ImageModel, as_planes
from birthmark.pictures import write_png
from birthmark.resources import calibration_photographs


def test_the_package_s_photographs_are_given_at_input_size(sr_model: ImageModel) -> None:
    inputs = calibration_inputs(sr_model, None)
    assert len(inputs) == len(calibration_photographs()) >= 12
    assert {max(p.shape) for p in inputs if isinstance(p, np.ndarray)} == {512 // sr_model.scale}


def test_the_owner_s_own_inputs_are_thinned_evenly(sr_model: ImageModel, tmp_path: Path) -> None:
    for i in range(MOST_INPUTS + 1):
        write_png(tmp_path / f"{i:03}.png", np.zeros((1, 1, 3), np.uint8))
    chosen = calibration_inputs(sr_model, [tmp_path])
    assert [p.name for p in chosen if isinstance(p, Path)] == [
        f"{i:03}.png" for i in range(0, MOST_INPUTS + 1, 2)
    ]
    with pytest.raises(InvalidPicture, match="nowhere"):
        calibration_inputs(sr_model, [tmp_path / "nowhere"])


def test_only_the_middle_of_a_large_output_is_kept(
    sr_model: ImageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        model_calibration,
        "calibrate",
        lambda outputs, progress: kept.extend(y.shape for y in outputs),
    )
    write_png(tmp_path / "file.png", np.zeros((20, 700, 3), np.uint8))
    calibrate_model(sr_model, [tmp_path / "file.png", np.zeros((500, 30, 3), np.uint8)])
    assert kept == [(3, 40, 960), (3, 960, 60)]


def test_planes_are_what_a_model_is_given() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    planes = as_planes(picture)
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    assert np.array_equal(planes[0, 1], picture[:, :, 1].astype(np.float32) / 255)
