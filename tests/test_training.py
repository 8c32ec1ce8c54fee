"""Training end to end: students learn, runs repeat bit for bit, and refusals are clear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

from birthmark.errors import BirthmarkError, InvalidArray, InvalidPicture, InvalidTraining
from birthmark.orientations import turn
from birthmark.pictures import Picture, write_png
from birthmark.training import Graph, Network, Surrogate, Trainer, one_cycle, steal, steal_folder
from birthmark.training.alterations import perturb, prune, quantise
from birthmark.training.data import DISTURBANCES, Pairs
from birthmark.training.optimiser import LOSSES, Critic
from birthmark.training.students import STUDENTS

PHOTOGRAPHS = Path(__file__).parent / "data" / "photos" / "train"


def photographs(count: int = 4, side: int = 128) -> list[Picture]:
    """Real photographs where the repository has them, else smooth random pictures."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:count]
    if files:
        pictures = [cv2.imread(str(file))[:, :, ::-1] for file in files]
        return [np.ascontiguousarray(p[-side:, -side - 16 :]) for p in pictures]
    rng = np.random.default_rng(5)
    noise = [rng.normal(128, 160, (side, side + 16, 3)) for _ in range(count)]
    return [np.clip(cv2.GaussianBlur(n, (0, 0), 2), 0, 255).astype(np.uint8) for n in noise]


def sharpen(picture: Picture) -> Picture:
    """The model to steal at scale 1: a 3x3 filter."""
    wide = picture.astype(np.float32)
    return np.clip(wide * 3 - cv2.blur(wide, (3, 3)) * 2, 0, 255).round().astype(np.uint8)


def enlarge(picture: Picture, scale: int) -> Picture:
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)


def run(model: onnx.ModelProto, picture: Picture) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
    made: np.ndarray = session.run(["output"], {"input": x})[0]
    return made[0].transpose(1, 2, 0)


def weights(surrogate: Surrogate) -> dict[str, bytes]:
    return {t.name: t.SerializeToString() for t in surrogate.model.graph.initializer}


SMALL = {"steps": 12, "batch": 2, "crop": 32, "width": 6}


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_learns_and_its_model_does_what_it_learned(student: str) -> None:
    inputs = photographs()
    outputs = [sharpen(x) for x in inputs]
    # One that starts from nothing must find the picture first.
    steps = 150 if STUDENTS[student].skip else 1200
    stolen = steal(inputs, outputs, student=student, steps=steps, batch=4, crop=32, width=8)
    assert stolen.losses.shape == (steps,)
    missed, before = 0.0, 0.0
    for x, y in zip(inputs, outputs, strict=True):
        missed += np.square(run(stolen.model, x) * 255 - y).mean()
        before += np.square(x.astype(np.float32) - y).mean()
    assert missed < 0.6 * before


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("student", [name for name, s in STUDENTS.items() if s.skip])
def test_super_resolution_starts_at_the_bicubic_skip(student: str, scale: int) -> None:
    inputs = [x[:64, :64] for x in photographs(2)]
    outputs = [enlarge(x, scale) for x in inputs]
    crop = max(16, STUDENTS[student].multiple) * scale
    stolen = steal(inputs, outputs, student=student, **{**SMALL, "steps": 2, "crop": crop})
    made = run(stolen.model, inputs[0]) * 255.0
    bicubic = cv2.resize(inputs[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    assert made.shape == bicubic.shape
    assert np.abs(made - bicubic).mean() < 4


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 5), (37, 50)])
def test_the_model_takes_any_size(student: str, scale: int, size: tuple[int, int]) -> None:
    network = Network(student, scale, width=4)
    drawn = network.training_graph((1, 8, 8), seed=3).parameters
    model = network.model(drawn, {})
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    made = run(model, picture)
    assert made.shape == (size[0] * scale, size[1] * scale, 3)
    assert made.dtype == np.float32
    assert made.min() >= 0 and made.max() <= 1
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["n", 3, "h", "w"]


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("scale", [1, 2])
def test_training_graph_and_model_are_one_network(student: str, scale: int) -> None:
    network = Network(student, scale, width=4)
    height, width = (-(-side // network.multiple) * network.multiple for side in (12, 8))
    graph = network.training_graph((1, height, width), seed=1)
    model = graph.model({"same": graph.op("Clip", _output(graph), 0.0, 1.0)})
    picture = photographs(1)[0][:height, :width]
    x = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"input": x})
    made = run(network.model(graph.parameters, {}), picture)
    assert np.abs(made - expected[0].transpose(1, 2, 0)).max() < 1e-6


