"""Writing files so that nothing half-written ever stays under its final name.

It is written under a temporary name beside it, then renamed. Whoever writes holds a lock on what
has the temporary name; the system takes it away when the process ends, however it ends. So what
nobody holds was left behind by a process that was killed, and :func:`remove_abandoned` removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from birthmark.errors import OutputExists
from birthmark.remote import RemotePath, as_path

StrPath = str | os.PathLike[str]

_TEMPORARY = re.compile(r"\.birthmark-[0-9a-f]{16}\.tmp")


@contextlib.contextmanager
def locked(path: StrPath) -> Iterator[None]:
    """Nobody else who asks for it has this lock meanwhile: to read, change and write a file.

    It is the folder's, since the file itself is replaced. At a URL there is none.

    Raises:
        OSError: there is no such folder.
    """
    if isinstance(as_path(path), RemotePath):
        yield
        return
    folder = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
            whole = io.BytesIO()
            data(whole)
            data = whole.getbuffer()
        remote.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OutputExists(f"{path}: exists and is not a regular file")
    try:
        temporary, stream = _new_temporary_file(target.parent, mode)
        with stream, _removed_on_failure(temporary):
            if callable(data):
                data(stream)
            else:
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
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
    empty, if it was an empty folder before). What an earlier one left behind that was killed is
    removed as well.

    Raises:
        OutputExists: ``path`` is a file, or a folder that is not empty, be it because another
            process was faster.
        OSError: the folder cannot be made or filled; names ``path``, not the temporary folder.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise OutputExists(f"{path}: exists and is not a folder")
    if target.is_dir() and any(target.iterdir()):
        raise OutputExists(f"{path}: output folder exists and is not empty")
    remove_abandoned(target.parent)
    try:
        temporary, lock = _new_temporary_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputExists(f"{path}: output folder exists and is not empty") from None
        where = str(error.filename or path).replace(str(temporary), str(path), 1)
        raise OSError(error.errno, error.strerror, where) from error
    finally:
        os.close(lock)
    _sync_folder(target.parent)


def remove_abandoned(folder: StrPath) -> None:
    """Remove what processes that were killed left half-written in ``folder``.

    What somebody still writes stays, and so does everything where the file system has no locks.
    """
    with contextlib.suppress(OSError):
        for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError), _opened(path) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.isdir(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.unlink(path)


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """Remove ``path``, if it is there, when the body raises anything (also KeyboardInterrupt)."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _temporary_in(folder: Path) -> Path:
    return folder / f".birthmark-{secrets.token_hex(8)}.tmp"


def _new_temporary_file(folder: Path, mode: int) -> tuple[Path, BinaryIO]:
    while True:
        path = _temporary_in(folder)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        if _held(descriptor):
            return path, open(descriptor, "wb")
        os.close(descriptor)


def _new_temporary_folder(folder: Path) -> tuple[Path, int]:
    """A folder, and the descriptor that holds it."""
    while True:
        path = _temporary_in(folder)
        path.mkdir(parents=True)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # taken for abandoned before it could be locked
            continue
        if _held(descriptor):
            return path, descriptor
        os.close(descriptor)


def _held(descriptor: int) -> bool:
    """Lock it; False if it was taken for abandoned and removed in the moment before."""
    with contextlib.suppress(OSError):  # not every file system has locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


@contextlib.contextmanager
def _opened(path: StrPath) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
    with contextlib.suppress(OSError), _opened(folder) as descriptor:
        os.fsync(descriptor)
