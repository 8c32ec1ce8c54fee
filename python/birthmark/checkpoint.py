"""What was measured so far, kept in a file, so that an interrupted verdict goes on where it was.

The file begins with what it is for (claim, extractor, settings) and is only added to: a record for
each picture measured, each file done, and each answer of a suspect, with its length and checksum.
A record that was cut short, and whatever stands behind it, is dropped when the file is opened
again. So a process may be killed at any moment, and no suspect is asked again what he has answered.
Nothing secret is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from birthmark.claim import Claim
from birthmark.errors import (
    BirthmarkError,
    CouldNotJudge,
    InvalidArray,
    InvalidCheckpoint,
    InvalidModel,
)
from birthmark.extract import PictureStatistics, extractor_sha256, pixels_sha256
from birthmark.files import StrPath, remove_abandoned, write_atomically
from birthmark.pictures import Picture, check_picture, decode_picture, encode_png
from birthmark.remote import RemotePath, as_path
from birthmark.sums import SHAPE

Result = tuple[str, PictureStatistics | None, str]
"""Of one picture: its name, and its statistics or why there are none."""

_LENGTH = struct.Struct("<I")
_CHECKSUM_BYTES = 16


class Checkpoint:
    """An open checkpoint file; made by :func:`open_checkpoint`."""

    def __init__(self, stream: BinaryIO, path: StrPath) -> None:
        """Read the records of a stream that stands behind the purpose, and drop a torn end."""
        self._stream = stream
        self._path = path
        self._results: dict[str, list[int]] = {}
        self._done: set[str] = set()
        self._answers: dict[str, int] = {}
        end = stream.tell()
        while (record := _next_record(stream)) is not None:
            try:
                self._take(record, end)
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidCheckpoint(f"{path}: a record of it cannot be: {error}") from None
            end = stream.tell()
        stream.truncate(end)
        stream.seek(end)

    def measured(self, part: str) -> tuple[int, bool]:
        """How many of a part's first results are known, and whether these are all."""
        return len(self._results.get(part, ())), part in self._done

    def results(self, part: str) -> Iterator[Result]:
        """The known ones, read one after another."""
        for place in self._results.get(part, ()):
            yield _result(*_parted(self._record_at(place)))

    def add(self, part: str, result: Result) -> None:
        """Keep a part's next result."""
        name, one, reason = result
        if one is None:
            self._write({"part": part, "name": name, "reason": reason})
            return
        size = [one.height_px, one.width_px]
        facts = {"part": part, "name": name, "sha256": one.sha256, "size": size}
        self._write(facts, one.sums.astype("<i8").tobytes())

    def finish(self, part: str) -> None:
        """Keep that a part has no more results."""
        self._write({"part": part, "done": True})

    def ask(self, suspect: Callable[[Picture], Picture], question: Picture) -> Picture:
        """The suspect's answer: the one kept, or else a new one, which is kept before it is used.

        Raises:
            BirthmarkError: what asking raised, or did when it was asked.
        """
        digest = pixels_sha256(question)
        if digest in self._answers:
            return self._answer(digest)
        try:
            answer = suspect(question)
            check_picture(answer)
        except (InvalidModel, CouldNotJudge):
            raise
        except BirthmarkError as error:
            self._write({"input": digest, "refused": str(error)})
            raise
        self._write({"input": digest}, encode_png(answer))
        return answer

    def _answer(self, digest: str) -> Picture:
        facts, data = _parted(self._record_at(self._answers[digest]))
        if "refused" in facts:
            raise InvalidArray(str(facts["refused"]))
        return decode_picture(data, f"{self._path}: an answer")

    def _take(self, record: bytes, at: int) -> None:
        """Remember one record, which begins at this place."""
        facts, data = _parted(record)
        if "input" in facts:
            self._answers[str(facts["input"])] = at
        elif "done" in facts:
            self._done.add(str(facts["part"]))
        else:
            _result(facts, data)  # raises where it cannot be
            self._results.setdefault(str(facts["part"]), []).append(at)

    def _record_at(self, place: int) -> bytes:
        here = self._stream.tell()
        self._stream.seek(place)
        record = _next_record(self._stream)
        self._stream.seek(here)
        return record or b""

    def _write(self, facts: dict[str, Any], data: bytes = b"") -> None:
        record = memoryview(_framed(json.dumps(facts).encode() + b"\n" + data))
        try:
            while record:
                record = record[self._stream.write(record) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


@contextmanager
def open_checkpoint(
    path: StrPath | None, claim: Claim, settings: dict[str, Any]
) -> Iterator[Checkpoint | None]:
    """Open a checkpoint, or begin one where there is none; None without a path.

    Nobody else can use it in the meantime. It stays when all is done: whoever has saved the verdict
    removes it.

    Args:
        path: a file on this machine.
        claim: the claim that is tried.
        settings: all that what is measured depends on, but for the files; JSON values.

    Raises:
        InvalidCheckpoint: not a checkpoint; or another claim's, another extractor's or of other
            settings; or in use.
        OSError: it cannot be read or written.
    """
    if path is None:
        yield None
        return
    if isinstance(as_path(path), RemotePath):
        raise InvalidCheckpoint(f"{path}: a checkpoint is a file on this machine, not a URL")
    purpose = {
        "claim": claim.digest.hex(),
        "extractor": extractor_sha256(),
        "settings": json.loads(json.dumps(settings)),
    }
    if not os.path.lexists(path):
        remove_abandoned(os.path.dirname(path) or ".")
        write_atomically(path, _framed(json.dumps({"birthmark": purpose}).encode()))
    with open(path, "r+b", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidCheckpoint(f"{path}: another process uses this checkpoint") from None
        _check_purpose(_next_record(stream), purpose, path)
        yield Checkpoint(stream, path)


def _check_purpose(record: bytes | None, purpose: dict[str, Any], path: StrPath) -> None:
    try:
        found = json.loads(record or b"")["birthmark"]
        differing = [name for name in purpose if found[name] != purpose[name]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidCheckpoint(f"{path}: not a checkpoint of birthmark") from None
    if differing:
        what = {"extractor": "version of birthmark", "settings": "suspect, or other settings"}
        raise InvalidCheckpoint(
            f"{path}: a checkpoint of another {what.get(differing[0], differing[0])};"
            " name another file, or remove it to begin anew"
        )


def _framed(record: bytes) -> bytes:
    checksum = hashlib.sha256(record).digest()[:_CHECKSUM_BYTES]
    return _LENGTH.pack(len(record)) + checksum + record


def _next_record(stream: BinaryIO) -> bytes | None:
    """The record at the stream's place; None where it is torn, damaged or the end."""
    head = stream.read(_LENGTH.size + _CHECKSUM_BYTES)
    if len(head) < _LENGTH.size + _CHECKSUM_BYTES:
        return None
    (length,) = _LENGTH.unpack_from(head)
    if length > os.fstat(stream.fileno()).st_size - stream.tell():
        return None
    record = stream.read(length)
    whole = hashlib.sha256(record).digest()[:_CHECKSUM_BYTES] == head[_LENGTH.size :]
    return record if whole else None


def _parted(record: bytes) -> tuple[dict[str, Any], bytes]:
    """A record's facts, and the bytes behind them."""
    line, _, data = record.partition(b"\n")
    facts = json.loads(line)
    if not isinstance(facts, dict):
        raise ValueError("no facts")
    return facts, data


def _result(facts: dict[str, Any], data: bytes) -> Result:
    """What a record says of a picture."""
    name = str(facts["name"])
    if "reason" in facts:
        return name, None, str(facts["reason"])
    height, width = map(int, facts["size"])
    sums = np.frombuffer(data, "<i8").reshape(SHAPE).astype(np.int64)
    return name, PictureStatistics(name, str(facts["sha256"]), height, width, sums), ""
