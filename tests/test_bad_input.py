"""Every odd picture that a suspect's folder may hold: each is judged as it looks, or is named."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from birthmark import cli
from birthmark.claim import Claim, from_time
from birthmark.errors import InvalidClaim
from birthmark.key_history import KeyHistory
from birthmark.keys import OwnerKey
from birthmark.pictures import Picture, decode_picture, encode_png, psnr_db
from birthmark.verdict import verify
from conftest import Published


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photo(eval_photos: list[Picture]) -> Image.Image:
    return Image.fromarray(eval_photos[0][:160, :240])


def pixels(picture: Image.Image) -> Picture:
    return np.asarray(picture.convert("RGB"), np.uint8)


def test_palettes_are_resolved(photo: Image.Image) -> None:
    few = photo.quantize(64)
    for data in (
        encoded(few, "PNG"),
        encoded(few, "PNG", transparency=3),
        encoded(few, "BMP"),
        encoded(few, "TIFF"),
    ):
        assert np.array_equal(decode_picture(data, "x"), pixels(few))
    bits = photo.convert("1")
    assert np.array_equal(decode_picture(encoded(bits, "PNG"), "x"), pixels(bits))


def test_cmyk_is_shown_as_colours(photo: Image.Image) -> None:
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert psnr_db(decode_picture(data, "x"), pixels(photo)) > 28


def test_profiles_change_nothing(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encoded(photo, form, icc_profile=profile, **options)
        assert np.array_equal(decode_picture(data, "x"), pixels(photo)), form


def test_of_an_animation_the_first_frame_is_read(photo: Image.Image) -> None:
    later = [photo.rotate(180), photo.rotate(90)]
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(photo, form, save_all=True, append_images=later, **options)
        assert np.array_equal(decode_picture(data, "x"), pixels(photo)), form


def header_of(side: int) -> bytes:
    """A PNG that says it is so wide and high, and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_one_bad_folder(
    session_claim: tuple[OwnerKey, Claim, Any],
    published: Published,
    photo: Image.Image,
    tmp_path: Path,
) -> None:
    """Pictures of all sizes among everything else: they are judged, and the rest is named."""
    key, claim, _ = session_claim
    good = tmp_path / "good"
    good.mkdir()
    for i, picture in enumerate(published.marked):
        side = 128 + 17 * i
        (good / f"{i}.png").write_bytes(
            encode_png(np.ascontiguousarray(picture[:side, : 2 * side]))
        )
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    floats = cv2.imencode(".tiff", np.ones((9, 9, 3), np.float32))[1].tobytes()
    for name, data, reason in (
        ("animated.gif", encoded(photo, "GIF"), "by its name"),
        ("animation.png", encoded(photo, "GIF"), "not a PNG"),
        ("bomb.png", header_of(50_000), "more than"),
        ("corrupt.png", encode_png(published.marked[0])[:-500] + bytes(500), "corrupt"),
        ("empty.png", b"", "empty"),
        ("floats.tiff", floats, "float32"),
        ("hollow.png", header_of(64), "corrupt"),
        ("model.onnx", b"\x08\x08", "by its name"),
        ("same again.png", (bad / "3.png").read_bytes(), "counted once"),
        (
            "same tagged.png",
            encoded(Image.open(bad / "4.png"), "PNG", dpi=(72, 72)),
            "counted once",
        ),
        ("text.jpg", b"hello", "not a PNG"),
        ("zero.png", header_of(0), "zero size"),
    ):
        (bad / name).write_bytes(data)
        (tmp_path / f"{name}.why").write_text(reason)
    alone, among = verify([good], claim, key), verify([bad], claim, key)
    assert among.estimate.tobytes() == alone.estimate.tobytes()
    assert among.pictures == alone.pictures == len(published.marked)
    assert len({(e.width_px, e.height_px) for e in among.evidence}) == len(published.marked)
    found = {Path(name).name: reason for name, reason in among.rejected}
    wanted = {p.stem: p.read_text() for p in tmp_path.glob("*.why")}
    assert found.keys() == wanted.keys()
    for name, reason in wanted.items():
        assert reason in found[name], name
        assert "\n" not in found[name]


def test_one_picture_in_every_dress(
    session_claim: tuple[OwnerKey, Claim, Any], published: Published, tmp_path: Path
) -> None:
    """Whatever it is wrapped in, a picture is judged as it looks, and counts once."""
    key, claim, _ = session_claim
    picture = np.ascontiguousarray(published.marked[0][:300, :300])
    image = Image.fromarray(picture)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6  # shown after a quarter turn clockwise
    transparent = Image.fromarray(np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)]))
    lossless = {
        "0 plain.png": encode_png(picture),
        "16 bit.png": cv2.imencode(".png", picture[..., ::-1].astype(np.uint16) * 257)[1].tobytes(),
        "16 bit.tif": cv2.imencode(".tif", picture[..., ::-1].astype(np.uint16) * 257)[1].tobytes(),
        "animated.png": encoded(
            image, "PNG", save_all=True, append_images=[image.rotate(90)], default_image=False
        ),
        "animated.webp": encoded(
            image, "WEBP", lossless=True, save_all=True, append_images=[image.rotate(90)]
        ),
        "pages.tiff": encoded(image, "TIFF", save_all=True, append_images=[image.rotate(90)]),
        "profile.png": encoded(image, "PNG", icc_profile=profile),
        "transparent.png": encoded(transparent, "PNG"),
        "turned.png": encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned),
        "windows.bmp": encoded(image, "BMP"),
    }
    lossy = {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=100),
        "profile.jpg": encoded(image, "JPEG", quality=98, icc_profile=profile),
        "palette.png": encoded(image.quantize(256), "PNG"),
        "turned.jpg": encoded(
            image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=100, exif=turned
        ),
    }
    for name, data in {**lossless, **lossy}.items():
        (tmp_path / name).write_bytes(data)
    verdict = verify([tmp_path], claim, key)
    judged = {Path(e.name).name: e for e in verdict.evidence}
    assert judged.keys() == {"0 plain.png", *lossy}
    assert {(e.height_px, e.width_px) for e in judged.values()} == {picture.shape[:2]}
    refused = {Path(name).name: reason for name, reason in verdict.rejected}
    assert refused.keys() == lossless.keys() - {"0 plain.png"}
    assert all("counted once" in reason for reason in refused.values())


def test_a_claim_of_a_key_that_had_run_out(
    session_claim: tuple[OwnerKey, Claim, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made after the key was replaced: refused before anything is judged."""
    key, claim, _ = session_claim
    made = from_time(claim.created)
    history = KeyHistory.begin(key, made - timedelta(days=9))
    history = history.followed(key, OwnerKey.generate(), made - timedelta(days=1))
    history.save(tmp_path / "keys.json")
    claim.save(tmp_path / "claim.json")
    line = f"claim-info {tmp_path / 'claim.json'} --history {tmp_path / 'keys.json'}"
    assert cli.main(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("birthmark: error: ") and said.err.count("\n") == 1


def test_a_claim_from_the_future_judges_nobody(
    session_claim: tuple[OwnerKey, Claim, Any], published: Published, models_folder: Path
) -> None:
    key, claim, _ = session_claim
    later = datetime.now(UTC) + timedelta(days=3)
    ahead = Claim.create(
        key, "Owner", models_folder / "espcn_x2.onnx", claim.calibration, created=later
    )
    with pytest.raises(InvalidClaim, match="from the future"):
        verify(published.marked, ahead, key)
