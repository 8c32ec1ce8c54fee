"""How a model's values are to be understood, and what is to be published."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from birthmark import _core
from birthmark.errors import InvalidFormat

Layout = Literal["chw", "hwc"]
Order = Literal["rgb", "bgr"]
Range = Literal["unit", "signed", "byte"]
Kind = Literal["rgb", "bgr", "rgba", "bgra", "grey", "nv12", "i420", "p010"]
Dtype = Literal["uint8", "float32"]
Matrix = Literal["bt601", "bt709"]
Triple = tuple[float, float, float]

_WHITE_Q6 = 16320
# A value y of a range means y * scale + offset between 0 (black) and 1 (white).
_RANGES: dict[str, tuple[float, float]] = {
    "unit": (1.0, 0.0),
    "signed": (0.5, 0.5),
    "byte": (1 / 255, 0.0),
}


def _check_choice(name: str, value: object, choices: object) -> None:
    allowed = get_args(choices)
    if value not in allowed:
        raise InvalidFormat(f"{name} is one of {', '.join(allowed)}, not {value!r}")


def scale_and_offset(value_range: Range) -> tuple[float, float]:
    """What a value of the range is multiplied by, and what is added then, to be in [0, 1].

    Raises:
        InvalidFormat: no such range.
    """
    _check_choice("range", value_range, Range)
    return _RANGES[value_range]


def _check_normalisation(mean: Triple | None, std: Triple | None, value_range: str) -> None:
    if mean is None and std is None:
        return
    if value_range != "unit":
        raise InvalidFormat("mean and std are of values between 0 and 1: give no range with them")
    for name, triple in (("mean", mean), ("std", std)):
        if triple is None:
            continue
        if len(triple) != 3 or not all(math.isfinite(value) for value in triple):
            raise InvalidFormat(f"{name} is three finite numbers: red, green, blue")
    if std is not None and not all(1e-6 <= value <= 1e6 for value in std):
        raise InvalidFormat("each std is at least 1e-6 and at most 1e6")


def _four(values: Triple, alpha: float) -> list[float]:
    return [*values, alpha]


@dataclass(frozen=True)
class Input:
    """How an array or tensor is to be read.

    Args:
        layout: "chw" for [3, h, w] (with a batch NCHW), "hwc" for [h, w, 3] (NHWC). By default
            "hwc" for uint8 and "chw" for everything else.
        order: of the colour channels.
        range: of float values: "unit" for [0, 1], "signed" for [-1, 1], "byte" for [0, 255].
            Whatever is outside is clamped.
        mean: of a model whose output is (value - mean) / std with values in [0, 1]: three
            numbers, red first; then ``range`` stays "unit".
        std: the same.
        quantisation: (scale, zero point) of 8-bit values q, which mean scale * (q - zero point) in
            the range above. int8 needs it; uint8 without it is a picture, 0 black and 255 white.

    Raises:
        InvalidFormat: a name that is not known, or numbers without sense.
    """

    layout: Layout | None = None
    order: Order = "rgb"
    range: Range = "unit"
    mean: Triple | None = None
    std: Triple | None = None
    quantisation: tuple[float, int] | None = None
    native: _core.InputFormat = field(init=False, repr=False, compare=False)
    """What the core is handed."""

    def __post_init__(self) -> None:
        """Check, and work out the core's numbers."""
        if self.layout is not None:
            _check_choice("layout", self.layout, Layout)
        _check_choice("order", self.order, Order)
        _check_choice("range", self.range, Range)
        _check_normalisation(self.mean, self.std, self.range)
        quantum, zero_point = None, 0
        if self.quantisation is not None:
            quantum, zero_point = self.quantisation
            if not (math.isfinite(quantum) and 1e-30 <= quantum <= 1e30):
                raise InvalidFormat("a quantisation's scale is a positive number")
            if not -255 <= zero_point <= 255:
                raise InvalidFormat("a quantisation's zero point is between -255 and 255")
        scale, offset = _RANGES[self.range]
        native = _core.InputFormat(
            channels_first=None if self.layout is None else self.layout == "chw",
            reversed=self.order == "bgr",
            scale=_four(self.std or (scale, scale, scale), scale),
            offset=_four(self.mean or (offset, offset, offset), offset),
            quantum=quantum,
            zero_point=zero_point,
        )
        object.__setattr__(self, "native", native)


@dataclass(frozen=True)
class Output:
    """What is to be published.

    ===========  =========================================================================
    kind         arrays (with an axis in front for a batch of more than one)
    ===========  =========================================================================
    rgb, bgr     [h, w, 3], or [3, h, w] with layout "chw"
    rgba, bgra   [h, w, 4] or [4, h, w]; alpha is the input's, or 255
    grey         [h, w]
    nv12         a pair: luma [h, w], Cb and Cr [(h + 1) // 2, (w + 1) // 2, 2]
    i420         a triple: luma [h, w], Cb and Cr [(h + 1) // 2, (w + 1) // 2] each
    p010         like nv12, ten bits in the upper ones of uint16
    ===========  =========================================================================

    The planes of a new nv12, i420 or p010 picture lie one behind the other in one piece of memory.

    Args:
        kind: see above.
        layout: of rgb, bgr, rgba and bgra.
        dtype: "float32" for a model that is fed with it (not for nv12, i420 and p010).
        range: of float32, as in :class:`Input`.
        mean: as in :class:`Input`.
        std: as in :class:`Input`.
        matrix: of nv12, i420 and p010.
        full_range: whether their black is 0 and not 16 (not for p010).

    Raises:
        InvalidFormat: a name that is not known, or things that do not go together.
    """

    kind: Kind = "rgb"
    layout: Layout = "hwc"
    dtype: Dtype = "uint8"
    range: Range = "unit"
    mean: Triple | None = None
    std: Triple | None = None
    matrix: Matrix = "bt601"
    full_range: bool = False
    native: _core.OutputFormat = field(init=False, repr=False, compare=False)
    """What the core is handed."""

    def __post_init__(self) -> None:
        """Check, and work out the core's numbers."""
        _check_choice("kind", self.kind, Kind)
        _check_choice("layout", self.layout, Layout)
        _check_choice("dtype", self.dtype, Dtype)
        _check_choice("range", self.range, Range)
        _check_choice("matrix", self.matrix, Matrix)
        _check_normalisation(self.mean, self.std, self.range)
        if self.kind in ("nv12", "i420", "p010") and self.dtype != "uint8":
            raise InvalidFormat(f"{self.kind} is no float32 format")
        if self.kind == "p010" and self.full_range:
            raise InvalidFormat("p010 has limited range only")
        if self.kind in ("grey", "nv12", "i420", "p010") and self.layout != "hwc":
            raise InvalidFormat(f"{self.kind} has no layout")
        scale, offset = _RANGES[self.range]
        std, mean = self.std or (scale,) * 3, self.mean or (offset,) * 3
        native = _core.OutputFormat(
            kind=self.kind,
            planes=self.layout == "chw",
            dtype=self.dtype,
            scale=[1 / (_WHITE_Q6 * s) for s in (*std, scale)],
            offset=[-m / s for m, s in zip((*mean, offset), (*std, scale), strict=True)],
            bt709=self.matrix == "bt709",
            limited=not self.full_range,
        )
        object.__setattr__(self, "native", native)
