"""A suspect, or pictures of his -> what is measured on them, before any key is looked at.

A suspect is asked the inputs one after another, and so is the owner's model in the informed test.
Answers that are no pictures are left out with their reason; a suspect that does not answer at all
stops everything, since nothing can be said of it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np

from birthmark.calibration import Calibration, FloatArray
from birthmark.checkpoint import Checkpoint, Result, open_checkpoint
from birthmark.claim import Claim
from birthmark.engine import Engine, Here
from birthmark.errors import BirthmarkError, CouldNotJudge, InvalidArray, InvalidModel, InvalidTrial
from birthmark.extract import (
    PictureStatistics,
    Pool,
    Statistics,
    pixels_sha256,
    read_echo,
)
from birthmark.files import StrPath
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey
from birthmark.models import ImageModel
from birthmark.orientations import in_all_orientations
from birthmark.pictures import Picture, check_picture, gather_pictures, read_picture
from birthmark.regression import Regression
from birthmark.sums import Sums, sums_of, texture
from birthmark.suspects import SuspectPictures, name_of, path_of
from birthmark.trial import MOST_REFERENCES, Trial

# Texture energy below which nothing is said: about that of a 64 x 64 square of a photograph.
_LEAST_ENERGY = 64 * 64 * 600**2

# So many answers are kept as pictures, for the report.
_EXAMPLES = 2

Pictures = Iterable[StrPath | Picture]
Suspect = Callable[[Picture], Picture]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Example:
    """An input that a suspect was asked: his answer, and the owner's unmarked one if informed."""

    name: str
    answer: Picture
    own: Picture | None


@dataclass(frozen=True)
class Measured:
    """What was measured on a suspect, before any key is looked at.

    Attributes:
        pool: the suspect's pictures.
        regression: of its answers on the owner's outputs; informed only.
        references: SHA-256 of the references that were asked beside it, in order.
        inputs: statistics of every input asked, in order; empty where no suspect was asked.
        own: pooled statistics of the owner's unmarked outputs; informed only.
        trial: what was declared before, if anything was.
        geometry: what was undone to the suspect's pictures before they were measured.
        examples: the first few answers of a suspect that was asked.
        turned: whether it was asked every input in all eight orientations; answers (and the owner's
            outputs) are then means of eight.
    """

    pool: Pool
    regression: Regression | None = None
    inputs: Statistics = field(default_factory=Statistics)
    own: Sums | None = None
    trial: Trial | None = None
    geometry: Geometry | None = None
    examples: tuple[Example, ...] = ()
    turned: bool = False
    references: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """Blind or informed."""
        return "blind" if self.regression is None else "informed"

    def estimate(self, calibration: Calibration) -> FloatArray:
        """Coordinates of the echo read from the suspect, float64 [n].

        Raises:
            CouldNotJudge: there is no picture, or too little texture.
        """
        total = self.pool.total()
        if texture(total) < _LEAST_ENERGY:
            raise CouldNotJudge(
                "the pictures hold too little texture to judge: give more, larger or livelier ones"
            )
        if self.regression is not None:
            return self.regression.read(calibration)
        return read_echo(total, calibration)

    def tint_estimate(self, calibration: Calibration) -> FloatArray | None:
        """Coordinates of the tint read from the suspect, float64 [m]; None where it was not asked
        beside the owner's model, since colours alone say nothing.

        Raises:
            CouldNotJudge: its outputs tell nothing about a tint.
        """
        return None if self.regression is None else self.regression.read_tint(calibration)


