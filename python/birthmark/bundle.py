"""The verdict bundle: a zip that a third party can check years later, offline.

Members, in this order: ``verdict.json`` (every number and its meaning), ``claim.json`` (as
:meth:`birthmark.Claim.save` writes it), ``statistics.npy`` (int64 [pictures, tones, orbits + 1]),
``estimate.npy`` (float64 [n]), ``regression.npy`` (float64 [tones, orbits, orbits + 1]; informed
verdicts only), ``manifest.json`` (the SHA-256 of each) and ``manifest.sig`` (the owner's Ed25519
signature of the manifest). The container is written in one way only, so that a change of any byte
of it is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim, InvalidVerdict
from birthmark.extract import Regression
from birthmark.files import StrPath, write_atomically
from birthmark.keys import OwnerKey
from birthmark.verdict import (
    Verdict,
    count_decoys_as_good,
    decide,
    log10_p_of_chips,
    log10_p_of_cosine,
    run_tests,
    tests_agree,
)

_SIGNED_PREFIX = b"birthmark verdict\0"
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)
_MAX_MEMBER_BYTES = 1 << 30
_RELATIVE_TOLERANCE = 1e-6

HYPOTHESES = {
    "prosecution": "The suspect was trained on outputs that carry the claim's mark.",
    "defence": "The suspect never saw outputs that carry the claim's mark.",
}
NOT_SAID = (
    "A verdict says that marked outputs were among what the suspect learned from. It does not say"
    " who trained it, when, or whether that was allowed. UNMARKED and UNDECIDED do not say that the"
    " suspect is independent: a mark may be too weak to be seen."
)


@dataclass(frozen=True)
class Rechecked:
    """What :func:`recheck` repeated.

    Attributes:
        summary: the verdict, as ``verdict.json`` holds it.
        repeated: the steps that were done again and gave the same.
        needs_key: the steps that only the owner's key can repeat, and were not.
    """

    summary: dict[str, Any]
    repeated: tuple[str, ...]
    needs_key: tuple[str, ...]


def save(verdict: Verdict, path: StrPath, key: OwnerKey) -> None:
    """Write the bundle of a verdict, signed by the owner's key, atomically.

    Raises:
        InvalidClaim: ``key`` is not the claim's.
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    verdict.claim.verify(key.public_key)
    members = {
        "verdict.json": _json(
            {
                **verdict.summary(),
                "contract_version": _core.CONTRACT_VERSION,
                "code_version": verdict.claim.code_version,
                "hypotheses": HYPOTHESES,
                "not_said": NOT_SAID,
            }
        ),
        "claim.json": verdict.claim.to_bytes(),
        "statistics.npy": _npy(np.stack(verdict.sums).astype("<i8")),
        "estimate.npy": _npy(verdict.estimate.astype("<f8")),
    }
    if verdict.regression is not None:
        both = np.concatenate(
            [verdict.regression.gram, verdict.regression.projection[:, :, None]], axis=2
        )
        members["regression.npy"] = _npy(both.astype("<f8"))
    manifest = _json({name: hashlib.sha256(data).hexdigest() for name, data in members.items()})
    members["manifest.json"] = manifest
    members["manifest.sig"] = key.sign(_SIGNED_PREFIX + manifest)
    write_atomically(path, _pack(members))


