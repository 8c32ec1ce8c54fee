"""Pictures in and out: files to uint8 RGB arrays and back, and how far two pictures differ.

A picture is a uint8 array [height, width, 3], RGB, 0..255, everywhere in birthmark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidArray, InvalidPicture
from birthmark.files import StrPath, write_atomically
from birthmark.picture_headers import picture_size
from birthmark.remote import AnyPath, as_path, entries_of, read_bytes, real_path

Picture = npt.NDArray[np.uint8]

MAX_PIXELS = 2**28
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_MAX_FILE_BYTES = 2**31 - 1
# What a decoder may need for a pixel: three samples of 16 bits, and some room.
_DECODING_BYTES = 8


@dataclass(frozen=True)
class Gathered:
    """Pictures found among files and folders, and what the folders held besides."""

    files: tuple[AnyPath, ...]
    """Picture files: arguments in the order given, a folder's files sorted by name; no file twice.
    """
    ignored: tuple[AnyPath, ...]
    """Entries of the folders that are no pictures by their suffix, sub-folders among them."""


def gather_pictures(paths: Iterable[StrPath]) -> Gathered:
    """Collect picture files from a mix of files and folders, on this machine or at URLs.

    A file named outright is taken whatever its suffix. Folders are not searched recursively;
    of their entries, those with a suffix in :data:`SUFFIXES` are pictures. A picture reached
    twice (also through a link) is listed once, so that no evidence is counted double.

    Raises:
        InvalidPicture: a path is missing or cannot be looked at, or a folder holds no picture.
    """
    files: dict[str, AnyPath] = {}
    ignored: list[AnyPath] = []
    for path in map(as_path, paths):
        try:
            found, besides = _at(path)
        except OSError as error:
            raise InvalidPicture(f"{path}: {error.strerror or error}") from error
        ignored += besides
        for file in found:
            files.setdefault(real_path(file), file)
    return Gathered(tuple(files.values()), tuple(ignored))


def _at(path: AnyPath) -> tuple[list[AnyPath], list[AnyPath]]:
    """The pictures that a path stands for, and what is beside them in a folder."""
    if not path.is_dir():
        if not path.exists():
            raise InvalidPicture(f"{path}: no such file or folder")
        return [path], []
    found: list[AnyPath] = []
    besides: list[AnyPath] = []
    for entry, is_folder in entries_of(path):
        is_picture = entry.suffix.lower() in SUFFIXES and not is_folder
        (found if is_picture else besides).append(entry)
    if not found:
        raise InvalidPicture(f"{path}: no pictures in this folder")
    return found, besides


def read_picture(path: StrPath) -> Picture:
    """Read a PNG, JPEG, WebP, BMP or TIFF file, also at a URL; see :func:`decode_picture`.

    Raises:
        InvalidPicture: the file is missing, unreadable, or refused by :func:`decode_picture`.
    """
    try:
        data = read_bytes(path, _MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidPicture(f"{path}: {error.strerror}") from error
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> Picture:
    """Decode an encoded picture to uint8 RGB [height, width, 3]; ``name`` is for messages.

    Grey becomes three equal channels. Alpha is dropped, not blended: the colour stored under a
    transparent pixel is what is returned. 16-bit samples are divided by 257 and rounded. The
    EXIF orientation is applied. Of several pages or frames the first is read. Colour profiles
    are ignored. The size is read from the header first: nothing is decoded if it is absurd.

    Raises:
        InvalidPicture: not one of the five formats, empty, truncated, corrupt, of more than
            :data:`MAX_PIXELS` pixels, or of samples that are neither 8- nor 16-bit integers.
    """
    import cv2

    if not data:
        raise InvalidPicture(f"{name}: empty file")
    try:
        width, height = picture_size(data)
    except ValueError as error:
        raise InvalidPicture(f"{name}: {error}") from None
    if width * height == 0:
        raise InvalidPicture(f"{name}: picture of zero size ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise InvalidPicture(
            f"{name}: {width} x {height} pixels, more than the {MAX_PIXELS} accepted"
        )
    try:
        decoded = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error:
        decoded = None
    if decoded is None:
        raise InvalidPicture(f"{name}: {_why_undecoded(width * height)}")
    if decoded.shape[0] * decoded.shape[1] != width * height:
        raise InvalidPicture(f"{name}: header and content disagree on the size")
    if decoded.dtype == np.uint16:
        decoded = ((decoded.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise InvalidPicture(f"{name}: samples of type {decoded.dtype}, not 8- or 16-bit")
    return np.ascontiguousarray(decoded[:, :, ::-1])


def _why_undecoded(pixels: int) -> str:
    """OpenCV does not say whether it was for want of memory."""
    try:
        np.empty(_DECODING_BYTES * pixels, np.uint8)
    except MemoryError:
        return "corrupt picture, or too little memory for one of its size"
    return "corrupt picture"


def encode_png(picture: Picture) -> bytes:
    """Encode uint8 RGB [height, width, 3] as an 8-bit PNG, losslessly.

    Raises:
        InvalidArray: not a uint8 array of that shape, or of zero size.
    """
    import cv2

    check_picture(picture)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise InvalidArray(f"picture of shape {picture.shape} cannot be written as PNG")
    return encoded.tobytes()


def write_png(path: StrPath, picture: Picture, *, overwrite: bool = True) -> None:
    """Write a picture as PNG: losslessly and atomically.

    Raises:
        InvalidArray: as :func:`encode_png`.
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    write_atomically(path, encode_png(picture), overwrite=overwrite)


