"""A logo hidden and found again by trained networks, after Zhang et al. (AAAI 2020).

"Model Watermarking for Image Processing Networks": a U-Net hides a logo in every output, an
extractor shows the logo where it is and nothing where it is not, and is then trained once more on
what a surrogate makes (the adversarial stage). Here both are small, pictures are squares of one
side, and the strength is given instead of learned: every residual has the same energy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from birthmark.models import as_planes
from birthmark.pictures import Picture
from birthmark.progress import Progress
from birthmark.training.graph import Array, Graph, Tensor
from birthmark.training.optimiser import Trainer, one_cycle
from birthmark.training.students import Layers, resnet, unet

FloatArray = npt.NDArray[np.float32]
Batch = tuple[FloatArray, FloatArray]

CELLS = 16
WIDTH, DEPTH = 16, 3
PEAK_RATE = 2e-3
CHECKPOINT_EVERY = 100
_LOGO = (
    "................",
    ".####......####.",
    ".#...#....#.....",
    ".#...#....#.....",
    ".####.....#.....",
    ".#...#....#.....",
    ".#...#....#.....",
    ".####......####.",
    "................",
    "....########....",
    "...#........#...",
    "..#..#....#..#..",
    "..#..........#..",
    "..#...####...#..",
    "...#........#...",
    "....########....",
)


def logo(side: int) -> FloatArray:
    """The logo of 16 x 16 cells, enlarged to float32 [side, side] of -1 and 1."""
    cells = np.array([[1 if cell == "#" else -1 for cell in row] for row in _LOGO], np.float32)
    return np.kron(cells, np.ones((side // CELLS,) * 2, np.float32))


def likeness(shown: FloatArray) -> float:
    """Correlation of what an extractor shows with the logo, cell by cell, in -1..1."""
    side = shown.shape[0] // CELLS
    cells = shown.reshape(CELLS, side, CELLS, side).mean(axis=(1, 3))
    return float(np.corrcoef(cells.ravel(), logo(CELLS).ravel())[0, 1])


class LogoNetworks:
    """Embedder and extractor for squares of ``side`` pixels.

    ``rms_levels`` is the root mean square of every residual, in grey levels.
    """

    def __init__(self, side: int, rms_levels: float) -> None:
        self.side, self._rms = side, rms_levels / 255
        self._weights: dict[str, Array] = {}

    def train(self, hosts: Sequence[Picture], steps: int, checkpoint: Path) -> None:
        """Both at once: the logo shall be shown of marked pictures, nothing of unmarked ones."""
        graph = Graph()
        given = graph.input("input", (1, 6, self.side, self.side))
        graph.input("target", (2, 1, self.side, self.side))
        host, rounding = graph.ops("Split", 2, given, np.array([3, 3]), axis=1)
        marked = self._marked(graph, host) + rounding
        both = graph.op("Concat", marked, host, axis=0)
        graph.name(_shown(graph, both), "output")
        target = np.stack([logo(self.side), np.zeros((self.side,) * 2, np.float32)])[:, None]

        def batch(rng: np.random.Generator) -> Batch:
            planes = as_planes(hosts[int(rng.integers(len(hosts)))])
            noise = (rng.random(planes.shape, np.float32) - 0.5) / 255
            return np.concatenate([planes, noise.astype(np.float32)], axis=1), target

        self._fit(graph, steps, checkpoint, batch)

    def harden(
        self,
        showing: Sequence[Sequence[Picture]],
        plain: Sequence[Picture],
        steps: int,
        checkpoint: Path,
    ) -> None:
        """The extractor alone, the adversarial stage: half of what it sees shall show the logo.

        ``showing`` are kinds of such pictures, a surrogate's among them, each as often as others.
        """
        graph = Graph()
        pictures = graph.input("input", (2, 3, self.side, self.side))
        graph.input("target", (2, 1, self.side, self.side))
        graph.name(_shown(graph, pictures), "output")
        for name in graph.parameters:
            graph.parameters[name] = self._weights[name]
        target = np.stack([logo(self.side), np.zeros((self.side,) * 2, np.float32)])[:, None]

        def batch(rng: np.random.Generator) -> Batch:
            kind = showing[int(rng.integers(len(showing)))]
            drawn = [some[int(rng.integers(len(some)))] for some in (kind, plain)]
            return np.concatenate([as_planes(picture) for picture in drawn]), target

        self._fit(graph, steps, checkpoint, batch)

    def mark(self, hosts: Sequence[Picture]) -> list[Picture]:
        """The pictures with the logo in them."""
        graph = Graph()
        host = graph.input("input", (1, 3, self.side, self.side))
        return [
            np.ascontiguousarray(np.rint(np.clip(made[0], 0, 1) * 255).transpose(1, 2, 0), np.uint8)
            for made in self._run(graph, self._marked(graph, host), hosts)
        ]

    def show(self, pictures: Sequence[Picture]) -> list[FloatArray]:
        """What the extractor shows of each picture, float32 [side, side]."""
        graph = Graph()
        given = graph.input("input", (1, 3, self.side, self.side))
        return [made[0, 0] for made in self._run(graph, _shown(graph, given), pictures)]

    def _marked(self, graph: Graph, host: Tensor) -> Tensor:
        layers = Layers(graph, 0, "embedder.")
        asked = graph.op("Concat", (host - 0.5) * 4.0, logo(self.side)[None, None], axis=1)
        body = unet(layers, layers.conv(asked, 4, 3), WIDTH, DEPTH)
        drawn = layers.conv(body, WIDTH, 3)
        size = graph.op("ReduceMean", drawn * drawn, axes=[1, 2, 3]) + 1e-9
        return host + drawn / graph.op("Sqrt", size) * self._rms

    def _fit(
        self,
        graph: Graph,
        steps: int,
        checkpoint: Path,
        batch: Callable[[np.random.Generator], Batch],
    ) -> None:
        trainer = Trainer(graph, identity=f"{steps}")
        if checkpoint.exists():
            trainer.resume(checkpoint)
        progress = Progress(checkpoint.stem)
        while trainer.done < steps:
            rng = np.random.default_rng((1, trainer.done))
            loss = trainer.step(batch(rng), one_cycle(trainer.done, steps, PEAK_RATE))
            progress(trainer.done, steps, f"loss {loss / 255**2:.3f}")
            if trainer.done % CHECKPOINT_EVERY in (0, steps):
                trainer.save(checkpoint)
        trainer.save(checkpoint)
        progress.close()
        self._weights |= trainer.weights()

    def _run(self, graph: Graph, made: Tensor, pictures: Sequence[Picture]) -> list[FloatArray]:
        for name in graph.parameters:
            graph.parameters[name] = self._weights[name]
        model = graph.model({"output": made}).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return [session.run(None, {"input": as_planes(p)})[0] for p in pictures]


def _shown(graph: Graph, pictures: Tensor) -> Tensor:
    layers = Layers(graph, 1, "extractor.")
    return layers.conv(resnet(layers, (pictures - 0.5) * 4.0, WIDTH, DEPTH), WIDTH, 1)
