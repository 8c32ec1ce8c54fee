"""What is attacked: an owner's pictures with and without his mark; and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from birthmark import _core
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.extract import extractor_sha256
from birthmark.files import write_atomically
from birthmark.keys import OwnerKey
from birthmark.mark import Mark, provision
from birthmark.model_calibration import claim_model
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, psnr_db, read_picture, ssim
from birthmark.progress import Progress
from birthmark.training.surrogates import steal
from birthmark.verdict import Verdict, verify

MODEL = "espcn_x2.onnx"
SIDE_PX = 512
"""Pictures are the middle of photographs, at most so large."""
PASSPHRASE = "bench"
Gains = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Published:
    """A model's answers: an attack sees ``marked``, and ``host`` only where it says so."""

    inputs: list[Picture]
    host: list[Picture]
    """Without the mark, rounded: the unmarked twins."""
    marked: list[Picture]
    truth: list[Picture]
    """The photographs that the inputs were made from."""

    def of(self, marked: list[Picture]) -> Published:
        """The same with other marked pictures."""
        return Published(self.inputs, self.host, marked, self.truth)


class Scene:
    """The owner, what he published, and judgement. What is slow is kept in a folder.

    Args:
        photos: holds ``train`` (what the attacker collects the answers to) and ``eval`` (what is
            judged; nothing is fitted to it).
        models: holds the owner's model and those that pictures are washed with.
        work: key, claim and trained networks; a folder inside for each state of the extractor.
        steps: of a surrogate; other networks train for a fixed share of it.
        side_px: how large pictures are at most.
    """

    def __init__(
        self, photos: Path, models: Path, work: Path, steps: int, side_px: int = SIDE_PX
    ) -> None:
        self.models, self.steps, self._side_px = models, steps, side_px
        self.work = work / extractor_sha256()[:12]
        self.work.mkdir(parents=True, exist_ok=True)
        self.model = ImageModel(models / MODEL, threads=1)
        photographs = {split: self._photographs(photos / split) for split in ("train", "eval")}
        self.key, self.claim = self._owner([halved(p) for p in photographs["train"]])
        self.calibration = Calibration.from_bytes(self.claim.calibration)
        self.mark = provision(self.key, self.claim)
        self.thiefs, self.judged = (self._publish(p) for p in photographs.values())
        self.before = self.judge(self.judged.marked)

    def _photographs(self, folder: Path) -> list[Picture]:
        return [middle(read_picture(f), self._side_px) for f in gather_pictures([folder]).files]

    def _owner(self, inputs: list[Picture]) -> tuple[OwnerKey, Claim]:
        key_file, claim_file = self.work / "owner.key", self.work / "claim.json"
        if not (key_file.exists() and claim_file.exists()):
            key = OwnerKey.generate()
            claim = claim_model(key, "Bench", self.model, self.models / MODEL, inputs)
            key.save(key_file, PASSPHRASE)
            claim.save(claim_file)
        return OwnerKey.load(key_file, PASSPHRASE), Claim.load(claim_file)

    def _publish(self, photographs: list[Picture]) -> Published:
        inputs = [halved(p) for p in photographs]
        outputs = [self.model.output(x) for x in inputs]
        plain, marked = Embedder(None), Embedder(self.mark)
        host, published = ([e.embed(y) for y in outputs] for e in (plain, marked))
        return Published(inputs, host, published, photographs)

    def stranger(self) -> tuple[OwnerKey, Claim]:
        """Somebody else who uses the same code and the owner's public calibration."""
        key = OwnerKey.generate()
        path = self.models / MODEL
        return key, Claim.create(key, "Stranger", path, self.claim.calibration)

    def proxies(self, count: int) -> list[Embedder]:
        """So many marks of a stranger, each in another direction."""
        key, claim = self.stranger()
        return [Embedder(provision(key, claim, f"proxy {i}")) for i in range(count)]

    def judge(self, pictures: Sequence[Picture], customer: str | None = None) -> Verdict:
        """The blind verdict on pictures."""
        return verify(pictures, self.claim, self.key, customer=customer)

    def informed(self, suspect: Callable[[Picture], Picture]) -> float:
        """Informed log10 p of a suspect's answers to the judged inputs."""
        inputs = self.judged.inputs
        verdict = verify(
            None, self.claim, self.key, suspect=suspect, inputs=inputs, model=self.model
        )
        return verdict.log10_p

    def answers(self, pictures: Sequence[Picture]) -> Callable[[Picture], Picture]:
        """Pictures as a suspect who answers the judged inputs with them."""
        held = {x.tobytes(): y for x, y in zip(self.judged.inputs, pictures, strict=True)}
        return lambda asked: held[asked.tobytes()]

    def figures(self, pictures: list[Picture]) -> dict[str, Any]:
        """What is left of the mark in the judged pictures, and of their quality."""
        verdict = self.judge(pictures)
        pairs = list(zip(pictures, self.judged.host, strict=True))
        return {
            "log10_p": round(verdict.log10_p, 1),
            "left": round(amplitude(verdict) / amplitude(self.before), 3),
            "psnr_db": round(float(np.mean([psnr_db(a, b) for a, b in pairs])), 2),
            "ssim": round(float(np.mean([ssim(a, b) for a, b in pairs])), 4),
        }

    def trained(
        self,
        name: str,
        inputs: list[Picture],
        outputs: list[Picture],
        *,
        share: float = 1.0,
        **options: Any,
    ) -> ImageModel:
        """A network trained on pairs for ``share`` of the steps; kept, and taken from there."""

        def train() -> onnx.ModelProto:
            progress = Progress(name)
            steps = max(1, round(self.steps * share))
            made = steal(inputs, outputs, steps=steps, progress=progress, **options)
            progress.close()
            return made.model

        return self.kept(name, train)

    def kept(self, name: str, train: Callable[[], onnx.ModelProto]) -> ImageModel:
        """A network by its name, trained if it is not there yet."""
        file = self.work / f"{slug(name)}.onnx"
        if not file.exists():
            write_atomically(file, train().SerializeToString(deterministic=True))
        return ImageModel(file, threads=1)

    def surrogate(self, name: str, outputs: list[Picture]) -> ImageModel:
        """A thief's network, trained on inputs and what was published for them."""
        return self.trained(f"surrogate {name}", self.thiefs.inputs, outputs, student="resnet")

    def surrogate_figures(self, name: str, outputs: list[Picture]) -> dict[str, Any]:
        """What a thief's network betrays, and how well it does its task."""
        suspect = self.surrogate(name, outputs)
        made = [suspect(x) for x in self.judged.inputs]
        truth = self.judged.truth
        quality = [
            np.mean([psnr_db(a, b) for a, b in zip(pictures, truth, strict=True)])
            for pictures in (made, self.judged.host)
        ]
        return {
            "log10_p": round(self.judge(made).log10_p, 1),
            "informed_log10_p": round(self.informed(suspect), 1),
            "task_db": round(float(quality[0] - quality[1]), 2),
        }


