"""Ed25519 keys and the text that they are kept in."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import nacl.exceptions
import nacl.signing

from crypto import base64
from crypto.errors import CryptoError, KeyFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALGORITHM = "ed25519"
_TO_STANDARD = str.maketrans("-_", "+/")
_VERSION = re.compile(r"[a-zA-Z0-9_]+")
_SEED_BYTES = 32
_MAX_TIME_DIGITS = 15
_REMEMBERED = 2_000
"""So many public keys are kept as they were read; each is asked for with every signature that it made."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the version that others know it by."""

    version: str
    private: nacl.signing.SigningKey
    retired_ts: int | None = None
    """From when on it signs nothing any more (milliseconds); what it signed before holds."""

    @property
    def key_id(self) -> str:
        """The key's name in signatures: `ed25519:version`."""
        return f"{_ALGORITHM}:{self.version}"

    @property
    def public_base64(self) -> str:
        """The public half, in unpadded Base64."""
        return base64.encode_unpadded(bytes(self.private.verify_key))

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self.private.sign(message).signature


def generate(version: str) -> SigningKey:
    """A new key."""
    return SigningKey(_checked_version(version), nacl.signing.SigningKey.generate())


def key_from_seed(version: str, seed: bytes) -> SigningKey:
    """The key that grows from 32 secret bytes."""
    if len(seed) != _SEED_BYTES:
        message = f"the seed of a key has {_SEED_BYTES} bytes, not {len(seed)}"
        raise KeyFormatError(message)
    return SigningKey(_checked_version(version), nacl.signing.SigningKey(seed))


def parse_key_file(text: str) -> list[SigningKey]:
    """The keys in a key file: lines of `ed25519 version base64-seed`, the first is the one to sign with.

    A fourth field says when a key was retired, in milliseconds.
    """
    keys: list[SigningKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (3, 4):
            message = f"line {number} is not `ed25519 version seed`"
            raise KeyFormatError(message)
        algorithm, version, seed, *rest = fields
        if algorithm != _ALGORITHM:
            message = f"line {number} has a key of the unknown kind {algorithm!r}"
            raise KeyFormatError(message)
        try:
            key = key_from_seed(version, base64.decode(seed))
            keys.append(replace(key, retired_ts=_time(rest[0])) if rest else key)
        except CryptoError as error:
            message = f"line {number}: {error}"
            raise KeyFormatError(message) from error
    if not keys:
        message = "there is no key in it"
        raise KeyFormatError(message)
    if keys[0].retired_ts is not None:
        message = "its first key, the one to sign with, is retired"
        raise KeyFormatError(message)
    if len({key.version for key in keys}) < len(keys):
        message = "two keys in it have the same version"
        raise KeyFormatError(message)
    return keys


def format_key_file(keys: Sequence[SigningKey]) -> str:
    """The text of a key file."""
    return "".join(
        f"{_ALGORITHM} {key.version} {base64.encode_unpadded(bytes(key.private))}"
        f"{'' if key.retired_ts is None else f' {key.retired_ts}'}\n"
        for key in keys
    )


def replaced(keys: Sequence[SigningKey], new: SigningKey, now_ms: int) -> list[SigningKey]:
    """Keys with a new one to sign with; those that were in use so far are retired now."""
    return [new, *(key if key.retired_ts is not None else replace(key, retired_ts=now_ms) for key in keys)]


@functools.lru_cache(maxsize=_REMEMBERED)
def parse_verify_key(text: str) -> nacl.signing.VerifyKey:
    """A public key from its Base64, in either alphabet; raises `KeyFormatError`."""
    try:
        return nacl.signing.VerifyKey(base64.decode(text.translate(_TO_STANDARD)))
    except (CryptoError, ValueError, nacl.exceptions.CryptoError) as error:
        message = "not an Ed25519 public key"
        raise KeyFormatError(message) from error


def _time(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_TIME_DIGITS):
        message = f"{text!r} is not a time in milliseconds"
        raise KeyFormatError(message)
    return int(text)


def _checked_version(version: str) -> str:
    if _VERSION.fullmatch(version) is None:
        message = f"a key version is made of letters, digits and underscores, not {version!r}"
        raise KeyFormatError(message)
    return version
