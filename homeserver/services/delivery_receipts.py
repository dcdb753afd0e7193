"""Delivery receipts (MSC4089): a client says that it has received an event and decrypted it, to who sent it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam
from homeserver.ids import EventId, UserId, is_event_id
from homeserver.storage.delivery_news import DECRYPTED, DeliveryNews
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.database import Database
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.views.delivery_sharing import DeliverySharing
    from homeserver.views.visibility import HistoryVisibility


class DeliveryReceipts:
    """Brings them to the senders of the events, here and elsewhere; this server never makes one up."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        rooms: RoomReader,
        visibility: HistoryVisibility,
        news: DeliveryNewsStore,
        sharing: DeliverySharing,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rooms = rooms
        self._visibility = visibility
        self._news = news
        self._sharing = sharing

    async def send(self, user_id: UserId, room_id: RoomId, event_id: str) -> None:
        """A client of a user has decrypted an event; of who lets nobody know that nothing is said.

        Raises `InvalidParam` for an event that is not in the room or not to be seen, `Forbidden` for a room that the
        user is not in.
        """
        await self._note(user_id, room_id, event_id, self._clock.now_ms())

    async def receive(self, user_id: UserId, room_id: RoomId, event_id: str, ts: int) -> None:
        """The same, of a user of another server."""
        await self._note(user_id, room_id, event_id, ts)

    async def _note(self, user_id: UserId, room_id: RoomId, event_id: str, ts: int) -> None:
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        stored = await self._rooms.event(EventId(event_id)) if is_event_id(event_id) else None
        if (
            stored is None
            or stored.room_id != room_id
            or stored.status is not Status.TIMELINE
            or not await self._visibility.visible(user_id, [stored])
        ):
            raise InvalidParam("The event is not in this room")
        sender = UserId(stored.event.sender)
        if sender == user_id or not await self._sharing.of(user_id):
            return
        decrypted = DeliveryNews(
            sender, room_id, user_id, DECRYPTED, stored.event.event_id, ts, stored.stream_id
        )
        await self._database.write(lambda transaction: self._news.insert(transaction, [decrypted]))
