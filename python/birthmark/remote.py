"""Files and folders at URLs (``s3://bucket/folder``), through fsspec.

Whatever a store's own library raises becomes an OSError that names the URL. fsspec and s3fs come
with the extra ``scale``; other stores need the package that fsspec names.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from birthmark.errors import MissingLibrary

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_MOST_REASON_CHARACTERS = 200
NOT_REGULAR = "not a regular file"
"""What is said of a pipe or a device."""


@dataclass(frozen=True, order=True)
class RemotePath(os.PathLike[str]):
    """A URL that stands where a path may; what it has of :class:`pathlib.Path` works as there.

    Raises:
        ValueError: it holds a user's name or password. These belong into the environment, since
            names of pictures are printed in verdicts.
    """

    url: str

    def __post_init__(self) -> None:
        """Refuse credentials."""
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError("a URL with a user or password in it is not accepted")

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last part's suffix, with the dot."""
        return self._pure.suffix

    @property
    def shown(self) -> str:
        """It without what signs a request (``?...`` of http), for verdicts and reports."""
        return self.url.partition("?")[0] if self.url.lower().startswith("http") else self.url

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.shown.partition("://")[2])

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        with self._store() as (store, path):
            return bool(store.exists(path))

    def version(self) -> str:
        """Changes when the file does, as far as the store can tell."""
        with self._store() as (store, path):
            return str(store.ukey(path))

    def is_dir(self) -> bool:
        """Whether it is a folder; in an object store, whether objects begin with it and "/"."""
        with self._store() as (store, path):
            return bool(store.isdir(path))

    def entries(self) -> list[tuple[RemotePath, bool]]:
        """What a folder holds, sorted, each with whether it is a folder itself."""
        with self._store() as (store, path):
            found = store.ls(path, detail=True)
            own = path.rstrip("/")
            return sorted(
                (RemotePath(store.unstrip_protocol(entry["name"])), entry["type"] == "directory")
                for entry in found
                if entry["name"].rstrip("/") != own  # an empty object stands for the folder
            )

    def matching(self) -> list[RemotePath]:
        """The files that match it as a pattern, sorted."""
        with self._store() as (store, path):
            found = store.glob(path, detail=True)
            return sorted(
                RemotePath(store.unstrip_protocol(name))
                for name, entry in found.items()
                if entry["type"] == "file"
            )

    def read_bytes(self, most: int) -> bytes:
        """The content. Raises OSError (EFBIG) beyond ``most`` bytes."""
        with self._store() as (store, path):
            size = store.size(path)
            if size is None:  # a web server need not say
                data = _read_beginning(store, path, most + 1)
                size = len(data)
            elif size <= most:
                data = bytes(store.cat_file(path))
            if size > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.shown)
            return data

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the content. An object store shows all of it or, if that fails, what was before."""
        with self._store() as (store, path):
            store.pipe_file(path, bytes(data))

    def unlink(self) -> None:
        """Remove the file."""
        with self._store() as (store, path):
            store.rm_file(path)

    @contextmanager
    def local_copy(self) -> Iterator[Path]:
        """A copy of the file on this machine, for what must seek in it; removed at the end."""
        with tempfile.TemporaryDirectory(prefix="birthmark-") as folder:
            copy = Path(folder) / f"copy{self.suffix}"
            with self._store() as (store, path):
                store.get_file(path, str(copy))
            yield copy

    @contextmanager
    def _store(self) -> Iterator[tuple[Any, str]]:
        """fsspec's file system for it, and its path there; translates what is raised."""
        try:
            import fsspec
        except ImportError:
            raise MissingLibrary(
                f"{self.shown}: URLs need fsspec (pip install 'birthmark[scale]')"
            ) from None
        try:
            store, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            yield store, path
        except ImportError as error:
            raise MissingLibrary(f"{self.shown}: {error}") from None
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", self.shown) from None
        except OSError as error:
            if error.filename in (self.url, self.shown):
                raise
            raise OSError(error.errno or errno.EIO, self._reason(error), self.shown) from error
        except Exception as error:  # each store's library has a tree of its own
            raise OSError(errno.EIO, self._reason(error), self.shown) from error

    def _reason(self, error: Exception) -> str:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        said = said.replace(self.url, self.shown)
        return " ".join(said.split())[:_MOST_REASON_CHARACTERS] or type(error).__name__


def _read_beginning(store: Any, path: str, count: int) -> bytes:
    """The first ``count`` bytes, or all there are."""
    data = bytearray()
    with store.open(path, "rb") as stream:
        # A stream of a web server gives what has arrived, which may be less than it is asked for.
        while len(data) < count and (more := stream.read(count - len(data))):
            data += more
    return bytes(data)


AnyPath = Path | RemotePath


def as_path(path: str | os.PathLike[str]) -> AnyPath:
    """A path on this machine, or a URL: whatever begins as ``scheme://`` is one."""
    text = os.fspath(path)
    return RemotePath(text) if _URL.match(text) else Path(path)


def entries_of(folder: AnyPath) -> list[tuple[AnyPath, bool]]:
    """What a folder holds, sorted by name, each with whether it is a folder itself."""
    if isinstance(folder, RemotePath):
        return list(folder.entries())
    return [(entry, entry.is_dir()) for entry in sorted(folder.iterdir())]


def real_path(path: AnyPath) -> str:
    """The same for two ways to one file, links followed."""
    return str(path) if isinstance(path, RemotePath) else os.path.realpath(path)


def is_special(path: AnyPath) -> bool:
    """Whether a pipe or a device is there, whose content may never end."""
    return isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir())


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """A regular file's content. Raises OSError, also beyond ``most`` bytes."""
    found = as_path(path)
    if isinstance(found, RemotePath):
        return found.read_bytes(most)
    if is_special(found):
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    if found.stat().st_size > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return found.read_bytes()
