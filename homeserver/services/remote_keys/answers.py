"""What other servers say of their users' keys: of it is taken what was asked for, is well formed and rightly signed.

Whatever is wrong with one key, the others are taken.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from homeserver.errors import MatrixError
from homeserver.ids import DeviceId
from homeserver.services.key_objects import (
    ED25519,
    encode,
    public_key_of,
    read_cross_signing_key,
    read_device_keys,
    read_one_time_keys,
)
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING
from homeserver.storage.remote_device_lists import RemoteDevice, RemoteUserKeys

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from federation.answers import ClaimedKeys, DeviceKeys
    from homeserver.ids import UserId
    from homeserver.services.key_objects import KeyObject
    from homeserver.storage.one_time_keys import NewKey

MAX_DEVICES = 1_000
"""So many devices of a user are taken."""
_MAX_DEVICE_ID_BYTES = 255
_MAX_NAME = 255
_AT_ONCE = 20


async def read_keys(answer: DeviceKeys, user_ids: Collection[UserId]) -> dict[UserId, RemoteUserKeys]:
    """The keys of those users of the server that were asked for and that it knows."""
    found: dict[UserId, RemoteUserKeys] = {}
    number = 0
    for user_id in user_ids:
        said = [of.get(user_id) for of in (answer.device_keys, answer.master_keys, answer.self_signing_keys)]
        if all(part is None for part in said):
            continue
        keys = found[user_id] = RemoteUserKeys(cross_signing=read_cross_signing(user_id, said[1], said[2]))
        for device_id, value in sorted((said[0] or {}).items())[:MAX_DEVICES]:
            device = read_device(user_id, device_id, value)
            if device is not None:
                keys.devices[DeviceId(device_id)] = device
            number += 1
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
    return found


def is_device_id(device_id: Any) -> bool:
    """Whether this can be the id of a device."""
    return (
        isinstance(device_id, str)
        and "\x00" not in device_id
        and 0 < len(device_id.encode()) <= _MAX_DEVICE_ID_BYTES
    )


def read_device(user_id: UserId, device_id: str, value: Any) -> RemoteDevice | None:
    """The keys of a device; None for what is not well formed or not signed by the device."""
    if not isinstance(value, dict) or not is_device_id(device_id):
        return None
    try:
        keys = _with_signatures(user_id, read_device_keys(value, user_id, DeviceId(device_id)))
    except MatrixError:
        return None
    unsigned = value.get("unsigned")
    name = unsigned.get("device_display_name") if isinstance(unsigned, dict) else None
    return RemoteDevice(keys, read_name(name))


def read_name(name: Any) -> str | None:
    """The name of a device, as far as it can be one."""
    return name.replace("\x00", "")[:_MAX_NAME] if isinstance(name, str) else None


def read_cross_signing(user_id: UserId, master: Any, self_signing: Any) -> dict[str, bytes]:
    """The master key of a user, and the self-signing key where it is signed by that."""
    keys: dict[str, bytes] = {}
    try:
        master_key = _read_cross_signing_key(user_id, MASTER, master)
        keys[MASTER] = _with_signatures(user_id, master_key)
        own = _read_cross_signing_key(user_id, SELF_SIGNING, self_signing)
        public_key = public_key_of(master_key.value)
        if public_key != public_key_of(own.value):
            own.verify(user_id, f"{ED25519}:{public_key}", public_key)
            keys[SELF_SIGNING] = _with_signatures(user_id, own)
    except MatrixError:
        return keys
    return keys


def _read_cross_signing_key(user_id: UserId, usage: str, value: Any) -> KeyObject:
    return read_cross_signing_key(value if isinstance(value, dict) else {}, user_id, usage)


def _with_signatures(user_id: UserId, key: KeyObject) -> bytes:
    """The key as it is shown; signatures by others are nobody's to tell."""
    return encode({**key.value, "signatures": {user_id: key.signatures}})


def read_claimed(
    answer: ClaimedKeys, wanted: Mapping[UserId, Mapping[DeviceId, str]]
) -> dict[UserId, dict[DeviceId, NewKey]]:
    """One key for each device that one was asked for, of the algorithm that was asked for."""
    keys: dict[UserId, dict[DeviceId, NewKey]] = {}
    for user_id, devices in wanted.items():
        by_device = answer.one_time_keys.get(user_id, {})
        for device_id, algorithm in devices.items():
            given = by_device.get(device_id, {})
            if len(given) != 1:
                continue
            try:
                (key,) = read_one_time_keys(given)
            except MatrixError:
                continue
            if key.algorithm == algorithm:
                keys.setdefault(user_id, {})[device_id] = key
    return keys