def check_picture(picture: Picture) -> None:
    """Raise InvalidArray unless ``picture`` is uint8 [height, width, 3] with height, width > 0."""
    if not isinstance(picture, np.ndarray):
        raise InvalidArray(f"a picture must be a numpy array, not {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise InvalidArray(f"a picture must be uint8, not {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise InvalidArray(f"a picture must be [height, width, 3], not {list(picture.shape)}")


def psnr_db(a: Picture, b: Picture) -> float:
    """Peak signal-to-noise ratio in dB over all samples: 10 log10(255^2 / MSE); inf if equal.

    Raises:
        InvalidArray: one is no picture, or their shapes differ.
    """
    _check_pair(a, b)
    difference = a.astype(np.int32) - b
    mse = float(np.mean(np.square(difference), dtype=np.float64))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(a: Picture, b: Picture) -> float:
    """Mean structural similarity of luma, in [-1, 1], 1 if equal.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 13(4), 2004, eq. 13: Gaussian window 11 x 11 of sigma 1.5,
    K1 = 0.01, K2 = 0.03, L = 255; averaged over the windows that lie wholly inside, without
    down-sampling first. Luma is BT.601 (0.299 R + 0.587 G + 0.114 B), not rounded.

    Raises:
        InvalidArray: one is no picture, shapes differ, or a side is below 11 pixels.
    """
    _check_pair(a, b)
    if min(a.shape[:2]) < 11:
        raise InvalidArray(f"SSIM needs at least 11 x 11 pixels, not {list(a.shape[:2])}")
    x, y = _luma(a), _luma(b)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x**2
    variance_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(np.mean(similarity))


def _check_pair(a: Picture, b: Picture) -> None:
    check_picture(a)
    check_picture(b)
    if a.shape != b.shape:
        raise InvalidArray(f"pictures differ in shape: {list(a.shape)} and {list(b.shape)}")


def _luma(picture: Picture) -> npt.NDArray[np.float64]:
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]), np.float64)


def _window_mean(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian-weighted mean over each 11 x 11 window that lies wholly inside ``x``."""
    import cv2

    kernel = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)
    filtered = cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel)
    return np.asarray(filtered[5:-5, 5:-5], np.float64)


def through_jpeg(picture: Picture, quality: int) -> Picture:
    """A uint8 RGB picture [h, w, 3] after it was saved as JPEG of this quality (1 to 100)."""
    import cv2

    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    bgr = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def turned_and_rescaled(
    picture: Picture, size: tuple[int, int], factor: float, degrees: float, interpolation: int
) -> Picture:
    """The middle of a picture, turned about it and rescaled.

    Args:
        picture: uint8 [h, w, 3].
        size: height and width of what is returned, in pixels after the change.
        factor: how many times as large things become. What would fold when they get smaller is
            smoothed away first.
        degrees: counter-clockwise.
        interpolation: one of OpenCV's, such as ``cv2.INTER_CUBIC``.
    """
    import cv2

    height, width = picture.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D((x, y), degrees, factor)
    matrix[:, 2] += (size[1] - 1) / 2 - x, (size[0] - 1) / 2 - y
    sigma = 0.5 * math.sqrt(max(0.0, factor**-2 - 1))
    smooth = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture
    warped = cv2.warpAffine(
        smooth, matrix, size[::-1], flags=interpolation, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.ascontiguousarray(warped, np.uint8)
