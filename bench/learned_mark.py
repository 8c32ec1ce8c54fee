"""A mark with learned carriers beside the shipped one: how much thieves take over of each.

    python bench/learned_mark.py --photos photos --keys 2 --students resnet-1 cnn

The shipped carriers are Chebyshev polynomials of the tone times echoes, made orthogonal, each
degree with .6 times the energy of the one below. The learned ones are found through two networks
(``REFERENCES``) that were trained on unmarked outputs: a network's tangent kernel (Jacot et al.
2018), with Adam's second moments as its metric, says how fast each change of the outputs is
learned from there on. Of all products of echoes and polynomials up to degree 5, those 68
combinations are taken that are learned fastest for their energy, and energy is spread by the square
root of the speed.

For each key, mark and student: log10 p of the cosine (no draws are counted, no extractor) of the
model's own marked outputs and of the student's, on photographs that nobody was trained on: as they
are, as JPEG 75, and informed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnxruntime
from scipy.linalg import eigh
from steal import inputs_of

from birthmark import _core, calibration
from birthmark.calibration import (
    STRENGTH_LEVELS,
    Calibration,
    Fields,
    calibrate,
    chebyshev,
    echoes_by_tone,
)
from birthmark.models import ImageModel
from birthmark.pictures import Picture, psnr_db, through_jpeg
from birthmark.progress import Progress
from birthmark.regression import Regression
from birthmark.sums import sums_of, total_of
from birthmark.tails import log10_p_of_cosine
from birthmark.training.gradient import gradients
from birthmark.training.graph import Tensor
from birthmark.training.students import Network
from birthmark.training.surrogates import steal

FloatArray = npt.NDArray[np.float64]
Spread = Callable[[list[npt.NDArray[np.float32]], int], npt.NDArray[np.float32]]

MODEL = "models/espcn_x2.onnx"
REFERENCES = ("resnet", "unet")
POLYNOMIALS = 6
FUNCTIONS = POLYNOMIALS * _core.ORBITS
BATCH, SIDE_PX = 16, 32


class Tangents:
    """The gradient of <a network's output, a function of the picture> by the parameters."""

    def __init__(self, kind: str, checkpoint: Path) -> None:
        forward = Network(kind, 2).training_graph((BATCH, SIDE_PX, SIDE_PX), 0)
        graph = forward.shell()
        kept = np.load(checkpoint)
        self._parameters = kept["p"]
        moments = np.sqrt(kept["v"])
        self._metric = 1 / (moments + 0.1 * np.median(moments))
        p = graph.input("p", self._parameters.shape)
        wanted = graph.unpack(p, forward.parameters)
        graph.append(forward.nodes)
        product = (Tensor(graph, "output") * Tensor(graph, "target")).sum([0, 1, 2, 3])
        slopes = [slope.reshape(-1) for slope in gradients(graph, product, wanted)]
        model = graph.model({"slopes": graph.op("Concat", *slopes, axis=0)})
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self._sums = np.zeros((FUNCTIONS, self._parameters.size))

    def add(self, inputs: npt.NDArray[np.float32], functions: npt.NDArray[np.float32]) -> None:
        """Take in a batch: inputs [BATCH, 3, h, w], functions [FUNCTIONS, BATCH, 2 h, 2 w]."""
        for total, function in zip(self._sums, functions, strict=True):
            target = np.repeat(function[:, None], 3, axis=1)
            feeds = {"p": self._parameters, "input": inputs, "target": target}
            total += self._session.run(["slopes"], feeds)[0]

    def kernel(self) -> FloatArray:
        """How fast functions are learned together, float64 [FUNCTIONS, FUNCTIONS], of trace 1."""
        made = (self._sums * self._metric) @ self._sums.T
        return np.asarray(made / np.trace(made), np.float64)


def functions_of(fields: Fields) -> npt.NDArray[np.float32]:
    """Polynomials of the tone times echoes, in grey levels, float32 [FUNCTIONS, h, w].

    ``fields`` is what ``_core.fields`` gives for a picture, or a crop of it.
    """
    shape = fields[1].shape
    polynomials = chebyshev(POLYNOMIALS)
    made = np.empty((FUNCTIONS, shape[0] * shape[1]), np.float32)
    for t, held, echoes in echoes_by_tone(fields):
        made[:, held] = np.kron(polynomials[:, t, None], echoes)
    return made.reshape(FUNCTIONS, *shape)


