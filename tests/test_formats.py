"""Every element, order, range and stride in and every format out: what the reference says."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from birthmark import Embedder, Input, Mark, Output, _core
from birthmark.errors import InvalidArray
from dlpack import BFLOAT, Tensor, bfloat16, widened
from reference import Bytes, Gains, Ints
from test_embed_contract import between_guards, runs_between_guards
from vectors.cases import GAIN_KINDS, KINDS, draw_gains, draw_picture, photo_gains

KERNELS = _core.available_kernels()
ELEMENTS = ("float32", "float16", "bfloat16", "uint8", "int8")
RANGES: dict[str, tuple[float, float]] = {
    "unit": (1, 0),
    "signed": (0.5, 0.5),
    "byte": (1 / 255, 0),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OUTPUTS = [
    *(Output(kind, layout) for kind in ("rgb", "bgr", "rgba", "bgra") for layout in ("hwc", "chw")),
    Output("grey"),
    *(
        Output(kind, matrix=matrix, full_range=full)
        for kind in ("nv12", "i420")
        for matrix in ("bt601", "bt709")
        for full in (False, True)
    ),
    *(Output("p010", matrix=matrix) for matrix in ("bt601", "bt709")),
    *(Output(kind, layout, "float32") for kind in ("rgb", "bgra") for layout in ("hwc", "chw")),
    Output("grey", dtype="float32", range="signed"),
    Output("rgb", "chw", "float32", mean=MEAN, std=STD),
    Output("rgba", "chw", "float32", range="byte"),
]
Array = npt.NDArray[Any]


def embedders(gains: Gains | None) -> list[Embedder]:
    mark = None if gains is None else Mark(_core.write_mark(bytes(16), gains))
    return [Embedder(mark, kernel=kernel) for kernel in KERNELS]


def same(found: Array, expected: Array, what: object) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape, what
    bad = np.argwhere(found != expected)
    assert not len(bad), (what, len(bad), bad[0], found[tuple(bad[0])], expected[tuple(bad[0])])


def planes_of(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)


# --- What the reference makes of an input, and publishes -----------------------------------------


@dataclass(frozen=True)
class Case:
    """Values [h, w, c] in RGB order, how to read them, and what step 1 makes of them."""

    values: Array
    """For bfloat16 the bits."""
    element: str
    how: Input
    v_q6: Ints
    """[h, w, 4 or 3]."""


def draw_case(
    element: str,
    value_range: str,
    channels: int,
    kind: str,
    size: tuple[int, int],
    how: Input,
    rng: Any,
) -> Case:
    height, width = size
    picture = draw_picture(kind, height, width, rng)
    unit = np.concatenate([picture, rng.random((1, height, width), np.float32)])
    unit = np.clip(unit.transpose(1, 2, 0), -100, 100)[
        ..., {1: [0], 3: [0, 1, 2]}.get(channels, slice(None))
    ]
    if value_range == "normal":
        scale, offset = (np.array([*v, w], np.float32) for v, w in ((STD, 1), (MEAN, 0)))
    else:
        scale, offset = (np.full(4, v, np.float32) for v in RANGES[value_range])
    scale, offset = scale[:channels], offset[:channels]
    in_range = ((unit - offset) / scale).astype(np.float32)
    quantum, zero_point = (1 / 255, 0) if how.quantisation is None else how.quantisation
    values: Array
    real: Array
    if element == "bfloat16":
        values = bfloat16(in_range)
        real = widened(values)
    elif element in ("uint8", "int8"):
        least = 0 if element == "uint8" else -128
        levels = np.round(in_range / np.float32(quantum)) + zero_point
        values = np.clip(levels, least, least + 255).astype(element)
        real = values
    else:
        values = in_range.astype(element)
        real = values
    x = reference.in_unit_range(real, scale, offset, quantum, zero_point)
    v_q6 = reference.load_real(x)
    if channels == 1:
        v_q6 = np.repeat(v_q6, 3, axis=-1)
    return Case(values, element, how, v_q6)


def expected_planes(v_q6: Ints, gains: Gains | None, output: Output) -> tuple[Array, ...]:
    """What the contract says of loaded values."""
    colours = v_q6[..., :3]
    p_q6 = colours if gains is None else reference.marked(colours, gains)
    if output.kind in ("nv12", "i420", "p010"):
        luma, differences = reference.yuv(p_q6, output.matrix, output.full_range)
        if output.kind == "p010":
            return reference.as_ten_bits(luma), reference.as_ten_bits(differences)
        y, uv = reference.as_bytes(luma), reference.as_bytes(differences)
        return (y, uv) if output.kind == "nv12" else (y, uv[..., 0], uv[..., 1])
    if output.kind == "grey":
        p_q6 = np.clip(reference.grey(p_q6, 9798, 3735), 0, 16320)[..., None]
    elif "a" in output.kind:
        full = np.full((*v_q6.shape[:2], 1), 16320)
        p_q6 = np.concatenate([p_q6, v_q6[..., 3:] if v_q6.shape[-1] == 4 else full], axis=-1)
    count = p_q6.shape[-1]
    if output.dtype == "float32":
        scale, offset = RANGES[output.range]
        std, mean = [scale] * 4, [offset] * 4
        if output.mean is not None and output.std is not None:
            std, mean = [*output.std, 1], [*output.mean, 0]
        pixels: Array = reference.as_floats(
            p_q6,
            np.array([1 / (16320 * s) for s in std[:count]], np.float32),
            np.array([-m / s for s, m in zip(std, mean, strict=True)][:count], np.float32),
        )
    else:
        pixels = reference.as_bytes(p_q6)
    if output.kind == "grey":
        return (pixels[..., 0],)
    if output.kind.startswith("b"):
        pixels = pixels[..., [2, 1, 0, 3][:count]]
    return (pixels.transpose(2, 0, 1) if output.layout == "chw" else pixels,)


def strided(array: Array, steps: tuple[int, ...], fill: int = 77) -> Array:
    """The same values, `steps` apart on each axis and backwards where negative."""
    steps = steps[: array.ndim] + (1,) * (array.ndim - len(steps))
    holder = np.full(
        [n * abs(s) for n, s in zip(array.shape, steps, strict=True)], fill, array.dtype
    )
    view = holder[tuple(slice(None, None, s) for s in steps)]
    view[...] = array
    return view


def as_argument(case: Case, steps: tuple[int, ...]) -> Any:
    """The case's values in memory, as `how` says that they lie there."""
    values = case.values
    if values.shape[-1] >= 3 and case.how.order == "bgr":
        values = values[..., [2, 1, 0, 3][: values.shape[-1]]]
    layout = case.how.layout
    if layout is None:
        plain = case.element == "uint8" and case.how.quantisation is None
        layout = "hwc" if plain else "chw"
    if layout == "chw":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    view = strided(values, steps)
    return Tensor(view, BFLOAT) if case.element == "bfloat16" else view


