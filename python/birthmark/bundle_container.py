"""The container of a verdict bundle: a zip whose members have one order and one form only.

There is one way only to write it, so that a change of any byte is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidVerdict
from birthmark.extract import Statistics
from birthmark.sums import SHAPE

_ORDER = (
    "verdict.json",
    "claim.json",
    "statistics.npy",
    "estimate.npy",
    "inputs.npy",
    "regression.npy",
    "tint.npy",
    "tint_regression.npy",
    "own.npy",
    "trial.json",
    "manifest.json",
    "manifest.sig",
)
INFORMED = ("regression.npy", "tint.npy", "tint_regression.npy", "own.npy")
_OPTIONAL = {"inputs.npy", *INFORMED, "trial.json"}
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)
MAX_BYTES = 1 << 30
MOST_CONTAINER_BYTES = 1 << 16
"""What the zip adds to its members, at the most."""


class Stacked:
    """A member that is made as it is written: the sums of pictures, one after another, as a NumPy
    file of int64 [pictures, parts, tones, orbits + 1]."""

    def __init__(self, pictures: Statistics) -> None:
        self._pictures = pictures
        self._header = _npy_header("<i8", (len(pictures), *SHAPE))

    def __len__(self) -> int:
        """Bytes of the file."""
        return len(self._header) + 8 * math.prod(SHAPE) * len(self._pictures)

    def __iter__(self) -> Iterator[bytes]:
        """The file in pieces."""
        yield self._header
        for picture in self._pictures:
            yield picture.sums.astype("<i8").tobytes()


Member = bytes | Stacked


def to_json(value: Any) -> bytes:
    """JSON in the one form that a bundle holds. Raises ValueError on NaN or infinity."""
    encoder = json.JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    text = io.BytesIO()
    for piece in encoder.iterencode(value):  # together, many small pieces are a lot of memory
        text.write(piece.encode())
    text.write(b"\n")
    return text.getvalue()


def manifest_of(members: Mapping[str, Member]) -> bytes:
    """The SHA-256 of each member, as JSON."""
    return to_json({name: _sha256(member) for name, member in members.items()})


def _sha256(member: Member) -> str:
    whole = hashlib.sha256()
    for piece in _pieces(member):
        whole.update(piece)
    return whole.hexdigest()


def _pieces(member: Member) -> Iterable[bytes]:
    return (member,) if isinstance(member, bytes) else member


def to_npy(array: npt.NDArray[Any]) -> bytes:
    """An array as a NumPy file."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers in the NumPy file of such an array."""
    stream = io.BytesIO()
    what = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, what)
    return stream.getvalue()


def from_npy(
    members: dict[str, bytes], name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read a member that must hold finite numbers of this dtype and shape, and nothing else."""
    data, count = members[name], math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if len(data) <= size:
        raise InvalidVerdict(f"{name}: shorter than an array of {dtype} {list(shape)}")
    if data[: len(data) - size] != _npy_header(dtype, shape):
        raise InvalidVerdict(f"{name}: not an array of {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, count, len(data) - size).reshape(shape)
    if not np.isfinite(array).all():
        raise InvalidVerdict(f"{name}: holds NaN or Inf")
    return array


def pack(members: Mapping[str, Member]) -> bytes:
    """The members as a zip."""
    stream = io.BytesIO()
    write(members, stream)
    return stream.getvalue()


def write(members: Mapping[str, Member], stream: BinaryIO) -> None:
    """Write the members as a zip, in the one way that there is."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            info.file_size = len(member)
            with archive.open(info, "w") as target:
                for piece in _pieces(member):
                    target.write(piece)


def unpack(whole: bytes) -> dict[str, bytes]:
    """Read the members. Nothing is written to disk, so a member's path can do no harm."""
    if len(whole) > MAX_BYTES:
        raise InvalidVerdict("larger than a verdict bundle may be")
    try:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            wanted = [n for n in _ORDER if n in names or n not in _OPTIONAL]
            if names != wanted:
                raise InvalidVerdict(f"not a verdict bundle, by its members: {_shown(names)}")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise InvalidVerdict("not a verdict bundle: its members are compressed")
            members = {name: archive.read(name) for name in names}
    except InvalidVerdict:
        raise
    except Exception as error:  # zipfile raises whatever its parser trips over
        reason = str(error) or "it ends too early"
        raise InvalidVerdict(f"not a whole verdict bundle: {reason}") from None
    packed = pack(members)
    if packed != whole:
        _blame(whole, packed, entries)
    return members


def _blame(whole: bytes, packed: bytes, entries: Sequence[zipfile.ZipInfo]) -> NoReturn:
    """Name the member at the first byte that differs from what :func:`save` writes."""
    pairs = enumerate(zip(whole, packed, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(whole), len(packed)))
    before = [entry.filename for entry in entries if entry.header_offset <= place]
    where = before[-1] if before else "its beginning"
    raise InvalidVerdict(f"the zip container was changed at byte {place}, in or after {where}")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:9]) or "none"
