"""What the owner measures on the model's own unmarked outputs before anything is published.

The mark has two parts. Its *echo* is a linear space of filters, one for each tone, of which n
directions (coordinates) are used; its *tint* is one of small changes of colour, of which m are. A
:class:`Calibration` holds how the coordinates become gains, and how the statistics of pictures
answer to them. It is frozen: it goes into the signed claim as bytes.

All correlations here are normalised: rho[tone, orbit] = S[tone, orbit] / S[tone, energy], with S
the integer statistics of ``cpp/contract/CONTRACT.md``, step 20.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.damages import Damage, blurred, compressed, median, noisy, rescaled, sharpened
from birthmark.errors import CouldNotJudge, InvalidArray, InvalidClaim
from birthmark.pictures import Picture
from birthmark.sums import ORBIT_SCALE, OWN, PARTS, Sums, rho_of, sums_of, texture

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int, str], None]
Fields = tuple[
    npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.int16], npt.NDArray[np.int16]
]

TONE_FUNCTIONS = 4
COORDINATES = TONE_FUNCTIONS * _core.ORBITS
DECAY = 0.6
TILT = 0.5
STRENGTH_LEVELS = 2.25
RIDGE = 0.1
# Information grows with the texture's energy, but a tone's pixels resemble each other: twice as
# many of them say less than twice as much.
SHARE_POWER = 0.75

TINT_LEVELS = 0.5
# A tint's functions: a field (constant, blueness, redness, roughness) times the Chebyshev
# polynomial of the tone of this degree. In this order, so that each has what those before lack.
TINT_FUNCTIONS = ((1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (0, 2), (0, 3))
# Rows: red, green and blue together; red against the others; blue against the others.
DIRECTIONS = np.array([[1, 1, 1], [2, -1, -1], [-1, -1, 2]]) / np.sqrt([[1], [2], [2]])

_TONES, _ORBITS = _core.TONES, _core.ORBITS
_MAGIC = b"BMCAL\x04"
_HEADER = struct.Struct("<6sHHHHH")
# What pictures may have gone through. Each changes the statistics in a way of its own, which is
# read beside the mark, so that it is not taken for one.
DAMAGES = (
    *(compressed(quality) for quality in (80, 50)),
    *(blurred(sigma_px) for sigma_px in (0.6, 1.0)),
    *(noisy(levels) for levels in (2, 5)),
    rescaled(0.7),
    median,
    sharpened(0.5),
)
_MOST_DAMAGES = 64
_LEVELS_PER_GAIN = 1 / (64 * 32768)
UNITS_PER_LEVEL = np.array([64.0, 32768.0, 32768.0, 32768.0])  # of a tint's gains, by field
_PROBE_CROPS = 64
_CROP_PX = 192
_FEWEST_CROPS = 24
_PROBE_SEED = 3
_LEAST_ENERGY = 1e-6  # of a direction, of the strongest one's


@dataclass(frozen=True)
class Calibration:
    """The frozen calibration of a mark: n coordinates, their gains and their response.

    Attributes:
        spread: float32 [orbits, tones, n]; gains of a mark = spread @ z.
        offset: float32 [parts, tones, orbits]; rho of unmarked outputs.
        response: float32 [2, tones, orbits, n]; d rho / d z apart from lines and on them, measured
            in the published bytes.
        precision: float32 [2, tones, orbits, orbits]; inverse covariance of rho over unmarked
            outputs, for one crop's mean energy.
        damage: float32 [2, tones, orbits, d]; d rho, what each of :data:`DAMAGES` does to unmarked
            outputs.
        tint: float32 [fields, tones, k]; the k functions of a tint, each with the strength that
            a coordinate of 1 gives it, in grey levels (of a constant 1, and of the other fields in
            grey levels).
        ridge: how strongly coordinates of weak response are held back (a fraction of the mean
            information per coordinate).
    """

    spread: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    response: npt.NDArray[np.float32]
    precision: npt.NDArray[np.float32]
    damage: npt.NDArray[np.float32]
    tint: npt.NDArray[np.float32]
    ridge: float

    @property
    def coordinates(self) -> int:
        """Number n of the echo's coordinates."""
        return int(self.spread.shape[2])

    @property
    def tint_coordinates(self) -> int:
        """Number m of the tint's coordinates: its functions times three directions of colour."""
        return len(DIRECTIONS) * int(self.tint.shape[2])

    def gains(self, z: FloatArray, tint: FloatArray | None = None) -> npt.NDArray[np.int16]:
        """Gains int16 [gain rows, tones] of the mark with these coordinates, of variance 1.

        Where they would exceed the contract's bounds they are scaled down together: echo and tint
        keep their directions and lose some strength.

        Args:
            z: of the echo, float [n].
            tint: of the tint, float [m]; none without it.

        Raises:
            InvalidArray: another number of coordinates.
        """
        if tint is None:
            tint = np.zeros(self.tint_coordinates)
        if z.shape != (self.coordinates,) or tint.shape != (self.tint_coordinates,):
            raise InvalidArray(
                f"a mark of this calibration has {self.coordinates} coordinates, and"
                f" {self.tint_coordinates} of its tint"
            )
        echo = self.spread.astype(np.float64) @ z
        # Rounding may add half a unit for each orbit.
        echo *= _shrink(np.abs(echo).sum(axis=0).max(), _core.TAP_SUM_MAX - _ORBITS)
        of_channels = tint.reshape(-1, len(DIRECTIONS)) @ DIRECTIONS
        levels = np.einsum("ftk,kc->cft", self.tint.astype(np.float64), of_channels)
        of_fields = levels * UNITS_PER_LEVEL[:, None]
        of_fields *= _shrink(np.abs(of_fields).max(), _core.TINT_GAIN_MAX)
        gains = np.concatenate([echo, of_fields.reshape(-1, _TONES)])
        rounded: npt.NDArray[np.int16] = np.rint(gains).astype(np.int16)
        return rounded

    def read(self, sums: Sums) -> FloatArray:
        """Estimate the coordinates z from pooled statistics: float64 [n].

        Generalised least squares: each tone's deviation of rho from the offset, apart from lines
        and on them, is weighted by its precision and by the share of the texture's energy that the
        pictures hold there (to the power :data:`SHARE_POWER`), so the estimate does not depend on
        how bright they are. How strongly the pictures were damaged is estimated together with the
        mark, and left out.

        Args:
            sums: int64 [parts, tones, orbits + 1], summed over pictures.

        Raises:
            CouldNotJudge: the pictures hold no texture.
        """
        if texture(sums) <= 0:
            raise CouldNotJudge("the pictures hold no texture to read a mark from")
        share = (sums[:OWN, :, -1] / texture(sums))[..., None]
        response = np.concatenate([self.response, self.damage], axis=3).astype(np.float64)
        weighted = np.einsum("qton,qtop->qtpn", response, self.precision)
        weighted *= share[..., None] ** SHARE_POWER
        information = np.einsum("qtpn,qtpm->nm", weighted, response)
        own = np.trace(information[: self.coordinates, : self.coordinates])
        information += self.ridge * own / self.coordinates * np.eye(len(information))
        deviation = np.where(share > 0, rho_of(sums[:OWN]) - self.offset[:OWN], 0.0)
        read = np.linalg.solve(information, np.einsum("qtpn,qtp->n", weighted, deviation))
        return read[: self.coordinates]

    @functools.cached_property
    def coefficients(self) -> FloatArray:
        """What a coordinate of 1 is made of: float64 [carriers, n].

        A carrier is a Chebyshev polynomial of the tone times the echo over an orbit, polynomials
        first; its coefficient means the same in every calibration.
        """
        of_functions = np.linalg.pinv(chebyshev(TONE_FUNCTIONS))
        made: FloatArray = np.einsum("otn,tk->kon", self.spread.astype(np.float64), of_functions)
        return made.reshape(-1, self.coordinates)

    def of_coefficients(self, coefficients: FloatArray) -> FloatArray:
        """The coordinates nearest to these coefficients, float64 [n]: least squares.

        Args:
            coefficients: float64 [carriers].
        """
        z: FloatArray = self._inverse @ coefficients
        return z

    @functools.cached_property
    def _inverse(self) -> FloatArray:
        return np.asarray(np.linalg.pinv(self.coefficients), np.float64)

    def to_bytes(self) -> bytes:
        """Serialise; the same calibration gives the same bytes."""
        damages, functions = self.damage.shape[3], self.tint.shape[2]
        parts = [_HEADER.pack(_MAGIC, _ORBITS, _TONES, self.coordinates, damages, functions)]
        parts.append(struct.pack("<f", self.ridge))
        parts += [self.spread.astype("<f2").tobytes(), self.response.astype("<f2").tobytes()]
        exact = (self.offset, self.precision, self.damage, self.tint)
        parts += [part.astype("<f4").tobytes() for part in exact]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            InvalidClaim: truncated, foreign, or made for another family of carriers.
        """
        if len(data) < _HEADER.size or data[:6] != _MAGIC:
            raise InvalidClaim("the claim's calibration is not one of this version")
        _, orbits, tones, n, damages, functions = _HEADER.unpack_from(data)
        if (
            (orbits, tones) != (_ORBITS, _TONES)
            or not 2 <= n <= orbits * tones
            or damages > _MOST_DAMAGES
            or not 1 <= functions <= _core.TINT_FIELDS * tones
        ):
            raise InvalidClaim("the claim's calibration is for another family of carriers")
        shapes = [
            ("<f4", ()),
            ("<f2", (orbits, tones, n)),
            ("<f2", (OWN, tones, orbits, n)),
            ("<f4", (PARTS, tones, orbits)),
            ("<f4", (OWN, tones, orbits, orbits)),
            ("<f4", (OWN, tones, orbits, damages)),
            ("<f4", (_core.TINT_FIELDS, tones, functions)),
        ]
        at, arrays = _HEADER.size, []
        for dtype, shape in shapes:
            count = int(np.prod(shape))
            size = count * np.dtype(dtype).itemsize
            if at + size > len(data):
                raise InvalidClaim("the claim's calibration is truncated")
            array = np.frombuffer(data, dtype, count, at).reshape(shape).astype(np.float32)
            if not np.isfinite(array).all():
                raise InvalidClaim("the claim's calibration holds NaN or Inf")
            arrays.append(array)
            at += size
        if at != len(data):
            raise InvalidClaim("the claim's calibration has bytes too many")
        ridge, spread, response, offset, precision, damage, tint = arrays
        return cls(spread, offset, response, precision, damage, tint, float(ridge))

    @property
    def sha256(self) -> str:
        """Hash of the serialised form, 64 hex digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def calibrate(
    outputs: Sequence[npt.NDArray[np.float32]],
    *,
    coordinates: int = COORDINATES,
    tint_levels: float = TINT_LEVELS,
    progress: Progress | None = None,
) -> Calibration:
    """Measure a calibration on a model's own unmarked outputs.

    Three steps. The Gram matrix of the carriers (an orbit's echo times a Chebyshev polynomial of
    the tone) over the outputs gives orthogonal coordinates. Students learn echoes that are alike in
    all tones first, then those that change slowly from black to white: each degree of the
    polynomial gets :data:`DECAY` times the energy of the one below. Within a degree the stronger
    eigendirections get a little more (energy to the power :data:`TILT`). The statistics of the
    unmarked outputs give offset and precision, and those of the same outputs after each of
    :data:`DAMAGES` what a damage does to them. Then each of n orthogonal marks is embedded with
    plus and with minus sign and half the difference of the statistics is taken: what is left is
    the response to the mark in the published bytes, rounding and clipping included, free of the
    pictures' own statistics. The tint's functions are made orthogonal over the outputs' pixels, and
    each degree gets :data:`DECAY` times the energy of the one below.

    Args:
        outputs: float32 [3, h, w] in [0, 1], at least 24 crops' worth of 192 x 192 pixels.
        coordinates: n, the number of directions used.
        tint_levels: strength of the tint, the root mean square that it aims at, in grey levels.
        progress: called as (done, total, message).

    Raises:
        InvalidArray: not such arrays, or too few or too small.
        CouldNotJudge: the outputs hold next to no texture.
    """
    crops = _crops(outputs)
    probed = _some(crops)
    report = progress or (lambda done, total, message: None)
    report(0, coordinates, "carriers")
    spread = _spread(probed, coordinates)
    plain = _core.Embedder(None)
    sums = np.stack([sums_of(plain.embed(crop)) for crop in crops])
    offset = rho_of(sums.sum(axis=0)).astype(np.float32)
    precision = np.stack([_precision(sums[:, part], offset[part]) for part in range(OWN)])

    basis, _ = np.linalg.qr(np.random.default_rng(_PROBE_SEED).standard_normal((coordinates,) * 2))
    probes = basis * np.sqrt(coordinates)
    tint = _tint(probed, tint_levels)
    unknown = np.zeros((OWN, _TONES, _ORBITS, coordinates), np.float32)
    damage = _damage([plain.embed(crop) for crop in probed])
    draft = Calibration(spread, offset, unknown, precision, damage, tint, RIDGE)
    response = np.zeros(unknown.shape)
    for i, z in enumerate(probes):
        report(i, coordinates, "response")
        gains = draft.gains(z)
        plus, minus = (_marked_rho(probed, sign * gains) for sign in (1, -1))
        response += ((plus - minus) / 2)[..., None] * z / coordinates
    report(coordinates, coordinates, "response")
    # What is frozen is what will be used: rounded to the precision in which it is kept.
    measured = response.astype(np.float32)
    exact = Calibration(spread, offset, measured, precision, damage, tint, RIDGE)
    return Calibration.from_bytes(exact.to_bytes())


