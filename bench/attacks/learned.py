"""Attacks by networks and regressions: from unmarked photographs, or from pairs with the twins."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import onnx
from scene import Gains, Published, Scene, enlarged, rounded, without

from birthmark import _core
from birthmark.calibration import UNITS_PER_LEVEL, echoes_by_tone, tint_fields
from birthmark.embed import Embedder
from birthmark.pictures import Picture
from birthmark.progress import Progress
from birthmark.training.data import Pairs
from birthmark.training.graph import Graph, Tensor
from birthmark.training.optimiser import Trainer, one_cycle
from birthmark.training.students import Layers

TILE_PX = 96
REACH_PX = 10
SAMPLES = 3000
QUERY_PX = 128
TILES_PX = 32
FITS = 2
TINT_RIDGE = 1e-4
BLOCK_PX = 16
BATCH, CROP_PX, RATE = 4, 64, 2e-3


def regenerated(scene: Scene, of: Published, channels: int) -> list[Picture]:
    """Through a small autoencoder that the attacker trained on photographs of his own."""
    network = scene.kept(
        f"autoencoder {channels}",
        lambda: _train_autoencoder(scene.thiefs.truth, channels, scene.steps),
    )
    return [network(p) for p in of.marked]


def _autoencoder(graph: Graph, picture: Tensor, channels: int) -> Tensor:
    """A quarter of the size, ``channels`` wide, and back; nothing passes by that neck."""
    layers = Layers(graph, seed=0)
    x = layers.active((picture - 0.5) * 4.0, 3, 24)
    for inputs, outputs in ((24, 48), (48, 48)):
        x = graph.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
        x = layers.active(x, inputs, outputs)
    x = layers.active(layers.conv(x, 48, channels), channels, 48)
    for inputs in (48, 24):
        x = layers.active(x, inputs, 96)
        x = graph.op("DepthToSpace", x, blocksize=2, mode="CRD")
    return layers.conv(x, 24, 3, gain=0.3) * 0.5 + 0.5


def _train_autoencoder(photographs: list[Picture], channels: int, steps: int) -> onnx.ModelProto:
    pairs = Pairs(photographs, photographs, CROP_PX)
    graph = Graph()
    size = (BATCH, 3, CROP_PX, CROP_PX)
    picture, _ = graph.input("input", size), graph.input("target", size)
    graph.name(_autoencoder(graph, picture, channels), "output")
    trainer, progress = Trainer(graph), Progress(f"autoencoder of {channels} channels")
    for step in range(steps):
        batch = pairs.batch(np.random.default_rng((0, step)), BATCH, augment=True)
        loss = trainer.step(batch, one_cycle(step, steps, RATE))
        progress(step, steps, f"loss {loss:.1f}")
    progress.close()
    whole = Graph()
    picture = whole.input("input", ("n", 3, "h", "w"))
    made = whole.op("Clip", _autoencoder(whole, picture, channels), 0.0, 1.0)
    whole.parameters |= trainer.weights()
    return whole.model({"output": made}, shapes={"output": ("n", 3, "oh", "ow")})


def mean_residual(scene: Scene, of: Published, pairs: int) -> list[Picture]:
    """The mean of marked less unmarked, over tiles of so many pairs, subtracted everywhere."""
    some = slice(pairs)
    residual = _mean_tile(scene.thiefs.marked[some]) - _mean_tile(scene.thiefs.host[some])
    return [_less(p, _tiled(residual, p)) for p in of.marked]


def mean_picture(scene: Scene, of: Published, count: int) -> list[Picture]:
    """The same without twins: the mean marked picture less the mean of other photographs."""
    some = slice(count)
    pattern = _mean_tile(scene.thiefs.marked[some]) - _mean_tile(scene.thiefs.truth[::-1][some])
    pattern -= pattern.mean((0, 1))
    return [_less(p, _tiled(pattern, p)) for p in of.marked]


def colours_fitted(scene: Scene, of: Published, degree: int) -> list[Picture]:
    """Output less enlarged input as a polynomial of the colour, fitted and subtracted.

    Means over small blocks are compared, since details differ by what the model does. He need not
    know the method; what the model itself does to colours is undone with the mark.
    """
    gram, projection = 0.0, 0.0
    for published, asked in zip(scene.thiefs.marked, scene.thiefs.inputs, strict=True):
        marked, before = (_blocks(p) for p in (published, enlarged(asked, published)))
        features = _monomials(before, degree)
        gram = gram + features.T @ features
        projection = projection + features.T @ (marked - before)
    size = len(gram)
    fit = np.linalg.solve(gram + 1e-6 * np.trace(gram) / size * np.eye(size), projection)
    out = []
    for p in of.marked:
        tint = _monomials(cv2.GaussianBlur(p, (0, 0), 2.0).reshape(-1, 3), degree) @ fit
        out.append(rounded(p - tint.reshape(p.shape)))
    return out


def _blocks(picture: Picture) -> Gains:
    height, width = (side // BLOCK_PX * BLOCK_PX for side in picture.shape[:2])
    blocks = picture[:height, :width].reshape(height // BLOCK_PX, BLOCK_PX, -1, BLOCK_PX, 3)
    return blocks.mean(axis=(1, 3)).reshape(-1, 3)


def _monomials(colours: np.ndarray, degree: int) -> Gains:
    """All products of so many channels at most, float64 [colours, products]."""
    channels = np.column_stack([np.ones(len(colours)), colours / 127.5 - 1])
    chosen = itertools.combinations_with_replacement(range(4), degree)
    return np.column_stack([channels[:, some].prod(axis=1) for some in map(list, chosen)])


def _mean_tile(pictures: list[Picture]) -> Gains:
    tiles = [
        p[y : y + TILE_PX, x : x + TILE_PX]
        for p in pictures
        for y in range(0, p.shape[0] - TILE_PX + 1, TILE_PX)
        for x in range(0, p.shape[1] - TILE_PX + 1, TILE_PX)
    ]
    return np.mean(tiles, axis=0, dtype=np.float64)


def _tiled(tile: Gains, picture: Picture) -> Gains:
    height, width = picture.shape[:2]
    times = (-(-height // TILE_PX), -(-width // TILE_PX), 1)
    return np.tile(tile, times)[:height, :width]


def _less(picture: Picture, residual: np.ndarray) -> Picture:
    return np.clip(np.rint(picture - residual), 0, 255).astype(np.uint8)


def linear(scene: Scene, of: Published, bands: int) -> list[Picture]:
    """The residual regressed on the pixels around, a filter for each band of brightness."""
    count, side = bands, 2 * REACH_PX + 1
    size = side * side + 1
    gram, projection = np.zeros((count, size, size)), np.zeros((count, size))
    rng = np.random.default_rng(0)
    for marked, host in zip(scene.thiefs.marked, scene.thiefs.host, strict=True):
        luma = _luma(marked)
        residual = luma - _luma(host)
        windows = np.lib.stride_tricks.sliding_window_view(luma, (side, side))
        y, x = (rng.integers(n, size=SAMPLES) for n in windows.shape[:2])
        around = np.hstack([windows[y, x].reshape(SAMPLES, -1), np.ones((SAMPLES, 1), np.float32)])
        y, x = y + REACH_PX, x + REACH_PX
        band = _bands(luma, count)[y, x]
        for b in np.unique(band):
            held = around[band == b]
            gram[b] += held.T @ held
            projection[b] += held.T @ residual[y, x][band == b]
    ridge = 1e-5 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / size + 1e-6
    filters = np.linalg.solve(gram + ridge * np.eye(size), projection[..., None])[..., 0]
    return [_less(p, _filtered(_luma(p), filters)[..., None]) for p in of.marked]


def _filtered(luma: np.ndarray, filters: np.ndarray) -> np.ndarray:
    band = _bands(luma, len(filters))
    out = np.zeros_like(luma)
    side = 2 * REACH_PX + 1
    for b in np.unique(band):
        kernel = filters[b, :-1].reshape(side, side).astype(np.float32)
        made = cv2.filter2D(luma, cv2.CV_32F, kernel) + np.float32(filters[b, -1])
        out = np.where(band == b, made, out)
    return out


def _luma(picture: Picture) -> np.ndarray:
    return picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _bands(luma: np.ndarray, count: int) -> np.ndarray:
    smooth = cv2.GaussianBlur(luma, (0, 0), 1.7)
    return np.clip(smooth * (count / 256), 0, count - 1).astype(int)


def remover(scene: Scene, of: Published, pairs: int) -> list[Picture]:
    """Through a network that learned from pairs to give the twin for the marked picture."""
    count = min(pairs, len(scene.thiefs.marked))
    network = scene.trained(
        f"remover {count} pairs",
        scene.thiefs.marked[:count],
        scene.thiefs.host[:count],
        student="resnet",
    )
    return [network(p) for p in of.marked]


def proxy_remover(scene: Scene, of: Published, marks: int) -> list[Picture]:
    """The same from pairs of the attacker's own making: his photographs under his own marks."""
    photographs = scene.thiefs.truth
    embedders = scene.proxies(marks)
    marked = [embedders[i % len(embedders)].embed(p) for i, p in enumerate(photographs)]
    network = scene.trained(
        f"proxy remover {marks}", marked, photographs, share=0.5, student="resnet"
    )
    return [network(p) for p in of.marked]


