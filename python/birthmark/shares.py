"""A secret as lines of text of which any k of n give it back and fewer tell nothing.

Shamir, "How to share a secret", Communications of the ACM 22(11), 1979, byte by byte over GF(256)
(the field of AES: modulo x^8 + x^4 + x^3 + x + 1). Each byte is the value at 0 of a polynomial of
degree k - 1 whose other coefficients are random; a share is its values at one of 1 ... 255.

A line is base32 (RFC 4648) in groups of five, so that it can be written down and read out: format,
4 random bytes that all shares of one splitting have in common, k, the place, the values, and four
bytes of SHA-256 that find a slip of the pen. Eight bytes of SHA-256 of the secret are shared along
with it, so that shares which do not belong together are found too.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from birthmark.errors import InvalidShares

_FORMAT = 1
_SET_BYTES, _CHECK_BYTES, _DIGEST_BYTES = 4, 4, 8
_HEADER_BYTES = 1 + _SET_BYTES + 2
_GROUP = 5


@dataclass(frozen=True, repr=False)
class _Share:
    of_set: bytes
    needed: int
    place: int
    values: bytes


def split(secret: bytes, count: int, needed: int) -> list[str]:
    """Return ``count`` lines of which any ``needed`` give ``secret`` back.

    Raises:
        InvalidShares: not 2 <= needed <= count <= 255, or nothing to share.
    """
    if not 2 <= needed <= count <= 255:
        raise InvalidShares(
            f"{needed} of {count} shares cannot be: 2 to 255 in all, of which 2 or more are needed"
        )
    if not secret:
        raise InvalidShares("there is nothing to share")
    whole = secret + _digest(secret)
    random = [os.urandom(len(whole)) for _ in range(needed - 1)]
    of_set = os.urandom(_SET_BYTES)
    lines = []
    for place in range(1, count + 1):
        values = bytes(len(whole))
        for coefficients in [*reversed(random), whole]:  # Horner's rule
            values = bytes(
                _product(v, place) ^ c for v, c in zip(values, coefficients, strict=True)
            )
        lines.append(_to_text(_Share(of_set, needed, place, values)))
    return lines


def join(lines: Sequence[str]) -> bytes:
    """Return the secret that shares were made of; more than are needed are all used.

    Raises:
        InvalidShares: a line is damaged, too few are given, or they do not belong together.
    """
    by_place: dict[int, _Share] = {}
    for number, line in enumerate(lines, 1):
        share = _from_text(line, number)
        if by_place.setdefault(share.place, share).values != share.values:
            raise InvalidShares(f"share {number}: another share has the same place")
    given = list(by_place.values())
    if not given:
        raise InvalidShares("no share was given")
    if len({(s.of_set, s.needed, len(s.values)) for s in given}) > 1:
        raise InvalidShares("the shares come from different splittings")
    if len(given) < given[0].needed:
        raise InvalidShares(f"{given[0].needed} different shares are needed, not {len(given)}")
    whole = bytes(len(given[0].values))
    for share in given:
        weight = 1  # of Lagrange's interpolation at 0; minus is plus in this field
        for other in given:
            if other is not share:
                weight = _product(weight, _quotient(other.place, other.place ^ share.place))
        whole = bytes(w ^ _product(v, weight) for w, v in zip(whole, share.values, strict=True))
    secret, digest = whole[:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
    if digest != _digest(secret):
        raise InvalidShares("the shares do not give back what was shared: one of them was changed")
    return secret


def _to_text(share: _Share) -> str:
    data = bytes([_FORMAT]) + share.of_set + bytes([share.needed, share.place]) + share.values
    text = base64.b32encode(data + _check(data)).decode().rstrip("=")
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def _from_text(line: str, number: int) -> _Share:
    text = "".join(line.split()).replace("-", "").upper()
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise InvalidShares(f"share {number}: not a share (letters and digits 2 to 7)") from None
    data, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(data) <= _HEADER_BYTES + _DIGEST_BYTES or check != _check(data):
        raise InvalidShares(f"share {number}: damaged or incomplete")
    if data[0] != _FORMAT:
        raise InvalidShares(f"share {number}: of format {data[0]}, not {_FORMAT}")
    needed, place = data[1 + _SET_BYTES : _HEADER_BYTES]
    if needed < 2 or place == 0:
        raise InvalidShares(f"share {number}: not a share")
    return _Share(data[1 : 1 + _SET_BYTES], needed, place, data[_HEADER_BYTES:])


def _check(data: bytes) -> bytes:
    return hashlib.sha256(b"birthmark share\0" + data).digest()[:_CHECK_BYTES]


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"birthmark shared secret\0" + secret).digest()[:_DIGEST_BYTES]


def _tables() -> tuple[list[int], list[int]]:
    """Powers of the generator x + 1, twice over, and logarithms to it."""
    powers, logarithms, value = [], [0] * 256, 1
    for exponent in range(255):
        powers.append(value)
        logarithms[value] = exponent
        value ^= value << 1 ^ (0x11B if value & 0x80 else 0)
    return powers * 2, logarithms


_POWERS, _LOGARITHMS = _tables()


def _product(a: int, b: int) -> int:
    return _POWERS[_LOGARITHMS[a] + _LOGARITHMS[b]] if a and b else 0


def _quotient(a: int, b: int) -> int:
    """a / b for b other than 0."""
    return _POWERS[_LOGARITHMS[a] - _LOGARITHMS[b] + 255] if a else 0
