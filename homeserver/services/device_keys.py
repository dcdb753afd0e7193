"""The upload of a device's keys (CS "Uploading keys")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import InvalidParam, UnknownToken
from homeserver.services.key_objects import (
    ED25519,
    InvalidSignature,
    public_key_of,
    read_device_keys,
    read_fallback_keys,
    read_one_time_keys,
)
from homeserver.storage.cross_signing import SELF_SIGNING
from homeserver.storage.key_signatures import KeySignature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import DeviceId, UserId
    from homeserver.services.key_objects import KeyObject
    from homeserver.services.one_time_keys import OneTimeKeys
    from homeserver.services.requester import Requester
    from homeserver.storage.cross_signing import CrossSigningStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.device_keys import DeviceKeyStore
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.key_signatures import KeySignatureStore
    from homeserver.storage.one_time_keys import NewKey, OneTimeKeyStore

_IDENTITY = (ED25519, "curve25519")


@dataclass(frozen=True, slots=True)
class KeyUpload:
    """Keys of a device that are well formed, and signed by it where they have to be."""

    user_id: UserId
    device_id: DeviceId
    device_keys: KeyObject | None
    one_time_keys: list[NewKey]
    fallback_keys: list[NewKey]

    @classmethod
    def read(
        cls,
        user_id: UserId,
        device_id: DeviceId,
        device_keys: dict[str, Any] | None,
        one_time_keys: Mapping[str, Any],
        fallback_keys: Mapping[str, Any],
    ) -> KeyUpload:
        """Raises `BadJson`, `InvalidParam`, `InvalidSignature` or `TooLarge` for what is not."""
        return cls(
            user_id,
            device_id,
            None if device_keys is None else read_device_keys(device_keys, user_id, device_id),
            read_one_time_keys(one_time_keys),
            read_fallback_keys(fallback_keys),
        )


class DeviceKeys:
    """Takes the keys of devices."""

    def __init__(
        self,
        database: Database,
        devices: DeviceStore,
        store: DeviceKeyStore,
        signatures: KeySignatureStore,
        cross_signing: CrossSigningStore,
        one_time_key_store: OneTimeKeyStore,
        one_time_keys: OneTimeKeys,
        device_lists: DeviceListStore,
    ) -> None:
        self._database = database
        self._devices = devices
        self._store = store
        self._signatures = signatures
        self._cross_signing = cross_signing
        self._one_time_key_store = one_time_key_store
        self._one_time_keys = one_time_keys
        self._device_lists = device_lists

    async def upload(
        self,
        requester: Requester,
        device_keys: dict[str, Any] | None,
        one_time_keys: Mapping[str, Any],
        fallback_keys: Mapping[str, Any],
    ) -> dict[str, int]:
        """Store keys of the device that asks, all or none; the answer is how many one-time keys it has then.

        Raises `BadJson`, `InvalidParam`, `InvalidSignature` or `TooLarge` for keys that are not well formed, and
        `InvalidParam` for a one-time key with the name of another one.
        """
        user_id, device_id = requester.user_id, requester.device_id
        if device_id is None:
            raise InvalidParam("There is no device that keys could belong to")
        new = KeyUpload.read(user_id, device_id, device_keys, one_time_keys, fallback_keys)
        if new.device_keys is None and not new.one_time_keys and not new.fallback_keys:
            return await self._one_time_keys.counts(user_id, device_id)

        async def work(transaction: Transaction) -> dict[str, int]:
            if not await self._devices.exists(transaction, user_id, device_id):
                # It was deleted since the request came in.
                raise UnknownToken("Unknown access token")
            return await self.upload_in(transaction, new)

        return await self._database.write(work)

    async def upload_in(self, transaction: Transaction, new: KeyUpload) -> dict[str, int]:
        """Store keys of a device that there is inside a larger write; the answer and errors are those of `upload`."""
        if new.device_keys is not None:
            await self.set_in(transaction, new.user_id, new.device_id, new.device_keys)
        return await self._one_time_keys.add_in(
            transaction, (new.user_id, new.device_id), new.one_time_keys, new.fallback_keys
        )

    async def has_in(self, transaction: Transaction, new: KeyUpload) -> bool:
        """Whether a device has these identity keys already."""
        assert new.device_keys is not None
        return await self._store.get(new.user_id, new.device_id, transaction) == new.device_keys.encoded

    async def set_in(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, keys: KeyObject
    ) -> None:
        """Store the identity keys of a device inside a larger write, and tell of it where they are new."""
        own = (await self._cross_signing.load([user_id], transaction)).get(user_id, {})
        self_signing = public_key_of(orjson.loads(own[SELF_SIGNING])) if SELF_SIGNING in own else None
        stored = await self._store.get(user_id, device_id, transaction)
        changed = stored != keys.encoded
        if changed:
            if stored is not None:
                await self._forget(transaction, user_id, device_id, orjson.loads(stored), keys.value)
            await self._store.set(transaction, user_id, device_id, keys.encoded)
        added = await self._signatures.add(
            transaction,
            [
                KeySignature(user_id, device_id, key_id, keys.signatures[key_id])
                for key_id in self._right_signatures(keys, user_id, device_id, self_signing)
            ],
        )
        if changed or added:
            await self._device_lists.note_change(transaction, user_id, [device_id])

    async def _forget(
        self,
        transaction: Transaction,
        user_id: UserId,
        device_id: DeviceId,
        old: dict[str, Any],
        new: dict[str, Any],
    ) -> None:
        """What was signed by or over keys that a device no longer has."""
        await self._signatures.forget_signed(transaction, user_id, device_id)
        if any(
            old["keys"].get(f"{algorithm}:{device_id}") != new["keys"].get(f"{algorithm}:{device_id}")
            for algorithm in _IDENTITY
        ):
            await self._signatures.forget_keys(transaction, user_id, [device_id])
            await self._one_time_key_store.delete_of_devices(transaction, user_id, [device_id])

    @staticmethod
    def _right_signatures(
        keys: KeyObject, user_id: UserId, device_id: DeviceId, self_signing: str | None
    ) -> list[str]:
        """The names of the keys whose signatures are kept: the device's own, and the self-signing key."""
        right = [f"{ED25519}:{device_id}"]
        key_id = f"{ED25519}:{self_signing}"
        if self_signing is not None and key_id in keys.signatures:
            try:
                keys.verify(user_id, key_id, self_signing)
            except InvalidSignature:
                return right
            right.append(key_id)
        return right