def learned(
    inputs: list[Picture], unmarked: list[Picture], checkpoints: dict[str, Path], batches: int
) -> Spread:
    """A spread of learned carriers, to take the place of the calibration's."""
    networks = [Tangents(kind, file) for kind, file in checkpoints.items()]
    rng = np.random.default_rng(0)
    gram = np.zeros((FUNCTIONS, FUNCTIONS))
    progress = Progress("tangent kernels")
    for done in range(batches):
        progress(done, batches)
        asked, changed = [], []
        for i in rng.choice(len(inputs), BATCH):
            y, x = (int(rng.integers(0, side - SIDE_PX + 1)) for side in inputs[i].shape[:2])
            crop = inputs[i][y : y + SIDE_PX, x : x + SIDE_PX]
            asked.append(crop.transpose(2, 0, 1).astype(np.float32) / 255)
            rows, columns = (slice(2 * at, 2 * (at + SIDE_PX)) for at in (y, x))
            w, tone, orbits, colours = _core.fields(unmarked[i])
            here = np.s_[..., rows, columns]
            changed.append(functions_of((w[here], tone[here], orbits[here], colours[here])))
        functions = np.stack(changed, axis=1)
        flat = functions.reshape(FUNCTIONS, -1).astype(np.float64)
        gram += flat @ flat.T
        for network in networks:
            network.add(np.stack(asked), functions)
    progress.close()
    gram /= batches * BATCH * (2 * SIDE_PX) ** 2  # energy a pixel
    gram += 1e-6 * np.trace(gram) / FUNCTIONS * np.eye(FUNCTIONS)
    speeds, directions = eigh(np.sum([network.kernel() for network in networks], axis=0), gram)

    def spread(crops: list[npt.NDArray[np.float32]], n: int) -> npt.NDArray[np.float32]:
        best, fastest = directions[:, ::-1][:, :n], speeds[::-1][:n]
        energy = np.sqrt(fastest) / np.sqrt(fastest).sum()
        coefficients = best * (STRENGTH_LEVELS * np.sqrt(energy))
        by_degree = coefficients.reshape(POLYNOMIALS, _core.ORBITS, n)
        made = np.einsum("kon,kt->otn", by_degree, chebyshev(POLYNOMIALS))
        return np.asarray(made, np.float32)

    return spread


class Marked:
    """A model whose outputs carry a mark with given carriers and a key of its own."""

    def __init__(self, outputs: list[npt.NDArray[np.float32]], seed: int) -> None:
        self.calibration: Calibration = calibrate(outputs)
        n, m = self.calibration.coordinates, self.calibration.tint_coordinates
        z = np.random.default_rng([seed, 1]).standard_normal(n)
        self._direction = z / np.linalg.norm(z)
        tint = np.random.default_rng([seed, 2]).standard_normal(m)
        gains = self.calibration.gains(self._direction * np.sqrt(n), tint)
        self.embed = _core.Embedder(_core.write_mark(bytes(16), gains)).embed

    def judge(self, answers: list[Picture], own: list[Picture]) -> str:
        """log10 p of a suspect's answers: as they are, as JPEG 75, and informed."""
        beside = Regression.empty()
        for answer, unmarked in zip(answers, own, strict=True):
            beside.add(answer, unmarked)
        compressed = [through_jpeg(a, 75) for a in answers]
        read = [
            self.calibration.read(total_of([sums_of(a) for a in some]))
            for some in (answers, compressed)
        ]
        read.append(beside.read(self.calibration))
        found = [float(z @ self._direction / np.linalg.norm(z)) for z in read]
        return " | ".join(f"{log10_p_of_cosine(c, len(self._direction)):.1f}" for c in found)


def main() -> None:
    """Run and print, a line a suspect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--keys", type=int, default=2)
    parser.add_argument("--students", nargs="+", default=["resnet-1", "cnn"])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    model = ImageModel(MODEL)
    train, held_out = (
        inputs_of("sr", Path(options.photos) / split, 1) for split in ("train", "eval")
    )
    plain = _core.Embedder(None).embed
    outputs = [model.output(x) for x in train]
    unmarked = [plain(y) for y in outputs]
    answers = [model.output(x) for x in held_out]
    own = [plain(y) for y in answers]
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {kind: Path(folder) / f"{kind}.npz" for kind in REFERENCES}
        for kind, file in checkpoints.items():
            steal(train, unmarked, student=kind, steps=options.steps, checkpoint=file)
        carriers = learned(train, unmarked, checkpoints, options.batches)
    print("| mark | key | suspect | as they are | JPEG 75 | informed |")
    for seed in range(options.keys):
        for name in ("learned", "shipped"):
            with mock.patch.object(
                calibration, "_spread", carriers if name == "learned" else calibration._spread
            ):
                mark = Marked(outputs, seed)
            direct = [mark.embed(y) for y in answers]
            psnr = np.mean([psnr_db(a, b) for a, b in zip(own, direct, strict=True)])
            what = f"| {name} | {seed} |"
            print(f"{what} the outputs, {psnr:.1f} dB | {mark.judge(direct, own)} |", flush=True)
            published = [mark.embed(y) for y in outputs]
            for student in options.students:
                kind, _, depth = student.partition("-")
                stolen = steal(
                    train,
                    published,
                    student=kind,
                    depth=int(depth) if depth else None,
                    steps=options.steps,
                    seed=1,
                )
                suspect = ImageModel(stolen.model.SerializeToString(), name=student)
                found = mark.judge([suspect(x) for x in held_out], own)
                print(f"{what} {student} | {found} |", flush=True)


if __name__ == "__main__":
    main()