def measure(
    pictures: SuspectPictures | Pictures | None,
    claim: Claim,
    key: MarkKey,
    *,
    suspect: Suspect | StrPath | None = None,
    inputs: Pictures | None = None,
    model: ImageModel | StrPath | None = None,
    references: Sequence[ImageModel | StrPath] = (),
    trial: Trial | None = None,
    geometry: Geometry | None = None,
    turned: bool = False,
    limit_s: float | None = None,
    engine: Engine | None = None,
    checkpoint: StrPath | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure a suspect in one of the three ways of :func:`birthmark.verify`.

    The key only reveals a trial's nonce; nothing that is measured depends on it.

    Raises:
        InvalidModel, InvalidTrial, InvalidCheckpoint, CouldNotJudge: as :func:`birthmark.verify`.
    """
    if (suspect is None) == (pictures is None):
        raise ValueError("give either pictures, or a suspect and inputs")
    if references and (model is None or suspect is None):
        raise ValueError("references are asked in the informed test only: give suspect and model")
    if turned and suspect is None:
        raise ValueError("pictures alone cannot be asked for in eight orientations")
    if turned and trial is not None:
        raise InvalidTrial("in a trial each input is asked once, not in eight orientations")
    if suspect is None:
        if trial is not None:
            raise InvalidTrial(
                "a trial is about asking a suspect; pictures alone are not asked for"
            )
        if not isinstance(pictures, SuspectPictures):
            pictures = SuspectPictures(pictures or ())
        undone = None if geometry is None else asdict(geometry)
        settings = {"every": pictures.every, "geometry": undone}
        with open_checkpoint(checkpoint, claim, settings) as kept:
            pool = _measure(pictures, geometry, engine or Here(), kept, progress)
        return Measured(pool, geometry=geometry)
    if inputs is None:
        raise ValueError("a suspect needs inputs to be asked")
    own, named = _claimed_model(model, claim), _named(inputs)
    beside = _references(references, claim)
    if trial is not None:
        trial.check(claim)
        trial = trial.revealed(key)
        if list(trial.references) != [reference.sha256 for reference in beside]:
            raise InvalidTrial("the references are not those that the trial declared")
        named = _chosen(trial, named, informed=own is not None)
    answering = _as_suspect(suspect, limit_s)
    # A function has no name by which to tell it from another one.
    who = answering.sha256 if isinstance(answering, ImageModel) else "a function"
    with open_checkpoint(checkpoint, claim, {"suspect": who, "turned": turned}) as kept:
        asked = answering if kept is None else partial(kept.ask, answering)
        # What is kept are the answers, not their means: none is asked for twice.
        way = in_all_orientations if turned else _once
        ours = None if own is None else way(own)
        measured = _query(way(asked), ours, list(map(way, beside)), named, geometry, progress)
    shas = tuple(reference.sha256 for reference in beside)
    return replace(measured, trial=trial, turned=turned, references=shas)


def _once(suspect: Suspect) -> Suspect:
    """As it is: each input is asked once."""
    return suspect


def _named(pictures: Pictures) -> list[tuple[str, StrPath | Picture]]:
    """Names and what to read; folders opened. A file name's stray bytes are shown as such."""
    named: list[tuple[str, StrPath | Picture]] = []
    for i, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            named.append((f"picture {i + 1}", picture))
        else:
            files = gather_pictures([path_of(picture, i)]).files
            named.extend((name_of(path), path) for path in files)
    return named


def _load(picture: StrPath | Picture) -> Picture:
    return picture if isinstance(picture, np.ndarray) else read_picture(picture)


def _measure(
    pictures: SuspectPictures,
    geometry: Geometry | None,
    engine: Engine,
    kept: Checkpoint | None,
    progress: Progress | None,
) -> Pool:
    pool = Pool()
    total = pictures.count() if progress else 0
    for i, (name, one, reason) in enumerate(_results(pictures, geometry, engine, kept)):
        if one is None:
            pool.rejected.append((name, reason))
        else:
            pool.include(one)
        if progress:
            progress(i + 1, max(i + 1, total), name)
    return pool


def _results(
    pictures: SuspectPictures, geometry: Geometry | None, engine: Engine, kept: Checkpoint | None
) -> Iterator[Result]:
    """Every picture's result, in order: those that were kept, and the others measured."""
    work = partial(_measure_part, geometry)
    if kept is None:
        items = ((part, 0) for part in pictures.parts())
        yield from (result for result in engine.map(work, items) if result is not None)
        return
    plan = [
        (identity, *(kept.measured(identity) if identity else (0, False)))
        for identity in (part.identity() for part in pictures.parts())
    ]
    fresh = engine.map(
        work,
        (
            (part, known)
            for part, (_, known, done) in zip(pictures.parts(), plan, strict=True)
            if not done
        ),
    )
    for identity, _, done in plan:
        if identity:
            yield from kept.results(identity)
        if done:
            continue
        for result in iter(partial(next, fresh), None):
            if identity:
                kept.add(identity, result)
            yield result
        if identity:
            kept.finish(identity)


def _measure_part(
    geometry: Geometry | None, item: tuple[SuspectPictures, int]
) -> Iterator[Result | None]:
    """Measure the pictures of a part, wherever that is done, but for so many at its beginning.

    None stands at the end of the part.
    """
    part, skipped = item
    for picture in islice(part, skipped, None):
        try:
            one = PictureStatistics.of(picture.name, _undone(picture.read(), geometry))
        except BirthmarkError as error:
            yield picture.name, None, str(error).removeprefix(f"{picture.name}: ")
        else:
            yield picture.name, one, ""
    yield None


def _undone(picture: Picture, geometry: Geometry | None) -> Picture:
    return picture if geometry is None else geometry.undone(picture)


def _reason(error: BirthmarkError, picture: StrPath | Picture) -> str:
    """What is wrong, without the file's name, which stands beside it."""
    return (
        str(error) if isinstance(picture, np.ndarray) else str(error).removeprefix(f"{picture}: ")
    )


def _as_suspect(suspect: Suspect | StrPath, limit_s: float | None) -> Suspect:
    if not callable(suspect):
        return ImageModel(suspect, limit_s=limit_s)
    return suspect if limit_s is None else partial(_in_time, suspect, limit_s)


def _in_time(suspect: Suspect, limit_s: float, question: Picture) -> Picture:
    """The suspect's answer, unless it takes too long.

    It is asked in a thread of its own. One that hangs stays behind: nothing can end it.
    """
    answers: queue.SimpleQueue[Picture | BaseException] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(suspect(question))
        except BaseException as error:  # whatever it is, it is the caller's
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        raise CouldNotJudge(f"the suspect did not answer within {limit_s:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _claimed_model(model: ImageModel | StrPath | None, claim: Claim) -> ImageModel | None:
    if model is None:
        return None
    own = model if isinstance(model, ImageModel) else ImageModel(model)
    if own.sha256 != claim.model_sha256:
        raise InvalidModel(f"{own.name}: not the model of the claim (its SHA-256 differs)")
    return own


def _references(references: Sequence[ImageModel | StrPath], claim: Claim) -> list[ImageModel]:
    opened = [r if isinstance(r, ImageModel) else ImageModel(r) for r in references]
    if len(opened) > MOST_REFERENCES:
        raise InvalidModel(f"at most {MOST_REFERENCES} references can be asked")
    if len({claim.model_sha256, *(r.sha256 for r in opened)}) <= len(opened):
        raise InvalidModel("a reference is given twice, or is the claimed model itself")
    return opened


def _chosen(
    trial: Trial, named: list[tuple[str, StrPath | Picture]], *, informed: bool
) -> list[tuple[str, StrPath | Picture]]:
    """Those of the inputs that a trial chooses, in its order."""
    if informed != (trial.mode == "informed"):
        raise InvalidTrial(f"the trial was declared {trial.mode}, and this is not")
    by_digest: dict[str, tuple[str, StrPath | Picture]] = {}
    for name, picture in named:
        by_digest.setdefault(pixels_sha256(_load(picture)), (name, picture))
    if set(by_digest) != set(trial.inputs):
        raise InvalidTrial("the inputs are not those that the trial declared")
    return [by_digest[digest] for digest in trial.chosen()]


def _query(
    suspect: Suspect,
    own: Suspect | None,
    references: Sequence[Suspect],
    named: list[tuple[str, StrPath | Picture]],
    geometry: Geometry | None,
    progress: Progress | None,
) -> Measured:
    """Ask the suspect (and the owner's models) and measure the answers, and the inputs too."""
    pool, inputs = Pool(), Pool()
    regression = None if own is None else Regression.empty(len(references))
    own_sums: Sums | None = None
    examples: list[Example] = []
    for i, (name, picture) in enumerate(named):
        if progress:
            progress(i, len(named), name)
        try:
            question = _load(picture)
            before = len(inputs.pictures)
            inputs.add(name, question)
            if len(inputs.pictures) == before:
                pool.rejected.append((name, "the same pixels as an earlier input; asked once"))
                continue
            digest = inputs.pictures[-1].sha256
            answer = suspect(question)
            check_picture(answer)
            as_given, answer = answer, _undone(answer, geometry)
            unmarked = None if own is None else own(question)
            if unmarked is not None and answer.shape != unmarked.shape:
                raise InvalidArray("not of the size that the owner's model answers with")
            besides = [reference(question) for reference in references]
            if unmarked is not None and {b.shape for b in besides} - {unmarked.shape}:
                raise InvalidModel("a reference's answer is not of the size of the owner's model's")
            before = len(pool.pictures)
            pool.add(name, answer, digest)
            if unmarked is not None and regression is not None and len(pool.pictures) > before:
                regression.add(answer, unmarked, besides)
                of_picture = sums_of(unmarked)
                own_sums = of_picture if own_sums is None else own_sums + of_picture
            if len(pool.pictures) > before and len(examples) < _EXAMPLES:
                examples.append(Example(name, as_given, unmarked))
        except (InvalidModel, CouldNotJudge):
            raise
        except BirthmarkError as error:
            pool.rejected.append((name, _reason(error, picture)))
    if progress:
        progress(len(named), len(named), "asked")
    return Measured(
        pool, regression, inputs.pictures, own_sums, geometry=geometry, examples=tuple(examples)
    )
