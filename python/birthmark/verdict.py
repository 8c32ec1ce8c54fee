"""Statistics -> verdict: exact tests against the key's randomness, and the decision.

Null hypothesis: the suspect never saw pictures that carry this key's mark. The estimate ``a`` of
the coordinates is then independent of the key, and the claimed direction Q s (Q the key's
Haar-random rotation, s its chips) is uniform on the sphere in n dimensions, whatever the pictures
are. Hence

* cosine test: p = P(cosine of a fixed vector with a uniform direction >= observed)
  = 1/2 I(1 - c^2; (n - 1)/2, 1/2) for c >= 0 (Sablayrolles et al., "Radioactive data", ICML 2020);
* chips test: the secret pad makes each sign of Q^T a agree with its chip with probability 1/2,
  independently: one binomial over n chips;
* decoys: the same cosine under fresh random directions, p = (b + 1)/(m + 1)
  (Phipson & Smyth 2010).

The cosine test decides; the other two must agree with it, or there is no verdict.

What a suspect is asked is controlled: no input may carry the mark itself (a picture that once was
our output carries it through any model), and neither may the owner's own unmarked outputs.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from birthmark import _core, payload
from birthmark.calibration import Calibration, FloatArray, Sums
from birthmark.claim import Claim, to_time
from birthmark.engine import Engine, Here
from birthmark.errors import (
    BirthmarkError,
    CouldNotJudge,
    InvalidModel,
    InvalidTrial,
)
from birthmark.extract import (
    PictureStatistics,
    Pool,
    Regression,
    log10_p_of_sums,
    pixels_sha256,
)
from birthmark.files import StrPath
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey, OwnerKey, check_customer
from birthmark.mark import claimed_chips, coordinates, rotation
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.suspects import SuspectPictures, name_of, path_of
from birthmark.tails import (
    log10_likelihood_ratio,
    log10_p_of_chips,
    log10_p_of_cosine,
    p_of,
)
from birthmark.trial import Trial

DECOYS = 9_999
_DECOY_SEED = b"birthmark decoys\0"
# An input that is this unlikely without the mark (after counting the inputs) is not fresh; pooled
# controls this unlikely are not null.
_STALE_LOG10_P = -4.0
_CONTROL_LOG10_P = -4.0
# An owner whose claim's date is doubted may have tried this many keys (CPU-centuries of search).
LOG10_KEYS_IN_DOUBT = 64 * math.log10(2)
# Of a payload once the mark itself is beyond doubt; payload_from_soft says how often it is wrong.
_PAYLOAD_FALSE_ACCEPT = 1e-3
# Texture energy below which nothing is said: about that of a 64 x 64 square of a photograph.
_LEAST_ENERGY = 64 * 64 * 600**2

Pictures = Iterable[StrPath | Picture]
Suspect = Callable[[Picture], Picture]
Progress = Callable[[int, int, str], None]


class Decision(enum.StrEnum):
    """What the tests allow to be said."""

    MARKED = "MARKED"
    UNMARKED = "UNMARKED"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Tests:
    """The three tests of one estimate against one key. All p-values are one-sided.

    Attributes:
        coordinates: n.
        cosine: between the estimate and the claimed direction.
        log10_p_cosine: of the cosine test.
        chips_matched: of n.
        log10_p_chips: of the binomial test.
        decoys: how many decoy directions were tried.
        decoys_as_good: how many had a cosine at least as large.
        agree: whether the three are compatible (see :func:`run_tests`).
    """

    coordinates: int
    cosine: float
    log10_p_cosine: float
    chips_matched: int
    log10_p_chips: float
    decoys: int
    decoys_as_good: int
    agree: bool


@dataclass(frozen=True)
class PictureEvidence:
    """One picture of the verdict."""

    name: str
    sha256: str
    height_px: int
    width_px: int
    log10_p: float
    """Of the cosine test on this picture alone; 0 where it holds no texture."""
    input_sha256: str
    """Of the input that it answers; empty where no suspect was asked."""


@dataclass(frozen=True)
class Control:
    """Pictures that must not carry the mark, pooled and read as the suspect's are."""

    name: str
    pictures: int
    log10_p: float


