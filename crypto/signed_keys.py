"""Signed key objects: keys of devices and of users, as JSON (CS "Key Distribution", "Cross-signing")."""

from __future__ import annotations

from typing import Any

from crypto import canonical_json
from crypto.keys import parse_verify_key
from crypto.signatures import verify_json

_UNSIGNED = ("signatures", "unsigned")


def signed_part(value: dict[str, Any]) -> dict[str, Any]:
    """What a signature is over: the object without `signatures` and `unsigned`."""
    return {name: part for name, part in value.items() if name not in _UNSIGNED}


def verify_key_object(value: dict[str, Any], user_id: str, key_id: str, public_key: str) -> None:
    """Raise a `CryptoError` unless the object carries a right signature of this user by this key, in Base64."""
    verify_json(value, user_id, key_id, parse_verify_key(public_key), encode=canonical_json.encode)
