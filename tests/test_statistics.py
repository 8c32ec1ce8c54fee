"""Statistics of more pictures than are kept in memory: the same verdicts, and where they stand."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birthmark import extract, verdict
from birthmark.bundle import recheck
from birthmark.extract import PictureStatistics, Pool, Statistics
from birthmark.report import render
from birthmark.sums import SHAPE
from birthmark.verdict import Verdict, verify
from conftest import ROOT, Published


class Noon(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 6, 1, 12, tzinfo=UTC)


def one_of(seed: int) -> PictureStatistics:
    """Statistics of a picture that there is not."""
    sums = np.random.default_rng(seed).integers(-(2**62), 2**62, SHAPE)
    return PictureStatistics(f"p{seed}", f"{seed:064}", 2, 3, sums, f"{seed + 1:064}")


def same(a: PictureStatistics, b: PictureStatistics) -> bool:
    return a.sums.tobytes() == b.sums.tobytes() and all(
        getattr(a, name) == getattr(b, name)
        for name in ("name", "sha256", "height_px", "width_px", "input_sha256")
    )


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_where_the_sums_stand_changes_no_byte(
    session_claim,
    mark_key,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Blind and informed: the bundle, the report, and what is repeated of them."""
    monkeypatch.setattr(verdict, "datetime", Noon)
    key, claim, _ = session_claim

    def blind() -> Verdict:
        return verify([*published.marked, published.marked[0]], claim, key)

    def informed() -> Verdict:
        suspect, model = published.answer, ROOT / "models" / "espcn_x2.onnx"
        return verify(None, claim, key, suspect=suspect, inputs=published.inputs, model=model)

    for judged in (blind, informed):
        outcomes = set()
        for in_memory in (extract.IN_MEMORY, 3, 0):
            with monkeypatch.context() as patch:
                patch.setattr(extract, "IN_MEMORY", in_memory)
                answer = judged()
                answer.save(tmp_path / "v.zip", key)
                assert recheck(tmp_path / "v.zip", key).needs_key == ()
                report = render(answer, key=mark_key)
            outcomes.add(((tmp_path / "v.zip").read_bytes(), report))
        assert len(outcomes) == 1


@pytest.mark.parametrize("in_memory", [0, 1, 4, 5, 9])
def test_is_a_list(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(extract, "IN_MEMORY", in_memory)
    given = [one_of(seed) for seed in range(5)]
    kept = Statistics(given)
    assert len(kept) == 5 and kept and not Statistics()
    assert all(map(same, kept, given))
    assert all(same(kept[i], given[i]) for i in (4, 0, -1, 2, -5))
    for outside in (5, -6):
        with pytest.raises(IndexError):
            kept[outside]
    pool = Pool(kept)
    assert np.array_equal(pool.total(), np.sum([one.sums for one in given], axis=0))
    pool.include(given[4])
    assert len(pool.pictures) == 5 and pool.rejected[0][0] == "p4"
    pool.include(one_of(5))
    assert same(pool.pictures[5], one_of(5))


def test_the_file_has_no_name_and_goes_with_the_pool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extract, "IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    kept = Statistics([one_of(0)])
    assert open_files() == before
    kept.append(one_of(1))
    assert open_files() == before + 1
    assert list(tmp_path.iterdir()) == []
    del kept
    assert open_files() == before


def test_a_full_disk_is_named_and_takes_nothing_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is there already stays, and what comes when there is room again is in its place."""
    monkeypatch.setattr(extract, "IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Statistics([one_of(0), one_of(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Half of a picture fits in: what was written of it must not be taken for the next one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * one_of(1).sums.nbytes // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            kept.append(one_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path)
    kept.append(one_of(3))
    assert all(map(same, kept, [one_of(0), one_of(1), one_of(3)])) and len(kept) == 3


def test_memory_hardly_grows_with_the_number_of_pictures() -> None:
    """In a process of its own: 40 000 pictures, 184 MB of statistics, pooled, added, written."""
    script = """
import io, os, resource, tempfile
import numpy as np
from birthmark.bundle_container import Stacked, manifest_of, write
from birthmark.extract import PictureStatistics, Pool
from birthmark.sums import SHAPE
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
pool = Pool()
for i in range(40_000):
    pool.include(PictureStatistics(f"{i}", f"{i:064}", 96, 96, np.full(SHAPE, i)))
    if i == 5_000:
        before = peak_mb()
assert pool.total()[0, 0, 0] == sum(range(40_000))
members = {"statistics.npy": Stacked(pool.pictures)}
manifest_of(members)
with tempfile.TemporaryFile() as stream:
    write(members, stream)
    assert stream.tell() > 184_000_000
print(peak_mb() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 50
