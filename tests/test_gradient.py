"""Every gradient rule against finite differences, and against torch where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.errors import InvalidModel, MissingGradient
from birthmark.training.gradient import RULES, gradients
from birthmark.training.graph import Graph, Tensor, integers
from gradient_cases import CASES, Case, conv


def run(graph: Graph, outputs: dict[str, Tensor], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.model(outputs).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return list(session.run(list(outputs), {name: feeds[name] for name in names}))


class Problem:
    """A case with drawn inputs and a loss: the sum of its output times random weights."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.case = case
        self.inputs = [draw(rng).astype(case.dtype) for draw in case.draws]
        self.feeds = {f"x{i}": x for i, x in enumerate(self.inputs)}
        graph, _, made = self._forward()
        (value,) = run(graph, {"made": made}, self.feeds)
        self.feeds["weights"] = rng.normal(size=value.shape).astype(case.dtype)

    def _forward(self) -> tuple[Graph, list[Tensor], Tensor]:
        graph = Graph(self.case.dtype)
        xs = [graph.input(f"x{i}", x.shape) for i, x in enumerate(self.inputs)]
        return graph, xs, self.case.build(graph, *xs)

    def _loss(self) -> tuple[Graph, list[Tensor], Tensor]:
        graph, xs, made = self._forward()
        weights = graph.input("weights", self.feeds["weights"].shape)
        return graph, xs, graph.op("ReduceSum", made * weights, keepdims=0)

    def gradients(self) -> list[np.ndarray]:
        graph, xs, loss = self._loss()
        found = gradients(graph, loss, xs)
        return run(graph, {f"g{i}": g for i, g in enumerate(found)}, self.feeds)

    def differences(self) -> list[np.ndarray]:
        """Central differences, one element at a time.

        In float32 the step is large: those operators are linear in each of their inputs, or in
        pieces wider than the step, so that only rounding is left.
        """
        step = 1e-6 if self.case.dtype is np.float64 else 2e-2
        graph, _, loss = self._loss()
        model = graph.model({"loss": loss}).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        slopes = []
        for name in [key for key in self.feeds if key != "weights"]:
            slope = np.zeros(self.feeds[name].shape)
            for index in np.ndindex(slope.shape):
                moved = []
                for sign in (1, -1):
                    x = self.feeds[name].copy()
                    x[index] += sign * step
                    moved.append(float(session.run(None, {**self.feeds, name: x})[0]))
                slope[index] = (moved[0] - moved[1]) / (2 * step)
            slopes.append(slope)
        return slopes

    def torch_gradients(self, torch: Any) -> list[np.ndarray]:
        xs = [torch.tensor(x.astype(np.float64), requires_grad=True) for x in self.inputs]
        assert self.case.torch is not None
        made = self.case.torch(torch, *xs)
        (made * torch.tensor(self.feeds["weights"].astype(np.float64))).sum().backward()
        return [x.grad.numpy() for x in xs]


def close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_finite_differences(case: Case) -> None:
    problem = Problem(case)
    single = case.dtype is np.float32
    close(problem.gradients(), problem.differences(), 2e-3 if single else 1e-7)


@pytest.mark.parametrize("case", [case for case in CASES if case.torch], ids=str)
def test_rule_equals_torch(case: Case) -> None:
    torch = pytest.importorskip("torch")
    problem = Problem(case, seed=1)
    single = case.dtype is np.float32
    close(problem.gradients(), problem.torch_gradients(torch), 3e-6 if single else 1e-12)


def test_every_rule_has_a_case() -> None:
    assert {case.op for case in CASES} == set(RULES)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from([(1, 1, 1), (2, 3, 1), (3, 2, 1), (4, 2, 2), (2, 4, 2), (3, 3, 3)]),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_convolution_gradients_are_adjoints(
    channels: tuple[int, int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """A convolution is linear in each operand: <gradient, other> is the loss with the other."""
    inputs, outputs, groups = channels
    case = conv(
        "random",
        (2, inputs, *size),
        (outputs, inputs // groups, *kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    problem = Problem(case)
    of_x, of_w, of_b = problem.gradients()
    graph, _, loss = problem._loss()
    other = np.random.default_rng(9)
    for name, slope in (("x0", of_x), ("x1", of_w)):
        x = other.normal(size=slope.shape).astype(np.float32)
        feeds = {**problem.feeds, name: x, "x2": np.zeros_like(of_b)}
        (expected,) = run(graph, {"loss": loss}, feeds)
        scale = np.abs(slope).sum()
        assert abs(np.vdot(slope, x) - expected) < 1e-5 * max(1.0, scale)


def test_unwanted_values_are_not_differentiated() -> None:
    """Round has no rule, but lies on no way from the loss to what is wanted."""
    graph = Graph(np.float64)
    x, y = graph.input("x", (3,)), graph.input("y", (3,))
    loss = (x * graph.op("Round", y)).sum((0,))
    (slope,) = gradients(graph, loss, [x])
    feeds = {"x": np.ones(3), "y": np.array([0.6, 2.2, -1.4])}
    assert run(graph, {"g": slope}, feeds)[0].tolist() == [1.0, 2.0, -1.0]


def test_missing_rule_is_loud() -> None:
    graph = Graph()
    x = graph.input("x", (3,))
    loss = graph.op("Round", x * 2.0).sum((0,))
    with pytest.raises(MissingGradient, match=r"Round \(round_1\): no gradient rule"):
        gradients(graph, loss, [x])


def test_foreign_operators_have_no_rule_even_under_a_known_name() -> None:
    graph = Graph()
    x = graph.input("x", (3,))
    y = graph.op("Add", x, x)
    loss = y.sum((0,))
    types = graph.types(loss)
    graph.nodes[0].domain = "com.example"
    graph.types = lambda *_: types  # type: ignore[method-assign]
    with pytest.raises(MissingGradient, match="Add"):
        gradients(graph, loss, [x])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda g, x: g.op("Conv", x, np.ones((1, 1, 3, 3)), auto_pad="SAME_UPPER"), "auto_pad"),
        (lambda g, x: g.op("AveragePool", x, kernel_shape=(3, 3), ceil_mode=1), "ceil_mode"),
        (lambda g, x: g.op("Pad", x, integers([0, 0, -1, 0, 0, 0, 0, 0])), "negative padding"),
        (lambda g, x: g.op("Clip", x, x.sum((0, 1, 2, 3)), None), "input 1"),
        (lambda g, x: x.reshape(64) @ np.ones((64, 2)), "vectors"),
        (lambda g, x: g.op("Reshape", x, g.input("s", (2,), np.int64)), "not static"),
    ],
)
def test_what_a_rule_does_not_cover_is_loud(
    build: Callable[[Graph, Tensor], Tensor], reason: str
) -> None:
    graph = Graph(np.float64)
    x = graph.input("x", (1, 1, 8, 8))
    made = build(graph, x)
    with pytest.raises(MissingGradient, match=reason):
        gradients(graph, graph.op("ReduceSum", made * made, keepdims=0), [x])


def test_a_loss_that_does_not_depend_is_loud() -> None:
    graph = Graph()
    x, y = graph.input("x", (3,)), graph.input("y", (3,))
    with pytest.raises(MissingGradient, match="does not depend on 'y'"):
        gradients(graph, x.sum((0,)), [x, y])


def test_shapes_that_do_not_fit_are_refused() -> None:
    graph = Graph()
    made = graph.input("x", (3,)) + graph.input("y", (4,))
    with pytest.raises(InvalidModel, match="shapes do not fit"):
        graph.types(made)
