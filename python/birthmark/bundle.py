"""The verdict bundle: a zip that a third party can check years later, offline.

Members, in this order: ``verdict.json`` (every number and its meaning), ``claim.json`` (as
:meth:`birthmark.Claim.save` writes it), ``statistics.npy`` (int64 [pictures, parts, tones,
orbits + 1]),
``estimate.npy`` (float64 [n]), ``inputs.npy`` (as statistics, of the inputs; where a suspect was
asked), in informed verdicts ``regression.npy`` (float64 [tones, orbits + 2, orbits + 3]: gram, then
projection; an orbit more for each reference), ``tint.npy`` (float64 [m]), ``tint_regression.npy``
(float64 [64 + r, 64 + r + 3], where r is thrice the number of references) and
``own.npy`` (int64 [1, parts, tones, orbits + 1]: the owner's unmarked outputs),
``trial.json`` (where a trial was declared), ``manifest.json`` (the SHA-256 of each) and
``manifest.sig`` (the owner's Ed25519 signature of the manifest). There is one way only to write a
bundle, so that a change of any byte of it is found.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from birthmark import _core
from birthmark.bundle_container import (
    INFORMED,
    MAX_BYTES,
    MOST_CONTAINER_BYTES,
    Member,
    Stacked,
    from_npy,
    manifest_of,
    to_json,
    to_npy,
    unpack,
    write,
)
from birthmark.bundle_form import FORM, has_form
from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import (
    Claim,
    code_version,
    from_time,
    in_order,
    is_32_bytes,
    is_time,
    to_time,
)
from birthmark.emblem import is_emblem
from birthmark.errors import BirthmarkError, InvalidClaim, InvalidTrial, InvalidVerdict
from birthmark.exact_tests import (
    DECOYS,
    corrected_log10_p,
    count_decoys_as_good,
    tests_agree,
)
from birthmark.extract import PictureStatistics, Pool, Statistics, extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.geometry import Geometry
from birthmark.keys import ClaimKey, OwnerKey
from birthmark.measure import Measured
from birthmark.payload import MOST_DOUBT
from birthmark.protocol import HYPOTHESES, NOT_SAID, PROTOCOL
from birthmark.regression import Regression
from birthmark.sums import SHAPE
from birthmark.tails import (
    log10_likelihood_ratio,
    log10_p_of_chips,
    log10_p_of_cosine,
    p_of,
)
from birthmark.trial import MOST_REFERENCES, Trial
from birthmark.verdict import (
    LOG10_KEYS_IN_DOUBT,
    Verdict,
    decide,
    judge,
)

Estimates = tuple[FloatArray, FloatArray | None]

_WORDS = {"hypotheses": HYPOTHESES, "not_said": NOT_SAID, "protocol": list(PROTOCOL)}
_SIGNED_PREFIX = b"birthmark verdict\0"
# Solving the same equations on another machine gives the same to about 1e-13.
_ESTIMATE_TOLERANCE = 1e-9
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Rechecked:
    """What :func:`recheck` repeated.

    Attributes:
        summary: the verdict, as ``verdict.json`` holds it.
        claim: the claim that it is about.
        repeated: the steps that were done again and gave the same.
        needs_key: the steps that only the owner's key can repeat, and were not.
        worded_otherwise: what verdict.json says in other words than this version of birthmark:
            hypotheses, protocol, or what a verdict does not say.
    """

    summary: dict[str, Any]
    claim: Claim
    repeated: tuple[str, ...]
    needs_key: tuple[str, ...]
    worded_otherwise: tuple[str, ...]


def save(verdict: Verdict, path: StrPath, key: OwnerKey) -> None:
    """Write the bundle of a verdict, signed by the owner's key, atomically.

    It holds no secret. The same verdict gives the same bytes.

    Raises:
        InvalidClaim: ``key`` is not the claim's.
        InvalidVerdict: more pictures than a bundle may hold.
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    verdict.claim.verify(key.public_key)
    members: dict[str, Member] = {
        "verdict.json": to_json(
            {
                **verdict.summary(),
                "contract_version": _core.CONTRACT_VERSION,
                "code_version": code_version(),
                "extractor_sha256": extractor_sha256(),
                **_WORDS,
            }
        ),
        "claim.json": verdict.claim.to_bytes(),
        "statistics.npy": Stacked(verdict.measured.pool.pictures),
        "estimate.npy": to_npy(verdict.estimate.astype("<f8")),
    }
    measured = verdict.measured
    if measured.inputs:
        members["inputs.npy"] = Stacked(measured.inputs)
    if measured.regression is not None:
        equations = measured.regression
        both = np.concatenate([equations.gram, equations.projection[:, :, None]], axis=2)
        members["regression.npy"] = to_npy(both.astype("<f8"))
        assert verdict.tint_estimate is not None
        members["tint.npy"] = to_npy(verdict.tint_estimate.astype("<f8"))
        both = np.concatenate([equations.tint_gram, equations.tint_projection], axis=1)
        members["tint_regression.npy"] = to_npy(both.astype("<f8"))
    if measured.own is not None:
        members["own.npy"] = to_npy(measured.own[None].astype("<i8"))
    if measured.trial is not None:
        members["trial.json"] = measured.trial.to_bytes()
    members["manifest.json"] = manifest = manifest_of(members)
    members["manifest.sig"] = key.sign(_SIGNED_PREFIX + manifest)
    if sum(map(len, members.values())) > MAX_BYTES - MOST_CONTAINER_BYTES:
        raise InvalidVerdict(f"{path}: more pictures than a verdict bundle may hold")
    write_atomically(path, partial(write, members))


