"""How models/extractor.onnx is made: from pictures of models and of surrogates that carry no mark.

    python models/recipes/extractor.py --models MODELS --photos PHOTOS --work extractor-work

MODELS holds fsrcnn_x2.onnx and denoise_small.onnx, PHOTOS a folder of photographs. Each model is
run over them, and thieves steal it with a third of them, unmarked; what the models make of all
photographs, and the thieves of those that they never saw, is cut into squares and measured, as it
is and after damages. What a calibration reads there is no mark. It is regressed on the extractor's
features (ridge regression, its strength chosen on photographs left out). What has been measured
is kept in the work folder, so that a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from birthmark import _core
from birthmark.calibration import COORDINATES, Calibration, FloatArray, calibrate
from birthmark.damages import Damage, blurred, compressed, median, noisy, rescaled, sharpened
from birthmark.extractor import features
from birthmark.files import write_atomically
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.progress import Progress
from birthmark.sums import Sums, sums_of, texture
from birthmark.training.surrogates import steal

SEED = 20261127
SIDE_PX = 256
DENOISED_LEVELS = 25
MODELS = ("fsrcnn_x2", "denoise_small")
Thief = tuple[str, tuple[str, ...]]
"""His network, and the disturbances that he trains with."""
THIEVES: tuple[Thief, ...] = (
    ("resnet", ()),
    ("cnn", ("jpeg",)),
    ("unet", ("rescale",)),
)
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
POOLED = 8  # photographs, where ridges are compared

DAMAGES: dict[str, Damage] = {
    "none": lambda picture: picture,
    "JPEG 90": compressed(90),
    "JPEG 70": compressed(70),
    "JPEG 45": compressed(45),
    "blur .5": blurred(0.5),
    "blur .8": blurred(0.8),
    "noise 3": noisy(3),
    "rescale .75": rescaled(0.75),
    "median": median,
    "sharper": sharpened(0.4),
}


@dataclass(frozen=True)
class Source:
    """Pictures of one maker: what was measured on them, and the calibration they are read with."""

    model: str
    sums: Sums
    """int64 [damages, squares, parts, tones, orbits + 1]."""
    photograph: npt.NDArray[np.int64]
    """Which photograph each square is of, [squares]."""
    calibration: Calibration


def inputs_of(model: ImageModel, photographs: Sequence[Picture]) -> list[Picture]:
    """What a customer would send: photographs at half size, or with noise."""
    made = []
    for i, photograph in enumerate(photographs):
        rows, columns = (side // 4 * 4 for side in photograph.shape[:2])
        factor = 1 / model.scale if model.scale > 1 else 0.75
        whole = photograph[:rows, :columns]
        x = cv2.resize(whole, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if model.scale == 1:
            noise = np.random.default_rng((SEED, i)).standard_normal(x.shape)
            x = np.clip(np.rint(x + DENOISED_LEVELS * noise), 0, 255)
        made.append(np.ascontiguousarray(x, np.uint8))
    return made


def measured(pictures: Sequence[Picture]) -> tuple[Sums, npt.NDArray[np.int64]]:
    """The statistics of all squares after each damage, and whose they are; see :class:`Source`."""
    found: list[Sums] = []
    of: list[int] = []
    for i, picture in enumerate(pictures):
        for y in range(0, picture.shape[0] - SIDE_PX + 1, SIDE_PX):
            for x in range(0, picture.shape[1] - SIDE_PX + 1, SIDE_PX):
                square = np.ascontiguousarray(picture[y : y + SIDE_PX, x : x + SIDE_PX])
                of_square = np.stack([sums_of(damage(square)) for damage in DAMAGES.values()])
                if texture(of_square[0]) > 0:
                    found.append(of_square)
                    of.append(i)
    return np.stack(found, axis=1), np.array(of)


def sources(args: argparse.Namespace) -> Iterator[Source]:
    """Everything that was measured, or is measured now and kept."""
    photographs = [read_picture(path) for path in gather_pictures([args.photos]).files]
    for name in MODELS:
        thieves = (None, *THIEVES)
        kept = [args.work / f"{_label(name, thief)}.npz" for thief in thieves]
        calibration_file = args.work / f"{name}.calibration"
        if not all(path.exists() for path in kept):
            model = ImageModel(args.models / f"{name}.onnx", threads=1)
            inputs = inputs_of(model, photographs)
            outputs = [model.output(x) for x in inputs]
            plain = _core.Embedder(None)
            if not calibration_file.exists():
                write_atomically(calibration_file, calibrate(outputs).to_bytes())
            published = [plain.embed(y) for y in outputs]
            for path, thief in zip(kept, thieves, strict=True):
                if not path.exists():
                    stolen = thief and _stolen(args, name, thief, inputs, published)
                    sums, of = measured(stolen or published)
                    buffer = io.BytesIO()
                    np.savez(buffer, sums=sums, of=of)
                    write_atomically(path, buffer.getbuffer())
                    print(f"{path.name}: {len(of)} squares", flush=True)
        calibration = Calibration.from_bytes(calibration_file.read_bytes())
        for path in kept:
            with np.load(path) as saved:
                yield Source(name, saved["sums"], saved["of"], calibration)


def _label(name: str, thief: Thief | None) -> str:
    return "-".join((name, "model") if thief is None else (name, thief[0], *thief[1]))


def _stolen(
    args: argparse.Namespace,
    name: str,
    thief: Thief,
    inputs: Sequence[Picture],
    published: Sequence[Picture],
) -> list[Picture]:
    """What a thief's network makes of the photographs that it was not trained on."""
    label = _label(name, thief)
    student, disturbances = thief
    progress = Progress(label)
    surrogate = steal(
        inputs[::3],
        published[::3],
        student=student,
        steps=args.steps,
        seed=SEED,
        disturbances=disturbances,
        checkpoint=args.work / f"{label}.training",
        progress=progress,
    )
    progress.close()
    suspect = ImageModel(surrogate.model.SerializeToString(), name=label, threads=1)
    return [suspect(x) for i, x in enumerate(inputs) if i % 3]


