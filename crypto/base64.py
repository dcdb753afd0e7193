"""Unpadded Base64 (Appendices, "Unpadded Base64"), in the standard and the URL-safe alphabet."""

from __future__ import annotations

import base64
import binascii

from crypto.errors import CryptoError


def encode_unpadded(data: bytes) -> str:
    """Bytes as Base64 without `=`."""
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


def encode_unpadded_urlsafe(data: bytes) -> str:
    """Bytes as Base64 without `=`, with `-` and `_` for `+` and `/`."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Bytes from Base64, padded or not; raises `CryptoError`."""
    return _decode(text, None)


def decode_urlsafe(text: str) -> bytes:
    """Bytes from URL-safe Base64, padded or not; raises `CryptoError`."""
    return _decode(text, b"-_")


def _decode(text: str, altchars: bytes | None) -> bytes:
    stripped = text.rstrip("=")
    try:
        return base64.b64decode(stripped + "=" * (-len(stripped) % 4), altchars=altchars, validate=True)
    except (binascii.Error, ValueError) as error:
        message = "not Base64"
        raise CryptoError(message) from error
