"""Signatures that users upload over keys, each checked with the key that it is by (CS "Cross-signing").

- Own devices are signed by the self-signing key, the master key, or themselves.
- The own master key is signed by own devices, or itself.
- The master keys of others, whichever their server, are signed by the user-signing key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from crypto.signed_keys import signed_part
from homeserver.errors import BadJson, InvalidParam, MatrixError, NotFound, TooLarge
from homeserver.ids import DeviceId, UserId, is_user_id, server_name_of
from homeserver.services.key_objects import (
    ED25519,
    InvalidSignature,
    encode,
    public_key_of,
    read_key_object,
)
from homeserver.services.server_calls import DEFAULT_TIMEOUT_MS
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING
from homeserver.storage.key_signatures import KeySignature
from homeserver.storage.outgoing_devices import CROSS_SIGNING_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.ids import ServerName
    from homeserver.services.key_objects import KeyObject
    from homeserver.services.remote_keys.queries import RemoteKeys
    from homeserver.storage.cross_signing import CrossSigningStore
    from homeserver.storage.database import Database, Reader, Transaction
    from homeserver.storage.device_keys import DeviceKeyStore
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.key_signatures import KeySignatureStore

MAX_OBJECTS = 1_000
"""So many objects one request can sign."""
_Verdicts = dict[tuple[bytes, str, str, str], bool]
"""Whether a signature is right, by what is signed, the key's name, the public key and the signature."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """One signed object of a request: whose, what, and what was signed of it by the user who asks."""

    user_id: UserId
    key_id: str
    key: KeyObject


@dataclass(frozen=True, slots=True)
class _Known:
    """The keys of the user who asks and of those whose keys they have signed."""

    device_keys: dict[str, bytes]
    """Of the user's own devices."""
    cross_signing: dict[UserId, dict[str, bytes]]

    def public_key(self, user_id: UserId, usage: str) -> str | None:
        key = self.cross_signing.get(user_id, {}).get(usage)
        return None if key is None else public_key_of(orjson.loads(key))


class KeySignatures:
    """Takes signatures over keys."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        device_keys: DeviceKeyStore,
        cross_signing: CrossSigningStore,
        store: KeySignatureStore,
        device_lists: DeviceListStore,
        remote: RemoteKeys,
    ) -> None:
        self._server_name = server_name
        self._remote = remote
        self._database = database
        self._device_keys = device_keys
        self._cross_signing = cross_signing
        self._store = store
        self._device_lists = device_lists

    async def upload(self, signer: UserId, objects: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Store what a user has signed: objects by user and name of the key; the answer is the `failures`.

        Of an object all signatures are stored, or none. Raises `TooLarge` where there are too many objects.
        """
        if sum(map(len, objects.values())) > MAX_OBJECTS:
            raise TooLarge(f"A request can have {MAX_OBJECTS} signed objects")
        failures: dict[str, dict[str, MatrixError]] = {}
        uploads: list[_Upload] = []
        for user_id, by_key in objects.items():
            for key_id, value in by_key.items():
                try:
                    uploads.append(_Upload(UserId(user_id), key_id, _read(value, signer)))
                except MatrixError as error:
                    failures.setdefault(user_id, {})[key_id] = error
        users = {signer, *(upload.user_id for upload in uploads)}
        # What is right is found out before the write, which then only looks whether the keys are still the same.
        verdicts: _Verdicts = {}
        elsewhere = await self._load_elsewhere(signer, users)
        known = await self._load(signer, users, elsewhere, self._database)
        for number, upload in enumerate(uploads):
            _judge(signer, upload, known, verdicts)
            if number % 20 == 19:
                await asyncio.sleep(0)

        async def work(transaction: Transaction) -> dict[str, dict[str, MatrixError]]:
            known = await self._load(signer, users, elsewhere, transaction)
            refused: dict[str, dict[str, MatrixError]] = {}
            right: list[KeySignature] = []
            for upload in uploads:
                signatures = _judge(signer, upload, known, verdicts)
                if isinstance(signatures, MatrixError):
                    refused.setdefault(upload.user_id, {})[upload.key_id] = signatures
                else:
                    right += signatures
            await self._store_in(transaction, signer, right, known)
            return refused

        refused = await self._database.write(work) if uploads else {}
        for user_id, by_name in refused.items():
            failures.setdefault(user_id, {}).update(by_name)
        return {
            user_id: {
                key_id: {"errcode": error.errcode, "error": error.message}
                for key_id, error in by_name.items()
            }
            for user_id, by_name in failures.items()
        }

    async def _load_elsewhere(self, signer: UserId, users: Iterable[UserId]) -> dict[UserId, bytes]:
        """The master keys of those users who are of other servers, as far as these tell them."""
        wanted: dict[ServerName, list[UserId]] = {}
        for user_id in users:
            if is_user_id(user_id) and server_name_of(user_id) != self._server_name:
                wanted.setdefault(server_name_of(user_id), []).append(user_id)
        if not wanted:
            return {}
        found, _ = await self._remote.load(signer, wanted, DEFAULT_TIMEOUT_MS / 1000)
        return {
            user_id: encode(signed_part(orjson.loads(keys.cross_signing[MASTER])))
            for user_id, keys in found.items()
            if MASTER in keys.cross_signing
        }

    async def _load(
        self, signer: UserId, users: Iterable[UserId], elsewhere: Mapping[UserId, bytes], reader: Reader
    ) -> _Known:
        devices = await self._device_keys.load([signer], reader)
        cross_signing = await self._cross_signing.load(list(users), reader)
        return _Known(
            {device.device_id: device.keys for device in devices},
            {**cross_signing, **{user_id: {MASTER: key} for user_id, key in elsewhere.items()}},
        )

    async def _store_in(
        self,
        transaction: Transaction,
        signer: UserId,
        signatures: Sequence[KeySignature],
        known: _Known,
    ) -> None:
        own = [one for one in signatures if one.user_id == signer]
        if await self._store.add(transaction, own):
            changed = dict.fromkeys(
                DeviceId(one.key_id) if one.key_id in known.device_keys else CROSS_SIGNING_KEYS for one in own
            )
            await self._device_lists.note_change(transaction, signer, list(changed))
        await self._store.set_of_others(
            transaction, signer, [one for one in signatures if one.user_id != signer]
        )


