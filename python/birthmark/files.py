"""Writing files so that nothing half-written ever stays under its final name."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from birthmark.errors import OutputExists
from birthmark.remote import RemotePath, as_path

StrPath = str | os.PathLike[str]


def write_atomically(
    path: StrPath,
    data: bytes | memoryview | Callable[[BinaryIO], None],
    *,
    mode: int = 0o644,
    overwrite: bool = True,
) -> None:
    """Write ``data`` under a temporary name in the same folder, fsync, then rename to ``path``.

    ``data`` may be a function that writes it to the stream that it is given.
    Whatever goes wrong on the way, ``path`` keeps its old content or stays absent. A symbolic
    link is followed. ``mode`` (less the process's umask) holds from the first byte on, so a file
    of secrets written with 0o600 is never readable by others. At a URL the store's own way of
    writing takes the place of all that (S3 shows a file when all of it is there), without ``mode``.

    Raises:
        OutputExists: ``path`` exists and ``overwrite`` is False, or is not a regular file.
        OSError: the folder is missing, read-only or full; names ``path``, not the temporary file.
    """
    remote = as_path(path)
    if isinstance(remote, RemotePath):
        if not overwrite and remote.exists():
            raise OutputExists(f"{path}: exists; it is not overwritten")
        if callable(data):
            stream = io.BytesIO()
            data(stream)
            data = stream.getbuffer()
        remote.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OutputExists(f"{path}: exists and is not a regular file")
    temporary = target.parent / _temporary_name()
    try:
        with _removed_on_failure(temporary):
            _write_and_sync(temporary, data, mode)
            if overwrite:
                os.replace(temporary, target)
            else:
                _rename_to_new(temporary, target, mode)
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def new_folder(path: StrPath, *, into_existing: bool = False) -> Path:
    """Make the output folder ``path`` (and its parents) and return it.

    An empty folder is taken as it is; one with files in it only when ``into_existing`` is True.

    Raises:
        OutputExists: the folder is not empty, or ``path`` is a file.
        OSError: the folder cannot be made.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder}: exists and is not a folder")
    if folder.is_dir() and not into_existing and any(folder.iterdir()):
        raise OutputExists(f"{folder}: output folder exists and is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def folder_atomically(path: StrPath) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; it is renamed to ``path`` at the end.

    When the body raises anything, the temporary folder is removed and ``path`` stays absent (or
    empty, if it was an empty folder before).

    Raises:
        OutputExists: ``path`` is a file, or a folder that is not empty.
        OSError: the folder cannot be made; names ``path``, not the temporary folder.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise OutputExists(f"{path}: exists and is not a folder")
    if target.is_dir() and any(target.iterdir()):
        raise OutputExists(f"{path}: output folder exists and is not empty")
    temporary = target.parent / _temporary_name()
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(target.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what processes left in a folder that were killed while they wrote files into it."""
    for left in folder.glob(_temporary_name("*")):
        left.unlink(missing_ok=True)


def _temporary_name(token: str = "") -> str:
    return f".birthmark-{token or secrets.token_hex(8)}.tmp"


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """Remove ``path``, if it is there, when the body raises anything (also KeyboardInterrupt)."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _write_and_sync(
    path: Path, data: bytes | memoryview | Callable[[BinaryIO], None], mode: int
) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as stream:
        if callable(data):
            data(stream)
        else:
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _rename_to_new(temporary: Path, target: Path, mode: int) -> None:
    """Rename, but never over an existing file: O_EXCL decides between rival writers.

    (A hard link would do the same in one step, but FAT and some network folders have none.)
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    except FileExistsError:
        raise OutputExists(f"{target}: exists; it is not overwritten") from None
    with _removed_on_failure(target):
        os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; file systems that cannot sync a folder are left alone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
