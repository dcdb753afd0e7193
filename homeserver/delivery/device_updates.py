"""Changes of devices and of cross-signing keys as other servers hear of them (SS "Device Management").

What is told is how it is now, made when it is sent, and never what a device is called: names are for the people here.
`prev_id` is the change before it. Where that was one of a name or of cross-signing keys, which no update tells, servers
miss it and ask for all devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from federation.outgoing import Item
from homeserver.ids import UserId
from homeserver.storage.outgoing_devices import CROSS_SIGNING_KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from federation.answers import Json
    from homeserver.ids import DeviceId, ServerName
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.events import EventStore
    from homeserver.storage.outgoing_devices import DeviceChange, OutgoingDeviceStore
    from homeserver.storage.stored_event import StoredEvent

_AT_ONCE = 50
_NEVER = 0
"""No change has this position: whoever is told of one after it asks for everything."""


class KeysShown(Protocol):
    """What other servers see of users' keys."""

    async def answer_server(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """As `/user/keys/query` answers."""
        ...


class DeviceUpdates:
    """Makes `m.device_list_update` and `m.signing_key_update`."""

    def __init__(
        self, store: OutgoingDeviceStore, devices: DeviceStore, events: EventStore, keys: KeysShown
    ) -> None:
        self._store = store
        self._devices = devices
        self._events = events
        self._keys = keys

    async def load(self, server_name: ServerName, *, after: int, upto: int) -> tuple[list[Item], int]:
        """The oldest changes that a server has to hear of, and up to where these are all."""
        changes = await self._store.load(server_name, after=after, upto=upto, limit=_AT_ONCE)
        if not changes:
            return [], upto
        users = {change.user_id for change in changes}
        wanted: dict[str, list[str]] = {}
        for change in changes:
            wanted.setdefault(change.user_id, []).append(change.device_id)
        last = await self._store.load_last_before(users, after)
        shown = await self._keys.answer_server(wanted)
        devices = {
            user_id: {device.device_id for device in await self._devices.load(user_id)} for user_id in users
        }
        items = []
        for change in changes:
            if change.device_id == CROSS_SIGNING_KEYS:
                edu = _signing_key_update(change, shown)
            else:
                edu = _device_list_update(change, shown, devices[change.user_id], last.get(change.user_id))
                last[change.user_id] = change.stream_id
            items.append(
                Item(
                    change.stream_id,
                    f"{edu['edu_type']} {change.user_id} {change.stream_id}",
                    None,
                    (edu,),
                    len(orjson.dumps(edu)),
                )
            )
        return items, upto if len(changes) < _AT_ONCE else changes[-1].stream_id

    async def on_join(self, server_name: ServerName, joined: StoredEvent) -> tuple[Sequence[Json], int]:
        """What goes with a join of ours, and its size.

        "... when that user joins a room which contains servers which are not already receiving updates for that
        user's device list": such a server is told of one device, after a change that it cannot know, so that it
        asks for all of them.
        """
        event = joined.event
        assert event.state_key is not None
        user_id = UserId(event.state_key)
        if joined.replaces_state is not None:
            before = await self._events.get(joined.replaces_state)
            if before is not None and before.event.membership == "join":
                return (), 0
        if await self._store.is_in_other_room_with(
            user_id, server_name, joined.room_nid, before=joined.stream_id
        ):
            return (), 0
        devices = await self._devices.load(user_id)
        last = (await self._store.load_last_before([user_id], joined.stream_id)).get(user_id)
        if not devices or last is None:
            return (), 0
        content: Json = {
            "user_id": user_id,
            "device_id": devices[-1].device_id,
            "stream_id": last,
            "prev_id": [_NEVER],
        }
        edu = {"edu_type": "m.device_list_update", "content": content}
        return (edu,), len(orjson.dumps(edu))


def _device_list_update(
    change: DeviceChange, shown: Json, devices: Collection[DeviceId], previous: int | None
) -> Json:
    content: Json = {
        "user_id": change.user_id,
        "device_id": change.device_id,
        "stream_id": change.stream_id,
        # Without one known: one that nobody knows.
        "prev_id": [_NEVER if previous is None else previous],
    }
    keys = shown["device_keys"].get(change.user_id, {}).get(change.device_id)
    if change.device_id not in devices:
        content["deleted"] = True
    elif keys is not None:
        content["keys"] = keys
    return {"edu_type": "m.device_list_update", "content": content}


def _signing_key_update(change: DeviceChange, shown: Json) -> Json:
    content: Json = {"user_id": change.user_id}
    for usage in ("master", "self_signing"):
        key = shown[f"{usage}_keys"].get(change.user_id)
        if key is not None:
            content[f"{usage}_key"] = key
    return {"edu_type": "m.signing_key_update", "content": content}
