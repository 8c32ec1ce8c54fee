"""Calibrating on a model and claiming it: which inputs, how much of the outputs, which mark."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birthmark import Embedder, model_calibration, provision, verify
from birthmark.calibration import Calibration
from birthmark.errors import InvalidClaim, InvalidPicture
from birthmark.keys import OwnerKey
from birthmark.model_calibration import (
    MOST_INPUTS,
    calibrate_model,
    calibration_inputs,
    claim_model,
)
from birthmark.models import ImageModel, as_planes
from birthmark.pictures import write_png
from birthmark.resources import calibration_photographs
from conftest import Published


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
        lambda outputs, tint_levels, progress: kept.extend(y.shape for y in outputs),
    )
    write_png(tmp_path / "file.png", np.zeros((20, 700, 3), np.uint8))
    calibrate_model(sr_model, [tmp_path / "file.png", np.zeros((500, 30, 3), np.uint8)])
    assert kept == [(3, 40, 960), (3, 960, 60)]


def test_the_mark_that_reads_best_is_kept_and_all_are_counted(
    sr_model: ImageModel,
    models_folder: Path,
    calibration: Calibration,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
    key = OwnerKey.generate()
    model = models_folder / "espcn_x2.onnx"
    inputs = published.inputs[:2]
    found: list[float] = []
    legibility = model_calibration._legibility

    def noted(*given: Any) -> float:
        found.append(legibility(*given))
        return found[-1]

    monkeypatch.setattr(model_calibration, "_legibility", noted)
    claim = claim_model(key, "Ada", sr_model, model, inputs, draws=3, contact="here")
    assert (claim.owner, claim.contact, claim.draws) == ("Ada", "here", 3)
    assert len(set(found)) == 3 and claim.draw == 1 + int(np.argmin(found))
    embedder = Embedder(provision(key, claim))
    verdict = verify([embedder.embed(y) for y in map(sr_model.output, inputs)], claim, key)
    expected = min(0.0, verdict.tests.log10_p_cosine + math.log10(3))
    assert verdict.log10_p == pytest.approx(expected)
    with pytest.raises(InvalidClaim, match="at least one"):
        claim_model(key, "Ada", sr_model, model, inputs, draws=0)


def test_planes_are_what_a_model_is_given() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    planes = as_planes(picture)
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    assert np.array_equal(planes[0, 1], picture[:, :, 1].astype(np.float32) / 255)


def test_the_emblem_of_a_same_size_model_is_smaller(
    calibration: Calibration, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_calibration, "_outputs", lambda model, inputs: [])
    monkeypatch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
    monkeypatch.setattr(model_calibration, "squares", lambda outputs: [])
    monkeypatch.setattr(model_calibration, "_legibility", lambda *_: 0.0)
    key = OwnerKey.generate()
    for name, rows in (("espcn_x2.onnx", 8), ("denoise_small.onnx", 4)):
        path = models_folder / name
        model = ImageModel(path, threads=1)
        claim = model_calibration.claim_model(key, "A", model, path, [], draws=1)
        assert len(claim.emblem) == rows
        asked = model_calibration.claim_model(key, "A", model, path, [], draws=1, emblem_rows=12)
        assert len(asked.emblem) == 12
