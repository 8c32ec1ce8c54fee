"""The verdict bundle: a zip that a third party can check years later, offline.

Members, in this order: ``verdict.json`` (every number and its meaning), ``claim.json`` (as
:meth:`birthmark.Claim.save` writes it), ``statistics.npy`` (int64 [pictures, tones, orbits + 1]),
``estimate.npy`` (float64 [n]), ``inputs.npy`` (as statistics, of the inputs; where a suspect was
asked), ``regression.npy`` and ``own.npy`` (float64 [tones, orbits, orbits + 1]: gram, then
projection; int64 [1, tones, orbits + 1]: the owner's unmarked outputs; informed verdicts only),
``trial.json`` (where a trial was declared), ``manifest.json`` (the SHA-256 of each) and
``manifest.sig`` (the owner's Ed25519 signature of the manifest). There is one way only to write a
bundle, so that a change of any byte of it is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, get_type_hints

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import Claim, code_version, to_time
from birthmark.errors import BirthmarkError, InvalidClaim, InvalidTrial, InvalidVerdict
from birthmark.extract import PictureStatistics, Pool, Regression, extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.geometry import Geometry
from birthmark.keys import ClaimKey, OwnerKey
from birthmark.tails import (
    log10_likelihood_ratio,
    log10_p_of_chips,
    log10_p_of_cosine,
    p_of,
)
from birthmark.trial import Trial
from birthmark.verdict import (
    DECOYS,
    LOG10_KEYS_IN_DOUBT,
    Control,
    Measured,
    PictureEvidence,
    Tests,
    Verdict,
    count_decoys_as_good,
    decide,
    judge,
    payload_hex,
    tests_agree,
)

HYPOTHESES = {
    "prosecution": "The suspect was trained on outputs that carry the claim's mark.",
    "defence": "The suspect never saw outputs that carry the claim's mark.",
}
NOT_SAID = (
    "A verdict says that marked outputs were among what the suspect learned from. It does not say"
    " who trained it, when, or whether that was allowed. UNMARKED and UNDECIDED do not say that the"
    " suspect is independent: a mark may be too weak to be seen."
)
PROTOCOL = (
    "All chance in the p-values is that of the claim's secret key, drawn before the suspect was"
    " seen; nothing is assumed of the pictures.",
    "The calibration was measured on the owner's model before anything was published, and its hash"
    " stands in the signed claim.",
    "Statistics are summed over all pictures before anything is tested; equal pictures count once.",
    "The cosine test decides. Chips and decoys test the same in two other ways and must agree with"
    " it, or there is no verdict.",
    "p is multiplied by the number of hypotheses tried (Bonferroni), each scale and angle that was"
    " tried among them.",
    "A picture that once was an output of the owner's model carries the mark through any model:"
    " what a suspect is asked must be fresh. Each input is read for the mark itself, and one that"
    " carries it voids the test.",
    "The claim's secret was committed to in the claim, so there is one key to each claim. A claim"
    " with a time stamp from before the suspect existed leaves nothing to search for. Who doubts"
    " the date may count 2^64 keys: that p is given too.",
    "A declared trial fixes inputs and number of queries before the suspect is asked; the nonces of"
    " both parties choose the inputs.",
    "The likelihood ratio weighs all strengths of a mark alike (p has density k p^(k-1), k uniform"
    " in 0..1); an innocent suspect reaches R at most once in R cases.",
)

_ORDER = (
    "verdict.json",
    "claim.json",
    "statistics.npy",
    "estimate.npy",
    "inputs.npy",
    "regression.npy",
    "own.npy",
    "trial.json",
    "manifest.json",
    "manifest.sig",
)
_OPTIONAL = {"inputs.npy", "regression.npy", "own.npy", "trial.json"}
_SIGNED_PREFIX = b"birthmark verdict\0"
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)
_MAX_BUNDLE_BYTES = 1 << 30
_MOST_CONTAINER_BYTES = 1 << 16
# Solving the same equations on another machine gives the same to about 1e-13.
_ESTIMATE_TOLERANCE = 1e-9
_TOLERANCE = 1e-6

# What verdict.json holds: a type, a list of one form, a tuple of forms, or a dict of forms.
_FORM: dict[str, Any] = {
    "decision": str,
    "p_value": float,
    "log10_p": float,
    "mode": str,
    "pictures": int,
    "payload": str | None,
    "payload_is_claimed": bool,
    "created": str,
    "tests_counted": int,
    "customer": str | None,
    "log10_likelihood_ratio": float,
    "log10_p_if_date_doubted": float,
    "claim_stamped": str | None,
    "queries_declared": int | None,
    "accused_took_part": bool,
    "asked": [str],
    "geometry": get_type_hints(Geometry),
    "controls": [get_type_hints(Control)],
    "false_positive_rate": float,
    "tests": get_type_hints(Tests),
    "claim_digest": str,
    "calibration_sha256": str,
    "owner": str,
    "model_name": str,
    "model_sha256": str,
    "public_key": str,
    "evidence": [get_type_hints(PictureEvidence)],
    "rejected": [(str, str)],
    "curve": [(int, float)],
    "contract_version": int,
    "code_version": str,
    "extractor_sha256": str,
    "hypotheses": {"prosecution": str, "defence": str},
    "not_said": str,
    "protocol": [str],
}


@dataclass(frozen=True)
class Rechecked:
    """What :func:`recheck` repeated.

    Attributes:
        summary: the verdict, as ``verdict.json`` holds it.
        claim: the claim that it is about.
        repeated: the steps that were done again and gave the same.
        needs_key: the steps that only the owner's key can repeat, and were not.
    """

    summary: dict[str, Any]
    claim: Claim
    repeated: tuple[str, ...]
    needs_key: tuple[str, ...]


def save(verdict: Verdict, path: StrPath, key: OwnerKey) -> None:
    """Write the bundle of a verdict, signed by the owner's key, atomically.

    It holds no secret. The same verdict gives the same bytes.

    Raises:
        InvalidClaim: ``key`` is not the claim's.
        InvalidVerdict: more pictures than a bundle may hold.
        OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
    """
    verdict.claim.verify(key.public_key)
    members = {
        "verdict.json": _json(
            {
                **verdict.summary(),
                "contract_version": _core.CONTRACT_VERSION,
                "code_version": code_version(),
                "extractor_sha256": extractor_sha256(),
                "hypotheses": HYPOTHESES,
                "not_said": NOT_SAID,
                "protocol": PROTOCOL,
            }
        ),
        "claim.json": verdict.claim.to_bytes(),
        "statistics.npy": _npy_of_sums(verdict.measured.pool.pictures),
        "estimate.npy": _npy(verdict.estimate.astype("<f8")),
    }
    measured = verdict.measured
    if measured.inputs:
        members["inputs.npy"] = _npy_of_sums(measured.inputs)
    if measured.regression is not None:
        equations = measured.regression
        both = np.concatenate([equations.gram, equations.projection[:, :, None]], axis=2)
        members["regression.npy"] = _npy(both.astype("<f8"))
    if measured.own is not None:
        members["own.npy"] = _npy(measured.own[None].astype("<i8"))
    if measured.trial is not None:
        members["trial.json"] = measured.trial.to_bytes()
    members["manifest.json"] = _manifest(members)
    members["manifest.sig"] = key.sign(_SIGNED_PREFIX + members["manifest.json"])
    if sum(map(len, members.values())) > _MAX_BUNDLE_BYTES - _MOST_CONTAINER_BYTES:
        raise InvalidVerdict(f"{path}: more pictures than a verdict bundle may hold")
    write_atomically(path, lambda stream: _write(members, stream))


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
            whole = stream.read(_MAX_BUNDLE_BYTES + 1)
        # What a hostile signer's numbers overflow to is found by comparison.
        with np.errstate(all="ignore"):
            return _repeat(_unpack(whole), key)
    except OSError as error:
        raise InvalidVerdict(f"{path}: {error.strerror or error}") from error
    except InvalidVerdict as error:
        raise InvalidVerdict(f"{path}: {error}") from None


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
    measured, estimate = _measured(members, stated, claim, calibration)
    repeated = ["container, hashes and the owner's signatures"]
    if measured.trial is not None:
        repeated.append("the trial's inputs, as both nonces choose them")

    read = _read(measured, calibration)
    size = float(np.linalg.norm(estimate))
    if not (0 < size < math.inf and np.linalg.norm(read - estimate) <= _ESTIMATE_TOLERANCE * size):
        raise InvalidVerdict("estimate.npy: it does not follow from the statistics")
    repeated.append("the estimate, from the pictures' statistics and the frozen calibration")
    _check_numbers(stated, estimate, claim)
    repeated += ["p-values of cosine and chips", f"{DECOYS} decoys, agreement and decision"]
    secret = "cosine with the secret direction, chips, payload, p of single pictures and controls"
    if key is None:
        return Rechecked(stated, claim, tuple(repeated), (secret,))
    _check_with_key(stated, claim, key, measured, estimate)
    return Rechecked(stated, claim, (*repeated, secret), ())


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
    if manifest == _manifest(hashed):
        return
    for name, data in hashed.items():
        if hashlib.sha256(data).hexdigest().encode() not in manifest:
            raise InvalidVerdict(f"{name}: was changed after the verdict was signed")
    raise InvalidVerdict("manifest.json: not in the form that birthmark writes")


def _stated(data: bytes) -> dict[str, Any]:
    """Parse verdict.json; whoever signs a bundle may have put anything there."""
    try:
        stated = json.loads(data)
        canonical = _json(stated)
    except (ValueError, RecursionError):
        raise InvalidVerdict("verdict.json: not JSON (UTF-8, finite numbers)") from None
    if canonical != data or not _has_form(stated, _FORM):
        raise InvalidVerdict("verdict.json: not in the form that birthmark writes")
    if stated["contract_version"] != _core.CONTRACT_VERSION:
        raise InvalidVerdict(
            f"made under version {stated['contract_version']} of the arithmetic contract, and this"
            f" is version {_core.CONTRACT_VERSION}"
        )
    result: dict[str, Any] = stated
    return result


def _has_form(value: Any, form: Any) -> bool:
    if isinstance(form, dict):
        return (
            isinstance(value, dict)
            and value.keys() == form.keys()
            and all(_has_form(value[name], form[name]) for name in form)
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(_has_form(v, form[0]) for v in value)
    if isinstance(form, tuple):
        return (
            isinstance(value, list) and len(value) == len(form) and all(map(_has_form, value, form))
        )
    return isinstance(value, form) and (form is bool or not isinstance(value, bool))


def _check_belongs(stated: dict[str, Any], claim: Claim, calibration: Calibration) -> None:
    """Check verdict.json against the claim, and its numbers' ranges."""
    for name, value in {
        "claim_digest": claim.digest.hex(),
        "calibration_sha256": claim.calibration_sha256,
        "owner": claim.owner,
        "model_name": claim.model_name,
        "model_sha256": claim.model_sha256,
        "public_key": claim.public_key.hex(),
        "claim_stamped": to_time(stamp.time) if (stamp := claim.stamp_read) else None,
    }.items():
        if stated[name] != value:
            raise InvalidVerdict(f"verdict.json: {name} is not the claim's")
    tests, evidence, n = stated["tests"], stated["evidence"], calibration.coordinates
    for what, holds in {
        "mode": stated["mode"] in ("blind", "informed"),
        "pictures": stated["pictures"] == len(evidence) > 0,
        "evidence": len({e["sha256"] for e in evidence}) == len(evidence),
        "false_positive_rate": 0 < stated["false_positive_rate"] <= 0.01,
        "tests_counted": stated["tests_counted"] >= stated["geometry"]["tried"] > 0,
        "coordinates": tests["coordinates"] == n,
        "cosine": abs(tests["cosine"]) <= 1 + _TOLERANCE,
        "chips_matched": 0 <= tests["chips_matched"] <= n,
        "decoys": tests["decoys"] == DECOYS,
        "payload": stated["payload"] is None or stated["decision"] == "MARKED",
        "payload_is_claimed": stated["payload_is_claimed"]
        == (stated["payload"] == payload_hex(claim.payload)),
        "asked": len(set(stated["asked"])) == len(stated["asked"]),
        "input_sha256": bool(stated["asked"]) == any(e["input_sha256"] for e in evidence)
        and {e["input_sha256"] for e in evidence} <= (set(stated["asked"]) or {""}),
        "created": stated["created"] >= claim.created,
    }.items():
        if not holds:
            raise InvalidVerdict(f"verdict.json: {what} cannot be so")


