"""What was measured -> verdict: tests, controls, the decision.

A mark has two parts under keys of their own, echo and tint. A blind verdict rests on the echo; an
informed one reads both, and puts their independent p-values together by Fisher's method.

What a suspect was asked (:mod:`birthmark.measure`) is controlled: no input may carry the mark
itself (a picture that once was our output carries it through any model), and neither may the
owner's own unmarked outputs.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from birthmark import emblem, payload
from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import Claim, to_time
from birthmark.controls import Control, check_controls, without_references
from birthmark.engine import Engine
from birthmark.errors import InvalidTrial
from birthmark.exact_tests import Tests, corrected_log10_p, run_tests
from birthmark.extract import Pool, log10_p_of_sums
from birthmark.files import StrPath
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey, OwnerKey, check_customer
from birthmark.mark import coordinates, rotation
from birthmark.measure import Measured, Pictures, Progress, Suspect, measure
from birthmark.models import ImageModel
from birthmark.sums import total_of
from birthmark.suspects import SuspectPictures
from birthmark.tails import log10_likelihood_ratio, p_of
from birthmark.trial import Trial

# An owner whose claim's date is doubted may have tried this many keys (CPU-centuries of search).
LOG10_KEYS_IN_DOUBT = 64 * math.log10(2)


class Decision(enum.StrEnum):
    """What the tests allow to be said."""

    MARKED = "MARKED"
    UNMARKED = "UNMARKED"
    UNDECIDED = "UNDECIDED"


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
class Verdict:
    """An answer with its evidence.

    Attributes:
        decision: MARKED, UNMARKED or UNDECIDED at ``false_positive_rate``.
        log10_p: log10 of the p-value after correction for ``tests_counted`` and for the claims
            among which the owner chose (:attr:`birthmark.Claim.draws`).
        payload: the payload read from the pictures, as an emblem (:mod:`birthmark.emblem`), or None
            where it cannot be trusted.
        payload_is_claimed: whether that payload is the claim's emblem.
        payload_guess: the likeliest payload, trusted or not: noise where there is no mark.
        payload_doubt: estimate of the chance that the guess is wrong; it is trusted in a verdict of
            MARKED, and up to :data:`birthmark.payload.MOST_DOUBT`.
        tests_counted: how many hypotheses were tried (Bonferroni).
        customer: whose mark was looked for, where not the claim's own.
        controls: what must not carry the mark, and does not.
        log10_p_without_references: what an informed verdict would say had no references been asked;
            None where none were.
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
    """Of the echo."""
    tint_tests: Tests | None
    """Of the tint, in an informed verdict."""
    payload: str | None
    payload_is_claimed: bool
    payload_guess: str
    payload_doubt: float
    created: str
    controls: tuple[Control, ...]
    log10_p_without_references: float | None
    claim: Claim = field(repr=False)
    estimate: FloatArray = field(repr=False)
    """Coordinates of the echo read from the pictures, float64 [n]."""
    tint_estimate: FloatArray | None = field(repr=False)
    """Coordinates of the tint, float64 [m], in an informed verdict."""
    measured: Measured = field(repr=False)
    """What the estimates were read from."""
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
            "payload_guess": self.payload_guess,
            "payload_doubt": self.payload_doubt,
            "emblem": self.claim.emblem,
            "created": self.created,
            "tests_counted": self.tests_counted,
            "customer": self.customer,
            "log10_likelihood_ratio": self.log10_likelihood_ratio,
            "log10_p_if_date_doubted": self.log10_p_if_date_doubted,
            "claim_stamped": self.claim_stamped,
            "queries_declared": trial.queries if trial else None,
            "accused_took_part": bool(trial and trial.accused_nonce),
            "asked": [entry.sha256 for entry in self.measured.inputs],
            "turned": self.measured.turned,
            "geometry": dataclasses.asdict(self.measured.geometry or Geometry()),
            "references": list(self.measured.references),
            "log10_p_without_references": self.log10_p_without_references,
            "controls": [dataclasses.asdict(c) for c in self.controls],
            "false_positive_rate": self.false_positive_rate,
            "tests": dataclasses.asdict(self.tests),
            "tint_tests": [dataclasses.asdict(self.tint_tests)] if self.tint_tests else [],
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
    references: Sequence[ImageModel | StrPath] = (),
    trial: Trial | None = None,
    customer: str | None = None,
    geometry: Geometry | None = None,
    turned: bool = False,
    tests_counted: int | None = None,
    false_positive_rate: float | None = None,
    limit_s: float | None = None,
    engine: Engine | None = None,
    checkpoint: StrPath | None = None,
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
        references: surrogates that the owner trained on that model's unmarked outputs, at most 8
            (``birthmark surrogate --model``). Where the suspect fails as they do, that is left out,
            and an informed verdict sees weaker marks. They must not carry the mark, in either sign.
        trial: what was declared before; it then chooses among ``inputs``, and says how many, whose
            mark is looked for, and the two numbers below: what is given beside it must be the same.
        customer: look for the mark of this customer instead of the claim's own.
        geometry: undo this to the suspect's pictures first (:func:`birthmark.find_geometry`); all
            that were tried to find it are counted. Blind only.
        turned: ask every input in all eight orientations, and judge the mean of the answers: eight
            times as many queries, and an informed verdict sees weaker marks. Not in a trial.
        tests_counted: how many hypotheses are tried on this suspect, this one included (another
            mode, other customers, an earlier look): p is multiplied by it. By default 1.
        false_positive_rate: at most this often is an innocent suspect called MARKED; by default
            what the claim states.
        limit_s: how many seconds the suspect may take for an answer; by default, as many as it
            likes. A function is then asked in a thread of its own.
        engine: who measures the pictures (:func:`birthmark.engine.open_engine`); by default this
            process. What a suspect is asked is asked here.
        checkpoint: a file for what was measured so far. Where it is there already, that is not
            measured, and no suspect asked, again; remove it when the verdict is saved.
        progress: called as (done, total, message).

    Raises:
        InvalidClaim: the claim is not whole, from the future, or not this key's.
        InvalidModel: the suspect is not image-to-image, or takes too long, or ``model`` is not the
            claimed one.
        InvalidTrial: the trial is another claim's, was changed, or declares something else.
        InvalidCustomer: the customer's name cannot be one.
        InvalidArray: what is given as a picture is neither an array nor a path.
        InvalidCheckpoint: as :func:`birthmark.checkpoint.open_checkpoint`.
        CouldNotJudge: no picture could be used, they hold too little texture, a suspect function
            takes too long, or an input or a control carries the mark.
    """
    if trial is not None:
        customer, tests_counted, false_positive_rate = _declared(
            trial, customer, tests_counted, false_positive_rate
        )
    if tests_counted is None:
        tests_counted = 1
    if false_positive_rate is None:
        false_positive_rate = claim.false_positive_rate
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
        references=references,
        trial=trial,
        geometry=geometry,
        turned=turned,
        limit_s=limit_s,
        engine=engine,
        checkpoint=checkpoint,
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


def _declared(
    trial: Trial,
    customer: str | None,
    tests_counted: int | None,
    false_positive_rate: float | None,
) -> tuple[str | None, int, float]:
    """What a trial declares, where nothing else was given."""
    for what, given, declared in (
        ("the customer", None if customer is None else check_customer(customer), trial.customer),
        ("the number of tests", tests_counted, trial.tests_counted),
        ("the false-positive rate", false_positive_rate, trial.false_positive_rate),
    ):
        if given is not None and given != declared:
            raise InvalidTrial(f"{what} is not as the trial declared: {declared or 'none'}")
    return trial.customer or None, trial.tests_counted, trial.false_positive_rate


def judge(
    measured: Measured,
    claim: Claim,
    key: MarkKey,
    false_positive_rate: float,
    *,
    customer: str | None = None,
    tests_counted: int = 1,
    estimates: tuple[FloatArray, FloatArray | None] | None = None,
) -> Verdict:
    """Decide on what was measured.

    ``key`` is the claim's; that of ``customer`` derives from it. ``estimates`` is for
    :func:`birthmark.recheck`: the stored ones of echo and tint, from which what this machine would
    read may differ in the last bits.
    """
    calibration = Calibration.from_bytes(claim.calibration)
    if estimates is None:
        estimates = measured.estimate(calibration), measured.tint_estimate(calibration)
    estimate, tint = estimates
    if customer is not None:
        customer = check_customer(customer)
        key = key.customer(customer)
    n = calibration.coordinates
    direction = coordinates(key, claim, n) / math.sqrt(n)
    controls = check_controls(measured, calibration, key, claim)
    tests = run_tests(estimate, key, claim)
    tint_tests = None if tint is None else run_tests(tint, key.tint, claim)
    parts = [tests] if tint_tests is None else [tests, tint_tests]
    counted = tests_counted * claim.draws
    log10_p = corrected_log10_p([part.log10_p_cosine for part in parts], counted)
    agree = all(part.agree for part in parts)
    decision = decide(log10_p, agree, false_positive_rate, claim.log10_unmarked_above)
    decoded = _decoded(estimates, [part.cosine for part in parts], key, claim)
    guess = emblem.from_bits(decoded.bits)
    read = guess if decision is Decision.MARKED and decoded.trusted else None
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
        tint_tests=tint_tests,
        payload=read,
        payload_is_claimed=read == claim.emblem,
        payload_guess=guess,
        payload_doubt=decoded.doubt,
        created=to_time(datetime.now(UTC)),
        controls=controls,
        log10_p_without_references=without_references(measured, calibration, key, claim, counted),
        claim=claim,
        estimate=estimate,
        tint_estimate=tint,
        measured=measured,
        evidence=evidence,
        rejected=tuple(pool.rejected),
        curve=_curve(pool, calibration, direction),
    )


def _decoded(
    estimates: tuple[FloatArray, FloatArray | None],
    cosines: Sequence[float],
    key: MarkKey,
    claim: Claim,
) -> payload.Decoding:
    """The payload that echo and, where it was read, tint carry together.

    Each weighs as much as its test says that it is worth.
    """
    soft, pads = [], []
    for estimate, cosine, of_part in zip(estimates, cosines, (key, key.tint), strict=False):
        assert estimate is not None
        n = len(estimate)
        soft.append(payload.half_log_ratios(rotation(of_part, n).T @ estimate, cosine))
        pads.append(payload.chip_pad(of_part, n))
    code = payload.payload_code(tuple(map(len, pads)), len(claim.payload))
    return code.decode(np.concatenate(soft), np.concatenate(pads))


def _curve(
    pool: Pool, calibration: Calibration, direction: FloatArray
) -> tuple[tuple[int, float], ...]:
    """log10 p of the blind cosine test after 1, 2, 4 ... all pictures."""
    counts = {min(2**i, len(pool.pictures)) for i in range(32)}
    running = total_of([])
    curve = []
    for k, picture in enumerate(pool.pictures, 1):
        running += picture.sums
        if k in counts:
            curve.append((k, log10_p_of_sums(running, calibration, direction)))
    return tuple(curve)
