"""How an event is doing: stored, handed over to other servers, delivered to devices, read (docs/offline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from homeserver.errors import Forbidden
from homeserver.ids import server_name_of
from homeserver.storage.receipts import PUBLIC
from homeserver.views.unread import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.config import DeliveryStatusSettings
    from homeserver.ids import RoomId, ServerName, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.handovers import Handovers
    from homeserver.services.history import History
    from homeserver.services.requester import Requester
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.storage.device_positions import DevicePositionStore
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.left_out import LeftOutStore
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.storage.owed_rooms import OwedRoomStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.delivery_sharing import DeliverySharing
    from homeserver.views.visibility import HistoryVisibility


class Acknowledgements(Protocol):
    """What devices have said that they got."""

    async def flush(self) -> None:
        """Write down what was said so far."""
        ...


class DeliveryStatus:
    """Answers the senders of events."""

    def __init__(
        self,
        server_name: ServerName,
        settings: DeliveryStatusSettings,
        history: History,
        rooms: RoomReader,
        visibility: HistoryVisibility,
        acknowledgements: Acknowledgements,
        memberships: MembershipStore,
        devices: DeviceStore,
        positions: DevicePositionStore,
        left_out: LeftOutStore,
        receipts: ReceiptStore,
        news: DeliveryNewsStore,
        sharing: DeliverySharing,
        owed_rooms: OwedRoomStore,
        handovers: Handovers,
    ) -> None:
        self._server_name = server_name
        self._settings = settings
        self._history = history
        self._rooms = rooms
        self._visibility = visibility
        self._acknowledgements = acknowledgements
        self._memberships = memberships
        self._devices = devices
        self._positions = positions
        self._left_out = left_out
        self._receipts = receipts
        self._news = news
        self._sharing = sharing
        self._owed_rooms = owed_rooms
        self._handovers = handovers

    async def of(self, requester: Requester, room_id: RoomId, event_id: str) -> dict[str, Any]:
        """The status of an event, for its sender.

        Raises `NotFound` for an event that the requester may not see, `Forbidden` for one that somebody else has sent, in
        a room that has too many members or that the requester has left, and where all of this is switched off.
        """
        _, stored = await self._history.visible_event(requester, room_id, event_id)
        if stored.event.sender != requester.user_id:
            raise Forbidden("Only who has sent an event may ask how it is doing")
        if not self._settings.enabled:
            raise Forbidden("This server does not tell how events are doing")
        own = await self._rooms.membership(room_id, requester.user_id)
        if own is None or own.membership != "join":
            raise Forbidden("You are not in this room")
        joined, _ = await self._memberships.count(stored.room_nid)
        if joined > self._settings.max_members:
            raise Forbidden("The room has too many members to tell how events in it are doing")
        await self._acknowledgements.flush()
        return {
            "event_id": stored.event.event_id,
            "stored": True,
            "users": await self._users(requester, stored),
            "servers": await self._handovers.of(stored),
        }

    async def _users(self, requester: Requester, stored: StoredEvent) -> dict[UserId, Any]:
        rows = await self._memberships.load_in_room(stored.room_nid, ("join",))
        recipients = {}
        for row in rows:
            if row.user_id != requester.user_id and await self._sharing.of(row.user_id):
                recipients[row.user_id] = row
        decrypted = await self._news.load_decrypted(requester.user_id, stored.room_id, stored.event.event_id)
        local = {
            user_id: row
            for user_id, row in recipients.items()
            if server_name_of(user_id) == self._server_name
            and await self._visibility.visible(user_id, [stored])
        }
        delivered = await self._delivered(local, stored)
        receipts = await self._receipts.load_of_users(stored.room_id, recipients)
        users: dict[UserId, Any] = {}
        for user_id in recipients:
            status: dict[str, Any] = dict(delivered.get(user_id, {}))
            read_ts = _read_at(receipts.get(user_id, ()), stored)
            if read_ts is not None:
                status["read"] = {"ts": read_ts}
            if user_id in decrypted:
                status["decrypted"] = {"ts": decrypted[user_id]}
            if status or user_id in local:
                users[user_id] = status
        return users

    async def _delivered(
        self, members: Mapping[UserId, MembershipRow], stored: StoredEvent
    ) -> dict[UserId, Any]:
        positions = await self._positions.load(members)
        owed = {
            key: await self._owed_rooms.get(*key, position.owed) or {}
            for key, position in positions.items()
            if position.owed
        }
        without = await self._left_out.load_around(stored.room_nid, members, stored.stream_id)
        devices_of = await self._devices.load_ids(members)
        status = {}
        for user_id, row in members.items():
            told_at = await self._told_at(row, stored)
            devices = devices_of.get(user_id, [])
            times = []
            for device_id in devices:
                position = positions.get((user_id, device_id))
                debt = owed.get((user_id, device_id), {}).get(stored.room_nid)
                is_put_off = debt is not None and max(debt) < told_at
                if position is not None and not is_put_off and (user_id, device_id) not in without:
                    ts = position.when(told_at)
                    if ts is not None:
                        times.append(ts)
            delivery: dict[str, Any] = {"devices": len(devices), "delivered": len(times)}
            if times:
                delivery |= {"first_ts": min(times), "last_ts": max(times)}
            status[user_id] = {"delivery": delivery}
        return status

    async def _told_at(self, row: MembershipRow, stored: StoredEvent) -> int:
        """From which position on answers tell a member of an event: who came later was told nothing before."""
        if row.stream_id <= stored.stream_id:
            return stored.stream_id
        return (await self._visibility.history(row)).first_there(stored.stream_id) or row.stream_id


def _read_at(receipts: Iterable[ReceiptRow], stored: StoredEvent) -> int | None:
    """When the user of these receipts has read an event, as far as they let others know."""
    threads = {"", stored.thread_root or MAIN}
    times = [
        receipt.ts
        for receipt in receipts
        if receipt.receipt_type == PUBLIC and receipt.thread_id in threads and receipt.point >= stored.point
    ]
    return min(times, default=None)
