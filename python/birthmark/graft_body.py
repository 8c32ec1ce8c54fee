"""The contract's arithmetic as plain ONNX operators: the body of ``ai.birthmark::Embed``.

It is exact because each of its floats is either a whole number (or a whole number times a power of
two) that its type holds, so that the order of sums does not matter, or one of the correctly rounded
float32 operations of ``cpp/contract/CONTRACT.md``. Products of more than 24 bits are float64. That
holds on onnxruntime's CPU provider; a provider that computes convolutions in fewer bits (TF32,
float16) gives other bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from birthmark import _core

if TYPE_CHECKING:
    import onnx

DOMAIN = "ai.birthmark"
OPERATOR = "Embed"
MIN_OPSET = 13
"""Oldest opset of a model to graft: ReduceSum takes its axes as an input since then."""

# Reach of the contract's filters, in pixels: K9, K15, and the farthest tap.
_SMOOTH_REACH, _ACTIVITY_REACH, _ECHO_REACH = 4, 7, 10
_HALO = _SMOOTH_REACH + _ACTIVITY_REACH + _ECHO_REACH
_K9 = (1, 4, 8, 12, 14, 12, 8, 4, 1)
_K15 = (1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1)
# Where a mark file holds its gains (cpp/contract/mark_file.h).
_GAINS_BEGIN = 28
_GAINS_END = _GAINS_BEGIN + 2 * _core.GAIN_ROWS * _core.TONES


def body(opset: int) -> onnx.FunctionProto:
    """The operator as a model-local function of plain operators.

    Input ``image``: float32 [n, 3, h, w], RGB, where y * scale + offset is between 0 and 1. Output
    ``published``: uint8 [n, h, w, 3]. Attributes: ``mark``, the bytes of a mark file, uint8;
    ``scale`` and ``offset``, float32. NaN or Inf makes the run fail: it looks up an index that does
    not exist.

    Args:
        opset: version of the plain operators, at least MIN_OPSET; the model's own.
    """
    import onnx

    b = _Builder()
    v_q6 = _load(b, "image")
    y_q2 = _continued_luma(b, v_q6)
    low = _smooth(b, y_q2, _K9)
    texture = _texture(b, y_q2, low)
    tone = _tone(b, low)
    activity = _activity(b, texture)
    orbits = _orbit_sums(b, _normalised(b, texture, activity))
    gains = b.op("Gather", _gains(b), tone)
    tint = _tint(b, v_q6, activity, gains)
    residual = _residual(b, _echo(b, orbits, gains), tint)
    _store(b, v_q6, residual, result="published")
    return onnx.helper.make_function(
        DOMAIN,
        OPERATOR,
        ["image"],
        ["published"],
        b.nodes,
        [onnx.helper.make_opsetid("", opset)],
        ["mark", "scale", "offset"],
    )


class _Builder:
    """The nodes of a function, in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        """Append an operator of one output; returns that output's name."""
        import onnx

        output = result or f"{kind.lower()}_{len(self.nodes)}"
        # Named, since onnxruntime 1.18 to 1.21 call what they fuse after it, and names must differ.
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Append a constant tensor."""
        import onnx

        return self.op("Constant", value=onnx.numpy_helper.from_array(np.array(values, dtype)))

    def attribute(self, name: str, field: str, kind: int) -> str:
        """Append a constant that is the operator's attribute of this name."""
        value = self.op("Constant", result=f"attribute_{name}")
        self.nodes[-1].attribute.add(name=field, ref_attr_name=name, type=kind)
        return value

    def cast(self, value: str, dtype: npt.DTypeLike) -> str:
        """Append a change of type."""
        import onnx

        return self.op("Cast", value, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def mul(self, value: str, factor: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Append a product with a constant."""
        return self.op("Mul", value, self.constant(factor, dtype))

    def add(self, value: str, term: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Append a sum with a constant."""
        return self.op("Add", value, self.constant(term, dtype))

    def shift(self, value: str, rounding: float, bits: int) -> str:
        """Append ``(value + rounding) >> bits`` of whole numbers."""
        return self.op("Floor", self.mul(self.add(value, rounding), 2.0**-bits))

    def mul_round_15(self, value: str, factor: str) -> str:
        """Append MulRound15 in float64, with ``factor`` already divided by 2^15."""
        return self.op("Floor", self.add(self.op("Mul", value, factor), 0.5, np.float64))

    def clamp(self, value: str, least: float, most: float) -> str:
        """Append the value between two bounds."""
        return self.op("Min", self.op("Max", value, self.constant(least)), self.constant(most))

    def last(self, value: str, begin: int, end: int) -> str:
        """Append places ``begin`` to ``end`` of the last of four axes."""
        return self.op("Slice", value, *(self.constant([v], np.int64) for v in (begin, end, 3)))

    def crop(self, value: str, margin: int) -> str:
        """Append [n, c, h, w] without ``margin`` pixels on each side."""
        begin, end, axes = ([margin, margin], [-margin, -margin], [2, 3])
        return self.op("Slice", value, *(self.constant(v, np.int64) for v in (begin, end, axes)))


def _load(b: _Builder, image: str) -> str:
    """Step 1: v_q6, float32 [n, 3, h, w]."""
    import onnx

    # 0 * x sums to 0, or to NaN where a value is not finite; then there is no such half. That the
    # image goes two ways also keeps onnxruntime from merging the scale into a convolution before
    # it, which would round otherwise.
    not_finite = b.op("IsNaN", b.op("ReduceSum", b.mul(image, 0), keepdims=0))
    half = b.op("Gather", b.constant([0.5]), b.cast(not_finite, np.int64))
    scale = b.attribute("scale", "value_float", onnx.AttributeProto.FLOAT)
    offset = b.attribute("offset", "value_float", onnx.AttributeProto.FLOAT)
    x = b.op("Add", b.op("Mul", image, scale), offset)
    clamped = b.op("Min", b.op("Max", x, b.constant(0)), b.constant(1))
    return b.op("Floor", b.op("Add", b.mul(clamped, 16320), half))


def _continued_luma(b: _Builder, v_q6: str) -> str:
    """Steps 3 and 4: y_q2, float32 [n, 1, h + 42, w + 42], the picture and its continued edge."""
    weights = np.array([9798, 19235, 3735]).reshape(1, 3, 1, 1) / 2**15
    weighted = b.mul_round_15(b.cast(v_q6, np.float64), b.constant(weights, np.float64))
    luma_q6 = b.cast(b.op("ReduceSum", weighted, b.constant([1], np.int64)), np.float32)
    y_q2 = b.add(b.shift(luma_q6, 8, 4), -512)
    pads = b.constant([0, 0, _HALO, _HALO, 0, 0, _HALO, _HALO], np.int64)
    return b.op("Pad", y_q2, pads, mode="edge")


def _smooth(b: _Builder, field: str, kernel: tuple[int, ...]) -> str:
    """The kernel in both directions, where all its taps lie inside the field."""
    across = b.op("Conv", field, b.constant(np.reshape(kernel, (1, 1, 1, -1))))
    return b.op("Conv", across, b.constant(np.reshape(kernel, (1, 1, -1, 1))))


def _texture(b: _Builder, y_q2: str, low: str) -> str:
    """Step 5: b_q6."""
    above = b.op("Sub", b.mul(b.crop(y_q2, _SMOOTH_REACH), 4096), low)
    return b.shift(above, 128, 8)


def _tone(b: _Builder, low: str) -> str:
    """Step 6 over the picture: int32 [n, h, w], 0 to 15."""
    inside = b.crop(low, _ACTIVITY_REACH + _ECHO_REACH)
    tone = b.op("Squeeze", b.shift(inside, 2**21, 18), b.constant([1], np.int64))
    return b.cast(tone, np.int32)


def _activity(b: _Builder, texture: str) -> str:
    """Step 7: act_q14."""
    return _smooth(b, b.shift(b.op("Abs", texture), 8, 4), _K15)


def _normalised(b: _Builder, texture: str, act_q14: str) -> str:
    """Step 8: w."""
    # The division is rounded alike on both sides of 0, so trunc(a / b) = sign(a) floor(|a| / b).
    above = b.mul(b.op("Abs", b.crop(texture, _ACTIVITY_REACH)), 524288)
    ratio = b.op("Div", above, b.add(act_q14, 98304))
    limited = b.op("Floor", b.op("Min", ratio, b.constant(2047)))
    return b.op("Mul", limited, b.op("Sign", b.crop(texture, _ACTIVITY_REACH)))


def _orbit_sums(b: _Builder, w: str) -> str:
    """Step 9: t_o, float32 [n, orbits, h, w]."""
    radius = _ECHO_REACH // 2
    taps = np.zeros((_core.ORBITS, 1, 2 * radius + 1, 2 * radius + 1))
    for o, (i, j) in enumerate(_core.orbits()):
        for x, y in ((i, j), (j, i)):
            for sx in (1, -1):
                for sy in (1, -1):
                    taps[o, 0, radius + sy * y, radius + sx * x] = 1
    return b.op("Conv", w, b.constant(taps), dilations=[2, 2])


def _gains(b: _Builder) -> str:
    """The mark file's gains divided by 2^15: float64 [tones, gain rows]."""
    import onnx

    # All of this is folded when the model loads.
    mark = b.attribute("mark", "value", onnx.AttributeProto.TENSOR)
    numbers = b.cast(mark, np.float64)
    part = b.op(
        "Slice",
        numbers,
        b.constant([_GAINS_BEGIN], np.int64),
        b.constant([_GAINS_END], np.int64),
    )
    shape = b.constant([_core.GAIN_ROWS, _core.TONES, 2], np.int64)
    little_endian = b.mul(b.op("Reshape", part, shape), [1, 256], np.float64)
    unsigned = b.op("ReduceSum", little_endian, b.constant([2], np.int64), keepdims=0)
    # Two's complement: what is at least 2^15 stands for 2^16 less.
    wraps = b.op("Floor", b.mul(unsigned, 2.0**-15, np.float64))
    q15 = b.op("Sub", unsigned, b.mul(wraps, 2**16, np.float64))
    return b.op("Transpose", b.mul(q15, 2.0**-15, np.float64), perm=[1, 0])


def _echo(b: _Builder, orbits: str, gains: str) -> str:
    """Step 11: e, float32 [n, h, w, 1]. A pixel's gains, [n, h, w, gain rows], lie together."""
    sums = b.cast(b.op("Transpose", orbits, perm=[0, 2, 3, 1]), np.float64)
    terms = b.mul_round_15(sums, b.last(gains, 0, _core.ORBITS))
    return b.cast(b.op("ReduceSum", terms, b.constant([3], np.int64)), np.float32)


def _tint(b: _Builder, v_q6: str, activity: str, gains: str) -> str:
    """Steps 10 and 11: c, float32 [n, h, w, 3]."""
    values = b.op("Transpose", v_q6, perm=[0, 2, 3, 1])
    red, green, blue = (b.last(values, c, c + 1) for c in range(3))
    fields = [b.clamp(b.op("Sub", value, green), -3072, 3072) for value in (blue, red)]
    levels = b.shift(b.crop(activity, _ECHO_REACH), 0, 14)
    rough = b.mul(b.op("Min", levels, b.constant(15)), 64)
    fields.append(b.op("Transpose", rough, perm=[0, 2, 3, 1]))
    factors = b.cast(b.op("Concat", *fields, axis=3), np.float64)
    channels = []
    for c in range(3):
        begin = _core.ORBITS + _core.TINT_FIELDS * c
        constant = b.mul(b.last(gains, begin, begin + 1), 2**15, np.float64)
        others = b.last(gains, begin + 1, begin + _core.TINT_FIELDS)
        terms = b.op("Concat", constant, b.mul_round_15(factors, others), axis=3)
        channels.append(b.op("ReduceSum", terms, b.constant([3], np.int64)))
    return b.clamp(b.cast(b.op("Concat", *channels, axis=3), np.float32), -64, 64)


def _residual(b: _Builder, echo: str, tint: str) -> str:
    """Step 12: r_q6, float32 [n, 3, h, w]."""
    left = b.op("Sub", b.constant(128), b.op("Abs", tint))
    rest = b.op("Min", b.op("Max", echo, b.op("Neg", left)), left)
    return b.op("Transpose", b.op("Add", tint, rest), perm=[0, 3, 1, 2])


def _store(b: _Builder, v_q6: str, residual: str, *, result: str) -> None:
    """Step 13: uint8 [n, h, w, 3]."""
    value = b.shift(b.op("Add", v_q6, residual), 32, 6)
    byte = b.cast(b.op("Min", b.op("Max", value, b.constant(0)), b.constant(255)), np.uint8)
    b.op("Transpose", byte, perm=[0, 2, 3, 1], result=result)
