"""The forms of keys that clients upload (CS "Key algorithms", "Device keys", "Cross-signing")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto import canonical_json
from crypto.base64 import encode_unpadded
from crypto.errors import CanonicalJsonError, CryptoError
from crypto.keys import parse_verify_key
from crypto.signed_keys import signed_part, verify_key_object
from homeserver.errors import BadJson, InvalidParam, MatrixError, TooLarge
from homeserver.storage.one_time_keys import NewKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import DeviceId, UserId

ED25519 = "ed25519"
MAX_KEY_BYTES = 8_192
_MAX_NAME_BYTES = 512
_MAX_SHOWN = 50
MAX_ONE_TIME_KEYS = 500
"""So many a device can have; clients keep fifty to a hundred there."""
MAX_FALLBACK_KEYS = 10


class InvalidSignature(MatrixError):
    """A signature that is absent or wrong."""

    errcode = "M_INVALID_SIGNATURE"


@dataclass(frozen=True, slots=True)
class KeyObject:
    """A key object of a user: what is signed, as a value and in canonical form, and the user's signatures."""

    value: dict[str, Any]
    encoded: bytes
    signatures: dict[str, str]

    def verify(self, user_id: UserId, key_id: str, public_key: str) -> None:
        """Raise `InvalidSignature` unless the user has signed this with a key, which is given in Base64."""
        signed = {**self.value, "signatures": {user_id: self.signatures}}
        try:
            verify_key_object(signed, user_id, key_id, public_key)
        except CryptoError as error:
            raise InvalidSignature(f"There is no right signature by {key_id}") from error


def read_key_object(value: dict[str, Any], user_id: UserId) -> KeyObject:
    """A key object with those of its signatures that are by this user; raises `BadJson` or `TooLarge`."""
    signatures = value.get("signatures", {})
    own = signatures.get(user_id, {}) if isinstance(signatures, dict) else None
    if not isinstance(own, dict) or not all(isinstance(text, str) for text in own.values()):
        raise BadJson("`signatures` is not an object of objects of texts")
    signed = signed_part(value)
    encode({**signed, "signatures": signatures})
    return KeyObject(signed, encode(signed), own)


def read_device_keys(value: dict[str, Any], user_id: UserId, device_id: DeviceId) -> KeyObject:
    """The identity keys of a device, signed by itself; raises `BadJson`, `InvalidParam` or `InvalidSignature`.

    "The JSON object must include the public part of the device's Ed25519 key, and must be signed by that key."
    """
    if value.get("user_id") != user_id or value.get("device_id") != device_id:
        raise InvalidParam("`device_keys` is of another user or device")
    algorithms, keys = value.get("algorithms"), value.get("keys")
    if not isinstance(algorithms, list) or not all(isinstance(one, str) for one in algorithms):
        raise BadJson("`device_keys.algorithms` is not a list of texts")
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise BadJson("`device_keys.keys` is not an object of texts")
    for name in keys:
        algorithm, _, named = name.partition(":")
        if not algorithm or named != device_id:
            raise InvalidParam("A key in `device_keys.keys` is not named `<algorithm>:<device_id>`")
    key_id = f"{ED25519}:{device_id}"
    if key_id not in keys:
        raise InvalidParam(f"`device_keys.keys` has no {ED25519} key")
    read = read_key_object(value, user_id)
    read.verify(user_id, key_id, keys[key_id])
    return read


def read_cross_signing_key(value: dict[str, Any], user_id: UserId, usage: str) -> KeyObject:
    """A cross-signing key, its signatures not yet checked; raises `BadJson`, `InvalidParam` or `TooLarge`."""
    if value.get("user_id") != user_id:
        raise InvalidParam("A cross-signing key is of another user")
    if value.get("usage") != [usage]:
        raise InvalidParam(f"The usage of a key is not `{usage}`")
    keys = value.get("keys")
    if not isinstance(keys, dict) or len(keys) != 1:
        # "The object must have exactly one property"
        raise InvalidParam("`keys` of a cross-signing key is not an object with one key")
    ((name, public_key),) = keys.items()
    if not isinstance(public_key, str) or name != f"{ED25519}:{public_key}":
        raise InvalidParam(f"A cross-signing key is not named `{ED25519}:<unpadded_base64_public_key>`")
    try:
        # Keys are compared as text: there must be one text for each.
        is_unpadded = encode_unpadded(bytes(parse_verify_key(public_key))) == public_key
    except CryptoError as error:
        raise InvalidParam(f"A cross-signing key is no {ED25519} key") from error
    if not is_unpadded:
        raise InvalidParam("A cross-signing key is not in unpadded Base64")
    return read_key_object(value, user_id)


def read_one_time_keys(values: Mapping[str, Any]) -> list[NewKey]:
    """One-time keys in the order in which they stand; raises `BadJson`, `InvalidParam` or `TooLarge`.

    Of algorithms that are not known here any text will do, and any object with a key and signatures. Whether these are
    right is for whoever claims the key to see.
    """
    if len(values) > MAX_ONE_TIME_KEYS:
        raise TooLarge(f"A device can have {MAX_ONE_TIME_KEYS} one-time keys")
    return [_read_one_time_key(name, value) for name, value in values.items()]


def read_fallback_keys(values: Mapping[str, Any]) -> list[NewKey]:
    """Fallback keys, as one-time keys; `InvalidParam` for several of one algorithm."""
    keys = read_one_time_keys(values)
    if len({key.algorithm for key in keys}) < len(keys):
        raise InvalidParam("There are several fallback keys of one algorithm")
    if len(keys) > MAX_FALLBACK_KEYS:
        raise TooLarge(f"There are more than {MAX_FALLBACK_KEYS} fallback keys")
    return keys


def _read_one_time_key(name: str, value: Any) -> NewKey:
    algorithm, _, key_id = name.partition(":")
    if not algorithm or not key_id:
        raise InvalidParam("A key is not named `<algorithm>:<key_id>`")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise TooLarge(f"The name of a key has more than {_MAX_NAME_BYTES} bytes")
    if isinstance(value, dict):
        signatures = value.get("signatures")
        if not isinstance(value.get("key"), str):
            raise BadJson("A key that is an object has no `key`, or it is not text")
        if not isinstance(signatures, dict) or not all(isinstance(by, dict) for by in signatures.values()):
            raise BadJson("A key that is an object has no `signatures`, or they are not objects")
    elif algorithm == "signed_curve25519" or not isinstance(value, str):
        raise BadJson(f"A key of {algorithm[:_MAX_SHOWN]} is not of that form")
    return NewKey(algorithm, key_id, encode(value))


def encode(value: Any) -> bytes:
    """The canonical form of a key; raises `BadJson` where it has none, `TooLarge` where it is absurdly big."""
    try:
        encoded = canonical_json.encode(value)
    except CanonicalJsonError as error:
        raise BadJson(f"A key has no canonical form: {error}") from error
    if len(encoded) > MAX_KEY_BYTES:
        raise TooLarge(f"A key has more than {MAX_KEY_BYTES} bytes")
    return encoded


def public_key_of(value: Mapping[str, Any]) -> str:
    """The public key, in Base64, of a cross-signing key that is well formed."""
    key: str = next(iter(value["keys"].values()))
    return key
