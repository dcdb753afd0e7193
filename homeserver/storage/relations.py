"""Which event relates to which (`m.relates_to`): threads, replacements, references, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId
from homeserver.storage.events import RoomPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class RelationRow:
    """One event that relates to another."""

    event_nid: int
    room_nid: int
    relates_to: EventId
    relation_type: str
    event_type: str
    sender_nid: int
    point: RoomPoint


_COLUMNS = "event_nid, room_nid, relates_to, relation_type, event_type, sender_nid, depth, stream_id"


def _read(row: tuple) -> RelationRow:  # type: ignore[type-arg]
    event_nid, room_nid, relates_to, relation_type, event_type, sender_nid, depth, stream_id = row
    return RelationRow(
        event_nid, room_nid, relates_to, relation_type, event_type, sender_nid, RoomPoint(depth, stream_id)
    )


class RelationStore:
    """Relations by the event that they point to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, rows: Sequence[RelationRow]) -> None:
        """Store relations."""
        await transaction.execute_many(
            f"INSERT INTO relations ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [
                (
                    row.event_nid,
                    row.room_nid,
                    row.relates_to,
                    row.relation_type,
                    row.event_type,
                    row.sender_nid,
                    row.point.depth,
                    row.point.stream_id,
                )
                for row in rows
            ],
        )

    async def delete(self, transaction: Transaction, event_id: EventId) -> None:
        """Drop the relation of an event, since its redaction took `m.relates_to` away."""
        await transaction.execute(
            "DELETE FROM relations WHERE event_nid = (SELECT event_nid FROM events WHERE event_id = $1)",
            event_id,
        )

    async def load_to(self, event_ids: Iterable[EventId], relation_types: Iterable[str]) -> list[RelationRow]:
        """All relations of some types to these events, in the order of the room."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM relations WHERE relates_to = ANY($1::text[])"
            " AND relation_type = ANY($2::text[]) ORDER BY depth, stream_id",
            list(event_ids),
            list(relation_types),
        )
        return [_read(row) for row in rows]

    async def load_sent(
        self, relates_to: EventId, relation_type: str, event_type: str, sender_nid: int
    ) -> list[int]:
        """The numbers of the events by which a user has related to an event."""
        rows = await self._database.fetch_all(
            "SELECT event_nid FROM relations WHERE relates_to = $1 AND relation_type = $2 AND event_type = $3"
            " AND sender_nid = $4",
            relates_to,
            relation_type,
            event_type,
            sender_nid,
        )
        return [row[0] for row in rows]

    async def load_page(
        self,
        relates_to: Iterable[EventId],
        *,
        relation_type: str | None,
        event_type: str | None,
        start: RoomPoint | None,
        stop: RoomPoint | None,
        backwards: bool,
        limit: int,
    ) -> list[RelationRow]:
        """A page of the events that relate to any of `relates_to`, from `start` towards `stop`, both exclusive."""
        conditions = ["relates_to = ANY($1::text[])"]
        arguments: list[object] = [list(relates_to)]
        for column, wanted in (("relation_type", relation_type), ("event_type", event_type)):
            if wanted is not None:
                arguments.append(wanted)
                conditions.append(f"{column} = ${len(arguments)}")
        lower, upper = (stop, start) if backwards else (start, stop)
        for point, sign in ((lower, ">"), (upper, "<")):
            if point is not None:
                arguments += [point.depth, point.stream_id]
                n = len(arguments)
                conditions.append(f"(depth, stream_id) {sign} (${n - 1}, ${n})")
        arguments.append(limit)
        order = "DESC" if backwards else "ASC"
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM relations WHERE {' AND '.join(conditions)}"
            f" ORDER BY depth {order}, stream_id {order} LIMIT ${len(arguments)}",
            *arguments,
        )
        return [_read(row) for row in rows]

    async def load_threads(
        self, room_nid: int, *, before: int | None, sender_nid: int | None, limit: int
    ) -> list[tuple[EventId, int]]:
        """Thread roots of a room with the position of their latest reply, latest first.

        `before` is the position of the last thread of the page before; with `sender_nid`, only threads that this
        user took part in by a reply or by the root.
        """
        arguments: list[object] = [room_nid]
        having = []
        if before is not None:
            arguments.append(before)
            having.append(f"max(t.stream_id) < ${len(arguments)}")
        if sender_nid is not None:
            arguments.append(sender_nid)
            n = len(arguments)
            having.append(
                f"(sum(CASE WHEN t.sender_nid = ${n} THEN 1 ELSE 0 END) > 0 OR EXISTS (SELECT 1 FROM events e"
                f" WHERE e.event_id = t.relates_to AND e.sender_nid = ${n}))"
            )
        arguments.append(limit)
        rows = await self._database.fetch_all(
            "SELECT t.relates_to, max(t.stream_id) AS latest FROM relations t"
            " WHERE t.room_nid = $1 AND t.relation_type = 'm.thread' GROUP BY t.relates_to"
            + (f" HAVING {' AND '.join(having)}" if having else "")
            + f" ORDER BY latest DESC LIMIT ${len(arguments)}",
            *arguments,
        )
        return [(EventId(row[0]), row[1]) for row in rows]
