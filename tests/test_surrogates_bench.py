"""The bench of thieves: every kind of row runs, is resumed, and makes a table."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from birthmark.pictures import Picture, psnr_db
from conftest import bench_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with bench_script("surrogates") as module:
        yield module


@pytest.mark.parametrize("task", ["derain", "dehaze"])
def test_weather_changes_a_picture_and_repeats(
    bench: ModuleType, task: str, eval_photos: list[Picture]
) -> None:
    weather = bench.TASKS[task].weather
    photo = eval_photos[0]
    bad = weather(photo, np.random.default_rng(1))
    assert bad.shape == photo.shape and bad.dtype == np.uint8
    assert np.array_equal(bad, weather(photo, np.random.default_rng(1)))
    assert 10 < psnr_db(bad, photo) < 30 and bad.mean() > photo.mean()


def test_rows_have_names_of_their_own(bench: ModuleType) -> None:
    for task in bench.TASKS.values():
        names = [bench.slug(row) for row in bench.rows_of(task)]
        assert len(set(names)) == len(names) > 30


def test_a_row_of_each_kind_runs(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = tmp_path / "photos"
    for split, count in (("train", 6), ("eval", 2)):
        (photos / split).mkdir(parents=True)
        for file in sorted((ROOT / "tests/data/photos" / split).glob("*.jpg"))[:count]:
            shutil.copy(file, photos / split)
    kinds = {
        (row.group, row.after): row
        for row in bench.rows_of(bench.TASKS["sr"])
        if row.group in ("plain", "disturbed while training", "few pairs", "after the theft")
    }
    # The usual thief is where what happens after a theft begins.
    rows = [bench.rows_of(bench.TASKS["sr"])[0], *kinds.values()]
    monkeypatch.setattr(bench, "rows_of", lambda task: rows)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    command = ["run", "--steps", "4", "--photos", str(photos), "--models", str(ROOT / "models")]
    command += ["--work", str(tmp_path / "work"), "--rows", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", command)
    assert bench.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(rows)
    for line in printed:
        figures = json.loads(line)
        assert figures["pictures"] > 4
        assert figures["decision"] != "MARKED", "four steps teach nothing"
    assert len(list((tmp_path / "rows" / "sr").glob("*.json"))) == len(rows)

    assert bench.main() == 0
    assert capsys.readouterr().out == "", "finished rows are not run again"
    monkeypatch.setattr(sys, "argv", ["run", "--write"])
    assert bench.main() == 0
    table = (tmp_path / "RESULTS.md").read_text()
    assert all(f"{row.group}: {row.name}" in table for row in rows)
