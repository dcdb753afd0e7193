"""What is missing of rooms: events that others follow, and those that a redaction came before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import EventId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.stored_event import Stretch


class GapStore:
    """Backward extremities, and redactions that wait for their event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(
        self,
        transaction: Transaction,
        room_nid: int,
        event_id: EventId,
        event_nid: int,
        missing: Iterable[EventId],
    ) -> None:
        """Note that an event has come into the timeline, and which of those that it follows have not."""
        await transaction.execute(
            "DELETE FROM backward_extremities WHERE room_nid = $1 AND event_id = $2", room_nid, event_id
        )
        await transaction.execute(
            "DELETE FROM early_redactions WHERE room_nid = $1 AND redacts = $2", room_nid, event_id
        )
        await transaction.execute_many(
            "INSERT INTO backward_extremities (room_nid, event_id, followed_by) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING",
            [(room_nid, other, event_nid) for other in missing],
        )

    async def pass_on(
        self, transaction: Transaction, room_nid: int, event_id: EventId, missing: Iterable[EventId]
    ) -> None:
        """Note that an event gets no place in the timeline: who follows it follows what is missing behind it."""
        await transaction.execute_many(
            "INSERT INTO backward_extremities (room_nid, event_id, followed_by)"
            " SELECT room_nid, $3, followed_by FROM backward_extremities WHERE room_nid = $1 AND event_id = $2"
            " ON CONFLICT DO NOTHING",
            [(room_nid, event_id, other) for other in missing],
        )
        await transaction.execute(
            "DELETE FROM backward_extremities WHERE room_nid = $1 AND event_id = $2", room_nid, event_id
        )

    async def set_arrival(self, transaction: Transaction, room_nid: int, depth: int) -> None:
        """Note at which depth this server came into a room: what is older was never sent to it."""
        await transaction.execute("UPDATE rooms SET arrival_depth = $2 WHERE room_nid = $1", room_nid, depth)

    async def load_arrival_depth(self, room_nid: int) -> int:
        """At which depth this server came into a room; 0 where it was made here."""
        depth = await self._database.fetch_value(
            "SELECT arrival_depth FROM rooms WHERE room_nid = $1", room_nid
        )
        return int(depth or 0)

    async def is_followed(self, room_nid: int, event_id: EventId) -> bool:
        """Whether an event of the timeline follows this one, which is not in it."""
        return bool(
            await self._database.fetch_value(
                "SELECT 1 FROM backward_extremities WHERE room_nid = $1 AND event_id = $2 LIMIT 1",
                room_nid,
                event_id,
            )
        )

    async def load_missing(
        self,
        room_nid: int,
        *,
        depth_from: int,
        depth_upto: int,
        limit: int,
        within: Stretch | None = None,
    ) -> list[tuple[EventId, int]]:
        """Missing events with the depth of the deepest event that follows each, where that is in a range; deepest first.

        Only what is followed by events that arrived after the floor of the stretch `within`, if one is given.
        """
        arguments: list[object] = [room_nid, depth_from, depth_upto, limit]
        arrived = "".join(f" AND {one}" for one in within.arrived(arguments)) if within is not None else ""
        rows = await self._database.fetch_all(
            "SELECT b.event_id, max(e.depth) FROM backward_extremities b JOIN events e ON e.event_nid = b.followed_by"
            f" WHERE b.room_nid = $1{arrived} GROUP BY b.event_id"
            " HAVING max(e.depth) >= $2 AND max(e.depth) <= $3 ORDER BY max(e.depth) DESC LIMIT $4",
            *arguments,
        )
        return [(EventId(event_id), depth) for event_id, depth in rows]

    async def load_missed_at(self, room_nid: int, event_ids: Iterable[EventId]) -> dict[EventId, int]:
        """The positions at which these events were first missed, as far as that is known."""
        rows = await self._database.fetch_all(
            "SELECT b.event_id, min(CASE WHEN e.stream_id > 0 THEN e.stream_id ELSE e.missed_at END)"
            " FROM backward_extremities b JOIN events e ON e.event_nid = b.followed_by"
            " WHERE b.room_nid = $1 AND b.event_id = ANY($2::text[]) GROUP BY b.event_id",
            room_nid,
            list(event_ids),
        )
        return {EventId(event_id): position for event_id, position in rows if position is not None}

    async def add_early_redaction(
        self, transaction: Transaction, room_nid: int, redacts: EventId, event_id: EventId
    ) -> None:
        """Remember a redaction of an event that has not come."""
        await transaction.execute(
            "INSERT INTO early_redactions (room_nid, redacts, event_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            room_nid,
            redacts,
            event_id,
        )

    async def load_early_redactions(self, room_nid: int, event_id: EventId) -> list[EventId]:
        """The redactions that came before this event."""
        rows = await self._database.fetch_all(
            "SELECT event_id FROM early_redactions WHERE room_nid = $1 AND redacts = $2", room_nid, event_id
        )
        return [EventId(row[0]) for row in rows]