def amplitude(verdict: Verdict) -> float:
    """How much of the claimed mark was read, in the units of its coordinates."""
    return verdict.tests.cosine * float(np.linalg.norm(verdict.estimate))


def folded(gains: Gains) -> Mark:
    """A mark of these gains, float [gain rows, tones], held to the contract.

    The echo is scaled down where it exceeds its bound; a tint is cut off.
    """
    echo, tint = np.split(gains, [_core.ORBITS])
    limit = _core.TAP_SUM_MAX - _core.ORBITS  # rounding may add half a unit for each orbit
    echo = echo * min(1.0, limit / max(np.abs(echo).sum(axis=0).max(), 1.0))
    tint = np.clip(tint, -_core.TINT_GAIN_MAX, _core.TINT_GAIN_MAX)
    rounded = np.rint(np.concatenate([echo, tint])).astype(np.int16)
    return Mark(_core.write_mark(bytes(16), rounded))


def without(pictures: Sequence[Picture], gains: Gains) -> list[Picture]:
    """Pictures with the negative of a mark added."""
    negative = Embedder(folded(-gains))
    return [negative.embed(p) for p in pictures]


def rounded(values: np.ndarray) -> Picture:
    """Up or down by chance, so that the mean stays what it is: less than a level is not lost."""
    chance = np.random.default_rng(0).uniform(0, 1, values.shape)
    return np.clip(np.floor(values + chance), 0, 255).astype(np.uint8)


def halved(picture: Picture) -> Picture:
    """What a x2 super-resolution model is asked."""
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small, np.uint8)


def enlarged(picture: Picture, like: Picture) -> Picture:
    """An input at the size of its output, as anybody can enlarge it."""
    return np.asarray(
        cv2.resize(picture, like.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.uint8
    )


def middle(picture: Picture, side_px: int) -> Picture:
    """The middle of a picture, of sides that are multiples of four."""
    height, width = (min(side, side_px) // 4 * 4 for side in picture.shape[:2])
    y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


def slug(name: str) -> str:
    """A name as a file's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