STEPS = st.sampled_from([(1, 1, 1), (1, 1, 2), (1, 2, 1), (-1, 1, 1), (1, -1, 3), (2, -3, -1)])


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_input_and_output(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    element = data.draw(st.sampled_from(ELEMENTS))
    value_range = data.draw(st.sampled_from([*RANGES, "normal"]))
    channels = data.draw(st.sampled_from([1, 3, 4] if value_range != "normal" else [3, 4]))
    quantised = element == "int8" or (element == "uint8" and data.draw(st.booleans()))
    if element == "uint8" and not quantised:
        value_range = "unit"
    quantum = {"unit": 1 / 255, "signed": 2 / 255, "byte": 1.0, "normal": 0.02}[value_range]
    zero = {"unit": 0, "signed": 128, "byte": 0, "normal": 120}[value_range]
    zero -= 128 if element == "int8" else 0
    named: Any = {"mean": MEAN, "std": STD} if value_range == "normal" else {"range": value_range}
    how = Input(
        layout=data.draw(st.sampled_from([None, "chw", "hwc"])),
        order=data.draw(st.sampled_from(["rgb", "bgr"])),
        quantisation=(quantum, zero) if quantised else None,
        **named,
    )
    size = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 70)))
    case = draw_case(
        element, value_range, channels, data.draw(st.sampled_from(KINDS)), size, how, rng
    )
    gains = draw_gains(data.draw(st.sampled_from(GAIN_KINDS)), rng)
    mark = data.draw(st.sampled_from([gains, None]))
    output = data.draw(st.sampled_from(OUTPUTS))
    x = as_argument(case, data.draw(STEPS))
    out_steps = data.draw(st.one_of(st.none(), STEPS))
    threads = data.draw(st.integers(1, 3))
    expected = expected_planes(case.v_q6, mark, output)
    for one in embedders(mark):
        out: Any = None
        if out_steps is not None:
            planes = tuple(strided(np.zeros_like(p), out_steps) for p in expected)
            out = planes if len(planes) > 1 else planes[0]
        found = one.embed(x, out, threads, input=how, output=output)
        assert out is None or found is out
        for one_found, one_expected in zip(planes_of(found), expected, strict=True):
            same(one_found, one_expected, (one.kernel, element, how, output))


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("width", [639, 640, 641, 1281])
def test_across_the_seams_of_tiles(output: Output, width: int, rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    values = rng.random((25, width, 4)).astype(np.float16)
    v_q6 = reference.load_real(values.astype(np.float32))
    for mark in (gains, None):
        expected = expected_planes(v_q6, mark, output)
        for one in embedders(mark):
            found = one.embed(values, input=Input(layout="hwc"), output=output)
            for one_found, one_expected in zip(planes_of(found), expected, strict=True):
                same(one_found, one_expected, one.kernel)


def test_every_float16_and_bfloat16_loads_alike() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    half, brain = bits.view(np.float16), widened(bits)
    for how in (Input(layout="hwc"), Input(layout="hwc", range="byte")):
        scale, offset = (np.float32(n) for n in RANGES[how.range])
        for element, real in (("float16", half.astype(np.float32)), ("bfloat16", brain)):
            good = np.isfinite(real) & (np.abs(real) < 1e30)
            values = (half if element == "float16" else bits)[good]
            values = values[: values.size // 41 * 41].reshape(-1, 41, 1)
            real = real[good][: values.size].reshape(values.shape)
            v_q6 = reference.load_real(reference.in_unit_range(real, scale, offset))
            x = values if element == "float16" else Tensor(values, BFLOAT)
            for one in embedders(None):
                # Floats out show all of v_q6.
                found = one.embed(
                    x, input=how, output=Output("grey", dtype="float32", range="byte")
                )
                same(found * np.float32(64), v_q6[..., 0].astype(np.float32), one.kernel)


def test_every_byte_is_itself_in_every_format_that_can_say_so() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for one in embedders(None):
        same(one.embed(ramp, output=Output("grey")), ramp, one.kernel)
        rgba = np.stack([ramp, ramp[::-1], ramp.T, ramp[:, ::-1]], axis=-1)
        same(one.embed(rgba, output=Output("rgba")), rgba, one.kernel)
        same(one.embed(rgba, output=Output("bgra")), rgba[..., [2, 1, 0, 3]], one.kernel)
        signed = (ramp.astype(np.int64) - 128).astype(np.int8)
        how = Input(quantisation=(1 / 255, -128))
        same(one.embed(signed, input=how, output=Output("grey")), ramp, one.kernel)
        full, uv = one.embed(ramp, output=Output("nv12", full_range=True))
        same(full, ramp, one.kernel)
        assert (uv == 128).all()


def test_floats_come_back_as_they_went_in(rng: np.random.Generator) -> None:
    """A model that feeds another: in a range and out in the same one, within a 64th of a level."""
    unit = rng.random((3, 40, 30), np.float32)
    cases: list[tuple[Array, Any, float]] = [
        (unit, {}, 1),
        (2 * unit - 1, {"range": "signed"}, 2),
        (255 * unit, {"range": "byte"}, 255),
        (
            (unit - np.array(MEAN, np.float32)[:, None, None])
            / np.array(STD, np.float32)[:, None, None],
            {"mean": MEAN, "std": STD},
            1 / min(STD),
        ),
    ]
    for x, named, width in cases:
        for one in embedders(None):
            found = one.embed(
                x, input=Input(**named), output=Output("rgb", "chw", "float32", **named)
            )
            assert np.abs(found - x).max() <= 0.51 * width / 16320


@pytest.mark.parametrize("kind", ["nv12", "i420"])
def test_video_formats_are_those_of_opencv(kind: str, eval_photos: list[Bytes]) -> None:
    """Their meaning, not their rounding: OpenCV turns them back into nearly the same picture."""
    import cv2

    photo = cv2.GaussianBlur(eval_photos[0][:320, :480], (0, 0), 2)
    code = cv2.COLOR_YUV2RGB_NV12 if kind == "nv12" else cv2.COLOR_YUV2RGB_I420
    planes = Embedder(None).embed(photo, output=Output(kind))  # type: ignore[call-overload]
    # New planes lie behind one another, as OpenCV wants them.
    frame = planes[0].base.reshape(480, 480)
    assert np.array_equal(frame[:320], planes[0])
    back = cv2.cvtColor(frame, code)
    assert np.abs(back.astype(int) - photo).mean() < 1


@pytest.mark.parametrize(
    "output", [Output(), Output("nv12"), Output("rgb", "chw", "float32")], ids=str
)
def test_a_batch_is_one_by_one(output: Output, rng: np.random.Generator) -> None:
    gains = draw_gains("typical", rng)
    batch = rng.random((3, 3, 41, 37)).astype(np.float16)
    for one in embedders(gains):
        for threads in (1, 2, 7):
            found = planes_of(one.embed(batch, None, threads, output=output))
            for i, picture in enumerate(batch):
                for many, alone in zip(
                    found, planes_of(one.embed(picture, output=output)), strict=True
                ):
                    same(many[i], alone, (one.kernel, threads))


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("output", [Output(), Output("i420"), Output("bgra")], ids=str)
def test_threads_change_nothing(threads: int, output: Output, eval_photos: list[Bytes]) -> None:
    photo = eval_photos[0][:201, :333]
    for one in embedders(photo_gains()):
        expected = planes_of(one.embed(photo, output=output))
        found = planes_of(one.embed(photo, None, threads, output=output))
        for ours, theirs in zip(found, expected, strict=True):
            same(ours, theirs, one.kernel)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_statistics_of_stripes_add_up(threads: int, eval_photos: list[Bytes]) -> None:
    photo = eval_photos[1][:203, :333]
    for kernel in KERNELS:
        whole = _core.statistics(photo, kernel)
        assert np.array_equal(_core.statistics(photo, kernel, threads), whole)
    planes = np.zeros((3, 203, 20), np.float32)
    planes[1, 150, 7] = np.inf
    with pytest.raises(InvalidArray, match="not finite"):
        _core.statistics(planes, threads=threads)


# --- Tensors of other libraries ------------------------------------------------------------------


def test_tensors_in_and_out(rng: np.random.Generator) -> None:
    x = rng.random((3, 30, 40), np.float32)
    one = Embedder(None)
    expected = one.embed(x)
    same(one.embed(Tensor(x)), expected, "in")  # type: ignore[call-overload]
    same(one.embed(Tensor(x, compact=True)), expected, "without strides")
    same(one.embed(Tensor(x, device=3)), expected, "pinned")
    same(one.embed(Tensor(strided(x, (1, -1, 2)))), expected, "strided")
    out = np.zeros((30, 40, 3), np.uint8)
    given = Tensor(out)
    assert one.embed(x, given) is given  # type: ignore[arg-type, comparison-overlap]
    same(out, expected, "out")


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(2, 3, 33, 47)
    one = Embedder(Mark(_core.write_mark(bytes(16), photo_gains())))
    same(one.embed(x), one.embed(x.numpy()), "float32")
    same(one.embed(x.half()), one.embed(x.half().numpy()), "float16")
    brain = x.bfloat16()
    same(one.embed(brain), one.embed(brain.float().numpy()), "bfloat16")
    last = x.contiguous(memory_format=torch.channels_last)
    same(one.embed(last), one.embed(x.numpy()), "channels last")
    out = torch.zeros(2, 33, 47, 3, dtype=torch.uint8)
    assert one.embed(x, out) is out
    same(out.numpy(), one.embed(x.numpy()), "out")
    with pytest.raises(InvalidArray, match="cannot be read"):
        one.embed(x.requires_grad_())


def test_jax_arrays() -> None:
    jax = pytest.importorskip("jax")
    one = Embedder(Mark(_core.write_mark(bytes(16), photo_gains())))
    x = np.random.default_rng(3).random((3, 33, 47), np.float32)
    for dtype in ("float32", "float16", "bfloat16"):
        given = jax.numpy.asarray(x).astype(dtype)
        widened_x = np.asarray(given.astype("float32"))
        same(one.embed(given), one.embed(widened_x), dtype)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(np.zeros((3, 8, 8), np.float32), device=2), "another device"),
        (Tensor(np.zeros((3, 8, 8), np.float64)), "64 bits"),
        (Tensor(np.zeros((3, 8, 8), np.float32), lanes=4), "DLPack type"),
        (Tensor(np.zeros((3, 8, 8), np.uint16)), "uint16"),
        (Tensor(np.zeros((), np.float32)), "3 axes"),
        (object(), "must be a numpy array or a DLPack tensor, not object"),
        ([[1.0]], "not list"),
    ],
)
def test_bad_tensor_is_refused(tensor: object, message: str) -> None:
    with pytest.raises(InvalidArray, match=message):
        Embedder(None).embed(tensor)


