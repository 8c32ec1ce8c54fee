"""The public record of an owner's keys: which was in use when, what followed it, what was revoked.

A JSON file that anybody may have. Each event is signed (Ed25519) by the key that it is about, a
succession by the new key as well, and each holds the SHA-256 of the event before it, so that
nothing in the middle can be changed or left out. Whether the end was cut off it cannot show: get
it from where the owner cannot change it.

What was marked under an old key still verifies: with the old key file and the old claim. The
history adds whether the claim was made while its key was in use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from birthmark.claim import (
    Claim,
    check_text,
    check_time,
    from_time,
    in_order,
    is_32_bytes,
    to_time,
)
from birthmark.errors import InvalidClaim, InvalidKeyHistory
from birthmark.files import StrPath, write_atomically
from birthmark.keys import OwnerKey

_SIGNED_PREFIX = b"birthmark key event\0"
_MAX_FILE_BYTES = 1 << 20
_KINDS = ("began", "followed", "revoked")


@dataclass(frozen=True)
class KeyEvent:
    """One event in the life of a key.

    Attributes:
        kind: "began" (the first key), "followed" (``key`` was replaced by ``successor``) or
            "revoked" (``key`` is no longer to be trusted, for the ``reason``).
        key: the Ed25519 public key that it is about, hex.
        successor: the new public key, hex; empty otherwise.
        time: UTC, ISO 8601 to the second.
        reason: why it was revoked; empty otherwise.
        before: SHA-256 of the event before it, hex; empty for the first.
        signature: by ``key``, hex.
        successor_signature: by ``successor``, hex; empty otherwise.
    """

    kind: str
    key: str
    successor: str
    time: str
    reason: str
    before: str
    signature: str = ""
    successor_signature: str = ""

    def __post_init__(self) -> None:
        """Check that every field is well-formed. Raises InvalidKeyHistory."""
        if not all(isinstance(getattr(self, f.name), str) for f in fields(self)):
            raise InvalidKeyHistory("key history: a field is no text")
        if self.kind not in _KINDS:
            raise InvalidKeyHistory("key history: an event of an unknown kind")
        if not all(map(is_32_bytes, {self.key, self.successor or self.key})):
            raise InvalidKeyHistory("key history: a public key is not 64 lower-case hex digits")
        if bool(self.successor) != (self.kind == "followed"):
            raise InvalidKeyHistory("key history: a successor where there is none, or none")
        try:
            check_time("key history: time", self.time)
            check_text("key history: reason", self.reason, may_be_empty=self.kind != "revoked")
        except InvalidClaim as error:
            raise InvalidKeyHistory(str(error)) from None

    @property
    def message(self) -> bytes:
        """What is signed: the event without its signatures, in canonical JSON, after a label."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        del values["signature"], values["successor_signature"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return _SIGNED_PREFIX + text.encode()

    @property
    def digest(self) -> str:
        """What the next event holds of this one: SHA-256 of message and signatures, hex."""
        signatures = f"{self.signature}{self.successor_signature}".encode()
        return hashlib.sha256(self.message + b"\0" + signatures).hexdigest()


@dataclass(frozen=True)
class Period:
    """When a key was in use: from ``since`` until ``until`` (None: it still is)."""

    since: str
    until: str | None
    revoked_for: str | None


