"""The demonstration runs from end to end; trained for three steps it must not claim success."""

from __future__ import annotations

from pathlib import Path

import pytest

from birthmark import demo, model_calibration
from birthmark.bundle import recheck
from birthmark.calibration import Calibration
from conftest import some_photographs


def test_runs_whole_and_does_not_convict_a_thief_who_learned_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    models_folder: Path,
    calibration: Calibration,
) -> None:
    photos = some_photographs(tmp_path / "photos", 4, 3)
    monkeypatch.chdir(models_folder.parent)
    # To calibrate and to draw a mark is tested in test_model_calibration; here it is the same one.
    monkeypatch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
    monkeypatch.setattr(model_calibration, "DRAWS", 2)
    options = ["--photos", str(photos), "--out", str(tmp_path / "out")]
    assert demo.main([*options, "--steps", "3", "--student", "cnn"]) == 1
    out = capsys.readouterr().out
    assert out.count("NOT AS IT SHOULD BE") == 2
    assert recheck(tmp_path / "out" / "verdict.zip").summary["decision"] != "MARKED"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
