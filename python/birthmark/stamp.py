"""Time stamps: that a digest existed at a time, as an authority signed it (RFC 3161).

A stamp is the authority's whole response, in DER. It is asked for once, over HTTP, and read and
checked offline ever after; ``openssl ts -verify -digest DIGEST -in stamp.tsr -CAfile ca.pem`` says
the same.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from birthmark.errors import InvalidStamp, StampUnavailable
from birthmark.files import StrPath

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_STAMP_BYTES = 100_000
_MOST_REASON_CHARACTERS = 200
_TIMEOUT_S = 30.0
_SHA256_OID = "2.16.840.1.101.3.4.2.1"
_PEM_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """What a time stamp says. Nothing vouches for it until :func:`check_stamp` has.

    Attributes:
        time: UTC, as the authority states it.
        authority: name in the certificate that the stamp brings along, or "".
    """

    time: datetime
    authority: str


def request_stamp(message: bytes, url: str, *, timeout_s: float = _TIMEOUT_S) -> bytes:
    """Ask an authority to stamp the SHA-256 of ``message``; returns its response, DER.

    The authority sees the digest and nothing else.

    Raises:
        StampUnavailable: no such address, no answer in time, or the authority refuses.
        InvalidStamp: the answer is not a stamp over this message.
    """
    import rfc3161_client

    if not url.lower().startswith(("http://", "https://")):
        raise StampUnavailable(f"{url}: not the address of a time-stamping authority (http, https)")
    wanted = (
        rfc3161_client.TimestampRequestBuilder()
        .data(message)
        .hash_algorithm(rfc3161_client.HashAlgorithm.SHA256)
        .build()
    )
    header = {"Content-Type": "application/timestamp-query"}
    try:
        request = urllib.request.Request(url, wanted.as_bytes(), header)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            data: bytes = answer.read(MAX_STAMP_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise StampUnavailable(f"{url}: {reason[:_MOST_REASON_CHARACTERS]}") from None
    response = _decode(data)
    if response.status != rfc3161_client.PKIStatus.GRANTED:
        why = "; ".join(response.status_string) or f"status {response.status}"
        raise StampUnavailable(f"{url}: the authority refuses to stamp: {why}")
    if response.tst_info.nonce != wanted.nonce:
        raise InvalidStamp(f"{url}: the answer belongs to another question (its nonce differs)")
    read_stamp(data, wanted.message_imprint.message)
    return data


def read_stamp(stamp: bytes, digest: bytes) -> Stamp:
    """What a stamp says, if it is over this SHA-256 digest. Its signature is not looked at.

    Raises:
        InvalidStamp: malformed, or over something else.
    """
    response = _decode(stamp)
    try:
        info = response.tst_info
        imprint = info.message_imprint
        hashed_by, message = imprint.hash_algorithm.dotted_string, imprint.message
        time = info.gen_time.astimezone(UTC)
        authority = _signer(response)
    except Exception:  # the decoder raises whatever it trips over
        raise InvalidStamp("it holds no stamp") from None
    if hashed_by != _SHA256_OID or message != digest:
        raise InvalidStamp("it is a stamp over something else")
    return Stamp(time, authority)


def check_stamp(stamp: bytes, digest: bytes, roots: Sequence[Certificate]) -> Stamp:
    """What a stamp says, if it is over this digest and one of these authorities vouches for it.

    Args:
        stamp: the response, DER.
        digest: SHA-256, 32 bytes.
        roots: certificates that the reader trusts; the signer's must lead to one of them. They
            need to have been valid at the time of the stamp, not today.

    Raises:
        InvalidStamp: malformed, over something else, or not signed by a trusted authority.
    """
    import rfc3161_client

    said = read_stamp(stamp, digest)
    builder = rfc3161_client.VerifierBuilder(roots=list(roots))
    try:
        builder.build().verify(_decode(stamp), digest)
    except Exception as error:  # what cryptography says of odd certificates has no common base
        raise InvalidStamp(f"no trusted authority vouches for the stamp: {error}") from None
    return said


def load_certificates(path: StrPath) -> list[Certificate]:
    """Certificates of authorities that the reader trusts, from a PEM file.

    Raises:
        InvalidStamp: missing, or no such file.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        with open(path, "rb") as stream:
            return load_pem_x509_certificates(stream.read(_PEM_MOST_BYTES))
    except OSError as error:
        raise InvalidStamp(f"{path}: {error.strerror}") from error
    except ValueError:
        raise InvalidStamp(f"{path}: no certificates (PEM)") from None


def _decode(data: bytes) -> Any:
    import rfc3161_client

    if len(data) > MAX_STAMP_BYTES:
        raise InvalidStamp(f"larger than {MAX_STAMP_BYTES} bytes")
    try:
        return rfc3161_client.decode_timestamp_response(_with_sorted_certificates(data))
    except Exception:  # both parsers raise whatever they trip over
        raise InvalidStamp("not an RFC 3161 response") from None


def _with_sorted_certificates(response: bytes) -> bytes:
    """The response with the certificates in the order that DER asks of a set (X.690, 11.6).

    OpenSSL, and the authorities built on it, leave them as they come, and a strict decoder refuses
    that. They are in no signature, and sorting them changes no length.
    """
    whole = _elements(response, *_elements(response, 0, len(response))[0][1:])
    if len(whole) == 1:  # a refusal
        return response
    _, token = whole
    content = _elements(response, *token[1:])[1]
    signed_data = _elements(response, *content[1:])[0]
    for tag, start, end in _elements(response, *signed_data[1:]):
        if tag == 0xA0:
            certificates, at = [], start
            for _, _, next_at in _elements(response, start, end):
                certificates.append(response[at:next_at])
                at = next_at
            return response[:start] + b"".join(sorted(certificates)) + response[end:]
    return response


def _elements(data: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Tag, begin and end of the content of each DER element side by side in data[start:end]."""
    elements = []
    while start < end:
        tag, length, start = data[start], data[start + 1], start + 2
        if length >= 0x80:
            digits = length - 0x80
            length, start = int.from_bytes(data[start : start + digits]), start + digits
        elements.append((tag, start, start + length))
        start += length
    if start != end:
        raise ValueError("an element reaches beyond what holds it")
    return elements


def _signer(response: Any) -> str:
    """Name of the certificate that signed, if it was sent along."""
    from cryptography.x509 import load_der_x509_certificate

    signers = {(s.issuer, s.serial_number) for s in response.signed_data.signer_infos}
    for data in response.signed_data.certificates:
        certificate = load_der_x509_certificate(data)
        if (certificate.issuer, certificate.serial_number) in signers:
            return certificate.subject.rfc4514_string()
    return ""
