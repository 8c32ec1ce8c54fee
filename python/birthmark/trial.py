"""A trial: how often a suspect will be asked what, declared and signed before it is asked.

The owner declares whose mark he will look for, at which false-positive rate, how many tests he will
count, the inputs that may be asked, how many of them will be, and the commitment of a number
(nonce) of his own. Then the accused adds a nonce. Both together choose the inputs, so neither side
picks them, and nobody asks on, or for another customer's mark, until the numbers please. The
verdict reveals the owner's nonce; :func:`birthmark.recheck` repeats the choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime

from birthmark.claim import Claim, check_time, is_32_bytes, to_time
from birthmark.errors import InvalidClaim, InvalidCustomer, InvalidTrial
from birthmark.files import StrPath, write_atomically
from birthmark.keys import MarkKey, OwnerKey, check_customer

MOST_INPUTS = 100_000
MOST_REFERENCES = 8
MOST_TESTS = 10**12
NONCE_BYTES = 32
_MAX_FILE_BYTES = 1 << 24
_SIGNED_PREFIX = b"birthmark trial\0"
_ADDED_LATER = ("signature", "accused_nonce", "owner_nonce")


@dataclass(frozen=True)
class Trial:
    """A declared trial. Every instance has well-formed fields (InvalidTrial otherwise).

    Attributes:
        claim_digest: of the claim that is tried, 64 hex digits.
        mode: "blind" or "informed".
        customer: whose mark will be looked for; empty for the claim's own.
        tests_counted: how many hypotheses are tried on the suspect, this one included; p is
            multiplied by it.
        false_positive_rate: at most this often is an innocent suspect called MARKED, 0 to .01.
        queries: how many of the inputs will be asked.
        references: SHA-256 of the models that will be asked beside suspect and owner's model, in
            order; none in a blind trial.
        inputs: SHA-256 of the pixels of each input that may be asked
            (:func:`birthmark.extract.pixels_sha256`), sorted.
        created: UTC, ISO 8601 to the second.
        owner_commitment: SHA-256 of a label and the owner's nonce, hex.
        signature: Ed25519, the owner's, over all of the above.
        accused_nonce: 64 hex digits; empty while (or if) the accused takes no part.
        owner_nonce: 64 hex digits; empty until the verdict.
    """

    claim_digest: str
    mode: str
    customer: str
    tests_counted: int
    false_positive_rate: float
    references: tuple[str, ...]
    queries: int
    inputs: tuple[str, ...] = field(repr=False)
    created: str
    owner_commitment: str
    signature: str = field(default="", repr=False)
    accused_nonce: str = ""
    owner_nonce: str = ""

    def __post_init__(self) -> None:
        """Check that each field is well-formed."""
        needed = (self.claim_digest, self.owner_commitment, *self.references, *self.inputs)
        nonces = [n for n in (self.accused_nonce, self.owner_nonce) if n != ""]
        for text in (*needed, *nonces):
            if not is_32_bytes(text):
                raise InvalidTrial("trial: a hash or nonce is not 64 lower-case hex digits")
        if not (isinstance(self.signature, str) and isinstance(self.customer, str)):
            raise InvalidTrial("trial: the signature or the customer's name is no text")
        if list(self.inputs) != sorted(set(self.inputs)) or len(self.inputs) > MOST_INPUTS:
            raise InvalidTrial(
                f"trial: inputs are not sorted, different, and at most {MOST_INPUTS}"
            )
        if type(self.queries) is not int or not 0 < self.queries <= len(self.inputs):
            raise InvalidTrial("trial: queries are 1 at least, and as many as inputs at most")
        if self.mode not in ("blind", "informed"):
            raise InvalidTrial("trial: it is neither blind nor informed")
        most = MOST_REFERENCES if self.mode == "informed" else 0
        if not len(set(self.references)) == len(self.references) <= most:
            raise InvalidTrial(
                f"trial: references are different, {MOST_REFERENCES} at most, none in a blind one"
            )
        if type(self.tests_counted) is not int or not 0 < self.tests_counted <= MOST_TESTS:
            raise InvalidTrial(f"trial: 1 to {MOST_TESTS} tests can be counted")
        if type(self.false_positive_rate) is not float or not 0 < self.false_positive_rate <= 0.01:
            raise InvalidTrial("trial: a false-positive rate is above 0 and at most .01")
        try:
            if self.customer != "" and check_customer(self.customer) != self.customer:
                raise InvalidTrial("trial: the customer's name is not NFC-normalised")
            check_time("trial: created", self.created)
        except (InvalidClaim, InvalidCustomer) as error:
            raise InvalidTrial(str(error)) from None
        if self.owner_nonce and _commitment(self.owner_nonce) != self.owner_commitment:
            raise InvalidTrial("trial: the owner's nonce is not the one that he committed to")

    @classmethod
    def declare(
        cls,
        key: OwnerKey,
        claim: Claim,
        inputs: Iterable[str],
        queries: int,
        *,
        informed: bool = False,
        references: Iterable[str] = (),
        customer: str | None = None,
        tests_counted: int = 1,
        false_positive_rate: float | None = None,
        created: datetime | None = None,
    ) -> Trial:
        """Declare and sign a trial.

        Args:
            key: the owner's key.
            claim: the claim to try.
            inputs: SHA-256 of the pixels of each input that may be asked, hex.
            queries: how many of them will be.
            informed: whether the answers will be compared with the owner's model.
            references: SHA-256 of the references that will be asked, hex, in order.
            customer: whose mark will be looked for; by default, the claim's own.
            tests_counted: how many hypotheses are tried on the suspect, this one included.
            false_positive_rate: above 0 and at most .01; by default what the claim states.
            created: an aware time; now by default.

        Raises:
            InvalidClaim: the claim is not this key's.
            InvalidCustomer: the customer's name cannot be one.
            InvalidTrial: no such number of queries or tests, no such rate, too many inputs or
                references, or the claimed model as a reference.
        """
        references = tuple(references)
        if claim.model_sha256 in references:
            raise InvalidTrial("trial: the claimed model itself is no reference")
        if created is not None and created.tzinfo is None:
            raise InvalidTrial("trial: the time has no time zone")
        rate = claim.false_positive_rate if false_positive_rate is None else false_positive_rate
        draft = cls(
            claim_digest=claim.digest.hex(),
            mode="informed" if informed else "blind",
            customer="" if customer is None else check_customer(customer),
            tests_counted=tests_counted,
            false_positive_rate=rate,
            references=references,
            queries=queries,
            inputs=tuple(sorted(set(inputs))),
            created=to_time(created or datetime.now(UTC)),
            owner_commitment="0" * 64,
        )
        nonce = draft._derive_nonce(claim.mark_key(key))
        draft = replace(draft, owner_commitment=_commitment(nonce))
        return replace(draft, signature=key.sign(draft._signed_message()).hex())

    def joined(self, nonce: bytes) -> Trial:
        """The trial with the accused's nonce, 32 bytes.

        Raises:
            InvalidTrial: not 32 bytes, or the accused has joined before.
        """
        if len(nonce) != NONCE_BYTES:
            raise InvalidTrial(f"a nonce is {NONCE_BYTES} bytes")
        if self.accused_nonce:
            raise InvalidTrial("the accused has joined this trial before")
        return replace(self, accused_nonce=nonce.hex())

    def revealed(self, key: MarkKey) -> Trial:
        """The trial with the owner's nonce, which derives from the claim's mark key.

        Raises:
            InvalidTrial: the key is not the one that it was declared with.
        """
        return replace(self, owner_nonce=self._derive_nonce(key))

    def check(self, claim: Claim) -> None:
        """Return if the owner of ``claim`` declared it for that claim, else raise.

        Raises:
            InvalidTrial: another claim's, or changed after it was signed.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if self.claim_digest != claim.digest.hex():
            raise InvalidTrial("the trial is about another claim")
        try:
            signer = Ed25519PublicKey.from_public_bytes(claim.public_key)
            signer.verify(bytes.fromhex(self.signature), self._signed_message())
        except (InvalidSignature, ValueError):
            raise InvalidTrial("the trial's signature does not hold: it was changed") from None

    def chosen(self) -> tuple[str, ...]:
        """The inputs to be asked, in order: those first by SHA-256 of both nonces and the input.

        Raises:
            InvalidTrial: the owner's nonce has not been revealed.
        """
        if not self.owner_nonce:
            raise InvalidTrial("the owner's nonce has not been revealed")
        nonces = bytes.fromhex(self.owner_nonce + self.accused_nonce)

        def rank(digest: str) -> bytes:
            return hashlib.sha256(b"birthmark query\0" + nonces + bytes.fromhex(digest)).digest()

        return tuple(sorted(self.inputs, key=rank)[: self.queries])

    @classmethod
    def load(cls, path: StrPath) -> Trial:
        """Read a trial file; :meth:`check` says whether it holds.

        Raises:
            InvalidTrial: missing or malformed.
        """
        try:
            with open(path, "rb") as stream:
                return cls.from_bytes(stream.read(_MAX_FILE_BYTES + 1))
        except OSError as error:
            raise InvalidTrial(f"{path}: {error.strerror}") from error
        except InvalidTrial as error:
            raise InvalidTrial(f"{path}: {error}") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> Trial:
        """Read what :meth:`to_bytes` gave.

        Raises:
            InvalidTrial: malformed, or not in the form that birthmark writes.
        """
        try:
            values = json.loads(data.decode("utf-8")) if len(data) <= _MAX_FILE_BYTES else None
            if not isinstance(values, dict) or set(values) != {f.name for f in fields(cls)}:
                raise InvalidTrial("not a trial: fields are missing or foreign")
            for name in ("references", "inputs"):
                values[name] = tuple(values[name])
            trial = cls(**values)
        except (ValueError, TypeError, RecursionError):
            raise InvalidTrial("not a trial (UTF-8 JSON)") from None
        if trial.to_bytes() != data:
            raise InvalidTrial("trial: not in the form that birthmark writes")
        return trial

    def save(self, path: StrPath) -> None:
        """Write the trial as JSON, atomically, to a new file.

        Raises:
            OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
        """
        write_atomically(path, self.to_bytes(), overwrite=False)

    def to_bytes(self) -> bytes:
        """The trial as JSON: the content of the file."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values, sort_keys=True, indent=1).encode() + b"\n"

    def _signed_message(self) -> bytes:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _ADDED_LATER:
            del values[name]
        return _SIGNED_PREFIX + json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    def _derive_nonce(self, key: MarkKey) -> str:
        """From the mark's key and what is declared, so that the owner need not keep it."""
        draft = replace(self, owner_commitment="0" * 64, owner_nonce="")
        label = "trial " + hashlib.sha256(draft._signed_message()).hexdigest()
        return key.stream(label, NONCE_BYTES).hex()


def _commitment(nonce: str) -> str:
    return hashlib.sha256(b"birthmark nonce\0" + bytes.fromhex(nonce)).hexdigest()
