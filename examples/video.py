"""Mark a video as a stream of NV12 frames: OpenCV reads, birthmark marks, PyAV writes.

    pip install 'birthmark[video]'
    python examples/video.py in.mp4 out.mkv --mark m.mark

NV12 is what hardware encoders take, so what is published is made in it at once: one pass from the
decoded frame to the encoder's input. H.264, lossless unless --quantiser says otherwise. Sound is
not carried over. Only one frame is held at a time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from birthmark import Embedder
from birthmark.errors import BirthmarkError, InvalidPicture, OutputExists
from birthmark.formats import Input, Output

Frame = npt.NDArray[np.uint8]

BGR = Input(order="bgr")
NV12 = Output("nv12")  # BT.601, limited range: what players take for granted


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


def frames_per_second(path: str) -> Fraction:
    """The rate that a video states, or 25 where it states none."""
    reader = cv2.VideoCapture(path)
    rate = float(reader.get(cv2.CAP_PROP_FPS))
    reader.release()
    return Fraction(rate).limit_denominator(1001) if 0 < rate < 1000 else Fraction(25)


def marked(frame: Frame, embedder: Embedder) -> Frame:
    """One BGR frame with the mark as NV12: uint8 [h * 3 / 2, w], luma and below it both colours."""
    height, width, _ = frame.shape
    nv12 = np.empty((height * 3 // 2, width), np.uint8)
    planes = (nv12[:height], nv12[height:].reshape(height // 2, width // 2, 2))
    embedder.embed(frame, planes, input=BGR, output=NV12)
    return nv12


def mark_video(source: str, target: str, mark: str, quantiser: int = 0) -> int:
    """Write ``target`` with every frame of ``source`` marked; returns how many there were.

    Raises:
        OutputExists: ``target`` exists.
        InvalidPicture: ``source`` has no frames that can be read, or frames with an odd side.
        InvalidMarkFile: ``mark`` is not a mark file.
        OSError: ``target`` cannot be written, or its ending names no kind of video.
    """
    if os.path.lexists(target):
        raise OutputExists(f"{target}: exists; it is not overwritten")
    embedder = Embedder(mark)
    stream = frames(source)
    first = next(stream, None)
    if first is None:
        raise InvalidPicture(f"{source}: not a video, or none that can be read here")
    height, width, _ = first.shape
    if height % 2 or width % 2:
        raise InvalidPicture(f"{source}: {width} x {height} pixels; NV12 has even sides")
    # Written beside the target and renamed at the end, so that nothing half-written stays.
    partial = Path(target).with_name(f".partial-{os.getpid()}-{Path(target).name}")
    count = 0
    try:
        with av.open(str(partial), "w") as container:
            encoder = container.add_stream("libx264", rate=frames_per_second(source))
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "nv12"
            encoder.options = {"qp": str(quantiser)}
            for frame in itertools.chain([first], stream):
                nv12 = av.VideoFrame.from_ndarray(marked(frame, embedder), format="nv12")
                container.mux(encoder.encode(nv12))
                count += 1
            container.mux(encoder.encode(None))
        os.rename(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def main() -> int:
    """Mark one video."""
    parser = argparse.ArgumentParser(description="Mark every frame of a video.")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--mark", required=True)
    parser.add_argument(
        "--quantiser", type=int, default=0, help="of H.264; 0 (default) is lossless"
    )
    options = parser.parse_args()
    try:
        count = mark_video(options.source, options.target, options.mark, options.quantiser)
    except (BirthmarkError, OSError, ValueError) as error:
        print(f"video.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{options.target}: {count} frames marked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
