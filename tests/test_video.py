"""The video example: every frame is marked, and nothing half-written stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from birthmark import _core
from birthmark.embed import Embedder
from birthmark.errors import InvalidMarkFile, InvalidPicture, OutputExists
from birthmark.mark import Mark
from vectors.cases import photo_gains
from video import frames, frames_per_second, mark_video

ROOT = Path(__file__).resolve().parent.parent
COUNT, HEIGHT, WIDTH, RATE = 7, 90, 122, 12.5


@pytest.fixture
def folder(tmp_path: Path, eval_photos: list[npt.NDArray[np.uint8]]) -> Path:
    """A folder with a mark, and a lossless video that pans over a photograph."""
    Mark(_core.write_mark(bytes(16), photo_gains())).save(tmp_path / "m.mark")
    code = cv2.VideoWriter.fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(tmp_path / "in.mkv"), code, RATE, (WIDTH, HEIGHT))
    for i in range(COUNT):
        writer.write(eval_photos[0][i : i + HEIGHT, 3 * i : 3 * i + WIDTH, ::-1].copy())
    writer.release()
    return tmp_path


def test_every_frame_is_marked_to_the_byte(folder: Path) -> None:
    source, target = str(folder / "in.mkv"), str(folder / "out.mkv")
    assert mark_video(source, target, str(folder / "m.mark")) == COUNT
    embedder = Embedder(folder / "m.mark")
    before, after = list(frames(source)), list(frames(target))
    assert len(before) == len(after) == COUNT
    for plain, marked in zip(before, after, strict=True):
        expected = embedder.embed(np.ascontiguousarray(plain[..., ::-1]))
        np.testing.assert_array_equal(marked[..., ::-1], expected)
        assert (marked != plain).mean() > 0.1
    assert frames_per_second(target) == pytest.approx(RATE)
    assert sorted(p.name for p in folder.iterdir()) == ["in.mkv", "m.mark", "out.mkv"]


@pytest.mark.parametrize(
    ("source", "target", "mark", "codec", "error"),
    [
        ("in.mkv", "m.mark", "m.mark", "FFV1", OutputExists),
        ("m.mark", "out.mkv", "m.mark", "FFV1", InvalidPicture),
        ("missing.mkv", "out.mkv", "m.mark", "FFV1", InvalidPicture),
        ("in.mkv", "out.mkv", "in.mkv", "FFV1", InvalidMarkFile),
        ("in.mkv", "out.mkv", "m.mark", "QQQQ", InvalidPicture),
        ("in.mkv", "nowhere/out.mkv", "m.mark", "FFV1", InvalidPicture),
    ],
)
def test_refusals_leave_nothing(
    folder: Path, source: str, target: str, mark: str, codec: str, error: type[Exception]
) -> None:
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(error) as refusal:
        mark_video(str(folder / source), str(folder / target), str(folder / mark), codec)
    assert "\n" not in str(refusal.value)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_command(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "examples" / "video.py"), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    done = run("in.mkv", "out.mkv", "--mark", "m.mark")
    assert (done.returncode, done.stdout) == (0, f"out.mkv: {COUNT} frames marked\n")
    again = run("in.mkv", "out.mkv", "--mark", "m.mark")
    assert again.returncode == 2 and again.stderr.count("\n") == 1