def recheck(path: StrPath, key: OwnerKey | ClaimKey | None = None) -> Rechecked:
    """Repeat a verdict from its bundle. Returns only if everything holds.

    Without a key: container, hashes, signatures, the estimate from the statistics, the p-values
    from cosine and chips, the decoys, the agreement, the decision, and the choice of a trial's
    inputs. Whatever needs the secret direction (the cosine itself, the matching chips, the payload,
    the p-values of single pictures and of the controls) is repeated with ``key`` only: the owner's,
    or the claim's disclosed one, which tells nothing of the owner's other claims.

    That the claim's public key is its owner's must be known from elsewhere.

    Raises:
        InvalidVerdict: the bundle is damaged, was changed, or a number does not follow; names what.
        InvalidClaim: ``key`` is not the claim's.
    """
    try:
        with open(path, "rb") as stream:
            whole = stream.read(MAX_BYTES + 1)
        # What a hostile signer's numbers overflow to is found by comparison.
        with np.errstate(all="ignore"):
            return _repeat(unpack(whole), key)
    except OSError as error:
        raise InvalidVerdict(f"{path}: {error.strerror or error}") from error
    except InvalidVerdict as error:
        raise InvalidVerdict(f"{path}: {error}{_another_version(whole)}") from None


def _another_version(whole: bytes) -> str:
    """What to add to a refusal where the bundle was made by a birthmark that reads otherwise."""
    try:
        stated = json.loads(unpack(whole)["verdict.json"])
        if stated["extractor_sha256"] != extractor_sha256():
            version = str(stated["code_version"])[:40]
            return f" (made by birthmark {version}, which reads marks otherwise: use that one)"
    except (InvalidVerdict, ValueError, RecursionError, KeyError, TypeError):
        pass
    return ""


def _repeat(members: dict[str, bytes], key: OwnerKey | ClaimKey | None) -> Rechecked:
    try:
        claim = Claim.from_bytes(members["claim.json"])
        calibration = Calibration.from_bytes(claim.calibration)
    except InvalidClaim as error:
        raise InvalidVerdict(f"claim.json: {error}") from None
    if key is not None:
        claim.mark_key(key)
    _check_seal(members, claim)
    stated = _stated(members["verdict.json"])
    _check_belongs(stated, claim, calibration)
    measured, estimates = _measured(members, stated, claim, calibration)
    repeated = ["container, hashes and the owner's signatures"]
    if measured.trial is not None:
        repeated.append("the trial's inputs, as both nonces choose them")
    _check_estimates(estimates, measured, calibration)
    repeated.append("the estimate, from the pictures' statistics and the frozen calibration")
    _check_numbers(stated, estimates, claim)
    repeated += ["p-values of cosine and chips", f"{DECOYS} decoys, agreement and decision"]
    otherwise = tuple(name for name, words in _WORDS.items() if stated[name] != words)
    secret = "cosine with the secret direction, chips, payload, p of single pictures and controls"
    if key is None:
        return Rechecked(stated, claim, tuple(repeated), (secret,), otherwise)
    _check_with_key(stated, claim, key, measured, estimates)
    return Rechecked(stated, claim, (*repeated, secret), (), otherwise)