def _read(value: Any, signer: UserId) -> KeyObject:
    if not isinstance(value, dict):
        raise BadJson("A signed key is not an object")
    return read_key_object(value, signer)


def _judge(
    signer: UserId, upload: _Upload, known: _Known, verdicts: _Verdicts
) -> list[KeySignature] | MatrixError:
    """The signatures of an object that are to be stored, or why it is refused.

    "The signed JSON object must match the key previously uploaded". Signatures by keys that are unknown, or that may
    not sign this, are passed over: a client may send along what it found there. One must remain.
    """
    target, signers = _target(signer, upload, known)
    if target is None:
        return NotFound("There is no such key, or it is not for this user to sign")
    if target != upload.key.encoded:
        return InvalidParam("This is not the key that was uploaded")
    right = []
    for key_id, signature in upload.key.signatures.items():
        public_key = signers.get(key_id)
        if public_key is None:
            continue
        case = (target, key_id, public_key, signature)
        if case not in verdicts:
            verdicts[case] = _is_right(upload.key, signer, key_id, public_key)
        if not verdicts[case]:
            return InvalidSignature(f"The signature by {key_id} is wrong")
        right.append(KeySignature(upload.user_id, upload.key_id, key_id, signature))
    return right or InvalidSignature("There is no signature by a key that may sign this")


def _target(signer: UserId, upload: _Upload, known: _Known) -> tuple[bytes | None, dict[str, str]]:
    """The key that is signed, and whose signatures of it are taken: public keys by their names."""
    master = known.public_key(upload.user_id, MASTER)
    is_master = master is not None and upload.key_id == master
    if upload.user_id != signer:
        usages: tuple[str, ...] = (USER_SIGNING,)
        devices: Iterable[str] = ()
    elif is_master:
        usages, devices = (MASTER,), known.device_keys
    else:
        usages, devices = (SELF_SIGNING, MASTER), (upload.key_id,)
    target: bytes | None = None
    if is_master:
        target = known.cross_signing[upload.user_id][MASTER]
    elif upload.user_id == signer:
        target = known.device_keys.get(upload.key_id)
    signers = {}
    for usage in usages:
        public_key = known.public_key(signer, usage)
        if public_key is not None:
            signers[f"{ED25519}:{public_key}"] = public_key
    for device_id in devices:
        key_id = f"{ED25519}:{device_id}"
        if key_id in upload.key.signatures and device_id in known.device_keys:
            signers[key_id] = orjson.loads(known.device_keys[device_id])["keys"][key_id]
    return target, signers


def _is_right(key: KeyObject, signer: UserId, key_id: str, public_key: str) -> bool:
    try:
        key.verify(signer, key_id, public_key)
    except InvalidSignature:
        return False
    return True
