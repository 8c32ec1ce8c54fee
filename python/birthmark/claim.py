"""The claim: who owns which model and mark, signed before any suspect exists."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import unicodedata
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark import emblem as emblems
from birthmark.errors import InvalidClaim, InvalidModel, InvalidPicture, InvalidStamp
from birthmark.extract import extractor_sha256
from birthmark.files import StrPath, write_atomically
from birthmark.keys import ClaimKey, MarkKey, OwnerKey
from birthmark.picture_headers import picture_size
from birthmark.pictures import decode_picture

if TYPE_CHECKING:
    from birthmark.stamp import Stamp

VERSION = 4
MAX_FILE_BYTES = 4_000_000
MAX_LOGO_BYTES = 64_000
MAX_LOGO_SIDE_PX = 1024
MAX_TEXT_CHARACTERS = 1000
MAX_DRAWS = 1 << 16
EMBLEM_ROWS = 8

_RANGES = (
    ("contract_version", 1, 1000),
    ("log10_false_positive_rate", -12, -2),
    ("log10_unmarked_above", -6, 0),
    ("draw", 1, MAX_DRAWS),
    ("draws", 1, MAX_DRAWS),
)

_SIGNED_PREFIX = b"birthmark claim\0"
_BINARY_FIELDS = ("calibration", "logo", "public_key", "signature", "stamp")
_UNSIGNED_FIELDS = ("signature", "stamp")
# How far an owner's clock may be ahead of an authority's, or of the verifier's.
_CLOCK_ERROR = timedelta(days=1)
_HEX_32_BYTES = re.compile("[0-9a-f]{64}")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Claim:
    """A signed statement of ownership, and the root of the mark's key.

    Every instance has well-formed fields (InvalidClaim otherwise); :meth:`verify` says whether
    its signature holds. The canonical form is JSON (RFC 8259) of all fields but the signature and
    the time stamp: keys sorted, no spaces, UTF-8 unescaped where JSON allows, binary fields in
    base64 (RFC 4648 section 4, padded), an absent logo as null. The signature is Ed25519 (RFC 8032)
    over "birthmark claim" + NUL + canonical form.

    One claim has one mark. Its secret comes from the owner's secret and from everything that the
    claim states; the claim states the secret's :attr:`commitment`; and the mark's key comes from
    that secret and the claim's digest. So an owner cannot look, afterwards, for a secret, a date or
    a spelling whose mark fits somebody's pictures: it would be another claim, with a later stamp.
    That some claims were drawn beforehand is stated, and counted.
    """

    owner: str
    model_name: str
    model_sha256: str
    """SHA-256 of the owner's model file, 64 lower-case hex digits."""
    calibration: bytes = field(repr=False)
    """The frozen calibration of the extractor; opaque here."""
    calibration_sha256: str
    created: str
    """UTC, ISO 8601 to the second: 2026-01-31T12:00:00Z."""
    code_version: str
    """Version of birthmark that made the claim."""
    extractor_sha256: str
    """Of the code that reads marks (:func:`birthmark.extract.extractor_sha256`)."""
    contract_version: int
    """Of the arithmetic of mark and statistics."""
    emblem: str
    """The picture that the mark carries (:mod:`birthmark.emblem`): 4 to 16 hex digits, a row each.
    Drawn from the logo, or from the public key."""
    log10_false_positive_rate: int
    """The threshold of MARKED, as a power of ten: -6 is one false alarm in a million."""
    log10_unmarked_above: int
    """A suspect whose p-value exceeds this power of ten is UNMARKED."""
    draw: int
    """Which of these claims it is, from 1 on."""
    draws: int
    """How many claims, each with a mark of its own, the owner made to keep one of them
    (:func:`birthmark.claim_model`). Verdicts multiply p by it."""
    commitment: str
    """Of the claim's secret (:attr:`birthmark.keys.ClaimKey.commitment`), 64 hex digits."""
    public_key: bytes = field(repr=False)
    """The owner's Ed25519 public key, 32 bytes."""
    signature: bytes = field(repr=False)
    """64 bytes."""
    logo: bytes | None = field(default=None, repr=False)
    """PNG file of at most MAX_LOGO_BYTES and MAX_LOGO_SIDE_PX a side."""
    contact: str = ""
    stamp: bytes | None = field(default=None, repr=False)
    """RFC 3161 response of a time-stamping authority over :attr:`digest`; unsigned by the owner."""
    version: int = VERSION

    def __post_init__(self) -> None:
        """Check that each field is well-formed."""
        if type(self.version) is not int or self.version != VERSION:
            raise InvalidClaim(f"claim of version {self.version!r}, not {VERSION}")
        for name in ("owner", "model_name", "code_version", "contact"):
            check_text(f"claim: {name}", getattr(self, name), may_be_empty=name == "contact")
        for name, length in (("public_key", 32), ("signature", 64)):
            value = getattr(self, name)
            if not isinstance(value, bytes) or len(value) != length:
                raise InvalidClaim(f"claim: {name} is not {length} bytes")
        for name in ("model_sha256", "extractor_sha256", "commitment"):
            value = getattr(self, name)
            if not is_32_bytes(value):
                raise InvalidClaim(f"claim: {name} is not 64 lower-case hex digits")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InvalidClaim(f"claim: {name} is no whole number from {least} to {most}")
        if self.log10_false_positive_rate > self.log10_unmarked_above:
            raise InvalidClaim("claim: a p-value could be both MARKED and UNMARKED")
        if self.draw > self.draws:
            raise InvalidClaim("claim: its draw is not one of those counted")
        if not isinstance(self.calibration, bytes) or not self.calibration:
            raise InvalidClaim("claim: calibration is not bytes, or empty")
        if self.calibration_sha256 != hashlib.sha256(self.calibration).hexdigest():
            raise InvalidClaim("claim: calibration_sha256 is not the hash of the calibration")
        emblems.check_emblem(self.emblem)
        check_time("claim: created", self.created)
        if self.logo is not None:
            _check_logo(self.logo)
        if self.stamp is not None:
            self._check_stamp(self.stamp)

    @classmethod
    def create(
        cls,
        key: OwnerKey,
        owner: str,
        model_path: StrPath,
        calibration: bytes,
        logo: bytes | None = None,
        contact: str = "",
        created: datetime | None = None,
        log10_false_positive_rate: int = -6,
        draw: int = 1,
        draws: int = 1,
        emblem_rows: int = EMBLEM_ROWS,
    ) -> Claim:
        """Make and sign a claim for the model file at ``model_path``.

        Args:
            key: the owner's key.
            owner: the name to stand in the claim.
            model_path: the owner's model; its SHA-256 and file stem go into the claim.
            calibration: frozen calibration of the extractor.
            logo: a PNG file's bytes, at most MAX_LOGO_BYTES.
            contact: how to reach the owner; may be empty.
            created: an aware time; now by default. Fractions of a second are dropped.
            log10_false_positive_rate: the threshold that verdicts on this claim will use.
            draw: which of the claims among which the owner chooses; each has another mark.
            draws: how many these are.
            emblem_rows: rows of the emblem, 4 to 16; the mark carries four bits for each.

        Raises:
            InvalidClaim: a field is malformed, or the claim would exceed MAX_FILE_BYTES.
            InvalidModel: the model file cannot be read.
        """
        created = created or datetime.now(UTC)
        if created.tzinfo is None:
            raise InvalidClaim("claim: the time of creation has no time zone")
        if logo is not None:
            _check_logo(logo)
        draft = cls(
            owner=owner,
            contact=contact,
            logo=logo,
            model_name=Path(model_path).stem,
            model_sha256=_file_sha256(model_path),
            calibration=calibration,
            calibration_sha256=hashlib.sha256(calibration).hexdigest(),
            created=to_time(created),
            code_version=code_version(),
            extractor_sha256=extractor_sha256(),
            contract_version=_core.CONTRACT_VERSION,
            emblem=emblems.make(logo, key.public_key, emblem_rows),
            log10_false_positive_rate=log10_false_positive_rate,
            log10_unmarked_above=-3,
            draw=draw,
            draws=draws,
            commitment="0" * 64,
            public_key=key.public_key,
            signature=bytes(64),
        )
        secret = key.claim_key(draft._draft_digest)
        unsigned = replace(draft, commitment=secret.commitment.hex())
        claim = replace(unsigned, signature=key.sign(unsigned._signed_message()))
        if len(claim.to_bytes()) > MAX_FILE_BYTES:
            raise InvalidClaim(f"claim: larger than {MAX_FILE_BYTES} bytes")
        return claim

    @classmethod
    def load(cls, path: StrPath) -> Claim:
        """Read a claim file and verify its signature.

        The file must be byte for byte what :meth:`save` writes, so that no change of it, were it
        a space, goes unnoticed.

        Raises:
            InvalidClaim: the file is missing, too large, no claim, or was changed.
        """
        try:
            with open(path, "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidClaim(f"{path}: {error.strerror}") from error
        try:
            return cls.from_bytes(data)
        except InvalidClaim as error:
            raise InvalidClaim(f"{path}: {error}") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> Claim:
        """Read what :meth:`to_bytes` gave, and verify the signature; see :meth:`load`.

        Raises:
            InvalidClaim: too large, no claim, or changed.
        """
        claim = cls._parse(data)
        claim.verify()
        return claim

    def save(self, path: StrPath) -> None:
        """Write the claim as JSON, one field a line, atomically. It holds no secret.

        Raises:
            OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
        """
        write_atomically(path, self.to_bytes())

    def verify(self, public_key: bytes | None = None) -> None:
        """Return if the signature holds (and is by ``public_key``, where given), else raise.

        Without ``public_key`` this proves only that the claim is whole and was signed by the key
        that it names; that the key is the owner's must be known from elsewhere.

        Raises:
            InvalidClaim: the signature does not hold, or the claim is by another key.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if public_key is not None and public_key != self.public_key:
            raise InvalidClaim("the claim is signed by another key than the one given")
        try:
            signer = Ed25519PublicKey.from_public_bytes(self.public_key)
            signer.verify(self.signature, self._signed_message())
        except (InvalidSignature, ValueError):
            raise InvalidClaim("the claim's signature does not hold: it was changed") from None

    @property
    def false_positive_rate(self) -> float:
        """At most this often is an innocent suspect called MARKED: the claim's threshold."""
        return 10.0**self.log10_false_positive_rate

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes: the mark's key derives from it."""
        return hashlib.sha256(self.canonical_form()).digest()

    def claim_key(self, key: OwnerKey) -> ClaimKey:
        """The claim's secret, derived from its owner's key.

        Raises:
            InvalidClaim: the claim is another owner's, was changed, or states the commitment of
                another secret.
        """
        self.verify(key.public_key)
        secret = key.claim_key(self._draft_digest)
        self._check_commitment(secret)
        return secret

    def mark_key(self, key: OwnerKey | ClaimKey, customer: str | None = None) -> MarkKey:
        """The key of the claim's mark, from the owner's key or from the claim's disclosed secret.

        Where a customer is named, that of his mark (:meth:`birthmark.keys.MarkKey.customer`).

        Raises:
            InvalidClaim: as :meth:`claim_key`; or the disclosed secret is not the one committed to.
            InvalidCustomer: the customer's name cannot be one.
        """
        secret = self.claim_key(key) if isinstance(key, OwnerKey) else key
        self._check_commitment(secret)
        mark_key = secret.mark_key(self.digest)
        return mark_key if customer is None else mark_key.customer(customer)

    def stamped(self, stamp: bytes) -> Claim:
        """The same claim with a time stamp (RFC 3161 response, DER) over its digest.

        Raises:
            InvalidClaim: the stamp is malformed, is over something else, or says a time more than
                a day before the claim was made.
        """
        return replace(self, stamp=stamp)

    @property
    def stamp_read(self) -> Stamp | None:
        """What the time stamp says; None without one. Whether to trust it: check_stamp."""
        from birthmark.stamp import read_stamp

        return None if self.stamp is None else read_stamp(self.stamp, self.digest)

    def check_date(self, now: datetime | None = None) -> None:
        """Return if the claim was made before ``now`` (by this machine's clock), else raise.

        Raises:
            InvalidClaim: it is from the future, by more than a day.
        """
        if not in_order(from_time(self.created), now or datetime.now(UTC)):
            raise InvalidClaim(f"the claim is from the future: {self.created}")

    def _check_stamp(self, stamp: object) -> None:
        from birthmark.stamp import read_stamp

        try:
            if not isinstance(stamp, bytes):
                raise InvalidStamp("not bytes")
            self.check_date(read_stamp(stamp, self.digest).time)
        except InvalidStamp as error:
            raise InvalidClaim(f"claim: the time stamp does not hold: {error}") from None
        except InvalidClaim:
            raise InvalidClaim("claim: it was stamped before the date that it states") from None

    def _check_commitment(self, secret: ClaimKey) -> None:
        if secret.commitment.hex() != self.commitment:
            raise InvalidClaim("the claim was not made with this secret (its commitment differs)")

    @property
    def _draft_digest(self) -> bytes:
        """SHA-256 of the canonical form with a commitment of zeros: what the secret comes from."""
        return hashlib.sha256(self.canonical_form(commitment="0" * 64)).digest()

    @property
    def payload(self) -> npt.NDArray[np.int8]:
        """What the mark carries: the emblem's bits, int8 [4 rows] of 0 and 1."""
        return emblems.to_bits(self.emblem)

    @classmethod
    def _parse(cls, data: bytes) -> Claim:
        if len(data) > MAX_FILE_BYTES:
            raise InvalidClaim(f"claim file larger than {MAX_FILE_BYTES} bytes")
        try:
            values = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise InvalidClaim("not a claim file (UTF-8 JSON)") from None
        if isinstance(values, dict) and values.get("version", VERSION) != VERSION:
            raise InvalidClaim(
                f"claim of version {_shown(values['version'])}, and this birthmark reads version"
                f" {VERSION}: use the birthmark that made it, or make a new claim"
            )
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
            raise InvalidClaim("not a claim file: fields are missing or foreign")
        for name in _BINARY_FIELDS:
            if name not in ("logo", "stamp") or values[name] is not None:
                values[name] = _from_base64(name, values[name])
        claim = cls(**values)
        if claim.to_bytes() != data:
            raise InvalidClaim("claim file was changed (it is not in canonical form)")
        return claim

    def _values(self) -> dict[str, Any]:
        """All fields as JSON holds them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _BINARY_FIELDS:
            if values[name] is not None:
                values[name] = base64.b64encode(values[name]).decode()
        return values

    def canonical_form(self, **changes: Any) -> bytes:
        """What is signed and stamped, as bytes (see the class); with ``changes`` to text fields."""
        values = self._values() | changes
        for name in _UNSIGNED_FIELDS:
            del values[name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8")

    def to_bytes(self) -> bytes:
        """The claim as JSON, one field a line: the content of the file."""
        text = json.dumps(self._values(), sort_keys=True, indent=2, ensure_ascii=False)
        return text.encode("utf-8") + b"\n"

    def _signed_message(self) -> bytes:
        return _SIGNED_PREFIX + self.canonical_form()


def check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    """Return if ``value`` is one line of text of at most MAX_TEXT_CHARACTERS.

    Raises:
        InvalidClaim: it is not; the message begins with ``name``.
    """
    if not isinstance(value, str) or not (value.strip() or (may_be_empty and not value)):
        raise InvalidClaim(f"{name} is empty or no text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidClaim(f"{name} is longer than {MAX_TEXT_CHARACTERS} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        raise InvalidClaim(f"{name} holds control characters, line breaks or surrogates")


def to_time(time: datetime) -> str:
    """A time as claims state it: UTC, ISO 8601 to the second."""
    return time.astimezone(UTC).strftime(_TIME_FORMAT)


def is_32_bytes(text: object) -> bool:
    """Whether it is 32 bytes as 64 lower-case hex digits: a SHA-256, a public key or a nonce."""
    return isinstance(text, str) and _HEX_32_BYTES.fullmatch(text) is not None


def is_time(text: object) -> bool:
    """Whether it is a time as :func:`to_time` writes it."""
    try:
        return isinstance(text, str) and from_time(text).strftime(_TIME_FORMAT) == text
    except ValueError:
        return False


def from_time(text: str) -> datetime:
    """A time as :func:`to_time` writes it, read."""
    return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)


def in_order(earlier: datetime, later: datetime) -> bool:
    """Whether two times may be in this order, if clocks are wrong by at most a day."""
    return earlier - later <= _CLOCK_ERROR


def check_time(name: str, created: object) -> None:
    """Return if ``created`` is a time as :func:`to_time` writes it.

    Raises:
        InvalidClaim: it is not; the message begins with ``name``.
    """
    if not is_time(created):
        raise InvalidClaim(f"{name} is not a UTC time such as 2026-01-31T12:00:00Z")


def _check_logo(logo: object) -> None:
    if not isinstance(logo, bytes) or not logo.startswith(b"\x89PNG"):
        raise InvalidClaim("claim: the logo is not a PNG file")
    if len(logo) > MAX_LOGO_BYTES:
        raise InvalidClaim(f"claim: the logo is larger than {MAX_LOGO_BYTES} bytes")
    try:
        if max(picture_size(logo)) > MAX_LOGO_SIDE_PX:
            raise InvalidClaim(f"claim: a side of the logo exceeds {MAX_LOGO_SIDE_PX} px")
        decode_picture(logo, "the logo")
    except (InvalidPicture, ValueError) as error:
        raise InvalidClaim(f"claim: the logo is no picture: {error}") from None


def _shown(value: object) -> str:
    return str(value)[:20]


def _from_base64(name: str, value: object) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise InvalidClaim(f"claim: {name} is not base64")


def _file_sha256(path: StrPath) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InvalidModel(f"{os.fspath(path)}: {error.strerror}") from error


def code_version() -> str:
    """Version of this package, or "not installed"."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("birthmark")
    except PackageNotFoundError:
        return "not installed"
