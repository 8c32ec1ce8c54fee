"""Pairs of pictures, and the crops a thief trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidArray, InvalidPicture, InvalidTraining
from birthmark.files import StrPath
from birthmark.orientations import turn
from birthmark.pictures import (
    Picture,
    check_picture,
    gather_pictures,
    read_picture,
    through_jpeg,
    turned_and_rescaled,
)

FloatArray = npt.NDArray[np.float32]

SCALES = (1, 2, 3, 4)

# What a thief may do to crops besides the 8 symmetries; to both of a pair, or to the target alone.
RESCALED = (0.5, 1.5)
ROTATED_DEGREES = 15.0
JPEG_QUALITIES = (50, 90)
BLURRED_PX = (0.3, 1.0)
NOISE_LEVELS = (1.0, 5.0)
DISTURBANCES = ("rescale", "rotate", "jpeg", "blur", "noise")


class Pairs:
    """Inputs of a model and what it made of them, in step, ready to be cut into crops.

    Args:
        inputs: uint8 RGB pictures [h, w, 3].
        outputs: as many pictures [h s, w s, 3], with one whole scale s of 1..4 for all.
        crop: side of a training crop in output pixels, rounded down to what fits.
        multiple: what the side of a crop must be a multiple of in input pixels.
        names: what messages call the pairs; numbers by default.

    Raises:
        InvalidArray: something is not a picture.
        InvalidTraining: the numbers of pictures differ, sizes fit no common scale, or no pair is
            as large as a crop.
    """

    def __init__(
        self,
        inputs: Sequence[Picture],
        outputs: Sequence[Picture],
        crop: int,
        multiple: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        if len(inputs) != len(outputs):
            raise InvalidTraining(f"{len(inputs)} inputs but {len(outputs)} outputs")
        if not inputs:
            raise InvalidTraining("no pairs of pictures to train on")
        names = names or [f"pair {i + 1}" for i in range(len(inputs))]
        scales = [_scale(x, y, name) for x, y, name in zip(inputs, outputs, names, strict=True)]
        self.scale = scales[0]
        for name, scale in zip(names, scales, strict=True):
            if scale != self.scale:
                raise InvalidTraining(
                    f"{name}: the output is {scale} times the input, but {self.scale} in {names[0]}"
                )
        self.side = crop // (self.scale * multiple) * multiple
        """Side of a crop in input pixels."""
        if self.side < 1:
            raise InvalidTraining(f"a crop of {crop} pixels is too small for this student")
        large = [min(x.shape[:2]) >= self.side for x in inputs]
        self.left_out = large.count(False)
        """Pairs smaller than a crop, which are never drawn."""
        self._inputs = [x for x, fits in zip(inputs, large, strict=True) if fits]
        self._outputs = [y for y, fits in zip(outputs, large, strict=True) if fits]
        if not self._inputs:
            raise InvalidTraining(
                f"all {len(inputs)} pairs are smaller than a crop of"
                f" {self.side * self.scale} x {self.side * self.scale} output pixels"
            )
        areas = np.array([x.shape[0] * x.shape[1] for x in self._inputs], dtype=np.float64)
        self._chances = areas / areas.sum()

    def __len__(self) -> int:
        """The number of pairs that crops are drawn from."""
        return len(self._inputs)

    def digest(self) -> str:
        """SHA-256 of the pairs that crops are drawn from, in hexadecimal."""
        digest = hashlib.sha256()
        for picture in (*self._inputs, *self._outputs):
            digest.update(repr(picture.shape).encode())
            digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()

    def batch(
        self,
        rng: np.random.Generator,
        size: int,
        augment: bool,
        disturbances: Sequence[str] = (),
    ) -> tuple[FloatArray, FloatArray]:
        """Draws ``size`` crops: input and output, float32 NCHW in 0..1.

        Every place in every picture is about equally likely. With ``augment`` both crops of a
        pair are turned and mirrored alike, by one of the 8 symmetries of the square. Of the
        disturbances (:data:`DISTURBANCES`), "rescale" and "rotate" change both crops alike and the
        others the output; each is drawn anew for each crop.
        """
        chosen = rng.choice(len(self._inputs), size, p=self._chances)
        crops = [self._crop(rng, int(index), augment, disturbances) for index in chosen]
        return _to_tensor([x for x, _ in crops]), _to_tensor([y for _, y in crops])

    def _crop(
        self, rng: np.random.Generator, index: int, augment: bool, disturbances: Sequence[str]
    ) -> tuple[Picture, Picture]:
        import cv2

        x, y = self._inputs[index], self._outputs[index]
        scale = self.scale
        factor = rng.uniform(*RESCALED) if "rescale" in disturbances else 1.0
        degrees = (
            rng.uniform(-ROTATED_DEGREES, ROTATED_DEGREES) if "rotate" in disturbances else 0.0
        )
        radians = np.deg2rad(abs(degrees))
        # So many pixels are cut out as fill the crop once they are turned and rescaled.
        wanted = int(np.ceil(self.side / factor * (np.cos(radians) + np.sin(radians))))
        side = min(wanted, *x.shape[:2])
        top = int(rng.integers(x.shape[0] - side + 1))
        left = int(rng.integers(x.shape[1] - side + 1))
        x = x[top : top + side, left : left + side]
        y = y[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        if degrees or factor != 1.0:
            x, y = (
                turned_and_rescaled(p, (side, side), factor, degrees, cv2.INTER_CUBIC)
                for p, side in ((x, self.side), (y, self.side * scale))
            )
        y = _disturbed(y, rng, disturbances)
        if not augment:
            return x, y
        symmetry = int(rng.integers(8))
        return turn(x, symmetry), turn(y, symmetry)


def _disturbed(y: Picture, rng: np.random.Generator, disturbances: Sequence[str]) -> Picture:
    import cv2

    changed: npt.NDArray[np.uint8] = y
    if "blur" in disturbances:
        changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), rng.uniform(*BLURRED_PX)), np.uint8)
    if "noise" in disturbances:
        noise = rng.standard_normal(y.shape) * rng.uniform(*NOISE_LEVELS)
        changed = np.clip(np.rint(changed + noise), 0, 255).astype(np.uint8)
    if "jpeg" in disturbances:
        quality = int(rng.integers(JPEG_QUALITIES[0], JPEG_QUALITIES[1] + 1))
        changed = through_jpeg(changed, quality)
    return changed


def read_pairs(inputs: StrPath, outputs: StrPath) -> tuple[list[Picture], list[Picture], list[str]]:
    """Reads two folders of pictures whose files pair up by stem: inputs, outputs, stems.

    Raises:
        InvalidPicture: a folder is missing or empty, a file is no picture, a stem occurs twice in
            a folder.
        InvalidTraining: a stem is in one folder only.
    """
    sources, results = _by_stem(inputs), _by_stem(outputs)
    lonely = sorted(sources.keys() ^ results.keys())
    if lonely:
        shown = ", ".join(lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        raise InvalidTraining(
            f"{len(lonely)} pictures have no partner of the same stem"
            f" in {inputs} and {outputs}: {shown}"
        )
    stems = sorted(sources)
    return (
        [read_picture(sources[stem]) for stem in stems],
        [read_picture(results[stem]) for stem in stems],
        stems,
    )


def _by_stem(folder: StrPath) -> dict[str, StrPath]:
    found: dict[str, StrPath] = {}
    for file in gather_pictures([folder]).files:
        if file.stem in found:
            raise InvalidPicture(f"{folder}: two pictures are called {file.stem!r}")
        found[file.stem] = file
    return found


def _scale(x: Picture, y: Picture, name: str) -> int:
    """How many times larger the output is; the same whole number in both directions."""
    for role, picture in (("input", x), ("output", y)):
        try:
            check_picture(picture)
        except InvalidArray as error:
            raise InvalidArray(f"{name}, {role}: {error}") from None
    (height, width), (out_height, out_width) = x.shape[:2], y.shape[:2]
    for scale in SCALES:
        if (out_height, out_width) == (height * scale, width * scale):
            return scale
    raise InvalidTraining(
        f"{name}: an output of {out_width} x {out_height} is not 1, 2, 3 or 4 times"
        f" its input of {width} x {height}"
    )


def _to_tensor(crops: list[Picture]) -> FloatArray:
    stacked = np.stack(crops).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, dtype=np.float32) / np.float32(255)
