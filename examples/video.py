"""Mark a video, frame by frame as a stream: OpenCV reads and writes, birthmark marks in between.

    python examples/video.py in.mp4 out.mkv --mark m.mark

The codec is lossless (FFV1, in .mkv or .avi) unless --codec names another four letters, e.g. mp4v.
Sound is not carried over. Only one frame is held at a time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from birthmark import Embedder
from birthmark.errors import BirthmarkError, InvalidPicture, OutputExists

Frame = npt.NDArray[np.uint8]


def frames(path: str) -> Iterator[Frame]:
    """The frames of a video, uint8 BGR [h, w, 3], as OpenCV gives them."""
    reader = cv2.VideoCapture(path)
    try:
        while True:
            read, frame = reader.read()
            if not read:
                return
            yield frame
    finally:
        reader.release()


def frames_per_second(path: str) -> float:
    """The rate that a video states, or 25 where it states none."""
    reader = cv2.VideoCapture(path)
    rate = float(reader.get(cv2.CAP_PROP_FPS))
    reader.release()
    return rate if 0 < rate < 1000 else 25.0


def marked(frame: Frame, embedder: Embedder) -> Frame:
    """One frame with the mark: the one place that knows in which layout frames are marked."""
    return cv2.cvtColor(embedder.embed(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), cv2.COLOR_RGB2BGR)


def mark_video(source: str, target: str, mark: str, codec: str = "FFV1") -> int:
    """Write ``target`` with every frame of ``source`` marked; returns how many there were.

    Raises:
        OutputExists: ``target`` exists.
        InvalidPicture: ``source`` has no frames that can be read, or the codec is not to be had.
        InvalidMarkFile: ``mark`` is not a mark file.
    """
    if os.path.lexists(target):
        raise OutputExists(f"{target}: exists; it is not overwritten")
    embedder = Embedder(mark)
    # Written beside the target and renamed at the end, so that nothing half-written stays.
    partial = Path(target).with_name(f".partial-{os.getpid()}-{Path(target).name}")
    count = 0
    writer = None
    try:
        for frame in frames(source):
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                code = cv2.VideoWriter.fourcc(*codec)
                writer = cv2.VideoWriter(str(partial), code, frames_per_second(source), size)
                if not writer.isOpened():
                    raise InvalidPicture(
                        f"{target}: no video of codec {codec} can be written there"
                    )
            writer.write(marked(frame, embedder))
            count += 1
        if writer is None:
            raise InvalidPicture(f"{source}: not a video, or none that can be read here")
        writer.release()
        os.rename(partial, target)
    finally:
        if writer is not None:
            writer.release()
        partial.unlink(missing_ok=True)
    return count


def main() -> int:
    """Mark one video."""
    parser = argparse.ArgumentParser(description="Mark every frame of a video.")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--mark", required=True)
    parser.add_argument("--codec", default="FFV1", help="four letters (default FFV1, lossless)")
    options = parser.parse_args()
    if len(options.codec) != 4:
        parser.error("--codec has four letters")
    try:
        count = mark_video(options.source, options.target, options.mark, options.codec)
    except BirthmarkError as error:
        print(f"video.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{options.target}: {count} frames marked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
