"""Sealing of bytes under a secret text: only who brings the text again can read them."""

from __future__ import annotations

import hashlib

import nacl.secret

_KEY_BYTES = nacl.secret.SecretBox.KEY_SIZE


def seal(data: bytes, secret: str) -> bytes:
    """The bytes, encrypted and authenticated; `secret` must be unguessable, as session ids are."""
    return bytes(_box(secret).encrypt(data))


def unseal(sealed: bytes, secret: str) -> bytes:
    """The bytes that were sealed under this secret; raises `nacl.exceptions.CryptoError` for another one."""
    return _box(secret).decrypt(sealed)


def _box(secret: str) -> nacl.secret.SecretBox:
    key = hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES, person=b"sealing")
    return nacl.secret.SecretBox(key.digest())
