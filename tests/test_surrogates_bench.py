"""The bench of thieves: every kind of row runs, is resumed, and makes a table."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from birthmark import model_calibration
from birthmark.calibration import Calibration
from birthmark.pictures import Picture, psnr_db
from birthmark.training.students import Network
from conftest import ROOT, bench_script, some_photographs


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


def test_other_domains_are_pictures_of_texture(bench: ModuleType) -> None:
    assert len(bench.DOMAINS) >= 3
    for make in bench.DOMAINS.values():
        picture = make(np.random.default_rng(1))
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 20
        assert np.array_equal(picture, make(np.random.default_rng(1)))
        assert not np.array_equal(picture, make(np.random.default_rng(2)))


def test_damages_leave_a_picture_like_the_first(
    bench: ModuleType, eval_photos: list[Picture]
) -> None:
    photo = np.ascontiguousarray(eval_photos[0][:256, :320])
    names = ["mean of 3 x 3", "turned by 2 degrees"]
    if importlib.util.find_spec("imwatermark"):
        names.append("marked again by dwtDct")
    for name in names:
        damaged = bench.DAMAGES[name](photo)
        assert damaged.shape == photo.shape and damaged.dtype == np.uint8
        assert 15 < psnr_db(damaged, photo) < 50, name
    # Nothing that stands in for a package stays behind: others would take it for the real one.
    assert hasattr(sys.modules.get("torch"), "Tensor") or "torch" not in sys.modules


def test_students_from_ten_thousand_to_two_million_parameters(bench: ModuleType) -> None:
    for task in bench.TASKS.values():
        scale = 2 if task.student == "resnet" else 1
        for name, least, most in (
            ("10 thousand parameters", 9e3, 11e3),
            ("2 million parameters", 1.9e6, 2.1e6),
        ):
            (row,) = [row for row in bench.rows_of(task) if row.name == name]
            options = dict(row.options)
            options.pop("lr", None)  # of the training
            network = Network(options.pop("student"), scale, **options)
            weights = network.training_graph((1, 16, 16), 0).parameters.values()
            assert least < sum(weight.size for weight in weights) < most


def test_rows_have_names_of_their_own(bench: ModuleType) -> None:
    for task in bench.TASKS.values():
        names = [bench.slug(row) for row in bench.rows_of(task)]
        assert len(set(names)) == len(names) > 30


def test_a_row_of_each_kind_runs(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calibration: Calibration,
) -> None:
    # To calibrate and to draw a mark is tested in test_model_calibration; here it is the same one.
    monkeypatch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
    monkeypatch.setattr(model_calibration, "DRAWS", 2)
    photos = some_photographs(tmp_path / "photos", 6, 2)
    kinds = {
        (row.group, row.after): row
        for row in bench.rows_of(bench.TASKS["sr"])
        if row.group not in ("students", "losses", "published as JPEG", "marked share")
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
