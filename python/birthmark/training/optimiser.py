"""One training step as one ONNX graph, and the trainer that runs it.

All parameters live in one flat vector ``p`` with Adam's moments ``m`` and ``v`` beside it: the step
graph splits ``p`` at the top, runs the network, its loss and its gradient, concatenates the
gradients at the end and gives the new state. Stock onnxruntime runs it; there is no framework
behind it.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from birthmark.errors import InvalidTraining
from birthmark.files import StrPath, write_atomically
from birthmark.training.gradient import gradients
from birthmark.training.graph import Graph, Tensor

FloatArray = npt.NDArray[np.float32]

BETA1, BETA2 = 0.9, 0.98  # a short memory of the slopes' sizes: they fall fast at the start
FEWEST_FOR_A_NORM = 10  # steps before gradients are held to the usual length
EPSILON = 1e-7  # not 1e-8: graph optimisers of other tools take that for zero and delete it
LEVELS = 255.0  # losses are in units of 8-bit levels
CHARBONNIER_WIDTH = 1.0  # levels
FEATURES_SEED = 11
CRITIC_WEIGHT = 0.3  # levels that a wholly convinced critic is worth


def squared(made: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    error = (made - target) * LEVELS
    return made.graph.op("ReduceMean", error * error, keepdims=0)


def absolute(made: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    error = (made - target) * LEVELS
    return made.graph.op("ReduceMean", made.graph.op("Abs", error), keepdims=0)


def charbonnier(made: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(e^2 + 1), an absolute error that is round at zero (Charbonnier 1994)."""
    error = (made - target) * LEVELS
    rounded = made.graph.op("Sqrt", error * error + CHARBONNIER_WIDTH**2)
    return made.graph.op("ReduceMean", rounded, keepdims=0)


def perceptual(made: Tensor, target: Tensor) -> Tensor:
    """Charbonnier, and the absolute difference of features of a fixed network at three scales.

    In the manner of Johnson et al. (2016). The features are random filters, which hold most of what
    trained ones do in a first layer (Saxe et al. 2011); none of them comes from the mark.
    """
    rng = np.random.default_rng(FEATURES_SEED)
    x, y, channels = made, target, 3
    difference = charbonnier(made, target)
    for width in (16, 24, 32):
        drawn = rng.standard_normal((width, channels, 3, 3)).astype(np.float32)
        drawn -= drawn.mean((1, 2, 3), keepdims=True)
        drawn /= np.sqrt((drawn**2).sum((1, 2, 3), keepdims=True))
        x, y = (_features(value, drawn) for value in (x, y))
        difference = difference + absolute(x, y)
        x, y = (_coarser(value) for value in (x, y))
        channels = width
    return difference


def _features(x: Tensor, weight: npt.NDArray[np.float32]) -> Tensor:
    made = x.graph.op("Conv", x, weight, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    return x.graph.op("LeakyRelu", made, alpha=0.2)


def _coarser(x: Tensor) -> Tensor:
    return x.graph.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))


# "adversarial" is Charbonnier and what the critic says; it has parameters of its own.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": squared,
    "l1": absolute,
    "charbonnier": charbonnier,
    "perceptual": perceptual,
    "adversarial": charbonnier,
}


class Critic:
    """A small network that tells crops of the target from what the student made.

    Least squares as in Mao et al. (2017), on patches as in Isola et al. (2017). Its parameters
    train in the student's own step, on the loss of its own.
    """

    PREFIX = "critic."
    WIDTHS = (3, 16, 32, 32)

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    @classmethod
    def parameters(cls, seed: int) -> dict[str, FloatArray]:
        """Freshly drawn parameters, He-normal."""
        rng = np.random.default_rng((seed, 1))
        drawn: dict[str, FloatArray] = {}
        for i, (inputs, outputs) in enumerate(pairwise((*cls.WIDTHS, 1))):
            weight = rng.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
            drawn[f"{cls.PREFIX}conv{i}.weight"] = weight.astype(np.float32)
            drawn[f"{cls.PREFIX}conv{i}.bias"] = np.zeros(outputs, np.float32)
        return drawn

    def missed(self, x: Tensor, wish: float) -> Tensor:
        """How far the critic's answers to ``x`` are from ``wish``, mean squared."""
        x = (x - 0.5) * 4.0
        for i in range(len(self.WIDTHS)):
            weight, bias = (
                Tensor(self._graph, f"{self.PREFIX}conv{i}.{part}") for part in ("weight", "bias")
            )
            last = i == len(self.WIDTHS) - 1
            stride = 1 if last else 2
            x = self._graph.op(
                "Conv",
                x,
                weight,
                bias,
                kernel_shape=(3, 3),
                pads=(1, 1, 1, 1),
                strides=(stride, stride),
            )
            x = x if last else self._graph.op("LeakyRelu", x, alpha=0.2)
        error = x - wish
        return self._graph.op("ReduceMean", error * error, keepdims=0)