def _check_seal(members: dict[str, bytes], claim: Claim) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    manifest = members["manifest.json"]
    try:
        signer = Ed25519PublicKey.from_public_bytes(claim.public_key)
        signer.verify(members["manifest.sig"], _SIGNED_PREFIX + manifest)
    except (InvalidSignature, ValueError):
        raise InvalidVerdict(
            "manifest.json or manifest.sig: the owner's signature does not hold"
        ) from None
    hashed = {name: data for name, data in members.items() if not name.startswith("manifest.")}
    if manifest == manifest_of(hashed):
        return
    for name, data in hashed.items():
        if hashlib.sha256(data).hexdigest().encode() not in manifest:
            raise InvalidVerdict(f"{name}: was changed after the verdict was signed")
    raise InvalidVerdict("manifest.json: not in the form that birthmark writes")


def _stated(data: bytes) -> dict[str, Any]:
    """Parse verdict.json; whoever signs a bundle may have put anything there."""
    try:
        stated = json.loads(data)
        canonical = to_json(stated)
    except (ValueError, RecursionError):
        raise InvalidVerdict("verdict.json: not JSON (UTF-8, finite numbers)") from None
    if canonical != data or not has_form(stated, FORM):
        raise InvalidVerdict("verdict.json: not in the form that birthmark writes")
    if stated["contract_version"] != _core.CONTRACT_VERSION:
        raise InvalidVerdict(
            f"made under version {stated['contract_version']} of the arithmetic contract, and this"
            f" is version {_core.CONTRACT_VERSION}"
        )
    result: dict[str, Any] = stated
    return result


def _check_belongs(stated: dict[str, Any], claim: Claim, calibration: Calibration) -> None:
    """Check verdict.json against the claim, and its numbers' ranges."""
    for name, value in {
        "claim_digest": claim.digest.hex(),
        "emblem": claim.emblem,
        "calibration_sha256": claim.calibration_sha256,
        "owner": claim.owner,
        "model_name": claim.model_name,
        "model_sha256": claim.model_sha256,
        "public_key": claim.public_key.hex(),
        "claim_stamped": to_time(stamp.time) if (stamp := claim.stamp_read) else None,
    }.items():
        if stated[name] != value:
            raise InvalidVerdict(f"verdict.json: {name} is not the claim's")
    evidence, informed = stated["evidence"], stated["mode"] == "informed"
    trusted = stated["decision"] == "MARKED" and stated["payload_doubt"] <= MOST_DOUBT
    parts = [(stated["tests"], calibration.coordinates)]
    parts += [(tests, calibration.tint_coordinates) for tests in stated["tint_tests"]]
    for what, holds in {
        "mode": stated["mode"] in ("blind", "informed"),
        "pictures": stated["pictures"] == len(evidence) > 0,
        "evidence": len({e["sha256"] for e in evidence}) == len(evidence),
        "false_positive_rate": 0 < stated["false_positive_rate"] <= 0.01,
        "tests_counted": stated["tests_counted"] >= stated["geometry"]["tried"] > 0,
        "references": len(stated["references"]) <= MOST_REFERENCES * informed
        and (stated["log10_p_without_references"] is None) == (not stated["references"])
        and len(set(stated["references"])) == len(stated["references"])
        and all(map(is_32_bytes, stated["references"])),
        "tint_tests": len(stated["tint_tests"]) == informed,
        "coordinates": all(tests["coordinates"] == n for tests, n in parts),
        "cosine": all(abs(tests["cosine"]) <= 1 + _TOLERANCE for tests, _ in parts),
        "chips_matched": all(0 <= tests["chips_matched"] <= n for tests, n in parts),
        "decoys": all(tests["decoys"] == DECOYS for tests, _ in parts),
        "payload_guess": is_emblem(stated["payload_guess"], len(claim.emblem)),
        "payload_doubt": 0 <= stated["payload_doubt"] <= 1,
        "payload": stated["payload"] == (stated["payload_guess"] if trusted else None),
        "payload_is_claimed": stated["payload_is_claimed"] == (stated["payload"] == claim.emblem),
        "asked": len(set(stated["asked"])) == len(stated["asked"]),
        "turned": not stated["turned"]
        or (bool(stated["asked"]) and stated["queries_declared"] is None),
        "input_sha256": bool(stated["asked"]) == any(e["input_sha256"] for e in evidence)
        and {e["input_sha256"] for e in evidence} <= (set(stated["asked"]) or {""}),
        "created": _follows(stated["created"], claim.created),
    }.items():
        if not holds:
            raise InvalidVerdict(f"verdict.json: {what} cannot be so")