def squares(outputs: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    """The squares of 192 px of the outputs in which marks are tried out, 64 at the most.

    Raises:
        InvalidArray: as :func:`calibrate`.
    """
    return _some(_crops(outputs))


def _some(crops: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    return crops[:: max(1, len(crops) // _PROBE_CROPS)][:_PROBE_CROPS]


def _crops(outputs: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    """Squares of 192 px side by side, from all pictures in turn so that any prefix is varied."""
    by_picture = []
    for picture in outputs:
        if picture.dtype != np.float32 or picture.ndim != 3 or picture.shape[0] != 3:
            raise InvalidArray("calibration needs float32 pictures [3, h, w]")
        rows, columns = (side // _CROP_PX for side in picture.shape[1:])
        by_picture.append(
            [
                np.ascontiguousarray(
                    picture[:, y * _CROP_PX : (y + 1) * _CROP_PX, x * _CROP_PX : (x + 1) * _CROP_PX]
                )
                for y in range(rows)
                for x in range(columns)
            ]
        )
    most = max((len(c) for c in by_picture), default=0)
    crops = [c[i] for i in range(most) for c in by_picture if i < len(c)]
    if len(crops) < _FEWEST_CROPS:
        raise InvalidArray(
            f"calibration needs outputs that hold {_FEWEST_CROPS} squares of {_CROP_PX} px,"
            f" not {len(crops)}: give more or larger pictures"
        )
    return crops


def echoes_by_tone(
    fields: Fields,
) -> Iterator[tuple[int, npt.NDArray[np.bool_], npt.NDArray[np.float32]]]:
    """For each tone of a picture: the tone, where it is, and the echoes there.

    Args:
        fields: what ``_core.fields`` gives for the picture.

    Yields:
        The tone; bool [h w], the pixels of that tone in C order; float32 [orbits, pixels held],
        the grey levels that a gain of one puts on each for each orbit.
    """
    _, tone, orbits, _ = fields
    echoes = orbits.reshape(_ORBITS, -1).astype(np.float32) * np.float32(_LEVELS_PER_GAIN)
    tone = tone.reshape(-1)
    for t in np.unique(tone):
        held = tone == t
        yield int(t), held, echoes[:, held]


def _spread(crops: list[npt.NDArray[np.float32]], n: int) -> npt.NDArray[np.float32]:
    tone_functions = chebyshev(TONE_FUNCTIONS)
    size = TONE_FUNCTIONS * _ORBITS
    if not 2 <= n <= size:
        raise InvalidArray(f"a mark has 2 to {size} coordinates, not {n}")
    gram = np.zeros((size, size))
    pixels = 0
    for crop in crops:
        for t, held, echoes in echoes_by_tone(_core.fields(crop)):
            of_functions = np.outer(tone_functions[:, t], tone_functions[:, t])
            gram += np.kron(of_functions, (echoes @ echoes.T).astype(np.float64))
            pixels += int(held.sum())
    gram /= pixels
    taken = np.zeros((size, 0))  # directions of unit energy, orthogonal in it
    energies = []
    for degree, own in enumerate(np.split(np.eye(size), TONE_FUNCTIONS, axis=1)):
        # What lower degrees do already is left to them.
        new = own - taken @ (taken.T @ gram @ own)
        values, vectors = np.linalg.eigh(new.T @ gram @ new)
        if values[0] <= _LEAST_ENERGY * values[-1]:
            raise CouldNotJudge(
                "the outputs hold too little texture or too few tones to calibrate on"
            )
        taken = np.hstack([taken, new @ (vectors / np.sqrt(values))[:, ::-1]])
        tilted = values[::-1] ** TILT
        energies.append(DECAY**degree * tilted / tilted.sum())
    energy = np.concatenate(energies)[:n]
    amplitude = STRENGTH_LEVELS * np.sqrt(energy / energy.sum())
    coefficients = (taken[:, :n] * amplitude).reshape(TONE_FUNCTIONS, _ORBITS, n)
    spread: npt.NDArray[np.float64] = np.einsum("kon,kt->otn", coefficients, tone_functions)
    return spread.astype(np.float32)


def tint_fields(fields: Fields) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """A picture's tone, uint8 [h, w], and its tint's fields, float64 [fields, h, w].

    ``fields`` is what ``_core.fields`` gives for the picture. The first of a tint is 1, the others
    (blueness, redness, roughness) are in grey levels.
    """
    _, tone, _, colours = fields
    return tone, np.concatenate([np.ones((1, *tone.shape)), colours / 64])


def _tint(crops: list[npt.NDArray[np.float32]], levels: float) -> npt.NDArray[np.float32]:
    """The functions of a tint, orthogonal to a constant and to each other."""
    gram = np.zeros((_TONES, _core.TINT_FIELDS, _core.TINT_FIELDS))
    for crop in crops:
        tone, fields = tint_fields(_core.fields(crop))
        for t in np.unique(tone):
            here = fields[:, tone == t]
            gram[t] += here @ here.T
    gram /= gram[:, 0, 0].sum()  # the number of pixels
    taken = [np.zeros((_core.TINT_FIELDS, _TONES))]
    taken[0][0] = 1
    energies = []
    for field, degree in TINT_FUNCTIONS:
        new = np.zeros((_core.TINT_FIELDS, _TONES))
        new[field] = chebyshev(degree + 1)[degree]
        for other in taken:
            new -= other * np.einsum("ft,tfg,gt->", other, gram, new)
        size = np.einsum("ft,tfg,gt->", new, gram, new)
        if size <= _LEAST_ENERGY:
            raise CouldNotJudge("the outputs hold too few colours or tones to calibrate on")
        taken.append(new / np.sqrt(size))
        # A constant's lowest degree is left out, so its first one counts as the lowest.
        energies.append(DECAY ** (degree - (field == 0)))
    energy = np.array(energies) / (len(DIRECTIONS) * np.sum(energies))
    functions: npt.NDArray[np.float64] = np.stack(taken[1:], axis=2) * np.sqrt(energy)
    return (levels * functions).astype(np.float32)


def chebyshev(count: int) -> FloatArray:
    """The first Chebyshev polynomials of the tone, float64 [count, tones]."""
    x = (2 * np.arange(_TONES) - (_TONES - 1)) / _TONES
    polynomials: FloatArray = np.cos(np.arange(count)[:, None] * np.arccos(x))
    return polynomials


def _shrink(largest: float, bound: float) -> float:
    """What to multiply with so that nothing is beyond the bound."""
    return min(1.0, bound / largest) if largest > 0 else 1.0


def _precision(sums: Sums, offset: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Inverse covariance of rho in each tone over crops, drawn towards the tones' mean."""
    energy = sums[:, :, -1].astype(np.float64)
    deviation = sums[:, :, :-1] * float(ORBIT_SCALE) - energy[:, :, None] * offset
    total = energy.sum(axis=0)
    covariance = np.einsum("cto,ctp->top", deviation, deviation)
    covariance *= len(sums) / np.maximum(total, 1.0)[:, None, None] ** 2
    mean = (covariance * total[:, None, None]).sum(axis=0) / total.sum()
    floor = 0.02 * np.trace(mean) / _ORBITS * np.eye(_ORBITS)
    return np.linalg.inv(0.8 * covariance + 0.2 * mean + floor).astype(np.float32)


def _damage(published: Sequence[Picture]) -> npt.NDArray[np.float32]:
    """What each damage does to rho, float32 [2, tones, orbits, damages]."""

    def rho_after(damage: Damage) -> FloatArray:
        sums = [_core.statistics(damage(picture)) for picture in published]
        return rho_of(np.sum(sums, axis=0))

    whole = rho_after(lambda picture: picture)
    changes = [rho_after(damage) - whole for damage in DAMAGES]
    return np.stack(changes, axis=3).astype(np.float32)


def _marked_rho(
    crops: list[npt.NDArray[np.float32]], gains: npt.NDArray[np.int16]
) -> npt.NDArray[np.float32]:
    embedder = _core.Embedder(_core.write_mark(bytes(16), gains))
    sums = np.sum([_core.statistics(embedder.embed(crop)) for crop in crops], axis=0)
    return rho_of(sums).astype(np.float32)