def _measured(
    members: dict[str, bytes], stated: dict[str, Any], claim: Claim, calibration: Calibration
) -> tuple[Measured, FloatArray]:
    """What the verdict was read from, and the stored estimate."""
    tones, orbits = _core.TONES, _core.ORBITS
    estimate = _array(members, "estimate.npy", "<f8", (calibration.coordinates,))
    sums = _array(members, "statistics.npy", "<i8", (stated["pictures"], tones, orbits + 1))
    entries = [
        PictureStatistics(
            e["name"], e["sha256"], e["height_px"], e["width_px"], of_picture, e["input_sha256"]
        )
        for e, of_picture in zip(stated["evidence"], sums, strict=True)
    ]
    pool = Pool(entries, [(name, reason) for name, reason in stated["rejected"]])
    informed, asked = stated["mode"] == "informed", stated["asked"]
    for name, needed in (
        ("regression.npy", informed),
        ("own.npy", informed),
        ("inputs.npy", bool(asked)),
        ("trial.json", stated["queries_declared"] is not None),
    ):
        if needed != (name in members):
            raise InvalidVerdict(f"{name}: missing, or there where verdict.json has no need of it")
    inputs: tuple[PictureStatistics, ...] = ()
    if asked:
        of_inputs = _array(members, "inputs.npy", "<i8", (len(asked), tones, orbits + 1))
        inputs = tuple(
            PictureStatistics(f"input {i + 1}", digest, 0, 0, of_input)
            for i, (digest, of_input) in enumerate(zip(asked, of_inputs, strict=True))
        )
    trial = _trial(members["trial.json"], stated, claim) if "trial.json" in members else None
    if trial is None and stated["accused_took_part"]:
        raise InvalidVerdict("verdict.json: accused_took_part cannot be so")
    if not informed:
        geometry = Geometry(**stated["geometry"])
        return Measured(pool, None, inputs, None, trial, geometry), estimate
    both = _array(members, "regression.npy", "<f8", (tones, orbits, orbits + 1))
    own = _array(members, "own.npy", "<i8", (1, tones, orbits + 1))[0]
    return Measured(pool, Regression(both[:, :, :-1], both[:, :, -1]), inputs, own, trial), estimate


