"""Receipts and read markers (CS "Receipts", "Read and Unread Markers")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from homeserver.errors import Forbidden, InvalidParam
from homeserver.services.account_data import FULLY_READ
from homeserver.storage.events import Status
from homeserver.storage.receipts import PRIVATE, PUBLIC, ReceiptRow
from homeserver.views.unread import MAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.clock import Clock
    from homeserver.ids import EventId, RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.account_data import AccountDataStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.events import RoomPoint, StoredEvent
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.receipts import ReceiptStore

RECEIPT_TYPES = (PUBLIC, PRIVATE, FULLY_READ)


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
        """Note receipts, and move the read marker: event ids by type, all or none; one that points back changes nothing."""
        for receipt_type in receipts:
            if receipt_type not in RECEIPT_TYPES:
                raise InvalidParam(f"`receiptType` is none of {', '.join(RECEIPT_TYPES)}")
        if thread_id is not None and FULLY_READ in receipts:
            raise InvalidParam("The read marker has no thread")
        if thread_id == "":
            raise InvalidParam("`thread_id` is empty")
        await self._check_in_room(user_id, room_id)
        read = {
            receipt_type: await self._event(room_id, event_id) for receipt_type, event_id in receipts.items()
        }
        if thread_id is not None and not all(_is_in_thread(stored, thread_id) for stored in read.values()):
            raise InvalidParam("The event is not in this thread")
        marker = read.pop(FULLY_READ, None)
        if marker is not None and not await self._is_after_marker(user_id, room_id, marker):
            marker = None
        ts = self._clock.now_ms()

        async def work(transaction: Transaction) -> None:
            if marker is not None:
                content = orjson.dumps({"event_id": marker.event.event_id})
                await self._account_data.set(transaction, user_id, room_id, FULLY_READ, content)
            for receipt_type, stored in read.items():
                receipt = ReceiptRow(
                    room_id=room_id,
                    user_id=user_id,
                    receipt_type=receipt_type,
                    thread_id=thread_id or "",
                    event_id=stored.event.event_id,
                    point=stored.point,
                    ts=ts,
                )
                if await self._store.set(transaction, receipt) and thread_id is None:
                    await self._highlights.delete_read(
                        transaction, user_id, stored.room_nid, stored.stream_id
                    )

        await self._database.write(work)

    async def _is_after_marker(self, user_id: UserId, room_id: RoomId, stored: StoredEvent) -> bool:
        known = await self._account_data.get(user_id, room_id, FULLY_READ)
        if known is None:
            return True
        before = await self._point(orjson.loads(known).get("event_id"))
        return before is None or before < stored.point

    async def _point(self, event_id: EventId) -> RoomPoint | None:
        stored = await self._rooms.event(event_id)
        return stored.point if stored is not None else None

    async def _check_in_room(self, user_id: UserId, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")

    async def _event(self, room_id: RoomId, event_id: str) -> StoredEvent:
        stored = await self._rooms.event(event_id)  # type: ignore[arg-type]
        if stored is None or stored.room_id != room_id or stored.status is not Status.TIMELINE:
            raise InvalidParam("The event is not in this room")
        return stored


def _is_in_thread(stored: StoredEvent, thread_id: str) -> bool:
    """Whether a threaded receipt for this event can be (CS "Threaded read receipts"); a root is in both."""
    if thread_id == MAIN:
        return stored.thread_root is None
    return thread_id in (stored.thread_root, stored.event.event_id)
