"""Events that this server sends to others: each once, whoever is to have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic
from homeserver.storage.room_servers import STILL_THERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import ServerName
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.room_servers import RoomServerStore

KEPT_IN_ROOM = 5_000
"""As many as a server gets that was away for long; one more, which says that there were more, is kept."""


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An event that goes to the servers that were in the room before it, and to `target`."""

    room_nid: int
    stream_id: int
    event_nid: int
    target: ServerName | None


# $1 is the server, $2 and $3 are the positions between which it waits.
_TARGETED = "SELECT stream_id, event_nid FROM outgoing_events WHERE target = $1 AND stream_id > $2 AND stream_id <= $3"
_ALL = (
    f"{_TARGETED} UNION SELECT o.stream_id, o.event_nid FROM room_servers s JOIN outgoing_events o"
    " ON o.room_nid = s.room_nid AND o.stream_id > s.joined_position AND o.stream_id <= s.left_position"
    " AND o.stream_id > $2 AND o.stream_id <= $3 WHERE s.server_name = $1 AND s.left_position > $2"
)
_NEWEST = (
    f"{_TARGETED} UNION SELECT o.stream_id, o.event_nid FROM room_servers s JOIN outgoing_events o"
    " ON o.room_nid = s.room_nid AND o.stream_id = ("
    "SELECT n.stream_id FROM outgoing_events n WHERE n.room_nid = s.room_nid AND n.stream_id > s.joined_position"
    " AND n.stream_id <= s.left_position AND n.stream_id > $2 AND n.stream_id <= $3"
    " ORDER BY n.stream_id DESC LIMIT 1) WHERE s.server_name = $1 AND s.left_position > $2"
)


class OutgoingEventStore:
    """Outgoing events by room and position; who is to have them follows from who was in the room."""

    def __init__(self, database: Database, room_servers: RoomServerStore) -> None:
        self._database = database
        self._room_servers = room_servers

    async def insert(self, transaction: Transaction, events: Sequence[OutgoingEvent]) -> None:
        """Note events that go out, where somebody is there to have them; the moves of servers come first."""
        rows = [
            (event.room_nid, event.stream_id, event.event_nid, event.target)
            for event in events
            if event.target is not None or not self._room_servers.known_to_be_alone(event.room_nid)
        ]
        if not rows:
            return
        await transaction.execute_many(
            "INSERT INTO outgoing_events (room_nid, stream_id, event_nid, target) SELECT $1::bigint,"
            " $2::bigint, $3::bigint, $4::text WHERE $4::text IS NOT NULL OR EXISTS (SELECT 1 FROM room_servers s"
            " WHERE s.room_nid = $1 AND s.joined_position < $2 AND s.left_position >= $2)",
            rows,
        )
        await transaction.execute_many(
            "INSERT INTO destinations (server_name, position) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            [(target, stream_id - 1) for _, stream_id, _, target in rows if target is not None],
        )
        for room_nid, _, _, target in rows:
            transaction.announce(Topic.OUTGOING_EVENTS, str(room_nid))
            if target is not None:
                transaction.announce(Topic.DESTINATIONS, target)

    async def load(
        self, server_name: ServerName, *, after: int, skip_upto: int, upto: int, limit: int
    ) -> list[tuple[int, int]]:
        """The oldest events that wait for a server: (position, number), in order.

        Of those up to `skip_upto` only the newest of each room, and those that are about its users.
        """
        found: list[tuple[int, int]] = []
        for sql, first, last in ((_NEWEST, after, min(skip_upto, upto)), (_ALL, max(after, skip_upto), upto)):
            if first < last and len(found) < limit:
                rows = await self._database.fetch_all(
                    f"{sql} ORDER BY 1 LIMIT $4", server_name, first, last, limit - len(found)
                )
                found += [(stream_id, event_nid) for stream_id, event_nid in rows]
        return found

    async def count(self, server_name: ServerName, *, after: int, upto: int, limit: int) -> int:
        """How many events wait for a server, if they are fewer than `limit`."""
        count: int | None = await self._database.fetch_value(
            f"SELECT count(*) FROM (SELECT 1 FROM ({_ALL}) AS waiting LIMIT $4) AS counted",
            server_name,
            after,
            upto,
            limit,
        )
        return count or 0

    async def prune(self, transaction: Transaction) -> None:
        """Drop what every server has, and of each room what is more than is kept."""
        await transaction.execute(
            "DELETE FROM outgoing_events WHERE stream_id <= (SELECT min(position) FROM destinations)"
        )
        await transaction.execute(
            "DELETE FROM room_servers WHERE left_position < $1 AND left_position <= coalesce(("
            "SELECT d.position FROM destinations d WHERE d.server_name = room_servers.server_name), $1)",
            STILL_THERE,
        )
        crowded = await transaction.fetch_all(
            "SELECT room_nid FROM outgoing_events GROUP BY room_nid HAVING count(*) > $1", KEPT_IN_ROOM + 1
        )
        await transaction.execute_many(
            "DELETE FROM outgoing_events WHERE room_nid = $1 AND stream_id <= ("
            "SELECT stream_id FROM outgoing_events WHERE room_nid = $1 ORDER BY stream_id DESC LIMIT 1 OFFSET $2)",
            [(room_nid, KEPT_IN_ROOM + 1) for (room_nid,) in crowded],
        )
