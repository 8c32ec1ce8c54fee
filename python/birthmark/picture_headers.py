"""The size of a picture from its header alone, before anything is allocated for its pixels.

Formats: PNG (W3C PNG, third edition), JPEG (ITU-T T.81 annex B), WebP (RFC 9649), BMP and TIFF
(revision 6.0, and BigTIFF). PNG and JPEG are also walked to their end marker, because decoders
fill up a truncated file with grey, and every PNG chunk's CRC is checked.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

_Size = tuple[int, int]

# A JPEG marker that is followed by a length, or the end of image: not a stuffed zero, a fill
# byte, TEM, a restart marker or the start of image.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_NOT_FRAMES = (0xC4, 0xC8, 0xCC)


def picture_size(data: bytes) -> _Size:
    """Width and height in pixels of an encoded picture, as its header states them.

    Raises:
        ValueError: the format is none of the five, or the file is truncated or corrupt; the
            message is short and names no file.
    """
    for magic, measure in _MEASURES.items():
        if data.startswith(magic):
            try:
                return measure(data)
            except (struct.error, OverflowError):  # an offset of 64 bits may be beyond any memory
                raise ValueError("truncated file") from None
    raise ValueError("not a PNG, JPEG, WebP, BMP or TIFF file")


def _png_size(data: bytes) -> _Size:
    if data[12:16] != b"IHDR":
        raise ValueError("PNG file without header")
    width, height = struct.unpack_from(">II", data, 16)
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        (crc,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != crc:
            raise ValueError("corrupt PNG file (checksum)")
        at += 12 + length
    return width, height


def _jpeg_size(data: bytes) -> _Size:
    size: _Size | None = None
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker = found[1][0]
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, found.end())
        if 0xC0 <= marker <= 0xCF and marker not in _JPEG_NOT_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, found.end() + 3)
            size = (width, height)
        at = found.end() + length
    else:
        raise ValueError("truncated JPEG file")
    if size is None:
        raise ValueError("JPEG file without a frame")
    return size


def _webp_size(data: bytes) -> _Size:
    (riff_bytes, form, chunk) = struct.unpack_from("<I4s4s", data, 4)
    if form != b"WEBP":
        raise ValueError("RIFF file that is not WebP")
    if len(data) < 8 + riff_bytes:
        raise ValueError("truncated WebP file")
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        width_low, width_high, height_low, height_high = struct.unpack_from("<HBHB", data, 24)
        return (width_high << 16 | width_low) + 1, (height_high << 16 | height_low) + 1
    raise ValueError("WebP file without a picture")


def _bmp_size(data: bytes) -> _Size:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height means that the top row comes first


def _tiff_size(data: bytes) -> _Size:
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 43:  # BigTIFF
        (offset,) = struct.unpack_from(order + "Q", data, 8)
        (count,) = struct.unpack_from(order + "Q", data, offset)
        first, stride, value_at = offset + 8, 20, 12
    else:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, offset)
        first, stride, value_at = offset + 2, 12, 8
    codes = {3: "H", 4: "I", 16: "Q"}
    sides: dict[int, int] = {}
    for entry in range(first, first + stride * min(count, 4096), stride):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257) and kind in codes:
            (sides[tag],) = struct.unpack_from(order + codes[kind], data, entry + value_at)
    if len(sides) != 2:
        raise ValueError("TIFF file without a size")
    return sides[256], sides[257]


_MEASURES: dict[bytes, Callable[[bytes], _Size]] = {
    b"\x89PNG\r\n\x1a\n": _png_size,
    b"\xff\xd8\xff": _jpeg_size,
    b"RIFF": _webp_size,
    b"BM": _bmp_size,
    b"II*\x00": _tiff_size,
    b"MM\x00*": _tiff_size,
    b"II+\x00": _tiff_size,
    b"MM\x00+": _tiff_size,
}