@dataclass(frozen=True)
class Measured:
    """What was measured on a suspect, before any key is looked at.

    Attributes:
        pool: the suspect's pictures.
        regression: of its answers on the owner's outputs; informed only.
        inputs: statistics of every input asked, in order; empty where no suspect was asked.
        own: pooled statistics of the owner's unmarked outputs; informed only.
        trial: what was declared before, if anything was.
        geometry: what was undone to the suspect's pictures before they were measured.
    """

    pool: Pool
    regression: Regression | None = None
    inputs: tuple[PictureStatistics, ...] = ()
    own: Sums | None = None
    trial: Trial | None = None
    geometry: Geometry | None = None

    @property
    def mode(self) -> str:
        """Blind or informed."""
        return "blind" if self.regression is None else "informed"

    def estimate(self, calibration: Calibration) -> FloatArray:
        """Coordinates read from the suspect, float64 [n].

        Raises:
            CouldNotJudge: there is no picture, or too little texture.
        """
        total = self.pool.total()
        if total[:, -1].sum() < _LEAST_ENERGY:
            raise CouldNotJudge(
                "the pictures hold too little texture to judge: give more, larger or livelier ones"
            )
        if self.regression is not None:
            return self.regression.read(calibration)
        return calibration.read(total)


@dataclass(frozen=True)
class Verdict:
    """An answer with its evidence.

    Attributes:
        decision: MARKED, UNMARKED or UNDECIDED at ``false_positive_rate``.
        log10_p: log10 of the p-value after correction for ``tests_counted``.
        payload: the payload read from the pictures (hex), or None where it cannot be trusted.
        payload_is_claimed: whether that payload is the claim's.
        tests_counted: how many hypotheses were tried (Bonferroni).
        customer: whose mark was looked for, where not the claim's own.
        controls: what must not carry the mark, and does not.
        created: when it was given, UTC, ISO 8601 to the second.
        evidence: one entry for each picture used.
        rejected: name and reason of each picture left out.
    """

    decision: Decision
    log10_p: float
    false_positive_rate: float
    tests_counted: int
    customer: str | None
    tests: Tests
    payload: str | None
    payload_is_claimed: bool
    created: str
    controls: tuple[Control, ...]
    claim: Claim = field(repr=False)
    estimate: FloatArray = field(repr=False)
    """Coordinates read from the pictures, float64 [n]."""
    measured: Measured = field(repr=False)
    """What the estimate was read from."""
    evidence: tuple[PictureEvidence, ...] = field(repr=False)
    rejected: tuple[tuple[str, str], ...] = field(repr=False)
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    """Number of pictures pooled, in the order given, and log10 p of the cosine test."""

    @property
    def p_value(self) -> float:
        """The corrected p-value; 0 where it is below the smallest float."""
        return p_of(self.log10_p)

    @property
    def pictures(self) -> int:
        """How many pictures the verdict rests on."""
        return len(self.evidence)

    @property
    def mode(self) -> str:
        """Blind or informed."""
        return self.measured.mode

    @property
    def log10_likelihood_ratio(self) -> float:
        """log10 of how much likelier the finding is under the prosecution's hypothesis."""
        return log10_likelihood_ratio(self.log10_p)

    @property
    def log10_p_if_date_doubted(self) -> float:
        """log10 p for a reader who thinks that the claim may be younger than the suspect.

        The owner may then have tried key after key; 2^64 are counted.
        """
        return min(0.0, self.log10_p + LOG10_KEYS_IN_DOUBT)

    @property
    def claim_stamped(self) -> str | None:
        """When the claim was stamped, as its stamp says; None without one."""
        stamp = self.claim.stamp_read
        return None if stamp is None else to_time(stamp.time)

    def summary(self) -> dict[str, Any]:
        """The verdict as plain JSON values; holds no secret."""
        trial = self.measured.trial
        return {
            "decision": str(self.decision),
            "p_value": self.p_value,
            "log10_p": self.log10_p,
            "mode": self.mode,
            "pictures": self.pictures,
            "payload": self.payload,
            "payload_is_claimed": self.payload_is_claimed,
            "created": self.created,
            "tests_counted": self.tests_counted,
            "customer": self.customer,
            "log10_likelihood_ratio": self.log10_likelihood_ratio,
            "log10_p_if_date_doubted": self.log10_p_if_date_doubted,
            "claim_stamped": self.claim_stamped,
            "queries_declared": trial.queries if trial else None,
            "accused_took_part": bool(trial and trial.accused_nonce),
            "asked": [entry.sha256 for entry in self.measured.inputs],
            "geometry": dataclasses.asdict(self.measured.geometry or Geometry()),
            "controls": [dataclasses.asdict(c) for c in self.controls],
            "false_positive_rate": self.false_positive_rate,
            "tests": dataclasses.asdict(self.tests),
            "claim_digest": self.claim.digest.hex(),
            "calibration_sha256": self.claim.calibration_sha256,
            "owner": self.claim.owner,
            "model_name": self.claim.model_name,
            "model_sha256": self.claim.model_sha256,
            "public_key": self.claim.public_key.hex(),
            "evidence": [dataclasses.asdict(e) for e in self.evidence],
            "rejected": [list(r) for r in self.rejected],
            "curve": [list(c) for c in self.curve],
        }

    def save(self, path: StrPath, key: OwnerKey) -> None:
        """Write the verdict bundle; see :func:`birthmark.bundle.save`."""
        from birthmark import bundle

        bundle.save(self, path, key)


