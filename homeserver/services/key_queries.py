"""Questions for the keys of users and their devices (CS `POST /keys/query`).

Everybody sees what users have signed of their own keys; what they have signed of others only they see.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import NotFound, TooLarge
from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.services.key_objects import public_key_of
from homeserver.services.other_servers import unreachable
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import ServerName
    from homeserver.services.remote_keys.queries import RemoteKeys
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.cross_signing import CrossSigningStore
    from homeserver.storage.device_keys import DeviceKeyStore, StoredDeviceKeys
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.key_signatures import KeySignatureStore
    from homeserver.storage.remote_device_lists import RemoteDevice, RemoteUserKeys

MAX_USERS = 5_000
"""So many users one request can ask for."""
_AT_ONCE = 100
_Signatures = dict[tuple[str, str], dict[str, dict[str, str]]]
"""(user, name of what is signed) -> the `signatures` of a key object."""


class KeyQueries:
    """Answers who has which keys."""

    def __init__(
        self,
        server_name: ServerName,
        accounts: AccountStore,
        device_keys: DeviceKeyStore,
        cross_signing: CrossSigningStore,
        signatures: KeySignatureStore,
        remote: RemoteKeys,
        device_lists: DeviceListStore,
    ) -> None:
        self._server_name = server_name
        self._accounts = accounts
        self._device_keys = device_keys
        self._cross_signing = cross_signing
        self._signatures = signatures
        self._remote = remote
        self._device_lists = device_lists

    async def query(
        self, reader: UserId, wanted: Mapping[str, Sequence[str]], seconds: float = 0
    ) -> dict[str, Any]:
        """The body of the response to a reader; an empty list of devices stands for all of a user's.

        `seconds` is how long to wait for other servers at most.

        Users that are unknown are left out; those that have no keys are there with no devices, since a client asks
        again and again for whom it gets no answer.
        """
        if len(wanted) > MAX_USERS:
            raise TooLarge(f"A request can ask for {MAX_USERS} users")
        user_ids = [UserId(user_id) for user_id in wanted if is_user_id(user_id)]
        local = [user_id for user_id in user_ids if server_name_of(user_id) == self._server_name]
        elsewhere: dict[ServerName, list[UserId]] = {}
        for user_id in user_ids:
            if server_name_of(user_id) != self._server_name:
                elsewhere.setdefault(server_name_of(user_id), []).append(user_id)
        answer: dict[str, Any] = {
            "device_keys": {},
            "master_keys": {},
            "self_signing_keys": {},
            "user_signing_keys": {},
            "failures": {},
        }
        if elsewhere:
            found, failed = await self._remote.load(reader, elsewhere, seconds)
            answer["failures"] = unreachable(failed)
            await self._add_remote(answer, reader, found, wanted)
        for start in range(0, len(local), _AT_ONCE):
            batch = local[start : start + _AT_ONCE]
            await self._add(answer, reader, batch, wanted)
            for user_id in answer["device_keys"].keys() & batch:
                # Written here, bit by bit, and not all at once at the end.
                answer["device_keys"][user_id] = orjson.Fragment(orjson.dumps(answer["device_keys"][user_id]))
            await asyncio.sleep(0)
        return answer

    async def answer_server(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """What another server is told of users of this one (SS `POST /user/keys/query`): not the names of devices."""
        if len(wanted) > MAX_USERS:
            raise TooLarge(f"A request can ask for {MAX_USERS} users")
        answer: dict[str, Any] = {f"{name}_keys": {} for name in ("device", MASTER, SELF_SIGNING)}
        ours = [UserId(user_id) for user_id in wanted if is_user_id(user_id)]
        ours = [user_id for user_id in ours if server_name_of(user_id) == self._server_name]
        for start in range(0, len(ours), _AT_ONCE):
            await self._add(answer, None, ours[start : start + _AT_ONCE], wanted)
            await asyncio.sleep(0)
        return answer

    async def devices(self, user_id: str) -> dict[str, Any]:
        """All devices of a user of this server that have keys, for another server (SS `GET /user/devices/{userId}`).

        `NotFound` for a user whom this server does not know.
        """
        if not is_user_id(user_id) or not await self._accounts.load_existing([UserId(user_id)]):
            raise NotFound("Unknown user")
        # What changes meanwhile is told again, with a later number.
        stream_id = await self._device_lists.last_change(UserId(user_id))
        keys = await self.answer_server({user_id: []})
        return {
            "user_id": user_id,
            "stream_id": stream_id,
            "devices": [
                {"device_id": device_id, "keys": device}
                for device_id, device in keys["device_keys"][user_id].items()
            ],
            **{
                f"{usage}_key": keys[f"{usage}_keys"][user_id]
                for usage in (MASTER, SELF_SIGNING)
                if user_id in keys[f"{usage}_keys"]
            },
        }

    async def _add_remote(
        self,
        answer: dict[str, Any],
        reader: UserId,
        found: Mapping[UserId, RemoteUserKeys],
        wanted: Mapping[str, Sequence[str]],
    ) -> None:
        """Add what other servers say of their users."""
        signed = {one.user_id: one for one in await self._signatures.load_of_others(reader, sorted(found))}
        for number, (user_id, keys) in enumerate(found.items(), 1):
            names = frozenset(wanted[user_id])
            of_user = {
                device_id: _remote_form(device)
                for device_id, device in keys.devices.items()
                if not names or device_id in names
            }
            answer["device_keys"][user_id] = orjson.Fragment(orjson.dumps(of_user))
            for usage, key in keys.cross_signing.items():
                value = orjson.loads(key)
                one = signed.get(user_id)
                if usage == MASTER and one is not None and one.key_id == public_key_of(value):
                    value["signatures"][reader] = {one.signer_key_id: one.signature}
                answer[f"{usage}_keys"][user_id] = value
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _add(
        self,
        answer: dict[str, Any],
        reader: UserId | None,
        user_ids: Sequence[UserId],
        wanted: Mapping[str, Sequence[str]],
    ) -> None:
        """Add what is known of some users of this server."""
        by_user: dict[UserId, dict[str, Any]] = {
            user_id: {} for user_id in await self._accounts.load_existing(user_ids)
        }
        names = {user_id: frozenset(wanted[user_id]) for user_id in user_ids}
        devices = await self._device_keys.load(user_ids)
        cross_signing = await self._cross_signing.load(user_ids)
        signatures = await self._load_signatures(reader, user_ids)
        for device in devices:
            if not names[device.user_id] or device.device_id in names[device.user_id]:
                of_user = by_user.setdefault(device.user_id, {})
                of_user[device.device_id] = _device_form(device, signatures, is_named=reader is not None)
        answer["device_keys"].update(by_user)
        for user_id, by_usage in cross_signing.items():
            for usage, key in by_usage.items():
                if usage != USER_SIGNING or user_id == reader:
                    answer[f"{usage}_keys"][user_id] = _cross_signing_form(user_id, key, signatures)

    async def _load_signatures(self, reader: UserId | None, user_ids: Sequence[UserId]) -> _Signatures:
        signatures: _Signatures = {}
        for one in await self._signatures.load(user_ids):
            by_signer = signatures.setdefault((one.user_id, one.key_id), {})
            by_signer.setdefault(one.user_id, {})[one.signer_key_id] = one.signature
        if reader is None:
            return signatures
        for one in await self._signatures.load_of_others(reader, user_ids):
            by_signer = signatures.setdefault((one.user_id, one.key_id), {})
            by_signer.setdefault(reader, {})[one.signer_key_id] = one.signature
        return signatures


def _device_form(device: StoredDeviceKeys, signatures: _Signatures, *, is_named: bool) -> dict[str, Any]:
    name = device.display_name if is_named else None
    unsigned = {} if name is None else {"device_display_name": name}
    return {
        **orjson.loads(device.keys),
        "signatures": signatures.get((device.user_id, device.device_id), {}),
        "unsigned": unsigned,
    }


def _remote_form(device: RemoteDevice) -> dict[str, Any]:
    unsigned = {} if device.display_name is None else {"device_display_name": device.display_name}
    return {**orjson.loads(device.keys), "unsigned": unsigned}


def _cross_signing_form(user_id: UserId, key: bytes, signatures: _Signatures) -> dict[str, Any]:
    value = orjson.loads(key)
    return {**value, "signatures": signatures.get((user_id, public_key_of(value)), {})}
