"""What senders hear of their events: that they were delivered, and that a client has decrypted them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId, RoomId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Transaction

DELIVERED = "dev.restante.delivered"
"""A device of the user has acknowledged the event, and what the sender sent before; the newest one is kept."""
DECRYPTED = "org.matrix.msc4089.delivery"
"""A client of the user says that it has received the event, and decrypted it (MSC4089)."""
KEPT_MS = 30 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class DeliveryNews:
    """Something that the sender of an event is told about a recipient."""

    sender: UserId
    room_id: RoomId
    user_id: UserId
    kind: str
    event_id: EventId
    ts: int
    event_position: int
    """Where the event stands in the log."""


class DeliveryNewsStore:
    """News by sender and position."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, news: Sequence[DeliveryNews]) -> None:
        """Note news, and tell the senders' devices; of what was delivered only what is newer than they know."""
        rows = []
        for one in await self._unheard(transaction, news):
            event_key = "" if one.kind == DELIVERED else one.event_id
            position = await transaction.next_position()
            rows.append(
                (
                    one.sender,
                    one.room_id,
                    one.user_id,
                    one.kind,
                    event_key,
                    one.event_id,
                    one.event_position,
                    one.ts,
                    position,
                )
            )
            transaction.announce(Topic.DELIVERY, one.sender)
        await transaction.execute_many(
            "INSERT INTO delivery_news"
            " (sender, room_id, user_id, kind, event_key, event_id, event_position, ts, stream_id)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            " ON CONFLICT (sender, room_id, user_id, kind, event_key) DO UPDATE SET event_id = excluded.event_id,"
            " event_position = excluded.event_position, ts = excluded.ts, stream_id = excluded.stream_id",
            rows,
        )

    async def _unheard(self, transaction: Transaction, news: Sequence[DeliveryNews]) -> list[DeliveryNews]:
        """Without what says that another device of the user has got an event, too, or is behind."""
        delivered = [one for one in news if one.kind == DELIVERED]
        if not delivered:
            return list(news)
        rows = await transaction.fetch_all(
            "SELECT sender, room_id, user_id, event_position FROM delivery_news WHERE kind = $1"
            " AND sender = ANY($2::text[]) AND room_id = ANY($3::text[]) AND user_id = ANY($4::text[])",
            DELIVERED,
            sorted({one.sender for one in delivered}),
            sorted({one.room_id for one in delivered}),
            sorted({one.user_id for one in delivered}),
        )
        told = {(sender, room_id, user_id): position for sender, room_id, user_id, position in rows}
        return [
            one
            for one in news
            if one.kind != DELIVERED
            or told.get((one.sender, one.room_id, one.user_id), 0) < one.event_position
        ]

    async def load_changes(self, sender: UserId, *, after: int, upto: int) -> list[DeliveryNews]:
        """News for a sender with `after < stream_id <= upto`, oldest first."""
        rows = await self._database.fetch_all(
            "SELECT sender, room_id, user_id, kind, event_id, ts, event_position FROM delivery_news"
            " WHERE sender = $1 AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id",
            sender,
            after,
            upto,
        )
        return [
            DeliveryNews(
                UserId(row[0]), RoomId(row[1]), UserId(row[2]), row[3], EventId(row[4]), row[5], row[6]
            )
            for row in rows
        ]

    async def load_decrypted(self, sender: UserId, room_id: RoomId, event_id: EventId) -> dict[UserId, int]:
        """Whose clients say that they have decrypted an event, and when."""
        rows = await self._database.fetch_all(
            "SELECT user_id, ts FROM delivery_news WHERE sender = $1 AND room_id = $2 AND kind = $3"
            " AND event_key = $4",
            sender,
            room_id,
            DECRYPTED,
            event_id,
        )
        return {UserId(user_id): ts for user_id, ts in rows}

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop what is old news."""
        await transaction.execute("DELETE FROM delivery_news WHERE ts < $1", now_ms - KEPT_MS)
