"""The benches of the payload: what they say of chips whose worth is known."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from birthmark.payload import chip_pad, payload_code
from birthmark.verdict import verify
from conftest import ROOT, bench_script


@pytest.fixture(scope="module")
def benches() -> Iterator[tuple[ModuleType, ModuleType]]:
    with bench_script("payload") as simulation, bench_script("capacity") as capacity:
        yield simulation, capacity


def test_simulated_chips_have_the_cosine_asked_for(benches) -> None:
    simulation, _ = benches
    rng = np.random.default_rng(0)
    chips = np.where(rng.random(68) < 0.5, -1, 1).astype(np.int8)
    for cosine in (0.0, 0.5, 0.9):
        soft = simulation.soft_chips(chips, cosine, rng)
        assert np.linalg.norm(soft) == pytest.approx(1)
        assert soft @ chips / math.sqrt(68) == pytest.approx(cosine)


def test_a_strong_trial_is_read_and_an_innocent_is_not(benches) -> None:
    simulation, _ = benches
    rng = np.random.default_rng(0)
    for lengths, k in simulation.CODES[:3]:
        code = payload_code(lengths, k)
        for _ in range(10):
            decoding, right = simulation.trial(code, lengths, (0.9, 0.9)[: len(lengths)], rng)
            assert right and decoding.trusted
            assert not simulation.innocent(code, lengths, 0.6, rng).trusted


def test_table_of_simulations(benches, monkeypatch, capsys) -> None:
    simulation, _ = benches
    monkeypatch.setattr(sys, "argv", ["payload", "--trials", "2", "--only", "16"])
    assert simulation.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].startswith("| [68, 16] |")
    assert lines[2].split("|")[-2].strip() == "1.00 / 1.00 / 0"


def test_capacity_grows_with_the_cosine_and_is_what_the_code_reads(benches) -> None:
    """By linearity: what is measured on random codes is what the mark's own code does."""
    simulation, bench = benches
    rng = np.random.default_rng(3)
    ones = np.ones(68, np.int8)
    soft = {c: simulation.soft_chips(ones, c, rng) for c in (0.1, 0.5, 0.75)}
    bits = {c: bench.capacity([s], codes=20) for c, s in soft.items()}
    assert bits[0.1] < 4 and 8 <= bits[0.5] <= 20 and 30 <= bits[0.75] <= 42
    together = bench.capacity([soft[0.1], simulation.soft_chips(ones[:24], 0.9, rng)], codes=20)
    assert 8 <= together <= 24


def test_agreement_undoes_rotation_pad_and_codeword(benches, session_claim, published) -> None:
    _, bench = benches
    key, claim, _ = session_claim
    verdict = verify(published.marked, claim, key)
    of_key = claim.mark_key(key)
    agreement = bench.agreement(verdict.estimate, of_key, claim)
    size = np.linalg.norm(agreement) * math.sqrt(len(agreement))
    assert agreement.sum() / size == pytest.approx(verdict.tests.cosine)
    assert (chip_pad(of_key, 68) != chip_pad(of_key.tint, 68)).any()
    found = bench.correlations(verdict, of_key)
    assert len(found) == len(bench.COUNTS) + 1
    # Eight pictures: after 10 and more there is nothing to say.
    assert [math.isnan(nc) for nc in found] == [False] * 3 + [True] * 4 + [False]
    assert verdict.payload_guess == claim.emblem and found[-1] == 1


def test_prints_a_line_for_each_suspect(
    benches, session_claim, monkeypatch, capsys, tmp_path: Path
) -> None:
    _, bench = benches
    key, claim, _ = session_claim
    photos, work = tmp_path / "photos", tmp_path / "work" / "sr"
    for split, count in (("train", 1), ("eval", 2)):
        (photos / split).mkdir(parents=True)
        for file in sorted((ROOT / "tests/data/photos" / split).glob("*.jpg"))[:count]:
            shutil.copy(file, photos / split)
    work.mkdir(parents=True)
    key.save(work / "owner.key", "bench")
    claim.save(work / "claim.json")
    like_it = onnx.load(ROOT / "models" / "espcn_x2.onnx")
    first = like_it.graph.initializer[0]
    weights = onnx.numpy_helper.to_array(first)
    noise = np.random.default_rng(1).normal(1, 0.02, weights.shape).astype(weights.dtype)
    first.CopyFrom(onnx.numpy_helper.from_array(weights * noise, first.name))
    onnx.save(like_it, work / "innocent.onnx")
    command = [
        "capacity",
        "--codes",
        "10",
        "--photos",
        str(photos),
        "--models",
        str(ROOT / "models"),
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--work", str(tmp_path / "work")])
    assert bench.main() == 0
    head, _, own, innocent = (line.split("|") for line in capsys.readouterr().out.splitlines())
    assert len(head) == len(own) == len(innocent)
    assert own[1].strip() == "the owner's marked outputs" and innocent[1].strip() == "innocent"
    assert int(own[8]) > 20 > int(innocent[8])
    assert own[9].strip() == "yes" and innocent[9].strip() == "no"
