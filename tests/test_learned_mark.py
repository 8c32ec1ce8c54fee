"""The bench of learned carriers: what it finds learnable, and the marks that it makes of that."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from birthmark import _core
from birthmark.calibration import echoes_by_tone
from birthmark.training.surrogates import steal
from conftest import bench_script


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with bench_script("learned_mark") as module:
        yield module


def test_learned_carriers_are_orthogonal_and_the_fastest_come_first(
    bench, published, tmp_path
) -> None:
    inputs, unmarked = published.inputs[:2], published.plain[:2]
    checkpoint = tmp_path / "cnn.npz"
    steal(inputs, unmarked, student="cnn", depth=1, width=4, steps=3, checkpoint=checkpoint)
    network = bench.Network("cnn", 2, 4, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "Network", lambda kind, scale: network)
        spread = bench.learned(inputs, unmarked, {"cnn": checkpoint}, 1)([], 68)
    assert spread.shape == (_core.ORBITS, _core.TONES, 68)
    gram = np.zeros((68, 68))
    pixels = 0
    for picture in unmarked:
        for t, held, echoes in echoes_by_tone(_core.fields(picture)):
            made = spread[:, t].T @ echoes
            gram += made @ made.T
            pixels += int(held.sum())
    gram /= pixels
    # Orthogonal over the crops that they were made on, so nearly over their pictures.
    energy = np.diag(gram)
    assert energy.sum() == pytest.approx(bench.STRENGTH_LEVELS**2, rel=0.5)
    assert np.median(energy[:20]) > 1.5 * np.median(energy[-20:])
    alike = np.abs(gram) / np.sqrt(np.outer(energy, energy)) - np.eye(68)
    assert np.median(np.abs(alike)) < 0.1


def test_a_learned_mark_is_embedded_and_read(bench, published, sr_model) -> None:
    outputs = [sr_model.output(x) for x in published.inputs]
    mark = bench.Marked(outputs, 0)
    marked = [mark.embed(y) for y in outputs]
    as_is, compressed, informed = map(float, mark.judge(marked, published.plain).split(" | "))
    assert informed < as_is < -3 and compressed < -2
    mark._direction = mark._direction[::-1]
    assert float(mark.judge(marked, published.plain).split(" | ")[0]) > -3
