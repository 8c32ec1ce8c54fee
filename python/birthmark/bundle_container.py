"""The container of a verdict bundle: a zip whose members have one order and one form only.

There is one way only to write it, so that a change of any byte is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidVerdict

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


def to_json(value: Any) -> bytes:
    """JSON in the one form that a bundle holds. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def manifest_of(members: dict[str, bytes]) -> bytes:
    """The SHA-256 of each member, as JSON."""
    return to_json({name: hashlib.sha256(data).hexdigest() for name, data in members.items()})


def to_npy(array: npt.NDArray[Any]) -> bytes:
    """An array as a NumPy file."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def to_stacked_npy(arrays: Sequence[npt.NDArray[Any]], dtype: str) -> bytes:
    """Arrays of one shape as one NumPy file [count, *shape], without a copy of them all."""
    stream = io.BytesIO()
    shape = (len(arrays), *arrays[0].shape)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    for array in arrays:
        stream.write(array.astype(dtype).tobytes())
    return stream.getvalue()


def from_npy(
    members: dict[str, bytes], name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read a member that must hold finite numbers of this dtype and shape, and nothing else."""
    data, count = members[name], math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if len(data) <= size:
        raise InvalidVerdict(f"{name}: shorter than an array of {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, count, len(data) - size).reshape(shape)
    if data != to_npy(array):
        raise InvalidVerdict(f"{name}: not an array of {dtype} {list(shape)}")
    if not np.isfinite(array).all():
        raise InvalidVerdict(f"{name}: holds NaN or Inf")
    return array


def pack(members: dict[str, bytes]) -> bytes:
    """The members as a zip."""
    stream = io.BytesIO()
    write(members, stream)
    return stream.getvalue()


def write(members: dict[str, bytes], stream: BinaryIO) -> None:
    """Write the members as a zip, in the one way that there is."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


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
