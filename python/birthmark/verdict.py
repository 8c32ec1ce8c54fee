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

A mark has two parts under keys of their own, echo and tint. A blind verdict rests on the echo; an
informed one reads both, and puts their independent p-values together by Fisher's method.

What a suspect was asked (:mod:`birthmark.measure`) is controlled: no input may carry the mark
itself (a picture that once was our output carries it through any model), and neither may the
owner's own unmarked outputs.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from birthmark import payload
from birthmark.calibration import Calibration, FloatArray, Sums
from birthmark.claim import Claim, to_time
from birthmark.errors import CouldNotJudge
from birthmark.extract import Pool, log10_p_of_sums
from birthmark.files import StrPath
from birthmark.geometry import Geometry
from birthmark.keys import MarkKey, OwnerKey, check_customer
from birthmark.mark import claimed_chips, coordinates, rotation
from birthmark.measure import Measured, Pictures, Progress, Suspect, measure
from birthmark.models import ImageModel
from birthmark.suspects import SuspectPictures
from birthmark.tails import (
    log10_likelihood_ratio,
    log10_p_of_both,
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
class Verdict:
    """An answer with its evidence.

    Attributes:
        decision: MARKED, UNMARKED or UNDECIDED at ``false_positive_rate``.
        log10_p: log10 of the p-value after correction for ``tests_counted`` and for the claims
            among which the owner chose (:attr:`birthmark.Claim.draws`).
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
    """Of the echo."""
    tint_tests: Tests | None
    """Of the tint, in an informed verdict."""
    payload: str | None
    payload_is_claimed: bool
    created: str
    controls: tuple[Control, ...]
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


def corrected_log10_p(log10_ps: Sequence[float], tests_counted: int) -> float:
    """log10 p of a mark's parts (one or two) together, times the number of hypotheses."""
    together = log10_ps[0] if len(log10_ps) == 1 else log10_p_of_both(*log10_ps)
    return min(0.0, together + math.log10(tests_counted))


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
    limit_s: float | None = None,
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
        limit_s: how many seconds the suspect may take for an answer; by default, as many as it
            likes. A function is then asked in a thread of its own.
        progress: called as (done, total, message).

    Raises:
        InvalidClaim: the claim is not whole, from the future, or not this key's.
        InvalidModel: the suspect is not image-to-image, or takes too long, or ``model`` is not the
            claimed one.
        InvalidTrial: the trial is another claim's, was changed, or declares something else.
        InvalidArray: what is given as a picture is neither an array nor a path.
        CouldNotJudge: no picture could be used, they hold too little texture, a suspect function
            takes too long, or an input or a control carries the mark.
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
        limit_s=limit_s,
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
    controls = _controls(measured, calibration, direction)
    tests = run_tests(estimate, key, claim)
    tint_tests = None if tint is None else run_tests(tint, key.tint, claim)
    parts = [tests] if tint_tests is None else [tests, tint_tests]
    counted = tests_counted * claim.draws
    log10_p = corrected_log10_p([part.log10_p_cosine for part in parts], counted)
    agree = all(part.agree for part in parts)
    decision = decide(log10_p, agree, false_positive_rate, claim.log10_unmarked_above)
    read = None
    if decision is Decision.MARKED:
        read = _payload(estimate, key, claim)
        if read is None and tint is not None:
            read = _payload(tint, key.tint, claim)
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
        payload=None if read is None else payload_hex(read),
        payload_is_claimed=read is not None and bool((read == claim.payload).all()),
        created=to_time(datetime.now(UTC)),
        controls=controls,
        claim=claim,
        estimate=estimate,
        tint_estimate=tint,
        measured=measured,
        evidence=evidence,
        rejected=tuple(pool.rejected),
        curve=_curve(pool, calibration, direction),
    )


def _payload(estimate: FloatArray, key: MarkKey, claim: Claim) -> payload.Bits | None:
    return payload.payload_from_soft(
        rotation(key, len(estimate)).T @ estimate,
        key,
        claim.payload_length_bits,
        false_accept=_PAYLOAD_FALSE_ACCEPT,
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
    counts = sorted({min(2**i, len(pool.pictures)) for i in range(32)})
    running = np.cumsum([p.sums for p in pool.pictures], axis=0)
    return tuple((k, log10_p_of_sums(running[k - 1], calibration, direction)) for k in counts)