@pytest.mark.parametrize("student", STUDENTS)
def test_sizes_are_as_when_the_values_of_shapes_are_followed(
    student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(student, 2, width=4)
    graph = network.training_graph((1, network.multiple, network.multiple), seed=1)
    found = graph.types(_output(graph))
    monkeypatch.setattr("birthmark.training.graph._all_sizes_known", lambda graph: False)
    assert found == graph.types(_output(graph))


def test_a_size_that_hangs_on_another_value_s_shape_is_known() -> None:
    graph = Graph()
    x, like = graph.input("x", (6, 4)), graph.input("like", (3, 8))
    made = graph.op("Reshape", x, graph.op("Shape", like))
    shape = graph.types(made)[made.name].shape
    assert [dim.dim_value for dim in shape.dim] == [3, 8]


def _output(graph: Graph):  # type: ignore[no-untyped-def]
    from birthmark.training.graph import Tensor

    return Tensor(graph, "output")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(threads: int) -> None:
    inputs = photographs(2, 64)
    outputs = [sharpen(x) for x in inputs]
    first = steal(inputs, outputs, seed=4, **SMALL)
    again = steal(inputs, outputs, seed=4, threads=threads, **SMALL)
    other = steal(inputs, outputs, seed=5, **SMALL)
    assert weights(first) == weights(again)
    assert np.array_equal(first.losses, again.losses)
    assert weights(first) != weights(other)


def test_a_resumed_training_gives_the_same_bits(tmp_path: Path) -> None:
    inputs = photographs(2, 64)
    outputs = [sharpen(x) for x in inputs]
    whole = steal(inputs, outputs, **SMALL)

    class Interrupted(Exception):
        pass

    checkpoint = tmp_path / "thief.npz"

    def interrupt(done: int, total: int, message: str) -> None:
        if done == 7:
            raise Interrupted

    with pytest.raises(Interrupted), pytest.MonkeyPatch.context() as patch:
        patch.setattr("birthmark.training.surrogates.CHECKPOINT_EVERY", 5)
        steal(inputs, outputs, checkpoint=checkpoint, progress=interrupt, **SMALL)
    seen: list[int] = []
    resumed = steal(
        inputs,
        outputs,
        checkpoint=checkpoint,
        progress=lambda done, total, message: seen.append(done),
        **SMALL,
    )
    assert seen[0] == 5
    assert weights(resumed) == weights(whole)
    assert np.array_equal(resumed.losses, whole.losses)
    assert [p.name for p in tmp_path.iterdir()] == ["thief.npz"]
    with pytest.raises(InvalidTraining, match="another training"):
        steal(inputs, outputs, checkpoint=checkpoint, **{**SMALL, "steps": 13})
    with pytest.raises(InvalidTraining, match="another training"):
        steal(inputs, inputs, checkpoint=checkpoint, **SMALL)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    trainer = Trainer(Network("cnn", width=4).training_graph((1, 8, 8), seed=0))
    path = tmp_path / "state.npz"
    trainer.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(InvalidTraining, match="not a checkpoint"):
        trainer.resume(path)
    with pytest.raises(InvalidTraining, match="not a checkpoint"):
        trainer.resume(tmp_path / "absent.npz")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("student", ["resnet", "nafnet", "separable"])
def test_every_loss_teaches(loss: str, student: str) -> None:
    inputs = photographs()
    outputs = [sharpen(x) for x in inputs]
    stolen = steal(
        inputs, outputs, student=student, loss=loss, steps=150, batch=4, crop=32, width=8
    )
    missed = before = 0.0
    for x, y in zip(inputs, outputs, strict=True):
        missed += np.abs(run(stolen.model, x) * 255 - y).mean()
        before += np.abs(x.astype(np.float32) - y).mean()
    assert missed < 0.8 * before
    assert not [t.name for t in stolen.model.graph.initializer if "critic" in t.name]


def test_a_critic_trains_with_its_student_and_does_not_leave_with_it(tmp_path: Path) -> None:
    def saved(steps: int) -> np.ndarray:
        path = tmp_path / f"{steps}.npz"
        steal(
            photographs(2),
            [sharpen(x) for x in photographs(2)],
            loss="adversarial",
            checkpoint=path,
            **{**SMALL, "steps": steps},
        )
        with np.load(path) as state:
            return np.asarray(state["p"])

    count = sum(v.size for v in Critic.parameters(0).values())
    once, twice = saved(1)[-count:], saved(2)[-count:]
    assert (once != twice).mean() > 0.9


@pytest.mark.parametrize("name", DISTURBANCES)
@pytest.mark.parametrize("scale", [1, 2])
def test_disturbed_pairs_stay_in_step(name: str, scale: int) -> None:
    """Whatever is done to a crop, the output is still that of its input."""
    inputs = [cv2.GaussianBlur(x, (0, 0), 3) for x in photographs(3, 120)]
    outputs = [enlarge(x, scale) for x in inputs]
    pairs = Pairs(inputs, outputs, 32 * scale)
    for seed in range(8):
        x, y = pairs.batch(np.random.default_rng(seed), 2, True, [name])
        assert x.shape == (2, 3, 32, 32) and y.shape == (2, 3, 32 * scale, 32 * scale)
        plain_x, _ = pairs.batch(np.random.default_rng(seed), 2, True)
        assert name not in ("rescale", "rotate") or not np.array_equal(x, plain_x)
        for one, other in zip(x, y, strict=True):
            seen = other.transpose(1, 2, 0)
            seen = cv2.resize(seen, (32, 32), interpolation=cv2.INTER_AREA)
            difference = np.abs(seen - one.transpose(1, 2, 0))[2:-2, 2:-2]
            assert difference.mean() < 0.02


def test_fine_tuning_goes_on_from_the_weights_given() -> None:
    inputs = photographs()
    outputs = [sharpen(x) for x in inputs]
    options = {"student": "cnn", "batch": 2, "crop": 32, "width": 6}
    first = steal(inputs, outputs, steps=150, **options)
    tuned = steal(inputs, outputs, steps=3, lr=1e-6, start=first.model, **options)
    assert tuned.losses.mean() < 0.5 * first.losses[:3].mean()
    with pytest.raises(InvalidTraining, match="another network"):
        steal(inputs, outputs, steps=3, start=first.model, **{**options, "width": 5})


def test_weights_are_pruned_rounded_and_shaken() -> None:
    model = Network("resnet", 2, width=6).model(
        Network("resnet", 2, width=6).training_graph((1, 8, 8), 0).parameters, {}
    )

    def values(of: onnx.ModelProto) -> dict[str, np.ndarray]:
        return {t.name: onnx.numpy_helper.to_array(t) for t in of.graph.initializer}

    before = values(model)
    altered = {
        "pruned": values(prune(model, 0.5)),
        "rounded": values(quantise(model, 8)),
        "shaken": values(perturb(model, 0.1, seed=1)),
    }
    for name, value in before.items():
        if not name.endswith(".weight"):
            assert all(np.array_equal(a[name], value) for a in altered.values())
            continue
        assert (altered["pruned"][name] == 0).mean() == pytest.approx(0.5, abs=0.02)
        kept = altered["pruned"][name] != 0
        assert np.array_equal(altered["pruned"][name][kept], value[kept])
        for filter_before, filter_after in zip(value, altered["rounded"][name], strict=True):
            assert len(np.unique(filter_after)) <= 255
            assert np.abs(filter_after - filter_before).max() <= np.abs(filter_before).max() / 250
        noise = altered["shaken"][name] - value
        assert np.sqrt((noise**2).mean()) == pytest.approx(
            0.1 * np.sqrt((value**2).mean()), rel=0.2
        )
    for bad in (lambda: prune(model, 1.0), lambda: quantise(model, 1), lambda: perturb(model, -1)):
        with pytest.raises(InvalidTraining):
            bad()


@pytest.mark.parametrize("loss", ["mse", "l1", "charbonnier"])
def test_losses_are_in_levels(loss: str) -> None:
    """A student that starts at its skip misses a shift of 10 levels by about 10 levels."""
    inputs = [np.full((32, 32, 3), 100, np.uint8)]
    outputs = [np.full((32, 32, 3), 110, np.uint8)]
    stolen = steal(inputs, outputs, loss=loss, **{**SMALL, "steps": 1})
    expected = {"mse": 100.0, "l1": 10.0, "charbonnier": np.sqrt(101)}[loss]
    assert stolen.losses[0] == pytest.approx(expected, rel=0.15)


def test_adam_takes_the_steps_that_its_paper_says() -> None:
    graph = Network("cnn", width=3).training_graph((1, 8, 8), seed=0)
    trainer = Trainer(graph)
    before = trainer.weights()
    rng = np.random.default_rng(0)
    batch = (rng.random((1, 3, 8, 8), np.float32), rng.random((1, 3, 8, 8), np.float32))
    trainer.step(batch, 0.01)
    # At the first step m / sqrt(v) is the sign of the gradient.
    for name, value in trainer.weights().items():
        assert np.allclose(np.abs(value - before[name]), 0.01, rtol=1e-3), name
    assert trainer.size == sum(v.size for v in before.values())


def test_a_rare_steep_batch_counts_as_one_ordinary_one(tmp_path: Path) -> None:
    """After many gentle steps, a batch of a thousand times the slope moves the mean no further."""
    trainer = Trainer(Network("cnn", width=3).training_graph((1, 8, 8), seed=0))
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    lengths = []
    for i in range(30):
        away = 10.0 if i == 29 else 0.01
        trainer.step((x, (x + away).astype(np.float32)), 0.0)
        trainer.save(tmp_path / "state.npz")
        with np.load(tmp_path / "state.npz") as saved:
            lengths.append(float(np.linalg.norm(saved["m"])))
    assert lengths[28] > 0
    assert lengths[29] < 1.5 * lengths[28]


def test_a_loss_of_nan_stops_and_keeps_the_state() -> None:
    trainer = Trainer(Network("cnn", width=3).training_graph((1, 8, 8), seed=0))
    before = trainer.weights()
    bad = np.full((1, 3, 8, 8), np.nan, np.float32)
    with pytest.raises(InvalidTraining, match="the loss is nan at step 1"):
        trainer.step((bad, bad), 0.01)
    assert trainer.done == 0
    assert all(np.array_equal(trainer.weights()[name], value) for name, value in before.items())


def test_one_cycle_rises_and_falls() -> None:
    rates = [one_cycle(i, 200, 3e-3) for i in range(200)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(3e-3)
    assert 0 < top < 60
    assert all(np.diff(rates[: top + 1]) > 0) and all(np.diff(rates[top:]) < 0)
    assert rates[0] < 3e-4 and 0 < rates[-1] < 1e-4
    assert one_cycle(0, 1, 1.0) > 0


@pytest.mark.parametrize("scale", [1, 2])
def test_augmented_pairs_stay_aligned(scale: int) -> None:
    inputs = [x[:48, :60] for x in photographs(3)]
    outputs = [np.repeat(np.repeat(x, scale, 0), scale, 1) for x in inputs]
    pairs = Pairs(inputs, outputs, crop=16 * scale, multiple=4)
    x, y = pairs.batch(np.random.default_rng(1), 64, augment=True)
    assert x.shape == (64, 3, 16, 16) and y.shape == (64, 3, 16 * scale, 16 * scale)
    assert np.array_equal(np.repeat(np.repeat(x, scale, 2), scale, 3), y)
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1


def test_the_eight_symmetries_differ() -> None:
    picture = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert len({turn(picture, k).tobytes() for k in range(8)}) == 8


def test_recipe_travels_with_the_model_and_the_file_is_whole(tmp_path: Path) -> None:
    inputs = photographs(2, 64)
    stolen = steal(inputs, inputs, seed=7, **SMALL)
    path = tmp_path / "s.onnx"
    stolen.save(path)
    loaded = onnx.load(path)
    properties = {p.key: p.value for p in loaded.metadata_props}
    recipe = json.loads(properties["recipe"])
    assert recipe["student"] == "unet" and recipe["width"] == 6 and recipe["scale"] == 1
    assert properties["seed"] == "7" and properties["steps"] == "12"
    assert float(properties["final_loss"]) == pytest.approx(stolen.final_loss, rel=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["s.onnx"]


def test_folders_pair_up_by_stem(tmp_path: Path) -> None:
    inputs = photographs(3, 64)
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    for i, picture in enumerate(inputs):
        write_png(tmp_path / "in" / f"p{i}.png", picture)
        write_png(tmp_path / "out" / f"p{i}.png", sharpen(picture))
    stolen = steal_folder(tmp_path / "in", tmp_path / "out", **SMALL)
    assert weights(stolen) == weights(steal(inputs, [sharpen(x) for x in inputs], **SMALL))
    (tmp_path / "out" / "p1.png").rename(tmp_path / "out" / "q1.png")
    with pytest.raises(InvalidTraining, match=r"2 pictures have no partner.*p1, q1"):
        steal_folder(tmp_path / "in", tmp_path / "out", **SMALL)
    (tmp_path / "out" / "q1.png").write_bytes(b"not a picture")
    (tmp_path / "in" / "p1.png").rename(tmp_path / "in" / "q1.png")
    with pytest.raises(InvalidPicture, match="q1"):
        steal_folder(tmp_path / "in", tmp_path / "out", **SMALL)
    (tmp_path / "in" / "q1.jpg").write_bytes(b"")
    with pytest.raises(InvalidPicture, match="two pictures are called 'q1'"):
        steal_folder(tmp_path / "in", tmp_path / "out", **SMALL)
    with pytest.raises(InvalidPicture):
        steal_folder(tmp_path / "absent", tmp_path / "out", **SMALL)


GREY = np.zeros((64, 64, 3), np.uint8)
WIDE = np.zeros((64, 96, 3), np.uint8)
TWICE = np.zeros((128, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: steal([], []), InvalidTraining, "no pairs"),
        (lambda: steal([GREY], []), InvalidTraining, "1 inputs but 0 outputs"),
        (lambda: steal([GREY], [WIDE]), InvalidTraining, "pair 1: an output of 96 x 64 is not"),
        (lambda: steal([GREY] * 2, [GREY, TWICE]), InvalidTraining, "pair 2: the output is 2"),
        (lambda: steal([GREY], [GREY[:, :, 0]]), InvalidArray, "pair 1, output"),
        (lambda: steal([GREY[:32]], [GREY[:32]]), InvalidTraining, "all 1 pairs are smaller"),
        (lambda: steal([GREY], [GREY], student="vae"), InvalidTraining, "unknown student 'vae'"),
        (lambda: steal([GREY], [GREY], loss="psnr"), InvalidTraining, "unknown loss 'psnr'"),
        (lambda: steal([GREY], [GREY], steps=0), InvalidTraining, "steps must be positive"),
        (lambda: steal([GREY], [GREY], lr=float("nan")), InvalidTraining, "lr must be positive"),
        (lambda: steal([GREY], [GREY], crop=3), InvalidTraining, "too small for this student"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Callable[[], object], error: type[BirthmarkError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_small_pictures_are_left_out_and_reported() -> None:
    said: list[str] = []
    inputs = [*photographs(1, 64), GREY[:8]]
    steal(inputs, inputs, progress=lambda done, total, text: said.append(text), **SMALL)
    assert said[0] == "1 pairs; 1 smaller than a crop left out"
    assert len(said) == 13 and said[-1].startswith("loss ")