@dataclass(frozen=True)
class KeyHistory:
    """A whole history; every instance has been checked from its first event to its last."""

    events: tuple[KeyEvent, ...]

    def __post_init__(self) -> None:
        """Check order, chain and signatures. Raises InvalidKeyHistory."""
        if not self.events or self.events[0].kind != "began":
            raise InvalidKeyHistory("key history: it does not begin with a key")
        last: KeyEvent | None = None
        for i, event in enumerate(self.events):
            if event.before != (last.digest if last else ""):
                raise InvalidKeyHistory(
                    f"key history: event {i + 1} does not follow the one before"
                )
            if last and (event.kind == "began" or event.time < last.time):
                raise InvalidKeyHistory(f"key history: event {i + 1} is out of order")
            _check_signature(event.key, event.signature, event.message)
            if event.successor:
                _check_signature(event.successor, event.successor_signature, event.message)
            if last:
                _check_may_follow(self.events[:i], event)
            last = event

    @classmethod
    def begin(cls, key: OwnerKey, time: datetime | None = None) -> KeyHistory:
        """Start a history with the owner's first key."""
        return cls((_signed("began", key, None, "", time, ""),))

    def followed(self, old: OwnerKey, new: OwnerKey, time: datetime | None = None) -> KeyHistory:
        """Record that ``new`` follows ``old``, which signs nothing from now on.

        Raises:
            InvalidKeyHistory: ``old`` is not the key in use, or ``new`` was used before.
        """
        return self._with(_signed("followed", old, new, "", time, self.events[-1].digest))

    def revoked(self, key: OwnerKey, reason: str, time: datetime | None = None) -> KeyHistory:
        """Record that ``key`` is not to be trusted from now on.

        Raises:
            InvalidKeyHistory: ``key`` is not in the history or was revoked, or no reason is given.
        """
        return self._with(_signed("revoked", key, None, reason, time, self.events[-1].digest))

    def period(self, public_key: bytes) -> Period | None:
        """When a key was in use; None if it never was."""
        return _period(self.events, public_key.hex())

    def check(self, claim: Claim) -> Period:
        """Return the period of a claim's key, if the claim was made within it.

        A claim's own date is what its owner says. A stamp shows only that the claim was there when
        it was stamped: whoever has a key after its end can date a claim back, so one that was
        stamped after the end shows nothing of before.

        Raises:
            InvalidKeyHistory: the key is not in the history, or was not in use at that time or at
                that of the claim's stamp.
        """
        period = self.period(claim.public_key)
        if period is None:
            raise InvalidKeyHistory("the claim's key is not in the key history")
        if claim.created < period.since:
            raise InvalidKeyHistory(
                f"the claim was made on {claim.created}, before its key was in use ({period.since})"
            )
        if period.until is not None and claim.created > period.until:
            why = f" (revoked: {period.revoked_for})" if period.revoked_for else ""
            raise InvalidKeyHistory(
                f"the claim was made on {claim.created}, after the end of its key on"
                f" {period.until}{why}"
            )
        stamp, until = claim.stamp_read, period.until
        if until is not None and stamp is not None and not in_order(stamp.time, from_time(until)):
            raise InvalidKeyHistory(
                f"the claim was stamped on {to_time(stamp.time)}, after the end of its key on"
                f" {until}: that it was made before is not shown"
            )
        return period

    @classmethod
    def load(cls, path: StrPath) -> KeyHistory:
        """Read a history and check all of it.

        Raises:
            InvalidKeyHistory: missing, malformed or changed.
        """
        try:
            with open(path, "rb") as stream:
                data = stream.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidKeyHistory(f"{path}: {error.strerror}") from error
        try:
            if len(data) > _MAX_FILE_BYTES:
                raise InvalidKeyHistory("key history: larger than such a file may be")
            history = cls(tuple(KeyEvent(**_event(value)) for value in json.loads(data)["events"]))
            if history.to_bytes() != data:
                raise InvalidKeyHistory("key history: not in the form that birthmark writes")
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidKeyHistory(f"{path}: not a key history") from None
        except InvalidKeyHistory as error:
            raise InvalidKeyHistory(f"{path}: {error}") from None
        return history

    def save(self, path: StrPath) -> None:
        """Write the history atomically, over an older one if there is one. It holds no secret."""
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The history as JSON: the content of the file."""
        events = [{f.name: getattr(e, f.name) for f in fields(e)} for e in self.events]
        text = json.dumps({"events": events}, sort_keys=True, indent=2, ensure_ascii=False)
        return text.encode() + b"\n"

    def _with(self, event: KeyEvent) -> KeyHistory:
        return KeyHistory((*self.events, event))


def _period(events: tuple[KeyEvent, ...], name: str) -> Period | None:
    since = until = reason = None
    for event in events:
        if name == event.successor or (event.kind == "began" and event.key == name):
            since = event.time
        elif event.key == name and event.kind == "followed":
            until = event.time
        elif event.key == name and event.kind == "revoked":
            until, reason = min(until or event.time, event.time), event.reason
    return None if since is None else Period(since, until, reason)


def _check_may_follow(events: tuple[KeyEvent, ...], event: KeyEvent) -> None:
    period = _period(events, event.key)
    if period is None:
        raise InvalidKeyHistory("key history: that key is not in it")
    if period.revoked_for is not None:
        raise InvalidKeyHistory("key history: that key was revoked")
    if event.kind == "followed":
        if period.until is not None:
            raise InvalidKeyHistory("key history: that key already has a successor")
        if _period(events, event.successor) is not None:
            raise InvalidKeyHistory("key history: the successor was used before")


def _event(value: dict[str, Any]) -> dict[str, Any]:
    if set(value) != {f.name for f in fields(KeyEvent)}:
        raise KeyError("fields are missing or foreign")
    return value


def _signed(
    kind: str,
    key: OwnerKey,
    successor: OwnerKey | None,
    reason: str,
    time: datetime | None,
    before: str,
) -> KeyEvent:
    at = to_time(time or datetime.now(UTC))
    new = successor.public_key.hex() if successor else ""
    event = KeyEvent(kind, key.public_key.hex(), new, at, reason, before)
    signature = key.sign(event.message).hex()
    second = successor.sign(event.message).hex() if successor else ""
    return KeyEvent(kind, event.key, new, at, reason, before, signature, second)


def _check_signature(public_key: str, signature: str, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        signer.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        raise InvalidKeyHistory("key history: a signature does not hold") from None