def _measured(
    members: dict[str, bytes], stated: dict[str, Any], claim: Claim, calibration: Calibration
) -> tuple[Measured, Estimates]:
    """What the verdict was read from, and the stored estimates."""
    estimate = from_npy(members, "estimate.npy", "<f8", (calibration.coordinates,))
    sums = from_npy(members, "statistics.npy", "<i8", (stated["pictures"], *SHAPE))
    entries = Statistics(
        PictureStatistics(
            e["name"], e["sha256"], e["height_px"], e["width_px"], of_picture, e["input_sha256"]
        )
        for e, of_picture in zip(stated["evidence"], sums, strict=True)
    )
    pool = Pool(entries, [(name, reason) for name, reason in stated["rejected"]])
    informed, asked = stated["mode"] == "informed", stated["asked"]
    for name, needed in (
        *((name, informed) for name in INFORMED),
        ("inputs.npy", bool(asked)),
        ("trial.json", stated["queries_declared"] is not None),
    ):
        if needed != (name in members):
            raise InvalidVerdict(f"{name}: missing, or there where verdict.json has no need of it")
    inputs = Statistics()
    if asked:
        of_inputs = from_npy(members, "inputs.npy", "<i8", (len(asked), *SHAPE))
        inputs = Statistics(
            PictureStatistics(f"input {i + 1}", digest, 0, 0, of_input)
            for i, (digest, of_input) in enumerate(zip(asked, of_inputs, strict=True))
        )
    trial = _trial(members["trial.json"], stated, claim) if "trial.json" in members else None
    if trial is None and stated["accused_took_part"]:
        raise InvalidVerdict("verdict.json: accused_took_part cannot be so")
    if not informed:
        geometry = Geometry(**stated["geometry"])
        blind = Measured(pool, None, inputs, None, trial, geometry, turned=stated["turned"])
        return blind, (estimate, None)
    empty = Regression.empty(len(stated["references"]))
    (tones, features), rows = empty.projection.shape, len(empty.tint_gram)
    both = from_npy(members, "regression.npy", "<f8", (tones, features, features + 1))
    tint = from_npy(members, "tint.npy", "<f8", (calibration.tint_coordinates,))
    of_tint = from_npy(members, "tint_regression.npy", "<f8", (rows, rows + 3))
    own = from_npy(members, "own.npy", "<i8", (1, *SHAPE))[0]
    regression = Regression(both[:, :, :-1], both[:, :, -1], of_tint[:, :-3], of_tint[:, -3:])
    measured = Measured(
        pool,
        regression,
        inputs,
        own,
        trial,
        turned=stated["turned"],
        references=tuple(stated["references"]),
    )
    return measured, (estimate, tint)


def _trial(data: bytes, stated: dict[str, Any], claim: Claim) -> Trial:
    try:
        trial = Trial.from_bytes(data)
        trial.check(claim)
        chosen = list(trial.chosen())
    except InvalidTrial as error:
        raise InvalidVerdict(f"trial.json: {error}") from None
    for what, holds in {
        "mode": trial.mode == stated["mode"],
        "references": list(trial.references) == stated["references"],
        "queries_declared": trial.queries == stated["queries_declared"],
        "accused_took_part": bool(trial.accused_nonce) == stated["accused_took_part"],
        "asked": chosen == stated["asked"],
        "customer": (trial.customer or None) == stated["customer"],
        "tests_counted": trial.tests_counted * stated["geometry"]["tried"]
        == stated["tests_counted"],
        "false_positive_rate": trial.false_positive_rate == stated["false_positive_rate"],
        "created": _follows(stated["created"], trial.created),
    }.items():
        if not holds:
            raise InvalidVerdict(f"verdict.json: {what} is not as the trial declared")
    return trial