def _trial(data: bytes, stated: dict[str, Any], claim: Claim) -> Trial:
    try:
        trial = Trial.from_bytes(data)
        trial.check(claim)
        chosen = list(trial.chosen())
    except InvalidTrial as error:
        raise InvalidVerdict(f"trial.json: {error}") from None
    for what, holds in {
        "mode": trial.mode == stated["mode"],
        "queries_declared": trial.queries == stated["queries_declared"],
        "accused_took_part": bool(trial.accused_nonce) == stated["accused_took_part"],
        "asked": chosen == stated["asked"],
        "created": trial.created <= stated["created"],
    }.items():
        if not holds:
            raise InvalidVerdict(f"verdict.json: {what} is not as the trial declared")
    return trial


def _read(measured: Measured, calibration: Calibration) -> FloatArray:
    try:
        return measured.estimate(calibration)
    except (BirthmarkError, np.linalg.LinAlgError) as error:
        raise InvalidVerdict(f"the statistics give no estimate: {error}") from None


def _check_numbers(stated: dict[str, Any], estimate: FloatArray, claim: Claim) -> None:
    """Repeat every number that follows from the estimate, the cosine and the matched chips."""
    tests = stated["tests"]
    n, cosine, matched = tests["coordinates"], tests["cosine"], tests["chips_matched"]
    log10_p = log10_p_of_cosine(cosine, n)
    as_good = count_decoys_as_good(estimate, cosine)
    agree = tests_agree(cosine, matched, as_good, n)
    corrected = min(0.0, log10_p + math.log10(stated["tests_counted"]))
    rate = stated["false_positive_rate"]
    decision = decide(corrected, agree, rate, claim.log10_unmarked_above)
    for what, value, repeated in (
        ("p of the cosine", tests["log10_p_cosine"], log10_p),
        ("p of the chips", tests["log10_p_chips"], log10_p_of_chips(matched, n)),
        ("number of decoys as good", tests["decoys_as_good"], as_good),
        ("agreement", tests["agree"], agree),
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
    estimate: FloatArray,
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
            estimate=estimate,
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


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _manifest(members: dict[str, bytes]) -> bytes:
    return _json({name: hashlib.sha256(data).hexdigest() for name, data in members.items()})


def _npy_of_sums(pictures: Sequence[PictureStatistics]) -> bytes:
    """All sums as one array, int64 [pictures, tones, orbits + 1], without a copy of them all."""
    stream = io.BytesIO()
    shape = (len(pictures), *pictures[0].sums.shape)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<i8", "fortran_order": False, "shape": shape}
    )
    for picture in pictures:
        stream.write(picture.sums.astype("<i8").tobytes())
    return stream.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _array(
    members: dict[str, bytes], name: str, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Read a member that must hold finite numbers of this dtype and shape, and nothing else."""
    data, count = members[name], math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if len(data) <= size:
        raise InvalidVerdict(f"{name}: shorter than an array of {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, count, len(data) - size).reshape(shape)
    if data != _npy(array):
        raise InvalidVerdict(f"{name}: not an array of {dtype} {list(shape)}")
    if not np.isfinite(array).all():
        raise InvalidVerdict(f"{name}: holds NaN or Inf")
    return array


def _pack(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    _write(members, stream)
    return stream.getvalue()


def _write(members: dict[str, bytes], stream: BinaryIO) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def _unpack(whole: bytes) -> dict[str, bytes]:
    """Read the members. Nothing is written to disk, so a member's path can do no harm."""
    if len(whole) > _MAX_BUNDLE_BYTES:
        raise InvalidVerdict("larger than a verdict bundle may be")
    try:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            wanted = [n for n in _ORDER if n in names or n not in _OPTIONAL]
            if names != wanted:
                raise InvalidVerdict(f"not a verdict bundle, by its members: {_shown(names)}")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise InvalidVerdict("not a verdict bundle: its members are compressed")
            members = {name: archive.read(name) for name in names}
    except InvalidVerdict:
        raise
    except Exception as error:  # zipfile raises whatever its parser trips over
        reason = str(error) or "it ends too early"
        raise InvalidVerdict(f"not a whole verdict bundle: {reason}") from None
    packed = _pack(members)
    if packed != whole:
        _blame(whole, packed, entries)
    return members


def _blame(whole: bytes, packed: bytes, entries: Sequence[zipfile.ZipInfo]) -> NoReturn:
    """Name the member at the first byte that differs from what :func:`save` writes."""
    pairs = enumerate(zip(whole, packed, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(whole), len(packed)))
    before = [entry.filename for entry in entries if entry.header_offset <= place]
    where = before[-1] if before else "its beginning"
    raise InvalidVerdict(f"the zip container was changed at byte {place}, in or after {where}")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:9]) or "none"
