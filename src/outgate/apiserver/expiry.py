"""When a certificate or a token ends: the few bytes of each that say so. Neither is verified; the server does that."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime

import msgspec

_SEQUENCE, _EXPLICIT_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class Claims(msgspec.Struct, frozen=True):
    """What outgate reads of a JSON web token. Times are seconds since 1970."""

    sub: str = ""
    iat: float = 0.0
    exp: float = 0.0


def claims_of(token: str) -> Claims | None:
    """Return the claims of a token; None: it is no JSON web token and keeps its end to itself."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(text, type=Claims)
    except (ValueError, msgspec.DecodeError):
        return None


def certificate_ends_s(pem: bytes) -> float | None:
    """Return the notAfter of the first certificate in a PEM text in seconds since 1970; None: there is none to read.

    X.509 (RFC 5280, 4.1): certificate, its signed part, there the validity behind version, serial number, algorithm and
    issuer; in it the later of two times.
    """
    start = pem.find(b"-----BEGIN CERTIFICATE-----")
    end = pem.find(b"-----END CERTIFICATE-----", start)
    if start < 0 or end < 0:
        return None
    try:
        der = ssl.PEM_cert_to_DER_cert(pem[start:end].decode() + "-----END CERTIFICATE-----\n")
        _, certificate, _ = _element(der)
        _, rest, _ = _element(certificate)
        if rest[0] == _EXPLICIT_VERSION:
            _, _, rest = _element(rest)
        for _ in range(3):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, after = _element(validity)
        kind, text, _ = _element(after)
        form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}[kind]
        return datetime.strptime(text.decode(), form).replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError, KeyError):
        return None


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and the content of the first element, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    if len(der) < start + length:
        raise ValueError("cut off")
    return der[0], der[start : start + length], der[start + length :]
