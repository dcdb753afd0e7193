"""Which event relates to which (`m.relates_to`): threads, replacements, references, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId
from homeserver.storage.stored_event import RoomPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.stored_event import Stretch


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


@dataclass(frozen=True, slots=True)
class ThreadSummary:
    """A thread: its latest reply, the number of its replies, and whether somebody is among their senders."""

    latest_nid: int
    count: int
    participated: bool


# The plus keeps SQLite from going through all relations of the room.
_TO = "+room_nid = $1 AND relates_to = ANY($2::text[])"
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

    async def load_kinds(self, room_nid: int, event_ids: Iterable[EventId]) -> dict[str, list[EventId]]:
        """Those of these events that other events of their room relate to, by type of relation."""
        rows = await self._database.fetch_all(
            f"SELECT DISTINCT relation_type, relates_to FROM relations WHERE {_TO}", room_nid, list(event_ids)
        )
        kinds: dict[str, list[EventId]] = {}
        for relation_type, relates_to in rows:
            kinds.setdefault(relation_type, []).append(EventId(relates_to))
        return kinds

    async def load_related(self, event_ids: Iterable[EventId]) -> set[EventId]:
        """Those of these events, of whatever rooms, that other events relate to."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT relates_to FROM relations WHERE relates_to = ANY($1::text[])", list(event_ids)
        )
        return {EventId(row[0]) for row in rows}

    async def load_children(
        self,
        room_nid: int,
        event_ids: Iterable[EventId],
        relation_type: str,
        ignored: Iterable[int],
        limit: int | None,
    ) -> list[RelationRow]:
        """What relates to these events in one way, in the order of the room; at most `limit` for each of them."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS}, row_number() OVER"
            " (PARTITION BY relates_to ORDER BY depth, stream_id) AS place FROM relations"
            f" WHERE {_TO} AND relation_type = $3 AND sender_nid <> ALL($4::bigint[])) r"
            " WHERE place <= $5 ORDER BY depth, stream_id",
            room_nid,
            list(event_ids),
            relation_type,
            list(ignored),
            2**62 if limit is None else limit,
        )
        return [_read(row) for row in rows]

    async def load_replacements(
        self, room_nid: int, event_ids: Iterable[EventId], limit: int
    ) -> list[RelationRow]:
        """The latest `limit` replacements of each of these events by its own sender, most recent first."""
        columns = ", ".join(f"r.{column}" for column in _COLUMNS.split(", "))
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM (SELECT {columns}, row_number() OVER (PARTITION BY r.relates_to"
            " ORDER BY e.origin_server_ts DESC, e.event_id DESC) AS place FROM relations r"
            " JOIN events e ON e.event_nid = r.event_nid JOIN events p ON p.event_id = r.relates_to"
            " WHERE +r.room_nid = $1 AND r.relates_to = ANY($2::text[]) AND r.relation_type = 'm.replace'"
            " AND r.sender_nid = p.sender_nid) r WHERE place <= $3 ORDER BY place",
            room_nid,
            list(event_ids),
            limit,
        )
        return [_read(row) for row in rows]

    async def load_threads_of(
        self, room_nid: int, roots: Iterable[EventId], own_nid: int, ignored: Iterable[int]
    ) -> dict[EventId, ThreadSummary]:
        """The threads of these events, without the replies of ignored users; those without replies are left out."""
        rows = await self._database.fetch_all(
            "SELECT t.relates_to, (SELECT l.event_nid FROM relations l WHERE +l.room_nid = $1"
            " AND l.relates_to = t.relates_to AND l.relation_type = 'm.thread'"
            " AND l.sender_nid <> ALL($4::bigint[]) ORDER BY l.depth DESC, l.stream_id DESC LIMIT 1),"
            " count(*), max(CASE WHEN t.sender_nid = $3 THEN 1 ELSE 0 END) FROM relations t"
            " WHERE +t.room_nid = $1 AND t.relates_to = ANY($2::text[]) AND t.relation_type = 'm.thread'"
            " AND t.sender_nid <> ALL($4::bigint[]) GROUP BY t.relates_to",
            room_nid,
            list(roots),
            own_nid,
            list(ignored),
        )
        return {EventId(row[0]): ThreadSummary(row[1], row[2], bool(row[3])) for row in rows}

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
        room_nid: int,
        relates_to: Iterable[EventId],
        stretch: Stretch,
        *,
        relation_type: str | None,
        event_type: str | None,
        backwards: bool,
        limit: int,
    ) -> list[RelationRow]:
        """The first `limit` events of a stretch of a room that relate to any of `relates_to`."""
        conditions = [_TO]
        arguments: list[object] = [room_nid, list(relates_to)]
        for column, wanted in (("relation_type", relation_type), ("event_type", event_type)):
            if wanted is not None:
                arguments.append(wanted)
                conditions.append(f"{column} = ${len(arguments)}")
        conditions += stretch.conditions(arguments, backwards=backwards)
        arguments.append(limit)
        order = "DESC" if backwards else "ASC"
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS}, (SELECT e.missed_at FROM events e"
            " WHERE e.event_nid = relations.event_nid) AS missed_at FROM relations) r"
            f" WHERE {' AND '.join(conditions)}"
            f" ORDER BY depth {order}, stream_id {order} LIMIT ${len(arguments)}",
            *arguments,
        )
        return [_read(row) for row in rows]

    async def load_threads(
        self, room_nid: int, *, upto: int, before: int | None, sender_nid: int | None, limit: int
    ) -> list[tuple[EventId, int]]:
        """Thread roots of a room with the position of their latest reply that came up to `upto`, latest first.

        `before` is the position of the last thread of the page before; with `sender_nid`, only threads that this
        user took part in by a reply or by the root.
        """
        arguments: list[object] = [room_nid, upto]
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
            " WHERE t.room_nid = $1 AND t.relation_type = 'm.thread' AND t.stream_id <= $2 GROUP BY t.relates_to"
            + (f" HAVING {' AND '.join(having)}" if having else "")
            + f" ORDER BY latest DESC LIMIT ${len(arguments)}",
            *arguments,
        )
        return [(EventId(row[0]), row[1]) for row in rows]
