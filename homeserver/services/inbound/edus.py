"""What other servers tell besides events: typing, receipts, presence, messages to devices, changes of devices.

A server speaks for its own users only, and in the rooms that it is let into only.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from crypto.canonical_json import MAX_INTEGER
from homeserver.errors import MatrixError
from homeserver.eventgraph.server_acls import SERVER_ACL, lets_in
from homeserver.ids import EventId, RoomId, UserId, is_event_id, is_room_id, is_user_id, server_name_of
from homeserver.storage.delivery_news import DECRYPTED
from homeserver.storage.receipts import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from homeserver.clock import Clock
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.services.delivery_receipts import DeliveryReceipts
    from homeserver.services.presence import Presence
    from homeserver.services.receipts import Receipts
    from homeserver.services.to_device import ToDevice
    from homeserver.services.typing import Typing

_TYPING_MS = 60_000
"""How long somebody of another server is typing who does not say that they are done."""
_MAX_RECEIPTS = 1_000
_RECEIPTS_AT_ONCE = 50
_MAX_PRESENCES = 100


class RemoteDevices(Protocol):
    """Follows the devices of other servers' users."""

    async def device_list_update(self, content: dict[str, Any], user_id: UserId) -> None:
        """An `m.device_list_update` of a user."""
        ...

    async def signing_key_update(self, content: dict[str, Any], user_id: UserId) -> None:
        """An `m.signing_key_update` of a user."""
        ...


class InboundEdus:
    """Takes in EDUs by their type; unknown ones are passed over."""

    def __init__(
        self,
        server_name: ServerName,
        clock: Clock,
        live_rooms: LiveRooms,
        typing: Typing,
        receipts: Receipts,
        delivery_receipts: DeliveryReceipts,
        presence: Presence,
        to_device: ToDevice,
        devices: RemoteDevices,
    ) -> None:
        self._server_name = server_name
        self._clock = clock
        self._live_rooms = live_rooms
        self._typing = typing
        self._receipts = receipts
        self._delivery_receipts = delivery_receipts
        self._presence = presence
        self._to_device = to_device
        self._devices = devices
        self._receivers: dict[str, Callable[[ServerName, dict[str, Any]], Awaitable[None]]] = {
            "m.typing": self._receive_typing,
            "m.receipt": self._receive_receipts,
            "m.presence": self._receive_presence,
            "m.direct_to_device": self._receive_to_device,
            "m.device_list_update": self._receive_device_list_update,
            "m.signing_key_update": self._receive_signing_key_update,
        }

    async def receive(self, origin: ServerName, edu_type: str, content: dict[str, Any]) -> None:
        """One EDU; what is malformed in it is passed over."""
        receiver = self._receivers.get(edu_type)
        if receiver is not None and origin != self._server_name:
            await receiver(origin, content)

    async def _is_let_in(self, origin: ServerName, room_id: Any) -> bool:
        if not isinstance(room_id, str) or not is_room_id(room_id):
            return False
        room = await self._live_rooms.find(RoomId(room_id))
        if room is None:
            return False
        return lets_in((await self._live_rooms.state_entries(room, [SERVER_ACL])).get(SERVER_ACL), origin)

    async def _receive_typing(self, origin: ServerName, content: dict[str, Any]) -> None:
        user_id, room_id = _user_of(origin, content.get("user_id")), content.get("room_id")
        if user_id is not None and await self._is_let_in(origin, room_id):
            typing = content.get("typing") is True
            await self._typing.set(user_id, RoomId(str(room_id)), typing=typing, timeout_ms=_TYPING_MS)

    async def _receive_receipts(self, origin: ServerName, content: dict[str, Any]) -> None:
        receipts = []
        for room_id, by_type in content.items():
            if not isinstance(by_type, dict) or not await self._is_let_in(origin, room_id):
                continue
            for receipt_type in (PUBLIC, DECRYPTED):
                by_user = by_type.get(receipt_type)
                for user, receipt in by_user.items() if isinstance(by_user, dict) else ():
                    user_id = _user_of(origin, user)
                    if user_id is not None and isinstance(receipt, dict):
                        receipts.append((user_id, RoomId(room_id), receipt_type, receipt))
            if len(receipts) >= _MAX_RECEIPTS:
                break
        # Those of a batch are written together.
        for start in range(0, min(len(receipts), _MAX_RECEIPTS), _RECEIPTS_AT_ONCE):
            batch = receipts[start : min(start + _RECEIPTS_AT_ONCE, _MAX_RECEIPTS)]
            await asyncio.gather(*(self._receive_receipt(*receipt) for receipt in batch))

    async def _receive_receipt(
        self, user_id: UserId, room_id: RoomId, receipt_type: str, receipt: dict[str, Any]
    ) -> None:
        event_ids, data = receipt.get("event_ids"), receipt.get("data")
        if not isinstance(event_ids, list) or not event_ids or not isinstance(data, dict):
            return
        thread_id, ts = data.get("thread_id"), data.get("ts")
        # "The extremity event IDs that the user has read up to": one, in all implementations.
        event_id = event_ids[0]
        if not isinstance(event_id, str) or not is_event_id(event_id):
            return
        sent_ts = _time(ts, self._clock.now_ms())
        # One that cannot be, such as for an event that is not here, takes none of the others along.
        with contextlib.suppress(MatrixError):
            if receipt_type == DECRYPTED:
                await self._delivery_receipts.receive(user_id, room_id, event_id, sent_ts)
            else:
                await self._receipts.receive(
                    user_id,
                    room_id,
                    EventId(event_id),
                    thread_id=thread_id if isinstance(thread_id, str) else None,
                    ts=sent_ts,
                )

    async def _receive_presence(self, origin: ServerName, content: dict[str, Any]) -> None:
        push = content.get("push")
        for update in push[:_MAX_PRESENCES] if isinstance(push, list) else ():
            user_id = _user_of(origin, update.get("user_id")) if isinstance(update, dict) else None
            if user_id is None:
                continue
            status_message, ago = update.get("status_msg"), update.get("last_active_ago")
            await self._presence.receive(
                user_id,
                str(update.get("presence")),
                status_message if isinstance(status_message, str) else None,
                last_active_ago_ms=_time(ago, 0),
            )

    async def _receive_to_device(self, origin: ServerName, content: dict[str, Any]) -> None:
        sender = _user_of(origin, content.get("sender"))
        event_type, message_id = content.get("type"), content.get("message_id")
        messages = content.get("messages")
        if sender is None or not isinstance(event_type, str) or not isinstance(message_id, str):
            return
        if isinstance(messages, dict):
            await self._to_device.receive(sender, event_type, message_id, messages)

    async def _receive_device_list_update(self, origin: ServerName, content: dict[str, Any]) -> None:
        user_id = _user_of(origin, content.get("user_id"))
        if user_id is not None:
            await self._devices.device_list_update(content, user_id)

    async def _receive_signing_key_update(self, origin: ServerName, content: dict[str, Any]) -> None:
        user_id = _user_of(origin, content.get("user_id"))
        if user_id is not None:
            await self._devices.signing_key_update(content, user_id)


def _time(value: Any, default: int) -> int:
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else default


def _user_of(origin: ServerName, user_id: Any) -> UserId | None:
    """The user, if it is one of the server that speaks."""
    if isinstance(user_id, str) and is_user_id(user_id) and server_name_of(user_id) == origin:
        return UserId(user_id)
    return None
