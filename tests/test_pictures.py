"""Pictures: what is read is what was written, damage is always named, measures are right."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birthmark.errors import InvalidArray, InvalidPicture, OutputExists
from birthmark.pictures import (
    Picture,
    decode_picture,
    encode_png,
    gather_pictures,
    psnr_db,
    read_picture,
    ssim,
    write_png,
)

SUFFIXES = (".png", ".jpg", ".webp", ".bmp", ".tiff")
pictures = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


def encoded(picture: npt.NDArray[Any], suffix: str) -> bytes:
    """Any array that OpenCV can encode, channels in RGB(A) order."""
    if picture.ndim == 3:
        order = [2, 1, 0, 3][: picture.shape[2]]
        picture = picture[:, :, order]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture))
    assert done
    return data.tobytes()


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


SMALL = {suffix: encoded(noise(23, 31, 3), suffix) for suffix in SUFFIXES}


@given(pictures)
def test_png_round_trip(picture: Picture) -> None:
    assert np.array_equal(decode_picture(encode_png(picture), "x"), picture)


def test_png_round_trip_of_views_and_files(tmp_path: Path) -> None:
    whole = noise(40, 60, 3)
    for view in (whole[::2, ::-3], whole.transpose(1, 0, 2), whole[..., ::-1]):
        write_png(tmp_path / "x.png", view)
        read = read_picture(tmp_path / "x.png")
        assert np.array_equal(read, view)
        assert read.flags.c_contiguous and read.flags.writeable
    with pytest.raises(OutputExists):
        write_png(tmp_path / "x.png", whole, overwrite=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_each_format(suffix: str) -> None:
    picture = cv2.GaussianBlur(noise(64, 48, 3), (0, 0), 4)
    decoded = decode_picture(encoded(picture, suffix), "x")
    assert decoded.shape == picture.shape
    assert psnr_db(decoded, picture) >= (37 if suffix in (".jpg", ".webp") else math.inf)


def test_webp_of_each_kind() -> None:
    picture = noise(19, 37, 4)
    picture[:, :, 3] |= 1
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    for source in (picture, picture[:, :, :3]):
        data = cv2.imencode(".webp", np.ascontiguousarray(source), lossless)[1].tobytes()
        assert np.array_equal(decode_picture(data, "x"), source[:, :, 2::-1])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_grey_alpha_and_16_bit(suffix: str) -> None:
    grey, colour, alpha = noise(9, 11), noise(9, 11, 3), noise(9, 11, 4)
    deep = noise(9, 11, 3, dtype=np.uint16)
    alpha[0, 0, 3] = 0
    read = {
        name: decode_picture(encoded(picture, suffix), name)
        for name, picture in (("grey", grey), ("colour", colour), ("alpha", alpha), ("deep", deep))
    }
    assert np.array_equal(read["grey"], np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(read["colour"], colour)
    assert np.array_equal(read["alpha"], alpha[:, :, :3])
    assert np.array_equal(read["deep"], np.rint(deep / 257).astype(np.uint8))


def test_float_tiff_is_refused() -> None:
    with pytest.raises(InvalidPicture, match="float32"):
        decode_picture(encoded(np.ones((5, 5, 3), np.float32), ".tiff"), "x")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation_is_applied(suffix: str) -> None:
    upright = cv2.resize(noise(3, 4, 3), (64, 48), interpolation=cv2.INTER_NEAREST)
    stored = np.rot90(upright, 1)  # orientation 6: turn by 90 degrees clockwise to show
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    data = encoded(np.ascontiguousarray(stored), suffix)
    if suffix == ".jpg":
        segment = b"Exif\0\0" + exif
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    else:
        data = data[:33] + png_chunk(b"eXIf", exif) + data[33:]
    assert psnr_db(decode_picture(data, "x"), upright) > 25


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60)
@given(data=st.data())
def test_truncated_file_is_named(suffix: str, data: st.DataObject) -> None:
    whole = SMALL[suffix]
    kept = data.draw(st.integers(0, len(whole) - 1))
    try:
        picture = decode_picture(whole[:kept], "holiday.xyz")
    except InvalidPicture as error:
        assert "holiday.xyz" in str(error) and "\n" not in str(error)
    else:  # OpenCV's TIFF and BMP put nothing of the picture into the last bytes
        assert suffix in (".tiff", ".bmp")
        assert np.array_equal(picture, decode_picture(whole, "x"))


@given(st.integers(0, len(SMALL[".png"]) - 1), st.integers(1, 255))
def test_any_changed_byte_of_a_png_is_caught(at: int, change: int) -> None:
    data = bytearray(SMALL[".png"])
    data[at] ^= change
    with pytest.raises(InvalidPicture):
        decode_picture(bytes(data), "x")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60)
@given(tail=st.binary(max_size=200), kept=st.integers(2, 40))
def test_garbage_never_crashes(suffix: str, tail: bytes, kept: int) -> None:
    try:
        decode_picture(SMALL[suffix][:kept] + tail, "x")
    except InvalidPicture as error:
        assert str(error).startswith("x: ")


def huge_pictures() -> Iterator[bytes]:
    side = 1 << 20
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", ihdr) + png_chunk(b"IEND", b"")
    frame = struct.pack(">HBHHB", 17, 8, 65535, 65535, 3) + bytes(9)
    yield b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6
    yield b"RIFF" + struct.pack("<I", len(canvas) + 4) + b"WEBP" + canvas
    yield b"BM" + bytes(12) + struct.pack("<Iii", 40, side, -side) + bytes(28)
    entries = struct.pack("<HHII", 256, 4, 1, side) + struct.pack("<HHII", 257, 4, 1, side)
    yield b"II*\0" + struct.pack("<IH", 8, 2) + entries
    entries = struct.pack(">HHQQ", 256, 16, 1, side) + struct.pack(">HHQQ", 257, 16, 1, side)
    yield b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, 2) + entries


@pytest.mark.parametrize("data", list(huge_pictures()))
def test_decompression_bomb_is_refused_by_its_header(data: bytes) -> None:
    with pytest.raises(InvalidPicture, match="more than the 268435456 accepted"):
        decode_picture(data, "bomb")


def test_an_offset_beyond_any_memory_is_a_truncated_file() -> None:
    with pytest.raises(InvalidPicture, match="truncated file"):
        decode_picture(b"II+\0" + struct.pack("<HHQ", 8, 0, 2**64 - 1), "far")


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    for name, reason in (
        ("empty.png", "empty file"),
        ("text.png", "not a PNG, JPEG, WebP, BMP or TIFF file"),
        ("missing.png", "No such file"),
        (".", "directory"),
        ("/dev/zero", "not a regular file"),
    ):
        with pytest.raises(InvalidPicture, match=reason):
            read_picture(tmp_path / name)
    zero = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0))
    with pytest.raises(InvalidPicture, match="zero size"):
        decode_picture(b"\x89PNG\r\n\x1a\n" + zero + png_chunk(b"IEND", b""), "x")


def test_gather(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "again.png").symlink_to(tmp_path / "a.jpg")
    found = gather_pictures([tmp_path / "notes.txt", tmp_path, tmp_path / "a.jpg"])
    assert [f.name for f in found.files] == ["notes.txt", "a.jpg", "b.PNG"]
    assert [f.name for f in found.ignored] == ["notes.txt", "sub"]
    with pytest.raises(InvalidPicture, match=r"missing\.png: no such file"):
        gather_pictures([tmp_path, tmp_path / "missing.png"])
    with pytest.raises(InvalidPicture, match="File name too long"):
        gather_pictures([tmp_path, tmp_path / ("x" * 300)])
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidPicture, match="no pictures"):
        gather_pictures([tmp_path / "none"])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
    ],
    ids=["dtype", "grey", "alpha", "empty", "list"],
)
def test_arrays_that_are_no_pictures(bad: Any) -> None:
    with pytest.raises(InvalidArray):
        encode_png(bad)
    with pytest.raises(InvalidArray):
        psnr_db(bad, bad)


def test_psnr() -> None:
    a = noise(8, 8, 3) // 2
    assert psnr_db(a, a) == math.inf
    assert psnr_db(a, a + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(np.zeros_like(a), np.full_like(a, 255)) == 0
    with pytest.raises(InvalidArray, match="shape"):
        psnr_db(a, a[:-1])


def test_ssim_agrees_with_the_formula_window_by_window() -> None:
    a = cv2.GaussianBlur(noise(17, 14, 3), (0, 0), 2)
    b = cv2.add(a, noise(17, 14, 3, seed=1) // 16)
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    x, y = (p @ np.array([0.299, 0.587, 0.114]) for p in (a, b))
    values = []
    for top in range(17 - 10):
        for left in range(14 - 10):
            u, v = (p[top : top + 11, left : left + 11] for p in (x, y))
            mean_u, mean_v = (window * u).sum(), (window * v).sum()
            spread_u, spread_v = (
                (window * (p - m) ** 2).sum() for p, m in ((u, mean_u), (v, mean_v))
            )
            shared = (window * (u - mean_u) * (v - mean_v)).sum()
            values.append(
                (2 * mean_u * mean_v + 6.5025)
                * (2 * shared + 58.5225)
                / ((mean_u**2 + mean_v**2 + 6.5025) * (spread_u + spread_v + 58.5225))
            )
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    with pytest.raises(InvalidArray, match="11 x 11"):
        ssim(a[:10], b[:10])


def test_measures_order_real_damage(photos_folder: Path) -> None:
    photo = read_picture(photos_folder / "eval" / "ski_chelsea.jpg")
    good, bad = (
        decode_picture(
            cv2.imencode(".jpg", photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes(), "x"
        )
        for q in (95, 30)
    )
    assert psnr_db(photo, good) > psnr_db(photo, bad) > 20
    assert 1 > ssim(photo, good) > ssim(photo, bad) > 0.5