def recheck(path: StrPath, key: OwnerKey | None = None) -> Rechecked:
    """Repeat a verdict from its bundle. Returns only if everything holds.

    Without the owner's key: container, hashes, signatures, the estimate from the statistics, the
    p-values from cosine and chips, the decoys, the agreement and the decision. The cosine itself
    needs the secret direction: with ``key`` it is repeated too.

    Raises:
        InvalidVerdict: the bundle is damaged, was changed, or a number does not follow; names what.
    """
    members = _unpack(path)
    try:
        claim = Claim.from_bytes(members["claim.json"])
    except InvalidClaim as error:
        raise InvalidVerdict(f"{path}: claim.json: {error}") from None
    _check_seal(path, members, claim)
    repeated = ["container, hashes and the owner's signature"]
    summary = json.loads(members["verdict.json"])
    if summary["claim_digest"] != claim.digest.hex():
        raise InvalidVerdict(f"{path}: verdict.json: it is about another claim")
    if summary["contract_version"] != _core.CONTRACT_VERSION:
        raise InvalidVerdict(f"{path}: made under another version of the arithmetic contract")
    sums, stored = _array(members["statistics.npy"]), _array(members["estimate.npy"])
    calibration = Calibration.from_bytes(claim.calibration)
    if summary["mode"] == "informed":
        both = _array(members["regression.npy"])
        estimate = Regression(both[:, :, :-1], both[:, :, -1]).read(calibration)
    else:
        estimate = calibration.read(sums.sum(axis=0))
    if not np.allclose(estimate, stored, rtol=_RELATIVE_TOLERANCE, atol=1e-9):
        raise InvalidVerdict(f"{path}: estimate.npy: it does not follow from the statistics")
    repeated.append("the estimate, from the pictures' statistics and the frozen calibration")
    _check_numbers(path, summary, stored)
    repeated += ["p-values of cosine and chips", f"{summary['tests']['decoys']} decoys", "decision"]
    secret = "the cosine with the secret direction, and the matching chips"
    if key is None:
        return Rechecked(summary, tuple(repeated), (secret,))
    claim.verify(key.public_key)
    tests = run_tests(stored, key.mark_key(claim.digest), claim)
    if tests.chips_matched != summary["tests"]["chips_matched"] or not math.isclose(
        tests.cosine, summary["tests"]["cosine"], rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-9
    ):
        raise InvalidVerdict(f"{path}: verdict.json: the cosine does not follow from the key")
    return Rechecked(summary, (*repeated, secret), ())


def _check_seal(path: StrPath, members: dict[str, bytes], claim: Claim) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    manifest = members["manifest.json"]
    try:
        signer = Ed25519PublicKey.from_public_bytes(claim.public_key)
        signer.verify(members["manifest.sig"], _SIGNED_PREFIX + manifest)
    except (InvalidSignature, ValueError):
        raise InvalidVerdict(
            f"{path}: manifest.json or manifest.sig: the owner's signature does not hold"
        ) from None
    hashes = json.loads(manifest)
    for name, data in members.items():
        if name.startswith("manifest."):
            continue
        if hashes.get(name) != hashlib.sha256(data).hexdigest():
            raise InvalidVerdict(f"{path}: {name}: was changed after the verdict was signed")


def _check_numbers(path: StrPath, summary: dict[str, Any], estimate: npt.NDArray[Any]) -> None:
    tests = summary["tests"]
    n, cosine, matched = tests["coordinates"], tests["cosine"], tests["chips_matched"]
    log10_p = log10_p_of_cosine(cosine, n)
    as_good = count_decoys_as_good(estimate, cosine)
    agree = tests_agree(cosine, matched, as_good, n)
    corrected = min(0.0, log10_p + math.log10(summary["tests_counted"]))
    expected = {
        "p of the cosine": (tests["log10_p_cosine"], log10_p),
        "p of the chips": (tests["log10_p_chips"], log10_p_of_chips(matched, n)),
        "corrected p": (summary["log10_p"], corrected),
        "number of decoys as good": (tests["decoys_as_good"], as_good),
        "agreement": (tests["agree"], agree),
    }
    for what, (stated, repeated) in expected.items():
        if not math.isclose(stated, repeated, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-9):
            raise InvalidVerdict(f"{path}: verdict.json: {what} does not follow")
    if summary["decision"] != decide(corrected, agree, summary["false_positive_rate"]):
        raise InvalidVerdict(f"{path}: verdict.json: the decision does not follow")


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _npy(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _pack(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _FIXED_DATE), data)
    return stream.getvalue()


_ORDER = (
    "verdict.json",
    "claim.json",
    "statistics.npy",
    "estimate.npy",
    "regression.npy",
    "manifest.json",
    "manifest.sig",
)


def _unpack(path: StrPath) -> dict[str, bytes]:
    """Read the members; nothing is ever written to disk, so a member's path can do no harm."""
    try:
        with open(path, "rb") as stream:
            whole = stream.read(_MAX_MEMBER_BYTES)
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            names = archive.namelist()
            if names not in ([n for n in _ORDER if n != "regression.npy"], list(_ORDER)):
                raise InvalidVerdict(f"{path}: not a verdict bundle: {', '.join(names[:9])}")
            if sum(info.file_size for info in archive.infolist()) > _MAX_MEMBER_BYTES:
                raise InvalidVerdict(f"{path}: larger than a verdict bundle may be")
            members = {name: archive.read(name) for name in names}
    except OSError as error:
        raise InvalidVerdict(f"{path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise InvalidVerdict(f"{path}: not a whole verdict bundle: {error}") from None
    if _pack(members) != whole:
        raise InvalidVerdict(f"{path}: the zip container was changed")
    return members
