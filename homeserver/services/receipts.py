"""Receipts and read markers (CS "Receipts", "Read and Unread Markers")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from homeserver.errors import Forbidden, InvalidParam
from homeserver.ids import EventId, is_event_id
from homeserver.services.account_data import FULLY_READ
from homeserver.storage.receipts import PRIVATE, PUBLIC, ReceiptRow
from homeserver.storage.stored_event import Status
from homeserver.views.unread import MAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.account_data import AccountDataStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.receipts import ReceiptStore
    from homeserver.storage.stored_event import StoredEvent

RECEIPT_TYPES = frozenset({PUBLIC, PRIVATE, FULLY_READ})


class Receipts:
    """Takes note of what people have read."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        store: ReceiptStore,
        account_data: AccountDataStore,
        highlights: HighlightStore,
        rooms: RoomReader,
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._account_data = account_data
        self._highlights = highlights
        self._rooms = rooms

    async def send(
        self, user_id: UserId, room_id: RoomId, receipts: Mapping[str, str], thread_id: str | None = None
    ) -> None:
        """Note receipts, and move the read marker: event ids by type, all of them or none.

        One that points back changes nothing. Raises `InvalidParam` for an unknown type, an event that is not in
        the room or not in the thread, `Forbidden` for a room that the user is not in.
        """
        if not receipts.keys() <= RECEIPT_TYPES:
            raise InvalidParam(f"`receiptType` is none of {', '.join(sorted(RECEIPT_TYPES))}")
        if thread_id is not None and FULLY_READ in receipts:
            raise InvalidParam("The read marker has no thread")
        await self._check_in_room(user_id, room_id)
        read = {
            receipt_type: await self._event(room_id, event_id) for receipt_type, event_id in receipts.items()
        }
        if thread_id is not None and not all(_is_in_thread(stored, thread_id) for stored in read.values()):
            raise InvalidParam("The event is not in this thread")
        if not read:
            return

        async def work(transaction: Transaction) -> None:
            for receipt_type, stored in read.items():
                if receipt_type == FULLY_READ:
                    await self._move_marker(transaction, user_id, room_id, stored)
                else:
                    await self._set(transaction, user_id, receipt_type, stored, thread_id)

        await self._database.write(work)

    async def receive(
        self, user_id: UserId, room_id: RoomId, event_id: EventId, *, thread_id: str | None, ts: int
    ) -> None:
        """Note what a user of another server has read; nothing for an event that is not here."""
        await self._check_in_room(user_id, room_id)
        stored = await self._event(room_id, event_id)
        if thread_id is None or _is_in_thread(stored, thread_id):
            await self._database.write(lambda t: self._set(t, user_id, PUBLIC, stored, thread_id, ts))

    async def _set(
        self,
        transaction: Transaction,
        user_id: UserId,
        receipt_type: str,
        stored: StoredEvent,
        thread_id: str | None,
        ts: int | None = None,
    ) -> None:
        receipt = ReceiptRow(
            room_id=stored.room_id,
            user_id=user_id,
            receipt_type=receipt_type,
            thread_id=thread_id or "",
            event_id=stored.event.event_id,
            point=stored.point,
            ts=self._clock.now_ms() if ts is None else ts,
        )
        if await self._store.set(transaction, receipt) and thread_id is None:
            await self._highlights.delete_read(transaction, user_id, stored.room_nid, stored.stream_id)

    async def _move_marker(
        self, transaction: Transaction, user_id: UserId, room_id: RoomId, stored: StoredEvent
    ) -> None:
        known = await self._account_data.get_in(transaction, user_id, room_id, FULLY_READ)
        if known is not None:
            before = await self._rooms.event(orjson.loads(known)["event_id"])
            if before is not None and before.point >= stored.point:
                return
        content = orjson.dumps({"event_id": stored.event.event_id})
        await self._account_data.set(transaction, user_id, room_id, FULLY_READ, content)

    async def _check_in_room(self, user_id: UserId, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")

    async def _event(self, room_id: RoomId, event_id: str) -> StoredEvent:
        stored = await self._rooms.event(EventId(event_id)) if is_event_id(event_id) else None
        if stored is None or stored.room_id != room_id or stored.status is not Status.TIMELINE:
            raise InvalidParam("The event is not in this room")
        return stored


def _is_in_thread(stored: StoredEvent, thread_id: str) -> bool:
    """Whether a threaded receipt for this event can be (CS "Threaded read receipts"); a root is in both."""
    if thread_id == MAIN:
        return stored.thread_root is None
    return thread_id in (stored.thread_root, stored.event.event_id)
