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
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from birthmark import payload
from birthmark.calibration import Calibration, FloatArray, Sums
from birthmark.claim import Claim
from birthmark.errors import BirthmarkError, CouldNotJudge, InvalidModel
from birthmark.extract import Pool, Regression, pixels_sha256
from birthmark.files import StrPath
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import claimed_chips, rotation
from birthmark.models import ImageModel
from birthmark.pictures import Picture, gather_pictures, read_picture
from birthmark.tails import log10_p_of_chips, log10_p_of_cosine, p_of

FALSE_POSITIVE_RATE = 1e-6
UNMARKED_ABOVE = 1e-3
DECOYS = 9_999
_DECOY_SEED = b"birthmark decoys\0"
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


@dataclass(frozen=True)
class Verdict:
    """An answer with its evidence.

    Attributes:
        decision: MARKED, UNMARKED or UNDECIDED at ``false_positive_rate``.
        log10_p: log10 of the p-value after correction for ``tests_counted``.
        mode: "blind" or "informed".
        payload: the payload read from the pictures (hex), or None where it cannot be trusted.
        payload_is_claimed: whether that payload is the claim's.
        tests_counted: how many hypotheses were tried (Bonferroni).
        created: when it was given, UTC, ISO 8601 to the second.
        evidence: one entry for each picture used.
        rejected: name and reason of each picture left out.
    """

    decision: Decision
    log10_p: float
    mode: str
    false_positive_rate: float
    tests_counted: int
    tests: Tests
    payload: str | None
    payload_is_claimed: bool
    created: str
    claim: Claim = field(repr=False)
    estimate: FloatArray = field(repr=False)
    """Coordinates read from the pictures, float64 [n]."""
    sums: tuple[Sums, ...] = field(repr=False)
    """Blind: the statistics of each picture, int64 [tones, orbits + 1]."""
    regression: Regression | None = field(repr=False)
    """Informed: the normal equations."""
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

    def summary(self) -> dict[str, Any]:
        """The verdict as plain JSON values; holds no secret."""
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


def decide(log10_p: float, agree: bool, false_positive_rate: float) -> Decision:
    """The decision rule, on the corrected p-value."""
    if agree and log10_p < math.log10(false_positive_rate):
        return Decision.MARKED
    if agree and log10_p > math.log10(UNMARKED_ABOVE):
        return Decision.UNMARKED
    return Decision.UNDECIDED


def verify(
    pictures: Pictures | None,
    claim: Claim,
    key: OwnerKey,
    *,
    suspect: Suspect | StrPath | None = None,
    inputs: Pictures | None = None,
    model: ImageModel | StrPath | None = None,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
    progress: Progress | None = None,
) -> Verdict:
    """Judge whether pictures, or a suspect model, carry the claim's mark.

    Three ways of asking:

    * ``verify(pictures, claim, key)``: blind, on pictures that the suspect made;
    * ``verify(None, claim, key, suspect=..., inputs=...)``: blind, on the suspect's answers;
    * the same with ``model=`` (the owner's own, whose hash stands in the claim): informed, on how
      the suspect's answers differ from the model's. Stronger where the suspect is close to it.

    Args:
        pictures: paths (files or folders) and uint8 RGB arrays [h, w, 3]. A picture that cannot be
            read is named in the verdict and the rest goes on; duplicates count once.
        claim: the owner's claim.
        key: the owner's key that signed it.
        suspect: an ONNX file, or a function from a uint8 picture to a uint8 picture.
        inputs: what the suspect is asked; should be pictures that never went through the model.
        model: the owner's model.
        false_positive_rate: at most this often is an innocent suspect called MARKED.
        progress: called as (done, total, message).

    Raises:
        InvalidClaim: the claim is not whole, or not this key's.
        InvalidModel: the suspect is not image-to-image, or ``model`` is not the claimed one.
        CouldNotJudge: no picture could be used, or they hold too little texture.
    """
    if not 0 < false_positive_rate <= 0.01:
        raise ValueError(f"a false-positive rate is above 0 and at most .01: {false_positive_rate}")
    claim.verify(key.public_key)
    calibration = Calibration.from_bytes(claim.calibration)
    mark_key = key.mark_key(claim.digest)
    if (suspect is None) == (pictures is None):
        raise ValueError("give either pictures, or a suspect and inputs")
    if suspect is None:
        pool, regression = _measure(_named(pictures or ()), progress), None
    elif inputs is None:
        raise ValueError("a suspect needs inputs to be asked")
    else:
        own = _claimed_model(model, claim)
        pool, regression = _query(_as_suspect(suspect), own, _named(inputs), progress)
    return judge(pool, regression, claim, calibration, mark_key, false_positive_rate)


