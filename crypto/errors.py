"""What can be wrong with bytes, JSON, keys and signatures."""

from __future__ import annotations


class CryptoError(ValueError):
    """The root of this package's errors."""


class CanonicalJsonError(CryptoError):
    """A value that has no canonical JSON form."""


class KeyFormatError(CryptoError):
    """Text that is not a key, or not a key of a kind that we know."""


class SignatureError(CryptoError):
    """A signature that is absent, malformed or wrong."""
