"""The thief: trains a student on pairs of inputs and published outputs, as anybody could."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

from birthmark.errors import InvalidTraining
from birthmark.files import StrPath, remove_abandoned, write_atomically
from birthmark.pictures import Picture
from birthmark.training.data import DISTURBANCES, Pairs, read_pairs
from birthmark.training.graph import Graph
from birthmark.training.optimiser import Trainer, one_cycle
from birthmark.training.students import Network

CHECKPOINT_EVERY = 100  # steps
RECENT = 50  # steps whose mean loss is called the final one

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Surrogate:
    """A trained student and how it came about."""

    model: onnx.ModelProto
    """``input`` float32 [n, 3, h, w] to ``output`` [n, 3, h s, w s], RGB in 0..1, any size.

    Its ``metadata_props`` hold ``recipe`` (JSON), ``seed``, ``steps`` and ``final_loss``.
    """
    losses: npt.NDArray[np.float32]
    """The loss of each step's batch, in 8-bit levels (squared for "mse")."""

    @property
    def final_loss(self) -> float:
        """The mean loss of the last 50 steps."""
        return float(self.losses[-RECENT:].mean())

    def save(self, path: StrPath) -> None:
        """Writes the ONNX file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        write_atomically(path, self.model.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, besides the pictures."""

    student: str
    width: int
    depth: int
    scale: int
    steps: int
    seed: int
    loss: str
    batch: int
    crop: int
    lr: float
    augment: bool
    disturbances: tuple[str, ...]
    start: str

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop", "lr"):
            if not getattr(self, name) > 0:
                raise InvalidTraining(f"{name} must be positive, not {getattr(self, name)}")
        for name in self.disturbances:
            if name not in DISTURBANCES:
                raise InvalidTraining(
                    f"unknown disturbance {name!r}: choose of {', '.join(DISTURBANCES)}"
                )


def steal(
    inputs: Sequence[Picture],
    outputs: Sequence[Picture],
    *,
    student: str = "unet",
    width: int | None = None,
    depth: int | None = None,
    steps: int = 1500,
    seed: int = 0,
    loss: str = "mse",
    batch: int = 4,
    crop: int = 64,
    lr: float = 4e-3,
    augment: bool = True,
    disturbances: Sequence[str] = (),
    start: onnx.ModelProto | None = None,
    threads: int = 1,
    checkpoint: StrPath | None = None,
    progress: Progress | None = None,
    names: Sequence[str] | None = None,
) -> Surrogate:
    """Trains a student to do what the model did that made ``outputs`` from ``inputs``.

    On one machine the same call gives the same weights, bit for bit, whether or not it was
    interrupted on the way, and whatever the number of threads.

    Args:
        inputs: uint8 RGB pictures [h, w, 3]; any sizes.
        outputs: as many pictures [h s, w s, 3], with one whole scale s of 1..4.
        student: "unet", "pix2pix", "resnet", "cnn", "espcn", "separable" or "nafnet".
        width: channels of the student's first layer; None for its usual number.
        depth: layers or blocks of the student; None for its usual number.
        steps: batches to train on.
        seed: of the first weights and of the crops.
        loss: "mse", "l1", "charbonnier", "perceptual" or "adversarial".
        batch: crops in a step.
        crop: side of a crop in output pixels, rounded down to what fits scale and student. Pairs
            smaller than a crop are left out; ``progress`` is told how many.
        lr: the peak of the learning rate, which follows one cycle.
        augment: turn and mirror the crops by the 8 symmetries of the square.
        disturbances: what else is done to the crops, of "rescale" (half to one and a half) and
            "rotate" (15 degrees either way), to both of a pair, "blur", "noise" and "jpeg" (quality
            50 to 90), to the output.
        start: a surrogate of the same student, width and depth, whose weights are the first ones
            (fine-tuning).
        threads: threads within one operator.
        checkpoint: a file to save to every 100 steps, and to go on from if it exists.
        progress: called as ``progress(steps_done, steps, message)`` after each step.
        names: what messages call the pairs; numbers by default.

    Raises:
        InvalidArray: something is not a picture.
        InvalidTraining: unusable pairs or options, a foreign checkpoint, or a loss of NaN.
        OSError: the checkpoint cannot be written.
    """
    probe = Network(student, depth=depth)
    pairs = Pairs(inputs, outputs, crop, probe.multiple, names)
    network = Network(student, pairs.scale, width or 0, depth)
    recipe = Recipe(
        student=student,
        width=network.channels,
        depth=network.blocks,
        scale=pairs.scale,
        steps=steps,
        seed=seed,
        loss=loss,
        batch=batch,
        crop=pairs.side * pairs.scale,
        lr=lr,
        augment=augment,
        disturbances=tuple(disturbances),
        start=_digest(start) if start is not None else "",
    )
    graph = network.training_graph((batch, pairs.side, pairs.side), seed)
    if start is not None:
        _begin_from(graph, start)
    identity = json.dumps([asdict(recipe), pairs.digest() if checkpoint else ""])
    trainer = Trainer(graph, loss=loss, threads=threads, identity=identity, seed=seed)
    if checkpoint is not None:
        remove_abandoned(os.path.dirname(checkpoint) or ".")
        if os.path.exists(checkpoint):
            trainer.resume(checkpoint)
    if progress:
        left = f"; {pairs.left_out} smaller than a crop left out" if pairs.left_out else ""
        progress(trainer.done, steps, f"{len(pairs)} pairs{left}")
    while trainer.done < steps:
        # Each step has a generator of its own, so that a resumed training draws the same crops.
        rng = np.random.default_rng((seed, trainer.done))
        rate = one_cycle(trainer.done, steps, lr)
        value = trainer.step(pairs.batch(rng, batch, augment, disturbances), rate)
        is_due = trainer.done % CHECKPOINT_EVERY == 0 or trainer.done == steps
        if checkpoint is not None and is_due:
            trainer.save(checkpoint)
        if progress:
            progress(trainer.done, steps, f"loss {value:.2f}")
    losses = np.array(trainer.losses, np.float32)
    metadata = {
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "seed": str(seed),
        "steps": str(steps),
        "final_loss": f"{losses[-RECENT:].mean():.6g}",
    }
    return Surrogate(network.model(trainer.weights(), metadata), losses)


def _digest(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _begin_from(graph: Graph, start: onnx.ModelProto) -> None:
    """Puts the weights of a model of the same network in the place of the drawn ones."""
    found = {t.name: onnx.numpy_helper.to_array(t) for t in start.graph.initializer}
    for name, drawn in graph.parameters.items():
        if name not in found or found[name].shape != drawn.shape:
            raise InvalidTraining(f"the model to start from is another network: no such {name!r}")
        graph.parameters[name] = found[name].astype(drawn.dtype)


def steal_folder(inputs: StrPath, outputs: StrPath, **options: Any) -> Surrogate:
    """:func:`steal` from two folders of pictures whose files pair up by stem.

    ``options`` are those of :func:`steal`. All pictures are held in memory.

    Raises:
        InvalidPicture: a folder is missing or empty, or a file is no picture.
        InvalidTraining: files without a partner, and whatever :func:`steal` refuses.
    """
    sources, results, stems = read_pairs(inputs, outputs)
    return steal(sources, results, names=stems, **options)
