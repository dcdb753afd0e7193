"""Cross-signing keys of users: uploaded and replaced (CS "Cross-signing")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import Forbidden, InvalidParam, MissingParam, UnknownToken
from homeserver.ids import DeviceId
from homeserver.services.key_objects import (
    ED25519,
    public_key_of,
    read_cross_signing_key,
)
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING, USAGES, USER_SIGNING
from homeserver.storage.key_signatures import KeySignature
from homeserver.storage.outgoing_devices import CROSS_SIGNING_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import UserId
    from homeserver.services.key_objects import KeyObject
    from homeserver.services.requester import Requester
    from homeserver.storage.cross_signing import CrossSigningStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.device_keys import DeviceKeyStore
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.key_signatures import KeySignatureStore


class CrossSigning:
    """Takes the cross-signing keys of users."""

    def __init__(
        self,
        database: Database,
        devices: DeviceStore,
        device_keys: DeviceKeyStore,
        store: CrossSigningStore,
        signatures: KeySignatureStore,
        device_lists: DeviceListStore,
    ) -> None:
        self._database = database
        self._devices = devices
        self._device_keys = device_keys
        self._store = store
        self._signatures = signatures
        self._device_lists = device_lists

    async def upload(self, requester: Requester, keys: Mapping[str, dict[str, Any]], *, proved: bool) -> bool:
        """Store the keys of the user who asks, by usage, all or none; False where that takes a proof first.

        "User-Interactive Authentication MUST be performed", unless there is no master key yet, or the one that there is
        comes again, and with it nothing that is new.

        Raises `BadJson`, `InvalidParam`, `InvalidSignature` or `TooLarge` for keys that are not well formed,
        `MissingParam` where there is no master key, and `Forbidden` for one that has the name of a device.
        """
        user_id, device_id = requester.user_id, requester.device_id
        new = {usage: read_cross_signing_key(key, user_id, usage) for usage, key in keys.items()}

        async def work(transaction: Transaction) -> bool:
            if device_id is not None and not await self._devices.exists(transaction, user_id, device_id):
                # It was deleted since the request came in.
                raise UnknownToken("Unknown access token")
            stored = (await self._store.load([user_id], transaction)).get(user_id, {})
            changed = {usage: key for usage, key in new.items() if stored.get(usage) != key.encoded}
            if MASTER in stored and not proved and (changed or MASTER not in new):
                return False
            await self._set_in(transaction, user_id, stored, new, changed)
            return True

        return await self._database.write(work)

    async def _set_in(
        self,
        transaction: Transaction,
        user_id: UserId,
        stored: Mapping[str, bytes],
        new: Mapping[str, KeyObject],
        changed: Mapping[str, KeyObject],
    ) -> None:
        before = {usage: public_key_of(orjson.loads(key)) for usage, key in stored.items()}
        after = {**before, **{usage: public_key_of(key.value) for usage, key in new.items()}}
        if MASTER not in after:
            raise MissingParam("There is no master signing key")
        if after[MASTER] != before.get(MASTER):
            # Who has a new master key has no other keys but those that it has signed.
            after = {usage: public_key for usage, public_key in after.items() if usage in new}
        if len(set(after.values())) < len(after):
            raise InvalidParam("One key is given for several usages")
        for usage in changed:
            if await self._devices.exists(transaction, user_id, DeviceId(after[usage])):
                raise Forbidden("The public key of one of the keys is a device id")
        signatures = [
            signature
            for usage, key in new.items()
            for signature in await self._verified(transaction, user_id, usage, key, after)
        ]
        gone = {usage for usage, public_key in before.items() if after.get(usage) != public_key}
        await self._signatures.forget_keys(transaction, user_id, [before[usage] for usage in gone])
        for usage in changed.keys() - gone:
            await self._signatures.forget_signed(transaction, user_id, after[usage])
        await self._store.delete(transaction, user_id, before.keys() - after.keys())
        await self._store.set(
            transaction, user_id, {usage: (after[usage], key.encoded) for usage, key in changed.items()}
        )
        if await self._signatures.add(transaction, signatures) or changed:
            await self._device_lists.note_change(transaction, user_id, [CROSS_SIGNING_KEYS])

    async def _verified(
        self,
        transaction: Transaction,
        user_id: UserId,
        usage: str,
        key: KeyObject,
        public_keys: Mapping[str, str],
    ) -> list[KeySignature]:
        """The signatures to be kept of a key: that of the master key, and on this those of the user's devices.

        Those of keys that are unknown are passed over; raises `InvalidSignature` for one that is wrong.
        """
        signers = {f"{ED25519}:{public_keys[MASTER]}": public_keys[MASTER]}
        if usage in (SELF_SIGNING, USER_SIGNING):
            # "Must be signed by" the master key.
            key.verify(user_id, *next(iter(signers.items())))
        elif key.signatures.keys() - signers.keys():
            for device in await self._device_keys.load([user_id], transaction):
                key_id = f"{ED25519}:{device.device_id}"
                signers[key_id] = orjson.loads(device.keys)["keys"][key_id]
        kept = []
        for key_id, signature in key.signatures.items():
            if key_id in signers:
                key.verify(user_id, key_id, signers[key_id])
                kept.append(KeySignature(user_id, public_keys[usage], key_id, signature))
        return kept

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop the keys of a user, with all that they signed and that was signed of them."""
        had_keys = user_id in await self._store.load([user_id], transaction)
        await self._store.delete(transaction, user_id, USAGES)
        await self._signatures.delete_of_user(transaction, user_id)
        if had_keys:
            await self._device_lists.note_change(transaction, user_id, [CROSS_SIGNING_KEYS])
