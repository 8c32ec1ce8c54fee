"""What somebody with a stolen mark file can do: forge, and remove; and what he cannot.

    python bench/stolen_mark.py

He embeds the mark with its gains negated into marked pictures (once, and as a fixed point: look for
the picture which, marked, gives the published one), and marks pictures of his own. Another
customer's mark must not be touched by any of it. Blind log10 p on photographs never calibrated on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tracing import MODEL, inputs_of

from birthmark import _core
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.keys import OwnerKey
from birthmark.mark import Mark, provision
from birthmark.model_calibration import calibrate_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, psnr_db
from birthmark.verdict import verify


def unmarked(published: Picture, marker: Embedder) -> Picture:
    """The picture which, marked, is nearest to the published one: x <- y - (marked(x) - x)."""
    guess = published.astype(np.int16)
    for _ in range(8):
        x = np.clip(guess, 0, 255).astype(np.uint8)
        guess = published.astype(np.int16) - (marker.embed(x).astype(np.int16) - x)
    return np.clip(guess, 0, 255).astype(np.uint8)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    options = parser.parse_args()
    model = ImageModel(MODEL)
    calibration = calibrate_model(model, inputs_of(options.photos / "train"))
    key = OwnerKey.generate()
    claim = Claim.create(key, "Bench", MODEL, calibration.to_bytes())
    stolen, other = (provision(key, claim, name) for name in ("stolen", "other"))
    identity, gains = _core.read_mark(stolen.data)
    marker, negated = Embedder(stolen), Embedder(Mark(_core.write_mark(identity, -gains)))
    outputs = [model.output(x) for x in inputs_of(options.photos / "eval")]
    host = [Embedder(None).embed(y) for y in outputs]
    published = [marker.embed(y) for y in outputs]
    of_other = [Embedder(other).embed(y) for y in outputs]
    rows = {
        "published under the stolen file": published,
        "its negative added": [negated.embed(p) for p in published],
        "fixed point": [unmarked(p, marker) for p in published],
        "pictures of his own, marked (forged)": [marker.embed(p) for p in host],
        "another customer's, its negative added": [negated.embed(p) for p in of_other],
    }
    print(f"{'':42}  stolen  other  PSNR to the unmarked")
    for what, pictures in rows.items():
        p = [verify(pictures, claim, key, customer=c).log10_p for c in ("stolen", "other")]
        psnr = np.mean([psnr_db(a, b) for a, b in zip(host, pictures, strict=True)])
        print(f"{what:42} {p[0]:7.1f} {p[1]:6.1f} {psnr:8.1f} dB")


if __name__ == "__main__":
    main()
