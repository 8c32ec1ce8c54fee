"""Many pictures -> a folder of marked ones: what ``protect`` and ``embed`` do."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birthmark.embed import Embedder
from birthmark.engine import Engine, Here
from birthmark.errors import BirthmarkError, InvalidModel, InvalidPicture, OutputExists
from birthmark.files import StrPath, folder_atomically, remove_abandoned, write_atomically
from birthmark.mark import Mark
from birthmark.models import ImageModel
from birthmark.pictures import gather_pictures, read_picture, write_png
from birthmark.remote import AnyPath, RemotePath, as_path, entries_of, read_bytes
from birthmark.suspects import name_of

UNFINISHED = ".birthmark-unfinished.json"
"""Stands in an output folder that is filled in place, until all of it is there."""
_MOST_RECORD_BYTES = 1 << 16

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Published:
    """What became of the pictures.

    Attributes:
        done: how many are in the folder, those of an interrupted run among them.
        failed: for each of the others, its name and why.
    """

    done: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class _Recipe:
    """What is done to each picture: equal recipes give equal bytes."""

    mark: bytes
    kernel: str | None
    model: str | None
    model_sha256: str | None
    threads: int

    def record(self) -> bytes:
        """What an interrupted run leaves behind, to be compared; nothing secret."""
        made_by = {"mark": Mark(self.mark).id, "model_sha256": self.model_sha256}
        return json.dumps(made_by).encode() + b"\n"


@dataclass(frozen=True)
class _Job:
    """One picture."""

    name: str
    source: AnyPath
    target: AnyPath


def publish(
    inputs: Sequence[StrPath],
    output: StrPath,
    mark: Mark,
    *,
    model: StrPath | None = None,
    kernel: str | None = None,
    threads: int = 0,
    resume: bool = False,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Published:
    """Run a model over pictures and publish its outputs marked, as PNG with the inputs' stems.

    Args:
        inputs: picture files and folders; URLs too.
        output: a new (or empty) folder; a URL too. On this machine it appears when all pictures are
            in it and not before, unless ``resume``; at a URL it fills picture by picture.
        mark: what to mark them with.
        model: the ONNX model; None to mark the pictures as they are.
        kernel: as :class:`birthmark.Embedder`.
        threads: of the model, as :class:`birthmark.ImageModel`.
        resume: fill the folder in place, and go on where an earlier such run was interrupted, or
            with what failed in it, which may have been mended. Until all is there,
            :data:`UNFINISHED` in it says which mark and model it is for.
        engine: who does the work; by default this process. Workers must reach ``inputs``,
            ``output`` and ``model`` under the same names.
        progress: called as (done, total, name).

    Raises:
        InvalidPicture: an input is missing, two have the same stem, or none could be published.
        InvalidModel: as :class:`birthmark.ImageModel`.
        InvalidArray: as :class:`birthmark.Embedder`.
        OutputExists: the folder is not empty, or what is in it is another run's.
        EngineFailed: as :meth:`birthmark.engine.Engine.map`.
        OSError: the output cannot be written.
    """
    files = gather_pictures(inputs).files
    targets = [_target(file) for file in files]
    if len(set(targets)) < len(files):
        raise InvalidPicture("two inputs have the same stem; their outputs would be one file")
    where = None if model is None else str(_absolute(as_path(model)))
    sha256 = None if where is None else hashlib.sha256(_model_bytes(where)).hexdigest()
    recipe = _Recipe(mark.data, kernel, where, sha256, threads)
    _tools(recipe)  # what is wrong with model or kernel is said before any work is done
    failed: list[str] = []
    with _filled(as_path(output), recipe, files, resume, failed) as (folder, present):
        jobs = (
            _Job(name_of(file), _absolute(file), folder / target)
            for file, target in zip(files, targets, strict=True)
            if target not in present
        )
        already = len(present & set(targets))
        for i, (name, why) in enumerate((engine or Here()).map(_Publisher(recipe), jobs)):
            if progress:
                progress(already + i + 1, len(files), name)
            if why:
                failed.append(f"{name}: {why}")
    return Published(len(files) - len(failed), tuple(failed))


def listed(reasons: Sequence[str]) -> str:
    """The first few of them, in one line."""
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return "; ".join(reasons[:5]) + more


@dataclass(frozen=True)
class _Publisher:
    """Publishes one picture, here or on a worker; gives its name and what went wrong, or ""."""

    recipe: _Recipe

    def __call__(self, job: _Job) -> Iterator[tuple[str, str]]:
        embedder, model = _tools(self.recipe)
        why = ""
        try:
            picture = read_picture(job.source)
            output: Any = picture if model is None else model.output(picture)
            write_png(job.target, embedder.embed(output))
        except BirthmarkError as error:
            why = str(error).removeprefix(f"{job.source}: ")
        yield job.name, why


@functools.lru_cache(maxsize=1)
def _tools(recipe: _Recipe) -> tuple[Embedder, ImageModel | None]:
    """Made once in each process.

    Raises:
        InvalidModel: what lies here under the model's name is not that model.
    """
    embedder = Embedder(Mark(recipe.mark), kernel=recipe.kernel)
    if recipe.model is None:
        return embedder, None
    name = as_path(recipe.model).stem
    model = ImageModel(_model_bytes(recipe.model), threads=recipe.threads, name=name)
    if model.sha256 != recipe.model_sha256:
        raise InvalidModel(f"{recipe.model}: a worker finds another model there than you do")
    return embedder, model


def _model_bytes(path: str) -> bytes:
    try:
        return read_bytes(path, 1 << 31)
    except OSError as error:
        raise InvalidModel(f"{path}: {error.strerror}") from error


def _absolute(path: AnyPath) -> AnyPath:
    return path if isinstance(path, RemotePath) else path.absolute()


@contextmanager
def _filled(
    output: AnyPath,
    recipe: _Recipe,
    files: Sequence[AnyPath],
    resume: bool,
    failed: Sequence[str],
) -> Iterator[tuple[AnyPath, frozenset[str]]]:
    """The folder to fill, and the names of what is in it already.

    The body fills ``failed``, one for each file that could not be published.
    """
    if isinstance(output, Path) and not resume:
        with folder_atomically(output) as folder:
            yield folder, frozenset()
            _check_some_published(files, failed)
            remove_abandoned(folder)  # of workers that died while they wrote
        return
    record, this_run = output / UNFINISHED, recipe.record() + _of_inputs(files, files)
    present = _present(output)
    if present and not (resume and UNFINISHED in present):
        raise OutputExists(
            f"{output}: exists, and is not of a run that was interrupted"
            if resume
            else f"{output}: output folder exists and is not empty"
        )
    if present and read_bytes(record, _MOST_RECORD_BYTES) not in (
        this_run,
        _after_failures(recipe, files, present),
    ):
        raise OutputExists(f"{output}: the interrupted run had another mark or model, or inputs")
    if isinstance(output, Path):
        output.mkdir(parents=True, exist_ok=True)
    write_atomically(record, this_run)
    yield _absolute(output), present
    if isinstance(output, Path):
        remove_abandoned(output)
    if failed:
        write_atomically(record, _after_failures(recipe, files, _present(output)))
        _check_some_published(files, failed)
        return
    with suppress(FileNotFoundError):  # another run of the same was done first
        record.unlink()


def _check_some_published(files: Sequence[AnyPath], failed: Sequence[str]) -> None:
    if len(failed) == len(files):
        raise InvalidPicture(f"none of {len(files)} could be published: {listed(failed)}")


def _target(file: AnyPath) -> str:
    return f"{file.stem}.png"


def _after_failures(recipe: _Recipe, files: Sequence[AnyPath], present: frozenset[str]) -> bytes:
    """The record of a run that came to its end: what it could not publish may be mended."""
    return recipe.record() + _of_inputs(files, [f for f in files if _target(f) in present])


def _of_inputs(files: Sequence[AnyPath], fixed: Collection[AnyPath]) -> bytes:
    """Changes when one of ``fixed`` on this machine does, or where there is another name."""
    fixed = frozenset(fixed)
    whole = hashlib.sha256()
    for file in files:
        known = file.shown if isinstance(file, RemotePath) else str(file.absolute())
        if isinstance(file, Path) and file in fixed:
            with suppress(OSError):  # one that cannot be read is named when it is its turn
                found = file.stat()
                known += f" {found.st_size} {found.st_mtime_ns}"
        whole.update(f"{known}\n".encode(errors="surrogateescape"))
    return f"inputs {whole.hexdigest()}\n".encode()


def _present(folder: AnyPath) -> frozenset[str]:
    if not folder.exists():
        return frozenset()
    if not folder.is_dir():
        raise OutputExists(f"{folder}: exists and is not a folder")
    return frozenset(entry.name for entry, _ in entries_of(folder))