def one_cycle(done: int, total: int, peak: float, warm_up: float = 0.15) -> float:
    """The learning rate of step ``done`` of ``total``: up in a line, down in half a cosine.

    After Smith (2018), "A disciplined approach to neural network hyper-parameters". It starts at
    ``peak / 20`` and ends near zero.
    """
    rising = max(1.0, warm_up * total)
    if done < rising:
        return peak * (0.05 + 0.95 * done / rising)
    fraction = min(1.0, (done - rising) / max(1.0, total - rising))
    return peak * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * fraction)))


def training_step(forward: Graph, loss: str = "mse") -> onnx.ModelProto:
    """The step graph of a network with inputs ``input`` and ``target`` and value ``output``.

    ``forward`` has static shapes, its ``parameters`` train. Inputs of the result: ``p``, ``m``,
    ``v`` float32 [parameters], ``rate`` float32 [], ``count`` float32 [] (1 at the first step), and
    the network's own; outputs: ``next_p``, ``next_m``, ``next_v`` and ``loss`` float32 [], in 8-bit
    levels (squared for "mse"). Adam after Kingma & Ba (2015), with 1e-7 beside the root.

    Raises :class:`InvalidTraining` for an unknown loss, :class:`MissingGradient` for an operator
    that has no rule, :class:`InvalidModel` when shapes do not fit.
    """
    if loss not in LOSSES:
        raise InvalidTraining(f"unknown loss {loss!r}: choose one of {', '.join(LOSSES)}")
    step = forward.shell()
    total = sum(value.size for value in forward.parameters.values())
    p, m, v = (step.input(name, (total,)) for name in "pmv")
    rate, count = step.input("rate", ()), step.input("count", ())
    wanted = step.unpack(p, forward.parameters)
    step.append(forward.nodes)
    made, target = Tensor(step, "output"), Tensor(step, "target")
    value = LOSSES[loss](made, target)
    critics = [x for x in wanted if x.name.startswith(Critic.PREFIX)]
    if critics:
        critic = Critic(step)
        value = value + critic.missed(made, 1.0) * CRITIC_WEIGHT
        mistaken = critic.missed(target, 1.0) + critic.missed(made, 0.0)
        slopes = gradients(step, value, wanted[: -len(critics)])
        slopes = [*slopes, *gradients(step, mistaken, critics)]
    else:
        slopes = gradients(step, value, wanted)
    g = step.op("Concat", *(slope.reshape(-1) for slope in slopes), axis=0)
    g = _shortened(g, v, count)
    next_m = m * BETA1 + g * (1 - BETA1)
    next_v = v * BETA2 + g * g * (1 - BETA2)
    mean = next_m / (1.0 - step.op("Pow", BETA1, count))
    variance = next_v / (1.0 - step.op("Pow", BETA2, count))
    next_p = p - rate * mean / (step.op("Sqrt", variance) + EPSILON)
    return step.model({"next_p": next_p, "next_m": next_m, "next_v": next_v, "loss": value})