def gains_of_pairs(marked: list[Picture], host: list[Picture]) -> Gains:
    """The gains by least squares, tone by tone: the attacker knows the method, and has twins.

    Rounding blurs what he sees of the texture, so the first fit of the echo is weak; what it leaves
    is fitted again. The tint is less than rounding takes away again, and is fitted once.
    """
    tint = _fit_tint(marked, host)
    echo = np.zeros((_core.ORBITS, _core.TONES))
    left = marked
    for _ in range(FITS):
        echo += _fit(left, host)
        left = without(marked, np.concatenate([echo, tint]))
    return np.concatenate([echo, tint])


def _fit(marked: list[Picture], host: list[Picture]) -> Gains:
    gram = np.zeros((_core.TONES, _core.ORBITS, _core.ORBITS))
    projection = np.zeros((_core.TONES, _core.ORBITS))
    for published, twin in zip(marked, host, strict=True):
        residual = (published.astype(np.float32) - twin).mean(axis=2).reshape(-1)
        inside = ((twin > 2) & (twin < 253)).all(axis=2).reshape(-1)  # where nothing was cut off
        for tone, held, echoes in echoes_by_tone(_core.fields(twin)):
            seen = echoes[:, inside[held]]
            gram[tone] += seen @ seen.T
            projection[tone] += seen @ residual[held & inside]
    ridge = 1e-5 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / _core.ORBITS + 1e-9
    solved = np.linalg.solve(gram + ridge * np.eye(_core.ORBITS), projection[..., None])
    return solved[..., 0].T