def half_of(source: Source, half: int) -> Source:
    """Every second photograph of it."""
    kept = source.photograph % 2 == half
    return replace(source, sums=source.sums[:, kept], photograph=source.photograph[kept])


def common_basis(calibrations: Sequence[Calibration]) -> FloatArray:
    """Coefficients of directions that are about orthonormal to all models, [carriers, carriers]."""
    inverses = [np.linalg.inv(calibration.coefficients) for calibration in calibrations]
    gram = np.mean([inverse.T @ inverse for inverse in inverses], axis=0)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(gram)).T, np.float64)


@dataclass(frozen=True)
class Rows:
    """Features and what was read, for every photograph and every square of it."""

    features: FloatArray
    read: FloatArray
    """In the common basis, [rows, carriers]."""
    weight: FloatArray


def rows_of(source: Source, basis: FloatArray) -> Rows:
    """Squares, each alone, and photographs; both count as much."""
    change = np.linalg.solve(basis, source.calibration.coefficients)
    found, read, weight = [], [], []
    for of_damage in source.sums:
        pools = [of_damage[source.photograph == i] for i in np.unique(source.photograph)]
        whole = [pool.sum(axis=0) for pool in pools]
        for sums, count in (
            *((one, 1 / len(of_damage)) for one in of_damage),
            *((one, 1 / len(whole)) for one in whole),
        ):
            if texture(sums) > 0:
                found.append(features(sums, source.calibration))
                read.append(change @ source.calibration.read(sums))
                weight.append(count)
    return Rows(np.stack(found), np.stack(read), np.array(weight))


def fit(rows: Sequence[Rows], ridge: float) -> tuple[FloatArray, FloatArray]:
    """Weights [carriers, features] and bias [carriers], in the common basis."""
    x, y, w = (
        np.concatenate([getattr(r, name) for r in rows]) for name in ("features", "read", "weight")
    )
    w = w / w.sum()
    mean = w @ x
    size = np.sqrt(w @ (x - mean) ** 2) + 1e-9
    standard = (x - mean) / size
    second = (standard.T * w) @ standard + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(second, (standard.T * w) @ (y - w @ y)).T / size
    return weights, w @ y - weights @ mean


def left_over(
    source: Source, basis: FloatArray, weights: FloatArray, bias: FloatArray
) -> FloatArray:
    """Root mean square of what pools of photographs show: before and after, [2, damages]."""
    change = np.linalg.solve(basis, source.calibration.coefficients)
    rng = np.random.default_rng(SEED)
    photographs = np.unique(source.photograph)
    pools = [rng.choice(photographs, POOLED, replace=False) for _ in range(40)]
    left = np.zeros((2, len(source.sums)))
    for damage, of_damage in enumerate(source.sums):
        for pool in pools:
            sums = of_damage[np.isin(source.photograph, pool)].sum(axis=0)
            read = change @ source.calibration.read(sums)
            rest = read - weights @ features(sums, source.calibration) - bias
            left[:, damage] += (read @ read) / len(pools), (rest @ rest) / len(pools)
    return np.sqrt(left / COORDINATES)


def graph_of(weights: FloatArray, bias: FloatArray, metadata: dict[str, str]) -> onnx.ModelProto:
    """features float64 [features] -> foreseen float64 [carriers], in coefficients."""
    count, carriers = weights.shape[1], weights.shape[0]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["weights", "features"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], ["foreseen"]),
        ],
        "extractor",
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, [count])],
        [helper.make_tensor_value_info("foreseen", TensorProto.DOUBLE, [carriers])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model


def main() -> int:
    """Measure what is missing, fit, and write the extractor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("extractor-work"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("models/extractor.onnx"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    found = list(sources(args))
    basis = common_basis([source.calibration for source in found])
    halves = [[half_of(source, half) for source in found] for half in (0, 1)]
    fitted = [rows_of(source, basis) for source in halves[0]]
    scores = {}
    for ridge in RIDGES:
        weights, bias = fit(fitted, ridge)
        left = [left_over(source, basis, weights, bias) for source in halves[1]]
        # As a fraction of what there was: some makers' pictures disturb less than others'.
        scores[ridge] = float(np.mean([after / before for before, after in left]))
        print(f"ridge {ridge}, photographs not fitted on:", end=" ")
        for model in MODELS:
            mine = [x for x, source in zip(left, found, strict=True) if source.model == model]
            before, after = np.mean(mine, axis=(0, 2))
            print(f"{model} {before:.3f} -> {after:.3f}", end="; ")
        print(flush=True)
    rows = [rows_of(source, basis) for source in found]
    ridge = min(scores, key=lambda ridge: scores[ridge])
    weights, bias = fit(rows, ridge)
    recipe = {
        "seed": SEED,
        "steps": args.steps,
        "ridge": ridge,
        "squares": sum(len(source.photograph) for source in found),
    }
    model = graph_of(basis @ weights, basis @ bias, {"recipe": json.dumps(recipe)})
    write_atomically(args.out, model.SerializeToString(deterministic=True))
    print(f"{args.out}: ridge {ridge}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
