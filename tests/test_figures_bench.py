"""The figures: measured of thefts that are there or are made, drawn from what was measured."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.keys import OwnerKey
from birthmark.pictures import read_picture
from conftest import ROOT, bench_script, some_photographs

PLOTS = ("learning", "pictures", "roc")


@pytest.fixture
def figures() -> Iterator[ModuleType]:
    with bench_script("figures") as module:
        yield module


def test_everything_is_measured_and_drawn(
    figures: ModuleType,
    session_claim: tuple[OwnerKey, Claim, Calibration],
    models_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = some_photographs(tmp_path / "photos", 2, 3)
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "sr").mkdir(parents=True)
    key, claim, _ = session_claim
    key.save(work / "sr/owner.key", "bench")
    claim.save(work / "sr/claim.json")
    for name, value in (("EARLIER", (2,)), ("COUNTS", (1, 4)), ("SHOWN_COUNTS", (1, 4))):
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "DRAWN", 3)
    monkeypatch.setattr(figures, "OTHER_KEYS", 40)
    shown = [file.stem for file in sorted((photos / "eval").iterdir())][:2]
    monkeypatch.setattr(figures, "PIECES", [(stem, 0.5, 0.5) for stem in shown])
    command = ["figures", "--steps", "4", "--photos", str(photos), "--work", str(work)]
    command += ["--models", str(models_folder), "--out", str(out)]
    command += ["--data", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", command)
    assert figures.main() == 0

    measured = json.loads((tmp_path / "figures.json").read_text())
    early, late, direct = measured["learning"]
    assert (early["steps"], late["steps"], direct["steps"]) == (2, 4, 0)
    assert direct["blind_log10_p"] < -6 and direct["informed_log10_p"] < -9
    for beta in ("blind_beta", "informed_beta", "tint_beta"):
        assert 0.2 < direct[beta] < 1.3
    assert abs(early["informed_beta"]) < direct["informed_beta"] / 2, "two steps teach nothing"
    curves = measured["by_pictures"]["curves"]
    assert all(len(sets) == 3 for curve in curves.values() for sets in curve.values())
    assert min(curves["marked outputs"]["4"]) < -4
    assert len(measured["by_pictures"]["other_keys"]["4"]) == 40
    assert [piece["photograph"] for piece in measured["pieces"]] == shown
    assert all(piece["psnr_db"] > 42 and piece["ssim"] > 0.98 for piece in measured["pieces"])
    side = figures.PIECE_PX
    assert read_picture(out / "marked.png").shape == (2 * side, 3 * side, 3)

    drawn = {name: (out / f"{name}.svg").read_bytes() for name in PLOTS}
    for svg in drawn.values():
        assert ET.fromstring(svg).tag.endswith("svg")
    for name in PLOTS:
        (out / f"{name}.svg").unlink()
    monkeypatch.setattr(sys, "argv", [*command, "--draw"])
    assert figures.main() == 0
    assert {name: (out / f"{name}.svg").read_bytes() for name in PLOTS} == drawn


def test_figures_shown_are_small_and_what_was_measured() -> None:
    folder = ROOT / "docs/figures"
    page = (ROOT / "docs/figures.md").read_text()
    shown = sorted(folder.iterdir())
    assert [file.name for file in shown] == [
        "learning.svg",
        "marked.png",
        "pictures.svg",
        "roc.svg",
    ]
    assert sum(file.stat().st_size for file in shown) < 1.5e6
    assert all(f"](figures/{file.name})" in page for file in shown)
