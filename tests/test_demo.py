"""The demonstration runs from end to end; trained for three steps it must not claim success."""

from __future__ import annotations

from pathlib import Path

import pytest

from birthmark import demo
from birthmark.bundle import recheck


def test_runs_whole_and_does_not_convict_a_thief_who_learned_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    photos_folder: Path,
) -> None:
    monkeypatch.chdir(photos_folder.parent.parent.parent)
    assert demo.main(["--out", str(tmp_path / "out"), "--steps", "3", "--student", "cnn"]) == 1
    out = capsys.readouterr().out
    assert out.count("NOT AS IT SHOULD BE") == 2
    assert recheck(tmp_path / "out" / "verdict.zip").summary["decision"] != "MARKED"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