# --- Memory --------------------------------------------------------------------------------------


def embed_between_guards() -> None:
    """Runs in a process of its own: a byte read or written outside a picture ends it."""
    rng = np.random.default_rng(5)
    gains = draw_gains("typical", rng)
    inputs: list[tuple[Array, Input]] = []
    for height, width in [*((2, w) for w in range(1, 36)), (5, 97), (30, 961)]:
        inputs += [
            (rng.random((3, height, width)).astype(np.float16), Input()),
            (rng.integers(0, 256, (height, width, 4), np.uint8), Input()),
            (rng.integers(0, 256, (height, width, 3), np.uint8), Input(order="bgr")),
            (rng.random((height, width, 3)).astype(np.float32), Input("hwc", range="signed")),
            (
                rng.integers(-9, 99, (1, height, width)).astype(np.int8),
                Input(quantisation=(1e-2, 0)),
            ),
        ]
    outputs = [Output("bgra"), Output("nv12"), Output("p010"), Output("rgb", "chw"), Output("grey")]
    outputs.append(Output("rgba", "hwc", "float32"))
    for i, (x, how) in enumerate(inputs):
        output = outputs[i % len(outputs)]
        for mark in (gains, None):
            for one in embedders(mark):
                expected = planes_of(one.embed(x, input=how, output=output))
                for at_end in (False, True):
                    planes = tuple(between_guards(np.zeros_like(p), at_end) for p in expected)
                    out: Any = planes if len(planes) > 1 else planes[0]
                    one.embed(between_guards(x, at_end), out, input=how, output=output)
                    for ours, theirs in zip(planes, expected, strict=True):
                        same(ours, theirs, (one.kernel, how, output))
    print("nothing touched")


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is asked the Linux way")
def test_nothing_outside_the_pictures_is_touched() -> None:
    runs_between_guards(__file__)


if __name__ == "__main__":
    embed_between_guards()
