"""Suspect pictures as people have them: files, folders, patterns, videos and zip archives.

All of them may lie on this machine or at URLs. Nothing is unpacked to the disk (of a video or
archive at a URL there is a copy while it is read), and no more than one picture is in memory at a
time. What cannot be
used is handed on with its reason, so that a verdict can name it; the rest goes on.
"""

from __future__ import annotations

import copy
import glob
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Self

import numpy as np

from birthmark.errors import InvalidArray, InvalidPicture
from birthmark.files import StrPath
from birthmark.pictures import (
    MAX_PIXELS,
    SUFFIXES,
    Picture,
    decode_picture,
    gather_pictures,
    read_picture,
)
from birthmark.remote import (
    NOT_REGULAR,
    AnyPath,
    RemotePath,
    as_path,
    entries_of,
    is_special,
    real_path,
)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
ARCHIVE_SUFFIX = ".zip"
EVERY = 10
"""Of a video, one frame in so many is taken: neighbours show nearly the same."""
MAX_MEMBER_BYTES = 256 << 20
"""The largest member of an archive that is read."""
MAX_RATIO = 100
"""A member that unpacks to more than this many times its size (and a MiB) is refused."""

# A directory of this size lists more than 100 000 members; zipfile would hold any size in memory.
_MAX_DIRECTORY_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_MOST_NAME_CHARACTERS = 300
# FFmpeg looks at the content, not at the name, and some formats (playlists) make it open other
# files. Only these containers reach it.
_CONTAINERS = (
    (4, b"ftyp"),  # MP4 and MOV (ISO/IEC 14496-12)
    (4, b"moov"),  # MOV as QuickTime wrote it
    (4, b"mdat"),
    (4, b"wide"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska and WebM (RFC 8794)
    (8, b"AVI "),
)


@dataclass(frozen=True)
class SuspectPicture:
    """One picture, not read yet.

    Attributes:
        name: where it is from: a file, an archive and a member, a video and a frame's number.
        read: gives it as uint8 RGB [h, w, 3], or raises InvalidPicture with ``name`` in front.
            To be called before the next one is asked for.
    """

    name: str
    read: Callable[[], Picture]


@dataclass(frozen=True)
class _File:
    """A file of pictures: what it is called, and where it is from whatever folder one looks."""

    name: str
    path: AnyPath


class SuspectPictures:
    """The pictures of files, folders, patterns, videos and zip archives, one after another.

    * A file named outright is taken whatever its suffix; ``.zip`` is an archive, and
      :data:`VIDEO_SUFFIXES` are videos.
    * Of a folder: pictures and videos by their suffix, not recursively. Everything else in it comes
      along with a reason why it was left out.
    * A pattern (``*``, ``?``, ``[...]``, ``**`` for any depth) that is no file's name: the files
      that match it.
    * Of a video: the first frame and every ``every``-th after it.
    * Of an archive: members with a picture's suffix, read in memory; their names are never opened.
      Encrypted members, those packed other than by deflate, and those that are too large
      (:data:`MAX_MEMBER_BYTES`) or unpack to absurdly much (:data:`MAX_RATIO`) are refused, as
      is an archive whose members overlap.

    A file that is reached twice (also through a link) is taken once.

    Args:
        sources: paths and URLs, and uint8 RGB arrays [h, w, 3] as they are.
        every: of a video, one frame in so many; at least 1.

    Raises:
        InvalidArray: something is neither an array nor a path.
        InvalidPicture: a path is missing or cannot be looked at, a folder holds no picture, or
            nothing matches a pattern.
        ValueError: ``every`` is below 1.
    """

    def __init__(self, sources: Iterable[StrPath | Picture], *, every: int = EVERY) -> None:
        if every < 1:
            raise ValueError(f"one frame in {every}? it must be at least 1")
        self.every = every
        self._sources: list[_File | SuspectPicture] = []
        seen: set[str] = set()
        for i, source in enumerate(sources):
            if isinstance(source, np.ndarray):
                array: Picture = source
                self._sources.append(SuspectPicture(f"picture {i + 1}", partial(_same, array)))
                continue
            path = path_of(source, i)
            try:
                all_found = [_named_if_special(found) for found in _found(path)]
            except OSError as error:
                raise InvalidPicture(f"{name_of(path)}: {error.strerror or error}") from error
            for found in all_found:
                if isinstance(found, SuspectPicture):
                    self._sources.append(found)
                elif (real := real_path(found)) not in seen:
                    seen.add(real)
                    where = found if isinstance(found, RemotePath) else found.absolute()
                    self._sources.append(_File(name_of(found), where))

    def parts(self) -> Iterator[Self]:
        """All of it in parts that can be sent to another process: one file, video or archive."""
        for source in self._sources:
            part = copy.copy(self)
            part._sources = [source]
            yield part

    def identity(self) -> str | None:
        """Changes when one of the files does: their names, sizes and times; None if it has none."""
        known = [_identity(source) for source in self._sources]
        return json.dumps(known) if all(known) else None

    def count(self) -> int:
        """About how many there are: what videos and archives say of themselves."""
        return sum(self._count(source) for source in self._sources)

    def some(self, number: int) -> list[Picture]:
        """Up to ``number`` readable pictures, spread over all.

        Raises:
            InvalidPicture: none can be read; the last one's reason.
        """
        step = max(1, self.count() // number)
        read: list[Picture] = []
        refused = InvalidPicture("no pictures")
        for i, picture in enumerate(self):
            if i >= len(read) * step:  # past one that was refused, the next one stands in for it
                try:
                    read.append(picture.read())
                except InvalidPicture as error:
                    refused = error
            if len(read) == number:
                break
        if not read:
            raise refused
        return read

    def __iter__(self) -> Iterator[SuspectPicture]:
        for source in self._sources:
            if isinstance(source, SuspectPicture):
                yield source
            elif _is_archive(source.path) or _is_video(source.path):
                yield from self._inside(source)
            else:
                yield SuspectPicture(source.name, partial(_read_file, source))

    def _inside(self, source: _File) -> Iterator[SuspectPicture]:
        """The pictures of an archive or a video."""
        with ExitStack() as stack:
            path = source.path
            if isinstance(path, RemotePath):
                try:
                    path = stack.enter_context(path.local_copy())
                except OSError as error:
                    yield _refusal(source.name, error.strerror or str(error))
                    return
            if _is_archive(path):
                yield from _members(path, source.name)
            else:
                yield from _frames(path, source.name, self.every)

    def _count(self, source: _File | SuspectPicture) -> int:
        try:
            if isinstance(source, SuspectPicture) or isinstance(source.path, RemotePath):
                return 1
            if _is_archive(source.path):
                with _opened_archive(source.path, "") as archive:
                    return len(archive.infolist())
            if _is_video(source.path):
                return -(-_Video(source.path, "").stated_frames // self.every)
        except InvalidPicture:
            pass  # named when its pictures are asked for
        return 1


def _identity(source: _File | SuspectPicture) -> list[str] | None:
    if isinstance(source, SuspectPicture):
        return None
    path = source.path
    try:
        if isinstance(path, RemotePath):
            return [source.name, path.shown, path.version()]
        found = path.stat()
    except OSError:
        return None  # named when its pictures are asked for
    return [source.name, str(path), f"{found.st_size} {found.st_mtime_ns}"]


def _same(picture: Picture) -> Picture:
    return picture


def path_of(source: object, index: int) -> AnyPath:
    """The ``index``-th of what was given as pictures, counted from 0, as a path or URL.

    Raises:
        InvalidArray: it is none.
    """
    if not isinstance(source, str | os.PathLike):
        raise InvalidArray(
            f"picture {index + 1}: neither an array nor a path, but {type(source).__name__}"
        )
    return as_path(source)


def name_of(path: AnyPath) -> str:
    """A path as text; a file name's stray bytes are shown as such."""
    if isinstance(path, RemotePath):
        return path.shown
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _refusal(name: str, reason: str) -> SuspectPicture:
    """A picture that cannot be read, for this reason."""
    return SuspectPicture(name, partial(_refuse, f"{name}: {reason}"))


def _refuse(why: str) -> NoReturn:
    raise InvalidPicture(why)


def _named_if_special(found: AnyPath | SuspectPicture) -> AnyPath | SuspectPicture:
    """The same, unless it is a pipe or a device: those are not opened."""
    if isinstance(found, SuspectPicture) or not is_special(found):
        return found
    return _refusal(name_of(found), NOT_REGULAR)


def _is_video(path: AnyPath) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_archive(path: AnyPath) -> bool:
    return path.suffix.lower() == ARCHIVE_SUFFIX


def _found(path: AnyPath) -> list[AnyPath | SuspectPicture]:
    """What a path stands for."""
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and any(c in "*?[" for c in str(path)):
        files: list[AnyPath | SuspectPicture] = [*_matching(path)]
        if not files:
            raise InvalidPicture(f"{path}: no file matches this pattern")
        return files
    return list(gather_pictures([path]).files)


def _matching(pattern: AnyPath) -> Iterable[AnyPath]:
    if isinstance(pattern, RemotePath):
        return pattern.matching()
    matching = sorted(glob.glob(str(pattern), recursive=True))
    return (Path(m) for m in matching if os.path.isfile(m))


def _of_folder(folder: AnyPath) -> list[AnyPath | SuspectPicture]:
    taken: list[AnyPath] = []
    left_out: list[SuspectPicture] = []
    for entry, is_folder in entries_of(folder):
        if is_folder:
            left_out.append(_refusal(name_of(entry), "a folder inside a folder is not opened"))
        elif entry.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES:
            taken.append(entry)
        elif _is_archive(entry):
            left_out.append(_refusal(name_of(entry), "an archive is opened only if named itself"))
        else:
            left_out.append(_refusal(name_of(entry), "neither picture nor video by its name"))
    if not taken:
        raise InvalidPicture(f"{folder}: no pictures in this folder")
    return [*taken, *left_out]


def _read_file(file: _File) -> Picture:
    try:
        return read_picture(file.path)
    except InvalidPicture as error:
        why = str(error).removeprefix(f"{file.path}: ")
        raise InvalidPicture(f"{file.name}: {why}") from None


class _BoundedFile(io.FileIO):
    """A file that is not read in one piece of any size, as zipfile would a directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size) or b""


# Whatever zipfile raises on a damaged archive, which is more than it promises.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError),
    *(EOFError, OSError, ValueError, OverflowError, struct.error, zlib.error),
)


@contextmanager
def _opened_archive(path: Path, name: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive; raises InvalidPicture where it is none, or lies about its size."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_BoundedFile(path))
            archive = stack.enter_context(zipfile.ZipFile(stream))
            packed = sum(info.compress_size for info in archive.infolist())
            if packed > os.fstat(stream.fileno()).st_size:
                raise zipfile.BadZipFile("its members overlap")
        except _ZIP_ERRORS as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InvalidPicture(f"{name}: not a usable zip archive: {said}") from None
        yield archive


def _members(path: Path, name: str) -> Iterator[SuspectPicture]:
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(_opened_archive(path, name))
        except InvalidPicture as error:
            yield _refusal(name, str(error).removeprefix(f"{name}: "))
            return
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            if info.is_dir():
                continue
            member = f"{name}: {info.filename[:_MOST_NAME_CHARACTERS]}"
            reason = _why_not(info)
            if reason:
                yield _refusal(member, reason)
            else:
                yield SuspectPicture(member, partial(_read_member, archive, info, member))


def _why_not(info: zipfile.ZipInfo) -> str:
    """Why a member is not read; empty if it is."""
    if os.path.splitext(info.filename)[1].lower() not in SUFFIXES:
        return "not a picture by its name; of an archive only pictures are read"
    if info.flag_bits & 1:
        return "encrypted"
    # zipfile unpacks the other methods without a limit.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method that is not accepted (stored and deflated are)"
    if info.file_size > MAX_MEMBER_BYTES:
        return f"{info.file_size} bytes, more than the {MAX_MEMBER_BYTES} accepted"
    if info.file_size > MAX_RATIO * info.compress_size + (1 << 20):
        return f"unpacks to more than {MAX_RATIO} times its size"
    return ""


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Picture:
    try:
        # In pieces: read at once, a member that holds more than it states is unpacked whole.
        with archive.open(info) as stream:
            data = b"".join(iter(lambda: stream.read(_CHUNK_BYTES), b""))
    except _ZIP_ERRORS as error:
        raise InvalidPicture(f"{name}: cannot be unpacked: {error or 'truncated'}") from None
    return decode_picture(data, name)


class _Video:
    """A video file, opened; raises InvalidPicture with ``name`` in front where it cannot be."""

    def __init__(self, path: Path, name: str) -> None:
        import cv2

        try:
            with open(path, "rb") as stream:
                head = stream.read(12)
        except OSError as error:
            raise InvalidPicture(f"{name}: {error.strerror}") from None
        if not any(head[at:].startswith(magic) for at, magic in _CONTAINERS):
            raise InvalidPicture(f"{name}: not an MP4, MOV, Matroska, WebM or AVI file")
        # An absolute path, so that no name is taken for an address or a pattern.
        self._capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
        width, height, frames = (
            self._capture.get(what)
            for what in (
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        if not self._capture.isOpened() or width * height == 0:
            raise InvalidPicture(f"{name}: damaged, or of a video format that OpenCV cannot read")
        if width * height > MAX_PIXELS:
            raise InvalidPicture(f"{name}: frames of more than {MAX_PIXELS} pixels")
        self.stated_frames = max(0, int(frames))

    def grab(self) -> bool:
        """Go on to the next frame; False after the last."""
        return bool(self._capture.grab())

    def frame(self, name: str) -> Picture:
        """The frame that was gone to, RGB."""
        done, bgr = self._capture.retrieve()
        if not done or bgr is None or bgr.dtype != np.uint8 or bgr.ndim != 3:
            raise InvalidPicture(f"{name}: this frame cannot be decoded")
        return np.ascontiguousarray(bgr[:, :, ::-1])

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


def _frames(path: Path, name: str, every: int) -> Iterator[SuspectPicture]:
    try:
        video = _Video(path, name)
    except InvalidPicture as error:
        yield _refusal(name, str(error).removeprefix(f"{name}: "))
        return
    seen = 0
    try:
        while video.grab():
            if seen % every == 0:
                frame = f"{name}: frame {seen}"
                yield SuspectPicture(frame, partial(video.frame, frame))
            seen += 1
    finally:
        video.close()
    # Some containers only estimate how many they hold; two in a hundred are not worth a line.
    if seen == 0 or seen < video.stated_frames - max(2, video.stated_frames // 50):
        yield _refusal(name, f"ends after {seen} of {video.stated_frames} frames")
