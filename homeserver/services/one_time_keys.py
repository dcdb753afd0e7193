"""One-time keys: uploaded, and each given out once (CS "One-time and fallback keys").

A key that was claimed is remembered for a while: a client whose upload was answered by nobody uploads the same keys
again, and must not have one of them given out twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from crypto.canonical_json import encode_unchecked
from crypto.hashes import sha256
from crypto.signed_keys import signed_part
from homeserver.errors import InvalidParam, TooLarge
from homeserver.ids import DeviceId, UserId, is_user_id, server_name_of
from homeserver.services.key_objects import MAX_FALLBACK_KEYS, MAX_ONE_TIME_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import ServerName
    from homeserver.services.remote_keys.claims import RemoteClaims
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.one_time_keys import Device, NewKey, OneTimeKeyStore, TakenKey

MAX_REMEMBERED = 500
"""So many claimed keys of a device are remembered."""
MAX_CLAIMED = 5_000
"""So many keys one request can ask for,"""
MAX_ALGORITHMS = 10
"""of so many algorithms; clients know one."""
USUAL_ALGORITHM = "signed_curve25519"


class OneTimeKeys:
    """What devices and their correspondents do with one-time keys."""

    def __init__(
        self, server_name: ServerName, database: Database, store: OneTimeKeyStore, remote: RemoteClaims
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._store = store
        self._remote = remote

    async def counts(self, user_id: UserId, device_id: DeviceId) -> dict[str, int]:
        """How many keys of each algorithm a device has left, zero of the usual one included."""
        return with_zero(await self._store.count(user_id, device_id, self._database))

    async def add_in(
        self,
        transaction: Transaction,
        device: Device,
        keys: Sequence[NewKey],
        fallback_keys: Sequence[NewKey],
    ) -> dict[str, int]:
        """Store keys of a device inside a larger write; the answer is how many it has then.

        Those that are there, or were claimed lately, are passed over. Raises `InvalidParam` where one of that name has
        another content, `TooLarge` where there are too many.
        """
        new = await self._new_among(transaction, device, keys)
        counts = await self._store.count(*device, transaction)
        if sum(counts.values()) + len(new) > MAX_ONE_TIME_KEYS:
            raise TooLarge(f"A device can have {MAX_ONE_TIME_KEYS} one-time keys")
        if new:
            await self._store.insert(transaction, *device, new)
            await self._store.prune_claimed(transaction, *device, MAX_REMEMBERED)
        for key in new:
            counts[key.algorithm] = counts.get(key.algorithm, 0) + 1
        if fallback_keys:
            present = await self._store.load_fallback(transaction, *device)
            # One that comes again is as used as it was.
            changed = [key for key in fallback_keys if present.get(key.algorithm) != (key.key_id, key.key)]
            if len(present.keys() | {key.algorithm for key in changed}) > MAX_FALLBACK_KEYS:
                raise TooLarge("A device has too many fallback keys")
            if changed:
                await self._store.set_fallback(transaction, *device, changed)
        return with_zero(counts)

    async def _new_among(
        self, transaction: Transaction, device: Device, keys: Sequence[NewKey]
    ) -> list[NewKey]:
        if not keys:
            return []
        key_ids = {key.key_id for key in keys}
        present = await self._store.load_present(transaction, *device, key_ids)
        claimed = await self._store.load_claimed(transaction, *device, key_ids)
        new = []
        for key in keys:
            name = (key.algorithm, key.key_id)
            if name in present:
                is_same = _content_hash(present[name]) == _content_hash(key.key)
            elif name in claimed:
                is_same = claimed[name] == _content_hash(key.key)
            else:
                new.append(key)
                continue
            if not is_same:
                # matrix-rust-sdk knows by the first words that it has forgotten keys of its own.
                raise InvalidParam(
                    f"One time key {key.algorithm}:{key.key_id} already exists, or did, with another content"
                )
        return new

    async def claim(self, wanted: Mapping[str, Mapping[str, str]], seconds: float = 0) -> dict[str, Any]:
        """Give out a key for each user and device, of the algorithm that is asked for.

        `seconds` is how long to wait for other servers at most. The answer is the body of the response. Devices that have none, and users that are unknown, are left out.
        """
        if sum(map(len, wanted.values())) > MAX_CLAIMED:
            raise TooLarge(f"A request can claim {MAX_CLAIMED} keys")
        here: dict[str, set[Device]] = {}
        elsewhere: dict[ServerName, dict[UserId, dict[DeviceId, str]]] = {}
        for user_id, devices in wanted.items():
            if not is_user_id(user_id):
                continue
            server_name = server_name_of(user_id)
            if server_name != self._server_name:
                elsewhere.setdefault(server_name, {})[UserId(user_id)] = {
                    DeviceId(device_id): algorithm for device_id, algorithm in devices.items()
                }
                continue
            for device_id, algorithm in devices.items():
                here.setdefault(algorithm, set()).add((UserId(user_id), DeviceId(device_id)))
        if len(here) > MAX_ALGORITHMS:
            raise TooLarge(f"A request can claim keys of {MAX_ALGORITHMS} algorithms")
        # First what takes long: whoever goes away meanwhile has taken none of ours.
        keys, failures = await self._remote.claim(elsewhere, seconds) if elsewhere else ({}, {})
        taken = await self._database.write(lambda t: self._take_in(t, here)) if here else []
        for key in taken:
            name = f"{key.algorithm}:{key.key_id}"
            keys.setdefault(key.user_id, {})[key.device_id] = {name: orjson.Fragment(key.key)}
        return {"one_time_keys": keys, "failures": failures}

    async def _take_in(self, transaction: Transaction, wanted: Mapping[str, set[Device]]) -> list[TakenKey]:
        taken: list[TakenKey] = []
        for algorithm, devices in wanted.items():
            keys = await self._store.load_oldest(transaction, devices, algorithm)
            if keys:
                await self._store.take(transaction, [(key, _content_hash(key.key)) for key in keys])
            without = devices - {(key.user_id, key.device_id) for key in keys}
            taken += keys
            if without:
                taken += await self._store.use_fallback(transaction, without, algorithm)
        return taken


def with_zero(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts with the usual algorithm among them.

    matrix-rust-sdk takes its absence for zero in one place and for "unchanged" in another.
    """
    return {USUAL_ALGORITHM: 0, **counts}


def _content_hash(key: bytes) -> bytes:
    """What makes a key this key: all but its signatures, which may have been made anew."""
    value = orjson.loads(key)
    return sha256(encode_unchecked(signed_part(value) if isinstance(value, dict) else value))
