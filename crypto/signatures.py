"""Signing JSON and checking signatures (Appendices, "Signing JSON")."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nacl.exceptions
import nacl.signing

from crypto import base64, canonical_json
from crypto.errors import CryptoError, SignatureError

if TYPE_CHECKING:
    from crypto.keys import SigningKey

Encoder = Callable[[Any], bytes]
"""How the object is written; old events have a form of their own (`canonical_json.encode_historical`)."""

_UNSIGNED = ("signatures", "unsigned")


def signature_of(
    value: dict[str, Any], key: SigningKey, *, encode: Encoder = canonical_json.encode_unchecked
) -> str:
    """The signature over a JSON object, its `signatures` and `unsigned` left out, in Base64."""
    return base64.encode_unpadded(key.sign(_signed_bytes(value, encode)))


def sign_json(value: dict[str, Any], entity: str, key: SigningKey) -> dict[str, Any]:
    """A copy of the object with this signature among its `signatures`."""
    signatures = {name: dict(by_key) for name, by_key in value.get("signatures", {}).items()}
    signatures.setdefault(entity, {})[key.key_id] = signature_of(value, key)
    return {**value, "signatures": signatures}


def verify_json(
    value: dict[str, Any],
    entity: str,
    key_id: str,
    verify_key: nacl.signing.VerifyKey,
    *,
    encode: Encoder = canonical_json.encode_unchecked,
) -> None:
    """Raise `SignatureError` unless the object carries a right signature of this entity by this key."""
    try:
        text = value["signatures"][entity][key_id]
    except (KeyError, TypeError) as error:
        message = f"no signature of {entity} by {key_id}"
        raise SignatureError(message) from error
    if not isinstance(text, str):
        message = f"the signature of {entity} by {key_id} is not text"
        raise SignatureError(message)
    try:
        verify_key.verify(_signed_bytes(value, encode), base64.decode(text))
    except (CryptoError, ValueError, nacl.exceptions.CryptoError) as error:
        message = f"the signature of {entity} by {key_id} is wrong"
        raise SignatureError(message) from error


def _signed_bytes(value: dict[str, Any], encode: Encoder) -> bytes:
    return encode({name: part for name, part in value.items() if name not in _UNSIGNED})