def _shortened(g: Tensor, v: Tensor, count: Tensor) -> Tensor:
    """The gradient, no longer than the root of the mean squared length of those before it.

    A rare steep batch then costs one ordinary step. (Pascanu et al. 2013 clip at a fixed length;
    here Adam's second moments give it.)
    """
    earlier = g.graph.op("Max", count - 1.0, 1.0)
    usual = v.sum([0]) / (1.0 - g.graph.op("Pow", BETA2, earlier))
    ratio = usual / ((g * g).sum([0]) + EPSILON**2)
    judged = g.graph.op("Cast", g.graph.op("Less", count, float(FEWEST_FOR_A_NORM)), to=1)
    return g * g.graph.op("Sqrt", g.graph.op("Min", g.graph.op("Max", ratio, judged), 1.0))


class Trainer:
    """Trains the parameters of a network, one graph run a step.

    The same network, batches and rates give the same bits on one machine, whatever the number of
    threads. ``identity`` is any text that tells this training from others; a checkpoint of
    another identity is refused. ``seed`` is that of the critic's first weights, where the loss is
    "adversarial".
    """

    def __init__(
        self,
        forward: Graph,
        *,
        loss: str = "mse",
        threads: int = 1,
        identity: str = "",
        seed: int = 0,
    ) -> None:
        if loss == "adversarial":
            for name, value in Critic.parameters(seed).items():
                forward.parameter(name, value)
        self._like = dict(forward.parameters)
        model = training_step(forward, loss).SerializeToString(deterministic=True)
        self.identity = hashlib.sha256(model + identity.encode()).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads steal the processor from whatever else runs: 2-4x noise in step times.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        flat = [value.ravel() for value in self._like.values()]
        self._state = [np.concatenate(flat).astype(np.float32)]
        self._state += [np.zeros_like(self._state[0]) for _ in "mv"]
        self.losses: list[float] = []

    @property
    def done(self) -> int:
        """The number of steps taken."""
        return len(self.losses)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self._state[0].size

    def step(self, batch: tuple[FloatArray, FloatArray], rate: float) -> float:
        """Takes one step on (input, target), float32 NCHW in 0..1; gives the loss before it.

        Raises :class:`InvalidTraining` when the loss is NaN or infinite; the state then stays as
        it was before the step.
        """
        feeds = {
            "input": batch[0],
            "target": batch[1],
            "rate": np.array(rate, np.float32),
            "count": np.array(self.done + 1, np.float32),
            **dict(zip("pmv", self._state, strict=True)),
        }
        *state, loss = self._session.run(["next_p", "next_m", "next_v", "loss"], feeds)
        value = float(loss)
        if not math.isfinite(value):
            raise InvalidTraining(
                f"the loss is {value} at step {self.done + 1}: lower the learning rate ({rate:g})"
            )
        self._state = state
        self.losses.append(value)
        return value

    def save(self, path: StrPath) -> None:
        """Writes the whole state; :meth:`resume` goes on from it as if nothing had happened.

        Raises:
            OSError: the file cannot be written; an older one is then still whole.
        """
        buffer = io.BytesIO()
        p, m, v = self._state
        losses, identity = np.array(self.losses), np.array(self.identity)
        np.savez(buffer, p=p, m=m, v=v, losses=losses, identity=identity)
        write_atomically(path, buffer.getbuffer())

    def resume(self, path: StrPath) -> None:
        """Goes back to a saved state of this very training.

        Raises:
            InvalidTraining: the file is missing, broken, or of another training.
        """
        try:
            content = io.BytesIO(Path(path).read_bytes())
            with np.load(content, allow_pickle=False) as saved:
                identity = str(saved["identity"])
                state = [np.asarray(saved[name], np.float32) for name in "pmv"]
                losses = np.asarray(saved["losses"], np.float64).tolist()
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidTraining(f"{path}: not a checkpoint that can be read") from error
        if identity != self.identity:
            raise InvalidTraining(f"{path}: a checkpoint of another training")
        self._state, self.losses = state, losses

    def weights(self) -> dict[str, FloatArray]:
        """The network's parameters by name, with their shapes; not the critic's."""
        ends = np.cumsum([value.size for value in self._like.values()])
        pieces = np.split(self._state[0], ends[:-1])
        return {
            name: piece.reshape(value.shape)
            for piece, (name, value) in zip(pieces, self._like.items(), strict=True)
            if not name.startswith(Critic.PREFIX)
        }