def payload_hex(bits: payload.Bits) -> str:
    """A payload as hexadecimal digits, highest bit first."""
    return np.packbits(bits.astype(np.uint8)).tobytes().hex()


def run_tests(estimate: FloatArray, key: MarkKey, claim: Claim) -> Tests:
    """The three exact tests of an estimate against the claim's key. See :func:`tests_agree`."""
    n = len(estimate)
    chips, turn = claimed_chips(key, claim, n), rotation(key, n)
    unit = estimate / np.linalg.norm(estimate)
    cosine = float(unit @ (turn @ chips)) / math.sqrt(n)
    matched = int(((turn.T @ unit) * chips > 0).sum())
    log10_p = log10_p_of_cosine(cosine, n)
    as_good = count_decoys_as_good(estimate, cosine)
    agree = tests_agree(cosine, matched, as_good, n)
    return Tests(n, cosine, log10_p, matched, log10_p_of_chips(matched, n), DECOYS, as_good, agree)


@functools.lru_cache(maxsize=2)
def _decoy_cosines(data: bytes) -> FloatArray:
    """Cosines of an estimate (little-endian float64) with DECOYS uniform directions.

    A fresh key's direction is uniform on the sphere, so a normalised Gaussian vector stands for it.
    The seed is public and fixed by the estimate: anybody can repeat the draw, nobody can choose it.
    It is taken from the estimate as stored, since norms differ between machines in the last bit.
    """
    estimate = np.frombuffer(data, "<f8")
    seed = hashlib.sha256(_DECOY_SEED + data).digest()
    gaussians = MarkKey.random(seed).gaussians("decoys", (DECOYS, len(estimate)))
    lengths = np.linalg.norm(gaussians, axis=1) * np.linalg.norm(estimate)
    cosines: FloatArray = gaussians @ estimate / lengths
    return cosines


def decoy_cosines(estimate: FloatArray) -> FloatArray:
    """Cosines of an estimate with its DECOYS fresh directions, float64 [DECOYS]."""
    return _decoy_cosines(estimate.astype("<f8").tobytes())


def count_decoys_as_good(estimate: FloatArray, cosine: float) -> int:
    """How many of the estimate's decoys have at least this cosine with it."""
    return int((decoy_cosines(estimate) >= cosine).sum())


def tests_agree(cosine: float, chips_matched: int, decoys_as_good: int, n: int) -> bool:
    """Whether the three tests are compatible.

    The number of decoys as good must be what the cosine's p-value foretells (two-sided, some four
    standard deviations of the binomial), and the matched chips must be what the cosine foretells,
    n (1/2 + asin(c) / pi), to within 4.5 standard deviations of fair coins.
    """
    p = 10.0 ** log10_p_of_cosine(cosine, n)
    decoys_fit = abs(decoys_as_good - DECOYS * p) <= 4 * math.sqrt(DECOYS * p * (1 - p)) + 3
    expected = n * (0.5 + math.asin(max(-1.0, min(1.0, cosine))) / math.pi)
    return decoys_fit and abs(chips_matched - expected) <= 4.5 * math.sqrt(n) / 2