def _check_estimates(estimates: Estimates, measured: Measured, calibration: Calibration) -> None:
    """Read both estimates once more from the statistics."""
    try:
        again = measured.estimate(calibration), measured.tint_estimate(calibration)
    except (BirthmarkError, np.linalg.LinAlgError) as error:
        raise InvalidVerdict(f"the statistics give no estimate: {error}") from None
    for name, stored, read in zip(("estimate.npy", "tint.npy"), estimates, again, strict=True):
        if stored is None or read is None:
            continue
        size = float(np.linalg.norm(stored))
        if not (
            0 < size < math.inf and np.linalg.norm(read - stored) <= _ESTIMATE_TOLERANCE * size
        ):
            raise InvalidVerdict(f"{name}: it does not follow from the statistics")


def _check_numbers(stated: dict[str, Any], estimates: Estimates, claim: Claim) -> None:
    """Repeat every number that follows from the estimates, the cosines and the matched chips."""
    parts = [stated["tests"], *stated["tint_tests"]]
    for tests, estimate in zip(parts, estimates, strict=False):
        assert estimate is not None
        n, cosine, matched = tests["coordinates"], tests["cosine"], tests["chips_matched"]
        as_good = count_decoys_as_good(estimate, cosine)
        for what, value, follows in (
            ("p of the cosine", tests["log10_p_cosine"], log10_p_of_cosine(cosine, n)),
            ("p of the chips", tests["log10_p_chips"], log10_p_of_chips(matched, n)),
            ("number of decoys as good", tests["decoys_as_good"], as_good),
            ("agreement", tests["agree"], tests_agree(cosine, matched, as_good, n)),
        ):
            if not _same(value, follows):
                raise InvalidVerdict(f"verdict.json: the {what} does not follow")
    counted = stated["tests_counted"] * claim.draws
    corrected = corrected_log10_p([t["log10_p_cosine"] for t in parts], counted)
    agree = all(tests["agree"] for tests in parts)
    rate = stated["false_positive_rate"]
    decision = decide(corrected, agree, rate, claim.log10_unmarked_above)
    for what, value, repeated in (
        ("log10 of the corrected p", stated["log10_p"], corrected),
        ("decision", stated["decision"], decision),
        (
            "likelihood ratio",
            stated["log10_likelihood_ratio"],
            log10_likelihood_ratio(stated["log10_p"]),
        ),
        (
            "p of a reader who doubts the date",
            stated["log10_p_if_date_doubted"],
            min(0.0, stated["log10_p"] + LOG10_KEYS_IN_DOUBT),
        ),
    ):
        if not _same(value, repeated):
            raise InvalidVerdict(f"verdict.json: the {what} does not follow")
    # Relative, so that p-values below any absolute tolerance count too.
    if not math.isclose(stated["p_value"], p_of(stated["log10_p"]), rel_tol=_TOLERANCE):
        raise InvalidVerdict("verdict.json: the corrected p does not follow")


def _check_with_key(
    stated: dict[str, Any],
    claim: Claim,
    key: OwnerKey | ClaimKey,
    measured: Measured,
    estimates: Estimates,
) -> None:
    """Judge the stored statistics once more, and compare the whole verdict."""
    try:
        verdict = judge(
            measured,
            claim,
            claim.mark_key(key),
            stated["false_positive_rate"],
            customer=stated["customer"],
            tests_counted=stated["tests_counted"],
            estimates=estimates,
        )
    except BirthmarkError as error:
        raise InvalidVerdict(f"the statistics give no verdict: {error}") from None
    for name, value in verdict.summary().items():
        if name != "created" and not _same(stated[name], value):
            raise InvalidVerdict(f"verdict.json: {name} does not follow from the owner's key")


def _same(a: Any, b: Any) -> bool:
    """Equal, floats to within the tolerance; ``b`` is ours, ``a`` comes from JSON."""
    if isinstance(b, dict):
        return all(_same(a[name], value) for name, value in b.items())
    if isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=1e-9)
    return bool(a == b)


def _follows(later: str, earlier: str) -> bool:
    """Whether it is a time, and may come after the other."""
    return is_time(later) and in_order(from_time(earlier), from_time(later))
