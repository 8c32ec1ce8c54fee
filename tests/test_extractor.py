"""The trained extractor: what it foresees on real pictures, and its recipe."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from birthmark import _core, extractor
from birthmark.calibration import Calibration, calibrate
from birthmark.damages import blurred, compressed
from birthmark.extract import extractor_sha256, read_echo
from birthmark.models import ImageModel
from birthmark.pictures import Picture
from birthmark.resources import models_folder
from birthmark.sums import OWN, sums_of, total_of
from conftest import ROOT, Published, half_size, some_photographs

RECIPE = ROOT / "models/recipes/extractor.py"


def test_the_card_names_the_file_and_the_extractors_hash_covers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = (models_folder() / extractor.FILE).read_bytes()
    assert data == (ROOT / "models" / extractor.FILE).read_bytes()
    (stated,) = re.findall(r"`([0-9a-f]{64})`", (ROOT / "models/README.md").read_text())
    assert stated == hashlib.sha256(data).hexdigest() == extractor.trained_sha256()
    plain = extractor_sha256.__wrapped__()
    monkeypatch.setattr("birthmark.extract.trained_sha256", lambda: "0" * 64)
    assert extractor_sha256.__wrapped__() != plain


@pytest.mark.parametrize("damage", [lambda p: p, compressed(60), blurred(0.7)])
def test_less_is_left_of_unmarked_pictures(
    calibration: Calibration, published: Published, damage
) -> None:
    """Photographs that neither the extractor nor the calibration saw."""
    total = total_of([sums_of(damage(picture)) for picture in published.plain])
    read = calibration.read(total)
    left = read_echo(total, calibration)
    assert np.linalg.norm(left) < 0.95 * np.linalg.norm(read)


def test_marks_are_read_better_than_without(
    calibration: Calibration, sr_model: ImageModel, published: Published
) -> None:
    """In the mean of eight marks on blurred pictures; a single one may lose."""
    outputs = [sr_model.output(x) for x in published.inputs]
    cosines = []
    for seed in range(8):
        z = np.random.default_rng(seed).standard_normal(calibration.coordinates)
        z *= np.sqrt(len(z)) / np.linalg.norm(z)
        embedder = _core.Embedder(_core.write_mark(bytes(16), calibration.gains(z)))
        total = total_of([sums_of(blurred(0.7)(embedder.embed(y))) for y in outputs])
        reads = calibration.read(total), read_echo(total, calibration)
        cosines.append([r @ z / np.linalg.norm(r) / np.linalg.norm(z) for r in reads])
    without, trained = np.mean(cosines, axis=0)
    assert trained > without + 0.01 > 0.5


def test_what_is_foreseen_does_not_depend_on_how_many_or_how_turned(
    calibration: Calibration, published: Published
) -> None:
    square = np.ascontiguousarray(published.plain[0][:256, :256])
    foreseen = extractor.foreseen(sums_of(square), calibration)
    assert foreseen.shape == (calibration.coordinates,)
    assert np.allclose(extractor.foreseen(7 * sums_of(square), calibration), foreseen)
    turned = np.ascontiguousarray(np.rot90(square)[::-1])
    assert np.array_equal(sums_of(turned), sums_of(square))


def test_fewer_coordinates_are_foreseen_too(
    sr_model: ImageModel, train_photos: list[Picture], published: Published
) -> None:
    outputs = [sr_model.output(p) for p in half_size(train_photos)[:3]]
    few = calibrate(outputs, coordinates=8)
    total = sums_of(published.plain[0])
    assert read_echo(total, few).shape == (8,)
    z = np.random.default_rng(0).standard_normal(8)
    assert np.allclose(few.of_coefficients(few.coefficients @ z), z, atol=1e-6)


def test_pictures_too_small_for_half_the_size_have_no_texture_there() -> None:
    for shape in ((1, 1, 3), (1, 40, 3), (40, 1, 3)):
        picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        assert np.array_equal(sums_of(picture)[:OWN], _core.statistics(picture))
        assert not sums_of(picture)[OWN].any()


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("extractor_recipe", RECIPE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "extractor_recipe", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_recipe_runs_and_goes_on(
    recipe: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibration: Calibration,
) -> None:
    photos = some_photographs(tmp_path / "photos", 6, 0) / "train"
    # One of the two is there from before.
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "espcn_x2.calibration").write_bytes(calibration.to_bytes())
    monkeypatch.setattr(recipe, "MODELS", ("espcn_x2", "denoise_small"))
    monkeypatch.setattr(recipe, "THIEVES", (("cnn", ("jpeg",)),))
    monkeypatch.setattr(recipe, "POOLED", 2)
    monkeypatch.setattr(recipe, "DAMAGES", {k: recipe.DAMAGES[k] for k in ("none", "JPEG 70")})
    command = ["extractor", "--models", str(ROOT / "models"), "--photos", str(photos)]
    command += ["--work", str(tmp_path / "work"), "--steps", "3"]
    made = []
    for name in ("first.onnx", "again.onnx"):
        monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / name)])
        assert recipe.main() == 0
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    shipped = onnx.load(ROOT / "models" / extractor.FILE)
    again = onnx.load(tmp_path / "first.onnx")
    assert again.graph.input == shipped.graph.input and again.graph.output == shipped.graph.output
