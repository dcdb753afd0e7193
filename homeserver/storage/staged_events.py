"""Events that wait for what is missing before them: acknowledged to their senders, and not yet in their rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId, RoomId, ServerName

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class StagedEvent:
    """One of them; `json` is its federation form, with signatures that were found right."""

    event_id: EventId
    room_id: RoomId
    origin: ServerName
    json: bytes
    attempts: int = 0


class StagedEventStore:
    """Staged events in the order in which they came."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, events: Sequence[StagedEvent]) -> None:
        """Stage events; those that are staged already stay as they are."""
        for staged in events:
            await transaction.execute(
                "INSERT INTO staged_events (staged_nid, event_id, room_id, origin, json)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                await transaction.next_position(),
                staged.event_id,
                staged.room_id,
                staged.origin,
                staged.json,
            )

    async def delete(self, transaction: Transaction, event_ids: Collection[EventId]) -> None:
        """Forget staged events."""
        await transaction.execute(
            "DELETE FROM staged_events WHERE event_id = ANY($1::text[])", list(event_ids)
        )

    async def count_attempt(self, transaction: Transaction, event_id: EventId) -> None:
        """Note that an event could not be placed this time."""
        await transaction.execute(
            "UPDATE staged_events SET attempts = attempts + 1 WHERE event_id = $1", event_id
        )

    async def load_rooms(self) -> list[RoomId]:
        """The rooms that events wait for."""
        rows = await self._database.fetch_all("SELECT DISTINCT room_id FROM staged_events")
        return [RoomId(row[0]) for row in rows]

    async def load(self, room_id: RoomId, limit: int) -> list[StagedEvent]:
        """The next events that wait for a room: the first of each server before the second of any."""
        rows = await self._database.fetch_all(
            "SELECT s.event_id, s.origin, s.json, s.attempts FROM"
            " (SELECT staged_nid, row_number() OVER (PARTITION BY origin ORDER BY staged_nid) AS turn"
            " FROM staged_events WHERE room_id = $1) t"
            " JOIN staged_events s ON s.staged_nid = t.staged_nid ORDER BY t.turn, t.staged_nid LIMIT $2",
            room_id,
            limit,
        )
        return [
            StagedEvent(EventId(event_id), room_id, ServerName(origin), json, attempts)
            for event_id, origin, json, attempts in rows
        ]

    async def count(self, room_id: RoomId, origin: ServerName) -> tuple[int, int]:
        """How many events wait for a room, and how many of them are of one server."""
        row = await self._database.fetch_one(
            "SELECT count(*), sum(CASE WHEN origin = $2 THEN 1 ELSE 0 END) FROM staged_events WHERE room_id = $1",
            room_id,
            origin,
        )
        assert row is not None
        return int(row[0]), int(row[1] or 0)
