"""A lying owner: what stands beside the suspect leans against the mark, so an innocent is accused.

    python bench/leaning.py --steps 4000

An informed verdict believes the owner that his model, and each reference, is what he says. Here
both are altered by a part of the mark's negative, and the suspect is a network that learned the
unaltered model's outputs. Printed is what the verdict says, or which control voids it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tracing import MODEL, halved

from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.errors import CouldNotJudge
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.progress import Progress
from birthmark.training.surrogates import steal
from birthmark.verdict import verify

OF_MODEL = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
OF_REFERENCE = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06)


class Leaning(ImageModel):
    """A model whose answers are moved by a part of the mark's negative."""

    def __init__(
        self, model: bytes | Path, sha256: str, part: float, residual: Callable[[Picture], Picture]
    ) -> None:
        super().__init__(model, threads=1)
        self.sha256 = sha256
        self._part, self._residual = part, residual

    def __call__(self, picture: Picture) -> Picture:
        answer = super().__call__(picture)
        if not self._part:
            return answer
        moved = answer - self._part * self._residual(picture).astype(np.float64)
        dither = np.random.default_rng(0).random(answer.shape)  # parts of a level count too
        return np.clip(np.floor(moved + dither), 0, 255).astype(np.uint8)


def main() -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--photos", default="tests/data/photos", type=Path)
    options = parser.parse_args()
    train, held_out = (
        [halved(read_picture(file)) for file in gather_pictures([options.photos / split]).files]
        for split in ("train", "eval")
    )
    model = ImageModel(MODEL, threads=1)
    key = OwnerKey.generate()
    claim = claim_model(key, "Accuser", model, MODEL, train)
    answers = [model(x) for x in train]
    innocent, reference = (
        steal(
            train,
            answers,
            student="resnet",
            steps=options.steps,
            seed=seed,
            progress=Progress(f"network {seed}"),
        ).model.SerializeToString()
        for seed in (1, 2)
    )
    suspect = ImageModel(innocent, threads=1)
    marked = Embedder(provision(key, claim))

    def residual(picture: Picture) -> Picture:
        return marked.embed(model.output(picture)).astype(np.int16) - model(picture)

    for part in OF_MODEL:
        own = Leaning(Path(MODEL), claim.model_sha256, part, residual)
        said = judged(claim, key, suspect, held_out, own, [])
        print(f"the claimed model leans by {part:.2f}: {said}", flush=True)
    for part in OF_REFERENCE:
        beside = Leaning(reference, "ab" * 32, part, residual)
        said = judged(claim, key, suspect, held_out, model, [beside])
        print(f"a reference leans by {part:.2f}: {said}", flush=True)


def judged(
    claim: Claim,
    key: OwnerKey,
    suspect: ImageModel,
    inputs: list[Picture],
    model: ImageModel,
    references: list[ImageModel],
) -> str:
    """What is said of an innocent suspect, in words."""
    try:
        verdict = verify(
            None, claim, key, suspect=suspect, inputs=inputs, model=model, references=references
        )
    except CouldNotJudge as error:
        return f"voided: {error}"
    control = min(c.log10_p for c in verdict.controls[1:])
    return f"{verdict.decision} {verdict.log10_p:.1f}, least control {control:.1f}"


if __name__ == "__main__":
    main()