def decide(
    log10_p: float, agree: bool, false_positive_rate: float, log10_unmarked_above: float
) -> Decision:
    """The decision rule, on the corrected p-value."""
    if agree and log10_p < math.log10(false_positive_rate):
        return Decision.MARKED
    if agree and log10_p > log10_unmarked_above:
        return Decision.UNMARKED
    return Decision.UNDECIDED


def verify(
    pictures: SuspectPictures | Pictures | None,
    claim: Claim,
    key: OwnerKey,
    *,
    suspect: Suspect | StrPath | None = None,
    inputs: Pictures | None = None,
    model: ImageModel | StrPath | None = None,
    trial: Trial | None = None,
    customer: str | None = None,
    geometry: Geometry | None = None,
    tests_counted: int = 1,
    false_positive_rate: float | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Judge whether pictures, or a suspect model, carry the claim's mark.

    Three ways of asking:

    * ``verify(pictures, claim, key)``: blind, on pictures that the suspect made;
    * ``verify(None, claim, key, suspect=..., inputs=...)``: blind, on the suspect's answers;
    * the same with ``model=`` (the owner's own, whose hash stands in the claim): informed, on how
      the suspect's answers differ from the model's. Stronger where the suspect is close to it.

    Args:
        pictures: paths (files, folders, patterns, videos, zip archives; see
            :class:`birthmark.suspects.SuspectPictures`) and uint8 RGB arrays [h, w, 3]. A picture
            that cannot be read is named in the verdict and the rest goes on; duplicates count once.
        claim: the owner's claim.
        key: the owner's key that signed it.
        suspect: an ONNX file, or a function from a uint8 picture to a uint8 picture.
        inputs: what the suspect is asked; should be pictures that never went through the model.
        model: the owner's model.
        trial: what was declared before; it then chooses among ``inputs``, and says how many.
        customer: look for the mark of this customer instead of the claim's own.
        geometry: undo this to the suspect's pictures first (:func:`birthmark.find_geometry`); all
            that were tried to find it are counted. Blind only.
        tests_counted: how many hypotheses are tried on this suspect, this one included (another
            mode, other customers, an earlier look): p is multiplied by it.
        false_positive_rate: at most this often is an innocent suspect called MARKED; by default
            what the claim states.
        engine: who measures the pictures (:func:`birthmark.engine.open_engine`); by default this
            process. What a suspect is asked is asked here.
        progress: called as (done, total, message).

    Raises:
        InvalidClaim: the claim is not whole, from the future, or not this key's.
        InvalidModel: the suspect is not image-to-image, or ``model`` is not the claimed one.
        InvalidTrial: the trial is another claim's, was changed, or declares something else.
        InvalidArray: what is given as a picture is neither an array nor a path.
        CouldNotJudge: no picture could be used, they hold too little texture, or an input or a
            control carries the mark.
    """
    if false_positive_rate is None:
        false_positive_rate = 10.0**claim.log10_false_positive_rate
    if not 0 < false_positive_rate <= 0.01:
        raise ValueError(f"a false-positive rate is above 0 and at most .01: {false_positive_rate}")
    if tests_counted < 1:
        raise ValueError(f"at least one test is counted, not {tests_counted}")
    if geometry is not None and model is not None:
        raise ValueError("a geometry is undone in the blind test only")
    claim.check_date()
    mark_key = claim.mark_key(key)
    measured = measure(
        pictures,
        claim,
        mark_key,
        suspect=suspect,
        inputs=inputs,
        model=model,
        trial=trial,
        geometry=geometry,
        engine=engine,
        progress=progress,
    )
    return judge(
        measured,
        claim,
        mark_key,
        false_positive_rate,
        customer=customer,
        tests_counted=tests_counted * (geometry.tried if geometry else 1),
    )


def measure(
    pictures: SuspectPictures | Pictures | None,
    claim: Claim,
    key: MarkKey,
    *,
    suspect: Suspect | StrPath | None = None,
    inputs: Pictures | None = None,
    model: ImageModel | StrPath | None = None,
    trial: Trial | None = None,
    geometry: Geometry | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure a suspect in one of the three ways of :func:`verify`.

    The key only reveals a trial's nonce; nothing that is measured depends on it.

    Raises:
        InvalidModel, InvalidTrial: as :func:`verify`.
    """
    if (suspect is None) == (pictures is None):
        raise ValueError("give either pictures, or a suspect and inputs")
    if suspect is None:
        if trial is not None:
            raise InvalidTrial(
                "a trial is about asking a suspect; pictures alone are not asked for"
            )
        if not isinstance(pictures, SuspectPictures):
            pictures = SuspectPictures(pictures or ())
        pool = _measure(pictures, geometry, engine or Here(), progress)
        return Measured(pool, geometry=geometry)
    if inputs is None:
        raise ValueError("a suspect needs inputs to be asked")
    own, named = _claimed_model(model, claim), _named(inputs)
    if trial is not None:
        trial.check(claim)
        trial = trial.revealed(key)
        named = _chosen(trial, named, informed=own is not None)
    return _query(_as_suspect(suspect), own, named, trial, geometry, progress)


def judge(
    measured: Measured,
    claim: Claim,
    key: MarkKey,
    false_positive_rate: float,
    *,
    customer: str | None = None,
    tests_counted: int = 1,
    estimate: FloatArray | None = None,
) -> Verdict:
    """Decide on what was measured.

    ``key`` is the claim's; that of ``customer`` derives from it. ``estimate`` is for
    :func:`birthmark.recheck`: the stored estimate, from which what this machine would read may
    differ in the last bits.
    """
    calibration = Calibration.from_bytes(claim.calibration)
    if estimate is None:
        estimate = measured.estimate(calibration)
    if customer is not None:
        customer = check_customer(customer)
        key = key.customer(customer)
    n = calibration.coordinates
    direction = coordinates(key, claim, n) / math.sqrt(n)
    controls = _controls(measured, calibration, direction)
    tests = run_tests(estimate, key, claim)
    log10_p = min(0.0, tests.log10_p_cosine + math.log10(tests_counted))
    decision = decide(log10_p, tests.agree, false_positive_rate, claim.log10_unmarked_above)
    read = None
    if decision is Decision.MARKED:
        read = payload.payload_from_soft(
            rotation(key, n).T @ estimate,
            key,
            claim.payload_length_bits,
            false_accept=_PAYLOAD_FALSE_ACCEPT,
        )
    pool = measured.pool
    evidence = tuple(
        PictureEvidence(
            p.name,
            p.sha256,
            p.height_px,
            p.width_px,
            log10_p_of_sums(p.sums, calibration, direction),
            p.input_sha256,
        )
        for p in pool.pictures
    )
    return Verdict(
        decision=decision,
        log10_p=log10_p,
        false_positive_rate=false_positive_rate,
        tests_counted=tests_counted,
        customer=customer,
        tests=tests,
        payload=None if read is None else payload_hex(read),
        payload_is_claimed=read is not None and bool((read == claim.payload).all()),
        created=to_time(datetime.now(UTC)),
        controls=controls,
        claim=claim,
        estimate=estimate,
        measured=measured,
        evidence=evidence,
        rejected=tuple(pool.rejected),
        curve=_curve(pool, calibration, direction),
    )


def _controls(
    measured: Measured, calibration: Calibration, direction: FloatArray
) -> tuple[Control, ...]:
    """Read what must not carry the mark, and void the test where it does."""
    if not measured.inputs:
        return ()
    for entry in measured.inputs:
        log10_p = log10_p_of_sums(entry.sums, calibration, direction)
        log10_p += math.log10(len(measured.inputs))
        if log10_p < _STALE_LOG10_P:
            raise CouldNotJudge(
                f"{entry.name}: this input carries the mark itself (p = 10^{log10_p:.1f}); what"
                " once was marked carries it through any model, so ask fresh inputs only"
            )
    pooled: Sums = np.sum([entry.sums for entry in measured.inputs], axis=0, dtype=np.int64)
    groups = [("inputs", pooled)]
    if measured.own is not None:
        groups.append(("the owner's unmarked outputs", measured.own))
    controls = tuple(
        Control(name, len(measured.inputs), log10_p_of_sums(sums, calibration, direction))
        for name, sums in groups
    )
    for control in controls:
        if control.log10_p < _CONTROL_LOG10_P:
            raise CouldNotJudge(
                f"control: {control.name} look marked (p = 10^{control.log10_p:.1f}), so these"
                " inputs prove nothing; ask others"
            )
    return controls


def _curve(
    pool: Pool, calibration: Calibration, direction: FloatArray
) -> tuple[tuple[int, float], ...]:
    """log10 p of the blind cosine test after 1, 2, 4 ... all pictures."""
    counts = {min(2**i, len(pool.pictures)) for i in range(32)}
    running = np.zeros((_core.TONES, _core.ORBITS + 1), np.int64)
    curve = []
    for k, picture in enumerate(pool.pictures, 1):
        running += picture.sums
        if k in counts:
            curve.append((k, log10_p_of_sums(running, calibration, direction)))
    return tuple(curve)


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
    pictures: SuspectPictures, geometry: Geometry | None, engine: Engine, progress: Progress | None
) -> Pool:
    found: dict[str, PictureStatistics] = {}
    rejected: list[tuple[str, str]] = []
    total = pictures.count() if progress else 0
    measured = engine.map(partial(_measure_part, geometry), pictures.parts())
    for i, (name, one, reason) in enumerate(measured):
        if one is None:
            rejected.append((name, reason))
        elif one.sha256 in found:
            rejected.append((name, "the same pixels as an earlier picture; counted once"))
        else:
            found[one.sha256] = one
        if progress:
            progress(i + 1, max(i + 1, total), name)
    return Pool(list(found.values()), rejected)


def _measure_part(
    geometry: Geometry | None, part: SuspectPictures
) -> Iterator[tuple[str, PictureStatistics | None, str]]:
    """Measure each picture of a part, wherever that is done: name, statistics or why not."""
    for picture in part:
        alone = Pool()
        try:
            alone.add(picture.name, _undone(picture.read(), geometry))
        except BirthmarkError as error:
            yield picture.name, None, str(error).removeprefix(f"{picture.name}: ")
        else:
            yield picture.name, alone.pictures[0], ""


def _undone(picture: Picture, geometry: Geometry | None) -> Picture:
    return picture if geometry is None else geometry.undone(picture)


def _reason(error: BirthmarkError, picture: StrPath | Picture) -> str:
    """What is wrong, without the file's name, which stands beside it."""
    return (
        str(error) if isinstance(picture, np.ndarray) else str(error).removeprefix(f"{picture}: ")
    )


def _as_suspect(suspect: Suspect | StrPath) -> Suspect:
    return suspect if callable(suspect) else ImageModel(suspect)


def _claimed_model(model: ImageModel | StrPath | None, claim: Claim) -> ImageModel | None:
    if model is None:
        return None
    own = model if isinstance(model, ImageModel) else ImageModel(model)
    if own.sha256 != claim.model_sha256:
        raise InvalidModel(f"{own.name}: not the model of the claim (its SHA-256 differs)")
    return own


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
    own: ImageModel | None,
    named: list[tuple[str, StrPath | Picture]],
    trial: Trial | None,
    geometry: Geometry | None,
    progress: Progress | None,
) -> Measured:
    """Ask the suspect (and the owner's model) and measure the answers, and the inputs too."""
    pool, inputs = Pool(), Pool()
    regression = None if own is None else Regression()
    own_sums: Sums | None = None
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
            answer = _undone(suspect(question), geometry)
            before = len(pool.pictures)
            pool.add(name, answer, digest)
            if own is not None and regression is not None and len(pool.pictures) > before:
                unmarked = own(question)
                regression.add(answer, unmarked)
                of_picture = _core.statistics(unmarked)
                own_sums = of_picture if own_sums is None else own_sums + of_picture
        except InvalidModel:
            raise
        except BirthmarkError as error:
            pool.rejected.append((name, _reason(error, picture)))
    if progress:
        progress(len(named), len(named), "asked")
    return Measured(pool, regression, tuple(inputs.pictures), own_sums, trial, geometry)
