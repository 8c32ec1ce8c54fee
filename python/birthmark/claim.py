"""The claim: who owns which model and mark, signed before any suspect exists."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import unicodedata
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birthmark.errors import InvalidClaim, InvalidModel, InvalidPicture
from birthmark.files import StrPath, write_atomically
from birthmark.keys import OwnerKey
from birthmark.picture_headers import picture_size
from birthmark.pictures import decode_picture

VERSION = 1
MAX_FILE_BYTES = 4_000_000
MAX_LOGO_BYTES = 64_000
MAX_LOGO_SIDE_PX = 1024
MAX_TEXT_CHARACTERS = 1000

_SIGNED_PREFIX = b"birthmark claim\0"
_BINARY_FIELDS = ("calibration", "logo", "public_key", "signature")
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Claim:
    """A signed statement of ownership, and the root of the mark's key and payload.

    Every instance has well-formed fields (InvalidClaim otherwise); :meth:`verify` says whether
    its signature holds. The canonical form is JSON (RFC 8259) of all fields but the signature:
    keys sorted, no spaces, UTF-8 unescaped where JSON allows, binary fields in base64 (RFC 4648
    section 4, padded), an absent logo as null. The signature is Ed25519 (RFC 8032) over
    "birthmark claim" + NUL + canonical form.
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
    public_key: bytes = field(repr=False)
    """The owner's Ed25519 public key, 32 bytes."""
    signature: bytes = field(repr=False)
    """64 bytes."""
    logo: bytes | None = field(default=None, repr=False)
    """PNG file of at most MAX_LOGO_BYTES and MAX_LOGO_SIDE_PX a side."""
    contact: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        """Check that each field is well-formed."""
        if type(self.version) is not int or self.version != VERSION:
            raise InvalidClaim(f"claim of version {self.version!r}, not {VERSION}")
        for name in ("owner", "model_name", "code_version", "contact"):
            _check_text(name, getattr(self, name), may_be_empty=name == "contact")
        for name, length in (("public_key", 32), ("signature", 64)):
            value = getattr(self, name)
            if not isinstance(value, bytes) or len(value) != length:
                raise InvalidClaim(f"claim: {name} is not {length} bytes")
        if not isinstance(self.model_sha256, str) or not _HEX_SHA256.fullmatch(self.model_sha256):
            raise InvalidClaim("claim: model_sha256 is not 64 lower-case hex digits")
        if not isinstance(self.calibration, bytes) or not self.calibration:
            raise InvalidClaim("claim: calibration is not bytes, or empty")
        if self.calibration_sha256 != hashlib.sha256(self.calibration).hexdigest():
            raise InvalidClaim("claim: calibration_sha256 is not the hash of the calibration")
        _check_time(self.created)
        if self.logo is not None:
            _check_logo(self.logo)

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

        Raises:
            InvalidClaim: a field is malformed, or the claim would exceed MAX_FILE_BYTES.
            InvalidModel: the model file cannot be read.
        """
        created = created or datetime.now(UTC)
        if created.tzinfo is None:
            raise InvalidClaim("claim: the time of creation has no time zone")
        unsigned = cls(
            owner=owner,
            contact=contact,
            logo=logo,
            model_name=Path(model_path).stem,
            model_sha256=_file_sha256(model_path),
            calibration=calibration,
            calibration_sha256=hashlib.sha256(calibration).hexdigest(),
            created=created.astimezone(UTC).strftime(_TIME_FORMAT),
            code_version=code_version(),
            public_key=key.public_key,
            signature=bytes(64),
        )
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
    def digest(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes: the mark's key and payload derive from it."""
        return hashlib.sha256(self._canonical_form()).digest()

    def payload_bits(self, k: int) -> npt.NDArray[np.int8]:
        """Return the first ``k`` bits of the digest, int8 [k] of 0 and 1, highest bit first."""
        bits = np.unpackbits(np.frombuffer(self.digest, np.uint8))
        if not 0 < k <= len(bits):
            raise ValueError(f"a payload is 1 to {len(bits)} bits, not {k}")
        return bits[:k].astype(np.int8)

    @classmethod
    def _parse(cls, data: bytes) -> Claim:
        if len(data) > MAX_FILE_BYTES:
            raise InvalidClaim(f"claim file larger than {MAX_FILE_BYTES} bytes")
        try:
            values = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise InvalidClaim("not a claim file (UTF-8 JSON)") from None
        if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
            raise InvalidClaim("not a claim file: fields are missing or foreign")
        for name in _BINARY_FIELDS:
            if name != "logo" or values[name] is not None:
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

    def _canonical_form(self) -> bytes:
        values = self._values()
        del values["signature"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8")

    def to_bytes(self) -> bytes:
        """The claim as JSON, one field a line: the content of the file."""
        text = json.dumps(self._values(), sort_keys=True, indent=2, ensure_ascii=False)
        return text.encode("utf-8") + b"\n"

    def _signed_message(self) -> bytes:
        return _SIGNED_PREFIX + self._canonical_form()


def _check_text(name: str, value: object, *, may_be_empty: bool) -> None:
    if not isinstance(value, str) or not (value.strip() or (may_be_empty and not value)):
        raise InvalidClaim(f"claim: {name} is empty or no text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidClaim(f"claim: {name} is longer than {MAX_TEXT_CHARACTERS} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        raise InvalidClaim(f"claim: {name} holds control characters, line breaks or surrogates")


def _check_time(created: object) -> None:
    try:
        well_formed = (
            isinstance(created, str)
            and datetime.strptime(created, _TIME_FORMAT).strftime(_TIME_FORMAT) == created
        )
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidClaim("claim: created is not a UTC time such as 2026-01-31T12:00:00Z")


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