def judge(
    pool: Pool,
    regression: Regression | None,
    claim: Claim,
    calibration: Calibration,
    key: MarkKey,
    false_positive_rate: float,
    estimate: FloatArray | None = None,
) -> Verdict:
    """Decide on measured statistics: blind, or informed where there is a regression.

    ``estimate`` is for :func:`birthmark.recheck`: the stored estimate, from which what this machine
    would read may differ in the last bits.
    """
    total = pool.total()
    if total[:, -1].sum() < _LEAST_ENERGY:
        raise CouldNotJudge(
            "the pictures hold too little texture to judge: give more, larger or livelier ones"
        )
    if estimate is None:
        estimate = calibration.read(total) if regression is None else regression.read(calibration)
    tests = run_tests(estimate, key, claim)
    tests_counted = 1
    log10_p = min(0.0, tests.log10_p_cosine + math.log10(tests_counted))
    decision = decide(log10_p, tests.agree, false_positive_rate)
    n = calibration.coordinates
    turn = rotation(key, n)
    read = None
    if decision is Decision.MARKED:
        read = payload.payload_from_soft(turn.T @ estimate, key)
    claimed = claim.payload_bits(payload.DEFAULT_BITS)
    direction = turn @ claimed_chips(key, claim, n) / math.sqrt(n)
    evidence = tuple(
        PictureEvidence(
            p.name, p.sha256, p.height_px, p.width_px, _alone(p.sums, calibration, direction)
        )
        for p in pool.pictures
    )
    return Verdict(
        decision=decision,
        log10_p=log10_p,
        mode="blind" if regression is None else "informed",
        false_positive_rate=false_positive_rate,
        tests_counted=tests_counted,
        tests=tests,
        payload=None if read is None else payload_hex(read),
        payload_is_claimed=read is not None and bool((read == claimed).all()),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        claim=claim,
        estimate=estimate,
        sums=tuple(p.sums for p in pool.pictures),
        regression=regression,
        evidence=evidence,
        rejected=tuple(pool.rejected),
        curve=_curve(pool, calibration, direction),
    )


def _alone(sums: Sums, calibration: Calibration, direction: FloatArray) -> float:
    if sums[:, -1].sum() <= 0:
        return 0.0
    estimate = calibration.read(sums)
    norm = float(np.linalg.norm(estimate))
    return log10_p_of_cosine(float(estimate @ direction) / norm, len(direction)) if norm else 0.0


def _curve(
    pool: Pool, calibration: Calibration, direction: FloatArray
) -> tuple[tuple[int, float], ...]:
    """log10 p of the blind cosine test after 1, 2, 4 ... all pictures."""
    counts = sorted({min(2**i, len(pool.pictures)) for i in range(32)})
    running = np.cumsum([p.sums for p in pool.pictures], axis=0)
    return tuple((k, _alone(running[k - 1], calibration, direction)) for k in counts)


def _named(pictures: Pictures) -> list[tuple[str, StrPath | Picture]]:
    """Names and what to read; folders opened. A file name's stray bytes are shown as such."""
    named: list[tuple[str, StrPath | Picture]] = []
    for i, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            named.append((f"picture {i + 1}", picture))
        else:
            for path in gather_pictures([picture]).files:
                named.append((os.fsencode(path).decode("utf-8", "backslashreplace"), path))
    return named


def _load(picture: StrPath | Picture) -> Picture:
    return picture if isinstance(picture, np.ndarray) else read_picture(picture)


def _measure(named: list[tuple[str, StrPath | Picture]], progress: Progress | None) -> Pool:
    pool = Pool()
    for i, (name, picture) in enumerate(named):
        if progress:
            progress(i, len(named), name)
        try:
            pool.add(name, _load(picture))
        except BirthmarkError as error:
            pool.rejected.append((name, _reason(error, picture)))
    if progress:
        progress(len(named), len(named), "measured")
    return pool


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


def _query(
    suspect: Suspect,
    own: ImageModel | None,
    named: list[tuple[str, StrPath | Picture]],
    progress: Progress | None,
) -> tuple[Pool, Regression | None]:
    """Ask the suspect (and the owner's model) and measure the answers."""
    pool = Pool()
    regression = None if own is None else Regression()
    asked: set[str] = set()
    for i, (name, picture) in enumerate(named):
        if progress:
            progress(i, len(named), name)
        try:
            question = _load(picture)
            digest = pixels_sha256(question)
            if digest in asked:
                pool.rejected.append((name, "the same pixels as an earlier input; asked once"))
                continue
            asked.add(digest)
            answer = suspect(question)
            before = len(pool.pictures)
            pool.add(name, answer)
            if own is not None and regression is not None and len(pool.pictures) > before:
                regression.add(answer, own(question))
        except InvalidModel:
            raise
        except BirthmarkError as error:
            pool.rejected.append((name, _reason(error, picture)))
    if progress:
        progress(len(named), len(named), "asked")
    return pool, regression
