"""The video example: every frame is marked, and nothing half-written stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from birthmark import _core
from birthmark.embed import Embedder
from birthmark.errors import InvalidMarkFile, InvalidPicture, OutputExists
from birthmark.formats import Output
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


def decoded_i420(path: Path) -> list[npt.NDArray[np.uint8]]:
    """The frames of a video as stored: [h * 3 / 2, w], three planes one below another."""
    with av.open(str(path)) as container:
        stored = list(container.decode(video=0))
    assert {frame.format.name for frame in stored} == {"yuv420p"}
    return [frame.to_ndarray() for frame in stored]


def test_every_frame_is_marked_to_the_byte(folder: Path) -> None:
    source, target = str(folder / "in.mkv"), str(folder / "out.mkv")
    assert mark_video(source, target, str(folder / "m.mark")) == COUNT
    embedder, plain = Embedder(folder / "m.mark"), Embedder(None)
    before, after = list(frames(source)), decoded_i420(folder / "out.mkv")
    assert len(before) == len(after) == COUNT
    for frame, found in zip(before, after, strict=True):
        rgb = np.ascontiguousarray(frame[..., ::-1])
        expected, unmarked = (
            np.concatenate([plane.ravel() for plane in one.embed(rgb, output=Output("i420"))])
            for one in (embedder, plain)
        )
        np.testing.assert_array_equal(found.ravel(), expected)
        assert (expected != unmarked).mean() > 0.1
    assert frames_per_second(target) == RATE
    assert sorted(p.name for p in folder.iterdir()) == ["in.mkv", "m.mark", "out.mkv"]


@pytest.mark.parametrize(
    ("source", "target", "mark", "error"),
    [
        ("in.mkv", "m.mark", "m.mark", OutputExists),
        ("m.mark", "out.mkv", "m.mark", InvalidPicture),
        ("missing.mkv", "out.mkv", "m.mark", InvalidPicture),
        ("in.mkv", "out.mkv", "in.mkv", InvalidMarkFile),
        ("in.mkv", "out.unknown", "m.mark", ValueError),
        ("in.mkv", "nowhere/out.mkv", "m.mark", OSError),
        ("odd.mkv", "out.mkv", "m.mark", InvalidPicture),
    ],
)
def test_refusals_leave_nothing(
    folder: Path, source: str, target: str, mark: str, error: type[Exception]
) -> None:
    with av.open(str(folder / "odd.mkv"), "w") as container:  # OpenCV writes even sides only
        encoder = container.add_stream("ffv1", rate=25)
        encoder.width, encoder.height, encoder.pix_fmt = 15, 9, "bgr0"
        black = av.VideoFrame.from_ndarray(np.zeros((9, 15, 3), np.uint8), format="rgb24")
        container.mux([*encoder.encode(black), *encoder.encode(None)])
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(error) as refusal:
        mark_video(str(folder / source), str(folder / target), str(folder / mark))
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
