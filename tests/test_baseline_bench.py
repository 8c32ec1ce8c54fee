"""The bench of rivals: what they put on squares, what finds it, and that every row runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.keys import OwnerKey
from birthmark.pictures import Picture, psnr_db
from conftest import bench_script, some_photographs

RMS_LEVELS = 1.5


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with bench_script("baseline") as module:
        yield module


@pytest.fixture(scope="module")
def squares(bench: ModuleType, eval_photos: list[Picture]) -> list[Picture]:
    side = bench.SIDE_PX
    return [
        np.ascontiguousarray(p[y : y + side, x : x + side])
        for p in eval_photos
        for y in range(0, p.shape[0] - side + 1, side)
        for x in range(0, p.shape[1] - side + 1, side)
    ]


def found(bench: ModuleType, mark: object, own: list[Picture], answers: list[Picture]) -> dict:
    suspect = bench.Suspect(lambda p: p, own, answers, own)
    return mark.find(suspect)  # type: ignore[attr-defined]


def test_a_pattern_is_found_where_it_was_put_and_nowhere_else(
    bench: ModuleType, squares: list[Picture]
) -> None:
    pattern = bench.Pattern(RMS_LEVELS, squares)
    marked = pattern.put(squares)
    for host, picture in zip(squares, marked, strict=True):
        assert psnr_db(host, picture) > 20 * np.log10(255 / RMS_LEVELS) - 0.5
    there = found(bench, pattern, squares, marked)
    assert there["informed_log10_p"] < -50 and there["blind_log10_p"] < -6
    assert there["learned"] == pytest.approx(1, abs=0.1)
    assert found(bench, pattern, squares, pattern.put(squares[::-1])[::-1])["blind_log10_p"] < -6
    noisy = [np.bitwise_xor(p, 1) for p in squares]
    assert found(bench, pattern, squares, noisy)["informed_log10_p"] > -3
    # Moved by half a wave of the slowest cosine, or turned, it is another pattern.
    residuals = [m.astype(int) - p for p, m in zip(squares, marked, strict=True)]
    moved = [p + np.roll(r, 16, axis=1) for p, r in zip(squares, residuals, strict=True)]
    assert found(bench, pattern, squares, moved)["informed_log10_p"] > -6
    turned = [p + np.rot90(r) for p, r in zip(squares, residuals, strict=True)]
    assert found(bench, pattern, squares, turned)["informed_log10_p"] > -6


def test_likeness_to_the_logo(bench: ModuleType, rng: np.random.Generator) -> None:
    networks = sys.modules[bench.LogoNetworks.__module__]
    logo = networks.logo(bench.SIDE_PX)
    assert networks.likeness(3 * logo + 1) == pytest.approx(1)
    assert networks.likeness(-logo) == pytest.approx(-1)
    noise = rng.standard_normal(logo.shape).astype(np.float32)
    assert abs(networks.likeness(noise)) < 0.3


def test_the_logo_is_hidden_with_the_energy_asked_for(
    bench: ModuleType, squares: list[Picture], tmp_path: Path
) -> None:
    networks = bench.LogoNetworks(bench.SIDE_PX, RMS_LEVELS)
    networks.train(squares[:4], 3, tmp_path / "logo.npz")
    grey = np.full((bench.SIDE_PX, bench.SIDE_PX, 3), 128, np.uint8)
    (marked,) = networks.mark([grey])
    error = np.mean((marked.astype(float) - grey) ** 2)
    assert error == pytest.approx(RMS_LEVELS**2 + 1 / 12, rel=0.1), "and that of rounding"
    before = networks.show([grey])[0]
    again = bench.LogoNetworks(bench.SIDE_PX, RMS_LEVELS)
    again.train(squares[:4], 3, tmp_path / "logo.npz")
    assert np.array_equal(again.show([grey])[0], before), "gone on from where it was"
    again.harden([[marked], squares[:2]], squares[2:4], 3, tmp_path / "hardened.npz")
    assert not np.array_equal(again.show([grey])[0], before)
    assert np.array_equal(again.mark([grey])[0], marked), "the embedder stays"


def test_rows_run_and_make_a_table(
    bench: ModuleType,
    session_claim: tuple[OwnerKey, Claim, Calibration],
    models_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, work = some_photographs(tmp_path / "photos", 2, 2), tmp_path / "work"
    work.mkdir()
    key, claim, _ = session_claim
    key.save(work / "owner.key", "bench")
    claim.save(work / "claim.json")
    whole, pieces = bench.THIEVES[0].name, bench.THIEVES[-1].name
    rows = [bench.Row(mark, bench.DIRECT) for mark in bench.MARKS]
    rows += [bench.Row("ours", pieces), bench.Row(bench.UNMARKED, whole)]
    monkeypatch.setattr(bench, "rows", lambda: rows)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    command = ["run", "--steps", "3", "--logo-steps", "4", "--photos", str(photos)]
    command += ["--models", str(models_folder), "--work", str(work)]
    command += ["--rows", str(tmp_path / "rows")]
    monkeypatch.setattr(sys, "argv", command)
    assert bench.main() == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == len(rows)
    direct = {row["mark"]: row for row in printed if row["thief"] == bench.DIRECT}
    means = [row["psnr_mean_db"] for row in direct.values()]
    assert max(means) - min(means) < 0.5 and min(means) > 42, "equally strong"
    assert direct["ours"]["found"]["ours"]["blind_log10_p"] < -6
    assert direct["pattern"]["found"]["pattern"]["informed_log10_p"] < -6
    control = printed[-1]["found"]
    assert set(control) == set(bench.MARKS)
    assert control["ours"]["blind_log10_p"] > -4

    assert bench.main() == 0
    assert capsys.readouterr().out == "", "finished rows are not run again"
    table = (tmp_path / "RESULTS.md").read_text()
    assert f"| {pieces} |" in table and "control" in table


def test_all_rows_have_names_of_their_own(bench: ModuleType) -> None:
    names = [bench.slug(row) for row in bench.rows()]
    assert len(set(names)) == len(names) == 3 * (len(bench.THIEVES) + 1) + 1