def _fit_tint(marked: list[Picture], host: list[Picture]) -> Gains:
    """A tint's gains: each channel's residual regressed on the tint's fields, tone by tone."""
    gram = np.zeros((_core.TONES, _core.TINT_FIELDS, _core.TINT_FIELDS))
    projection = np.zeros((_core.TONES, _core.TINT_FIELDS, 3))
    for published, twin in zip(marked, host, strict=True):
        residual = published.astype(np.float64) - twin
        tone, fields = tint_fields(_core.fields(twin))
        inside = ((twin > 2) & (twin < 253)).all(axis=2)
        for t in np.unique(tone[inside]):
            held = inside & (tone == t)
            gram[t] += fields[:, held] @ fields[:, held].T
            projection[t] += fields[:, held] @ residual[held]
    # Of tones and colours that are hardly there nothing is believed.
    mean = gram.mean(axis=0)
    ridge = TINT_RIDGE * np.diag(np.maximum(np.diag(mean), mean[0, 0]))
    of_fields = np.linalg.solve(gram + ridge, projection) * UNITS_PER_LEVEL[:, None]
    return of_fields.transpose(2, 1, 0).reshape(-1, _core.TONES)


def least_squares(scene: Scene, of: Published, pairs: int) -> list[Picture]:
    """Those gains from so many pairs, subtracted."""
    some = slice(pairs)
    return without(of.marked, gains_of_pairs(scene.thiefs.marked[some], scene.thiefs.host[some]))


def _flat(i: int, grid: np.ndarray) -> np.ndarray:
    return np.full_like(grid[0], 16.0 * i + 7)


def _ramp(i: int, grid: np.ndarray) -> np.ndarray:
    return (grid[i % 2] * (1 + i // 2) / 4 + 16 * i) % 256


def _impulses(i: int, grid: np.ndarray) -> np.ndarray:
    hit = (grid[0] % 16 == 8) & (grid[1] % 16 == 8)
    return np.where(hit, 255.0 - 15 * i, 15.0 * i)


def _edges(i: int, grid: np.ndarray) -> np.ndarray:
    period = 4 + 2 * i
    return np.where((grid[0] // period + grid[1] // period) % 2, 255.0 - 12 * i, 12.0 * i)


def _noise(i: int, grid: np.ndarray) -> np.ndarray:
    return 16 * i + 7 + 40 * np.random.default_rng(i).standard_normal(grid[0].shape)


def _colours(i: int, grid: np.ndarray) -> np.ndarray:
    tiles = np.random.default_rng(i).uniform(
        0, 255, (*(side // TILES_PX for side in grid[0].shape), 3)
    )
    return tiles.repeat(TILES_PX, axis=0).repeat(TILES_PX, axis=1)


CURATED = {
    "flat": _flat,
    "colours": _colours,
    "ramps": _ramp,
    "impulses": _impulses,
    "edges": _edges,
    "noise": _noise,
}
QUERIES = 16


def queried(scene: Scene, kind: str) -> tuple[list[Picture], list[Picture]]:
    """Marked and unmarked answers to sixteen curated inputs of one kind."""
    grid = np.mgrid[:QUERY_PX, :QUERY_PX].astype(float)
    drawn = [np.clip(np.rint(CURATED[kind](i, grid)), 0, 255) for i in range(QUERIES)]
    pictures = [p if p.ndim == 3 else np.dstack([p, p, p]) for p in drawn]
    outputs = [scene.model.output(p.astype(np.uint8)) for p in pictures]
    plain, marked = Embedder(None), Embedder(scene.mark)
    return [marked.embed(y) for y in outputs], [plain.embed(y) for y in outputs]


def curated(scene: Scene, of: Published, kind: str) -> list[Picture]:
    """The gains by least squares from curated questions alone, subtracted.

    He is given the unmarked answers; in truth he must guess them, which is easy for flat ones and
    colours only.
    """
    marked, host = queried(scene, kind)
    return without(of.marked, gains_of_pairs(marked, host))


def residual_levels(marked: list[Picture], host: list[Picture]) -> float:
    """Root mean square of what was added, in grey levels."""
    squares = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(marked, host, strict=True)]
    return float(np.sqrt(np.mean(squares)))
