"""Keys of devices and users, with real signatures, as clients make them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import nacl.public

from crypto import keys, signatures
from crypto.base64 import encode_unpadded

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from tests.client import Client

ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]
USUAL = "signed_curve25519"


def curve25519() -> str:
    """A new Curve25519 public key."""
    return encode_unpadded(bytes(nacl.public.PrivateKey.generate().public_key))


def sign(value: dict[str, Any], user_id: str, key: SigningKey, name: str) -> dict[str, Any]:
    """The object with a signature of this user by this key, which is known as `ed25519:name`."""
    signed = {**value, "signatures": {one: dict(by) for one, by in value.get("signatures", {}).items()}}
    signed["signatures"].setdefault(user_id, {})[f"ed25519:{name}"] = signatures.signature_of(value, key)
    return signed


class Device:
    """The encryption of a device: its identity keys, and one-time keys with growing ids."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ed25519 = keys.generate("device")
        self.curve25519 = curve25519()
        self._numbers = itertools.count()

    @property
    def key_id(self) -> str:
        return f"ed25519:{self.client.device_id}"

    def signed(self, value: dict[str, Any]) -> dict[str, Any]:
        """The object, signed by this device."""
        return sign(value, self.client.user_id, self.ed25519, self.client.device_id)

    def device_keys(self, **changed: Any) -> dict[str, Any]:
        """The device's keys, signed."""
        device_id = self.client.device_id
        return self.signed(
            {
                "user_id": self.client.user_id,
                "device_id": device_id,
                "algorithms": ALGORITHMS,
                "keys": {
                    f"curve25519:{device_id}": self.curve25519,
                    f"ed25519:{device_id}": self.ed25519.public_base64,
                },
                **changed,
            }
        )

    def one_time_keys(self, number: int) -> dict[str, Any]:
        """New one-time keys."""
        return {
            f"{USUAL}:{next(self._numbers):06}": self.signed({"key": curve25519()}) for _ in range(number)
        }

    def fallback_key(self) -> dict[str, Any]:
        """A new fallback key."""
        key = self.signed({"key": curve25519(), "fallback": True})
        return {f"{USUAL}:f{next(self._numbers):06}": key}

    async def upload(self, one_time_keys: int = 0) -> dict[str, Any]:
        """Upload the device's keys and some new one-time keys; the answer is those."""
        new = self.one_time_keys(one_time_keys)
        await self.client.post("/keys/upload", {"device_keys": self.device_keys(), "one_time_keys": new})
        return new


class User:
    """The cross-signing keys of a user."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.master = keys.generate("master")
        self.self_signing = keys.generate("self")
        self.user_signing = keys.generate("user")

    def signed(self, value: dict[str, Any], key: SigningKey, *, name: str | None = None) -> dict[str, Any]:
        """The object, signed by one of the keys."""
        return sign(value, self.client.user_id, key, name or key.public_base64)

    def keys(self) -> dict[str, Any]:
        """The public keys, as they are uploaded."""
        master, self_signing, user_signing = (
            {
                "user_id": self.client.user_id,
                "usage": [usage],
                "keys": {f"ed25519:{key.public_base64}": key.public_base64},
            }
            for usage, key in (
                ("master", self.master),
                ("self_signing", self.self_signing),
                ("user_signing", self.user_signing),
            )
        )
        return {
            "master_key": master,
            "self_signing_key": self.signed(self_signing, self.master),
            "user_signing_key": self.signed(user_signing, self.master),
        }


async def claim(client: Client, *devices: Client, algorithm: str = USUAL) -> dict[str, Any]:
    """What a claim for some devices answers: user -> device -> name -> key."""
    wanted: dict[str, dict[str, str]] = {}
    for device in devices:
        wanted.setdefault(device.user_id, {})[device.device_id] = algorithm
    return (await client.post("/keys/claim", {"one_time_keys": wanted}))["one_time_keys"]


async def claim_one(client: Client, device: Client, algorithm: str = USUAL) -> tuple[str, Any] | None:
    """The name and the key that a claim for one device gives, or None where it gives none."""
    by_device = (await claim(client, device, algorithm=algorithm)).get(device.user_id, {})
    if not by_device:
        return None
    ((name, key),) = by_device[device.device_id].items()
    return name, key


async def query(client: Client, *user_ids: str) -> dict[str, Any]:
    """What a query for all devices of some users answers."""
    return await client.post("/keys/query", {"device_keys": {user_id: [] for user_id in user_ids}})
