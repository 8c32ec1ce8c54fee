"""The owner's secrets: a signing key, and a tree of keys for marks under it.

    OwnerKey (signing key, secret)
      ClaimKey       one for each claim, hence for each model; its hash stands in the claim
        MarkKey      of the claim's mark, bound to the whole claim by its digest
          MarkKey    of a customer's or device's mark, by its name

Each step down is HKDF-SHA256 (RFC 5869), which nobody can walk up: whoever is shown one key learns
those below it and no other.

Secrets live in Python memory while in use and cannot be wiped from it; no method writes one
unencrypted, and no repr, message or pickle shows one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from birthmark import shares
from birthmark.errors import (
    InvalidClaim,
    InvalidCustomer,
    InvalidKeyFile,
    InvalidShares,
    OutputExists,
    WrongPassphrase,
)
from birthmark.files import StrPath, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Key file: header | checksum | ChaCha20-Poly1305(seed of Ed25519 | secret), with header | checksum
# as associated data. Header, little-endian: magic, version, log2 of scrypt's N, r, p, salt, nonce.
_HEADER = struct.Struct("<8sBBBB16s12s")
_MAGIC = b"BMOWNKEY"
_VERSION = 1
_CHECKSUM_BYTES = 16
_SECRET_BYTES = 32
_FILE_BYTES = _HEADER.size + _CHECKSUM_BYTES + 2 * _SECRET_BYTES + 16
_SCRYPT_LOG2_N, _SCRYPT_R, _SCRYPT_P = 15, 8, 1
_SCRYPT_MOST = (18, 8, 4)  # at most 256 MiB, a few seconds
_DISCLOSED_PREFIX = "birthmark disclosed claim key "
_DISCLOSED_BYTES = len(_DISCLOSED_PREFIX) + 2 * _SECRET_BYTES + 1
_MAX_CUSTOMER_CHARACTERS = 200


class MarkKey:
    """32 secret bytes that one mark is made of, and the key streams drawn from them.

    Another party who holds the same bytes can recompute every stream: the stream of a ``label``
    is the ChaCha20 key stream (RFC 8439 block function, counter and nonce zero) under the key
    HKDF-SHA256 (RFC 5869, no salt) of the secret with info = "birthmark " + kind + NUL + label
    in UTF-8, where kind names the method: "stream", "signs", "uniforms", "gaussians" or
    "rotation". Distinct labels or kinds give independent streams, and a longer draw begins with
    the shorter one. Floating-point draws agree between machines to a few ulp, not bit for bit.
    """

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key
    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != _SECRET_BYTES:
            raise ValueError(f"a mark key is {_SECRET_BYTES} bytes")
        self._secret = secret

    @classmethod
    def random(cls, seed: bytes | None = None) -> MarkKey:
        """Make a key that belongs to no claim: a decoy. The same ``seed`` gives the same key."""
        if seed is None:
            return cls(os.urandom(_SECRET_BYTES))
        return cls(hashlib.sha256(b"birthmark decoy\0" + seed).digest())

    def stream(self, label: str, n: int) -> bytes:
        """``n`` key-stream bytes for ``label``."""
        return self._stream("stream", label, n)

    def signs(self, label: str, n: int) -> npt.NDArray[np.int8]:
        """Fair signs, int8 [n] of +1 and -1: bit 1 is -1, a byte's lowest bit comes first."""
        packed = np.frombuffer(self._stream("signs", label, (n + 7) // 8), np.uint8)
        bits = np.unpackbits(packed, count=n, bitorder="little")
        return 1 - 2 * bits.astype(np.int8)

    def uniforms(self, label: str, shape: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Float64 in [0, 1) on the grid of 2^-53: little-endian uint64 >> 11, in C order."""
        return self._uniforms("uniforms", label, shape)

    def gaussians(self, label: str, shape: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Independent standard normal float64, in C order, by Box and Muller (1958).

        Of each pair u, v of successive uniforms: sqrt(-2 ln(1 - u)) times cos(2 pi v), then
        times sin(2 pi v).
        """
        return self._gaussians("gaussians", label, shape)

    def rotation(self, label: str, n: int) -> npt.NDArray[np.float64]:
        """Random orthogonal matrix, float64 [n, n], uniform over O(n) (Haar measure).

        Q of the QR decomposition of an n x n matrix of :meth:`gaussians`, each column times the
        sign of R's diagonal entry: Mezzadri, "How to generate random matrices from the classical
        compact groups", Notices AMS 54(5), 2007. The signs make it unique, whatever the QR.
        """
        q, r = np.linalg.qr(self._gaussians("rotation", label, (n, n)))
        return (q * np.where(np.diagonal(r) < 0, -1.0, 1.0)).astype(np.float64, copy=False)

    def customer(self, name: str) -> MarkKey:
        """Derive the key of the mark that one customer (or one device) gets.

        HKDF-SHA256 with info = "birthmark customer" + NUL + the name in UTF-8, NFC-normalised.

        Raises:
            InvalidCustomer: the name is empty, longer than 200 characters, or holds control
                characters or line breaks.
        """
        name = check_customer(name)
        return MarkKey(_hkdf_sha256(self._secret, b"birthmark customer\0" + name.encode()))

    @property
    def tint(self) -> MarkKey:
        """The key of the mark's tint: HKDF-SHA256 with info = "birthmark tint"."""
        return MarkKey(_hkdf_sha256(self._secret, b"birthmark tint"))

    @property
    def id(self) -> bytes:
        """Public name of the mark, 16 bytes: binds whoever states it to this key."""
        return _hkdf_sha256(self._secret, b"birthmark mark id")[:16]

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, MarkKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __repr__(self) -> str:
        """Show nothing of the secret."""
        return "MarkKey(<secret>)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a MarkKey is not pickled: it would be written unencrypted")

    def _stream(self, kind: str, label: str, n: int) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

        info = b"birthmark " + kind.encode() + b"\0" + label.encode()
        key = _hkdf_sha256(self._secret, info)
        return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(n))

    def _uniforms(
        self, kind: str, label: str, shape: int | tuple[int, ...]
    ) -> npt.NDArray[np.float64]:
        words = np.frombuffer(self._stream(kind, label, 8 * int(np.prod(shape))), "<u8")
        return (words >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53

    def _gaussians(
        self, kind: str, label: str, shape: int | tuple[int, ...]
    ) -> npt.NDArray[np.float64]:
        count = int(np.prod(shape))
        pairs = self._uniforms(kind, label, ((count + 1) // 2, 2))
        radius, angle = np.sqrt(-2 * np.log1p(-pairs[:, 0])), 2 * np.pi * pairs[:, 1]
        both = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        return both.reshape(-1)[:count].reshape(shape)


class ClaimKey:
    """The secret of one claim: what the mark's key is made of, together with the claim's digest.

    The claim states its :attr:`commitment`, so that the owner cannot look for another secret later.
    A judge's expert who is given this key (:meth:`save`) can repeat everything about this claim's
    marks, and learns nothing of the owner's other claims or of the signing key.
    """

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key
    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != _SECRET_BYTES:
            raise ValueError(f"a claim key is {_SECRET_BYTES} bytes")
        self._secret = secret

    @property
    def commitment(self) -> bytes:
        """SHA-256 of a label and the secret, 32 bytes."""
        return hashlib.sha256(b"birthmark commitment\0" + self._secret).digest()

    def mark_key(self, claim_digest: bytes) -> MarkKey:
        """Derive the key of the claim's mark from the claim's 32-byte SHA-256 digest.

        HKDF-SHA256 with info = "birthmark mark" + digest: whoever changes the claim has another
        mark.

        Raises:
            InvalidClaim: the digest is not 32 bytes.
        """
        _check_digest(claim_digest)
        return MarkKey(_hkdf_sha256(self._secret, b"birthmark mark" + claim_digest))

    def save(self, path: StrPath) -> None:
        """Write the key *unencrypted* to a new file (mode 0600): to disclose it to an expert.

        Raises:
            OutputExists: ``path`` exists.
            OSError: the file cannot be written.
        """
        text = _DISCLOSED_PREFIX + self._secret.hex() + "\n"
        write_atomically(path, text.encode(), mode=0o600, overwrite=False)

    @classmethod
    def load(cls, path: StrPath) -> ClaimKey:
        """Read what :meth:`save` wrote.

        Raises:
            InvalidKeyFile: missing, or not such a file.
        """
        try:
            with open(path, "rb") as stream:
                data = stream.read(_DISCLOSED_BYTES + 1)
        except OSError as error:
            raise InvalidKeyFile(f"{path}: {error.strerror}") from error
        text = data.decode("ascii", "replace")
        try:
            secret = bytes.fromhex(text.removeprefix(_DISCLOSED_PREFIX))
            whole = cls(secret)
        except ValueError:
            raise InvalidKeyFile(f"{path}: not the disclosed key of a claim") from None
        if text != _DISCLOSED_PREFIX + secret.hex() + "\n":
            raise InvalidKeyFile(f"{path}: not the disclosed key of a claim")
        return whole

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, ClaimKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __repr__(self) -> str:
        """Show the commitment only."""
        return f"ClaimKey(commitment={self.commitment.hex()})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a ClaimKey is not pickled: save() says that it discloses it")


class OwnerKey:
    """The owner's key: an Ed25519 key that signs claims, and a secret that marks derive from.

    It stays with the owner; :meth:`save` is the one way to keep it, encrypted.
    """

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key
    __slots__ = ("_secret", "_signer")

    def __init__(self, signer: Ed25519PrivateKey, secret: bytes) -> None:
        self._signer = signer
        self._secret = secret

    @classmethod
    def generate(cls) -> OwnerKey:
        """Make a new key from the operating system's randomness."""
        return cls._from_seeds(os.urandom(_SECRET_BYTES), os.urandom(_SECRET_BYTES))

    @classmethod
    def load(cls, path: StrPath, passphrase: bytes | str) -> OwnerKey:
        """Read a key file that :meth:`save` wrote.

        Raises:
            InvalidKeyFile: the file is missing, truncated, foreign, of an unknown version, its
                header was changed, or asks for absurd cost.
            WrongPassphrase: it does not open. A wrong passphrase and a changed ciphertext cannot
                be told apart.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        try:
            with open(path, "rb") as stream:
                data = stream.read(_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidKeyFile(f"{path}: {error.strerror}") from error
        if not data.startswith(_MAGIC):
            raise InvalidKeyFile(f"{path}: not an owner's key file")
        if len(data) != _FILE_BYTES:
            raise InvalidKeyFile(f"{path}: key file is truncated or too long")
        header, ciphertext = data[: -2 * _SECRET_BYTES - 16], data[-2 * _SECRET_BYTES - 16 :]
        _, version, log2_n, r, p, salt, nonce = _HEADER.unpack_from(header)
        if version != _VERSION:
            raise InvalidKeyFile(f"{path}: key file of version {version}, not {_VERSION}")
        if header[_HEADER.size :] != _checksum(header[: _HEADER.size]):
            raise InvalidKeyFile(f"{path}: the key file's header was changed")
        if not all(1 <= x <= most for x, most in zip((log2_n, r, p), _SCRYPT_MOST, strict=True)):
            raise InvalidKeyFile(f"{path}: key file with an absurd scrypt cost")
        wrapping_key = _scrypt(passphrase, salt, log2_n, r, p)
        try:
            seeds = ChaCha20Poly1305(wrapping_key).decrypt(nonce, ciphertext, header)
        except InvalidTag:
            raise WrongPassphrase(
                f"{path}: does not open: wrong passphrase, or the file was changed"
            ) from None
        return cls._from_seeds(seeds[:_SECRET_BYTES], seeds[_SECRET_BYTES:])

    def save(self, path: StrPath, passphrase: bytes | str) -> None:
        """Write the key encrypted, to a new file readable by its owner only (mode 0600).

        The passphrase goes through scrypt (RFC 7914; N = 2^15, r = 8, p = 1, stored in the file)
        to a ChaCha20-Poly1305 key (RFC 8439); the header is authenticated along. A passphrase
        given as str is NFKC-normalised and encoded as UTF-8.

        Raises:
            OutputExists: ``path`` exists; a key is never overwritten.
            WrongPassphrase: the passphrase is empty.
            OSError: the file cannot be written.
        """
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        if os.path.lexists(path):
            raise OutputExists(f"{path}: exists; a key is never overwritten")
        salt, nonce = os.urandom(16), os.urandom(12)
        cost = (_SCRYPT_LOG2_N, _SCRYPT_R, _SCRYPT_P)
        header = _HEADER.pack(_MAGIC, _VERSION, *cost, salt, nonce)
        header += _checksum(header)
        seeds = self._signer.private_bytes_raw() + self._secret
        wrapping_key = _scrypt(passphrase, salt, *cost)
        ciphertext = ChaCha20Poly1305(wrapping_key).encrypt(nonce, seeds, header)
        write_atomically(path, header + ciphertext, mode=0o600, overwrite=False)

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes (RFC 8032)."""
        return self._signer.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature of ``message``, 64 bytes (RFC 8032)."""
        return self._signer.sign(message)

    def claim_key(self, draft_digest: bytes) -> ClaimKey:
        """Derive the key of a claim from the digest of all that it states but the commitment.

        HKDF-SHA256 of the owner's secret with info = "birthmark claim" + digest.

        Raises:
            InvalidClaim: the digest is not 32 bytes.
        """
        _check_digest(draft_digest)
        return ClaimKey(_hkdf_sha256(self._secret, b"birthmark claim" + draft_digest))

    def split(self, count: int, needed: int) -> list[str]:
        """Back the key up as ``count`` lines of text of which any ``needed`` give it back.

        Fewer tell nothing about it (:mod:`birthmark.shares`). Each line is worth guarding.

        Raises:
            InvalidShares: not 2 <= needed <= count <= 255.
        """
        return shares.split(self._signer.private_bytes_raw() + self._secret, count, needed)

    @classmethod
    def join(cls, lines: Sequence[str]) -> OwnerKey:
        """Put together what :meth:`split` gave, in any order.

        Raises:
            InvalidShares: too few, damaged, or of different keys.
        """
        seeds = shares.join(lines)
        if len(seeds) != 2 * _SECRET_BYTES:
            raise InvalidShares("the shares are not those of an owner's key")
        return cls._from_seeds(seeds[:_SECRET_BYTES], seeds[_SECRET_BYTES:])

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, OwnerKey):
            return NotImplemented
        mine, theirs = self.public_key + self._secret, other.public_key + other._secret
        return hmac.compare_digest(mine, theirs)

    def __repr__(self) -> str:
        """Show the public key only."""
        return f"OwnerKey(public_key={self.public_key.hex()})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("an OwnerKey is not pickled: save() writes it encrypted")

    @classmethod
    def _from_seeds(cls, signing_seed: bytes, secret: bytes) -> OwnerKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.from_private_bytes(signing_seed), secret)


def check_customer(name: str) -> str:
    """Return a customer's name, NFC-normalised, if it can be one.

    Raises:
        InvalidCustomer: empty, too long, or with control characters or line breaks.
    """
    normal = unicodedata.normalize("NFC", name)
    strange = any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in normal)
    if not normal.strip() or normal != normal.strip() or strange:
        raise InvalidCustomer("a customer's name is one line of text without spaces around it")
    if len(normal) > _MAX_CUSTOMER_CHARACTERS:
        raise InvalidCustomer(
            f"a customer's name has at most {_MAX_CUSTOMER_CHARACTERS} characters"
        )
    return normal


def _check_digest(digest: bytes) -> None:
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidClaim(f"a claim's digest is 32 bytes, not {len(digest)}")


def _hkdf_sha256(secret: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), _SECRET_BYTES, salt=None, info=info).derive(secret)


def _scrypt(passphrase: bytes | str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if isinstance(passphrase, str):
        passphrase = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogatepass")
    if not passphrase:
        raise WrongPassphrase("the passphrase is empty")
    return Scrypt(salt, _SECRET_BYTES, 2**log2_n, r, p).derive(passphrase)


def _checksum(header: bytes) -> bytes:
    """Tell a damaged header from a wrong passphrase; authenticity is the cipher's task."""
    return hashlib.sha256(header).digest()[:_CHECKSUM_BYTES]
