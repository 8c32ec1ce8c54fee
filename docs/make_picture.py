"""Draw docs/host_residual_marked.png: host, residual x 20, marked. Run from the repository's root.

python docs/make_picture.py demo-out/m.mark
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from birthmark import Embedder, Mark
from birthmark.models import ImageModel
from birthmark.pictures import read_picture, write_png


def main(mark_file: str) -> None:
    """Mark a super-resolved piece of a photograph with the given mark file."""
    photo = read_picture("tests/data/photos/eval/ski_chelsea.jpg")
    small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    output = ImageModel("models/espcn_x2.onnx").output(np.asarray(small, np.uint8))
    host, marked = (e.embed(output) for e in (Embedder(None), Embedder(Mark.load(mark_file))))
    residual = np.clip((marked.astype(np.int16) - host) * 20 + 128, 0, 255).astype(np.uint8)
    pieces = [p[20:260, 90:330] for p in (host, residual, marked)]
    write_png("docs/host_residual_marked.png", np.ascontiguousarray(np.hstack(pieces)))


if __name__ == "__main__":
    main(sys.argv[1])
