"""Events in the database: by id, by number and along the timeline of a room; the most used ones stay in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.storage.stored_event import EventRow, Status, StoredEvent, Stretch, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.ids import EventId
    from homeserver.storage.database import Database, Transaction

_STATUSES = tuple(Status)
_READ_AT_ONCE = 500

_COLUMNS = (
    "e.event_nid, e.stream_id, e.room_nid, r.room_id, r.room_version, e.event_id, e.status, e.state_after,"
    " e.state_before, e.replaces_state, e.redacted_by, e.notifies, e.thread_root, e.device_id,"
    " e.transaction_id, e.room_state, e.json"
)
_FROM = "FROM events e JOIN rooms r ON r.room_nid = e.room_nid"

INSERT_EVENT = (
    "INSERT INTO events (event_nid, stream_id, room_nid, event_id, depth, sender_nid, origin_server_ts, status,"
    " notifies, thread_root, state_after, state_before, replaces_state, device_id, transaction_id, json,"
    " messages_so_far, bytes_so_far)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
)


def _read(row: tuple) -> StoredEvent:  # type: ignore[type-arg]
    (
        event_nid,
        stream_id,
        room_nid,
        room_id,
        room_version,
        event_id,
        status,
        state_after,
        state_before,
        replaces_state,
        redacted_by,
        notifies,
        thread_root,
        device_id,
        transaction_id,
        room_state,
        json,
    ) = row
    return StoredEvent(
        event=Event.from_json(
            ROOM_VERSIONS[room_version], json, event_id=event_id, rejected=status == Status.REJECTED
        ),
        event_nid=event_nid,
        stream_id=stream_id,
        room_nid=room_nid,
        room_id=room_id,
        status=_STATUSES[status],
        state_after=state_after,
        state_before=state_after if state_before is None else state_before,
        replaces_state=replaces_state,
        redacted_by=redacted_by,
        notifies=bool(notifies),
        thread_root=thread_root,
        device_id=device_id,
        transaction_id=transaction_id,
        room_state=room_state,
    )


class EventStore:
    """Events by id, by number and along the timeline of a room; the most used ones stay in memory."""

    def __init__(self, database: Database, cache_bytes: int) -> None:
        self._database = database
        self._cache: OrderedDict[int, StoredEvent] = OrderedDict()
        self._number_of: dict[str, int] = {}
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._changes = 0

    # -- the cache -------------------------------------------------------------------------------------

    def remember(self, stored: StoredEvent) -> None:
        """Keep a committed event in memory."""
        previous = self._cache.pop(stored.event_nid, None)
        if previous is not None:
            self._cached_bytes -= size_of(previous)
        self._cache[stored.event_nid] = stored
        self._number_of[stored.event.event_id] = stored.event_nid
        self._cached_bytes += size_of(stored)
        while self._cached_bytes > self._cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            del self._number_of[dropped.event.event_id]
            self._cached_bytes -= size_of(dropped)

    def forget(self, event_id: EventId) -> None:
        """Drop an event from memory: its row has changed."""
        self._changes += 1
        event_nid = self._number_of.pop(event_id, None)
        if event_nid is not None:
            self._cached_bytes -= size_of(self._cache.pop(event_nid))

    # -- writing ---------------------------------------------------------------------------------------

    async def insert(self, transaction: Transaction, rows: Sequence[EventRow]) -> None:
        """Store new events of the timeline."""
        await transaction.execute_many(
            INSERT_EVENT,
            [
                (
                    row.event_nid,
                    row.stream_id,
                    row.room_nid,
                    row.event.event_id,
                    row.event.depth,
                    row.sender_nid,
                    row.event.origin_server_ts,
                    int(Status.TIMELINE),
                    int(row.notifies),
                    row.thread_root,
                    row.state_after,
                    row.state_before if row.state_before != row.state_after else None,
                    row.replaces_state,
                    row.device_id,
                    row.transaction_id,
                    row.event.json,
                    row.messages_so_far,
                    row.bytes_so_far,
                )
                for row in rows
            ],
        )

    async def redact(self, transaction: Transaction, pruned: Event, redacted_by: EventId) -> None:
        """Replace an event by its pruned form, for good."""
        await transaction.execute(
            "UPDATE events SET json = $1, redacted_by = $2, notifies = 0 WHERE event_id = $3",
            pruned.json,
            redacted_by,
            pruned.event_id,
        )

    # -- reading ---------------------------------------------------------------------------------------

    async def get(self, event_id: EventId) -> StoredEvent | None:
        """One event by its id."""
        event_nid = self._number_of.get(event_id)
        if event_nid is not None:
            self._cache.move_to_end(event_nid)
            return self._cache[event_nid]
        changes = self._changes
        row = await self._database.fetch_one(f"SELECT {_COLUMNS} {_FROM} WHERE e.event_id = $1", event_id)
        return self._keep(row, changes) if row else None

    async def load(self, event_ids: Iterable[EventId]) -> dict[EventId, StoredEvent]:
        """Those of these events that are stored."""
        found: dict[EventId, StoredEvent] = {}
        missing: list[EventId] = []
        for event_id in event_ids:
            event_nid = self._number_of.get(event_id)
            if event_nid is None:
                missing.append(event_id)
            else:
                found[event_id] = self._cache[event_nid]
        if missing:
            changes = self._changes
            rows = await self._database.fetch_all(
                f"SELECT {_COLUMNS} {_FROM} WHERE e.event_id = ANY($1::text[])", missing
            )
            for row in rows:
                stored = self._keep(row, changes)
                found[stored.event.event_id] = stored
        return found

    async def load_event_numbers(self, event_ids: Iterable[EventId]) -> dict[EventId, int]:
        """The numbers of those of these events that are stored, and not only noted."""
        found: dict[EventId, int] = {}
        missing: list[EventId] = []
        for event_id in event_ids:
            event_nid = self._number_of.get(event_id)
            if event_nid is None:
                missing.append(event_id)
            elif self._cache[event_nid].status is not Status.NOTED:
                found[event_id] = event_nid
        if missing:
            rows = await self._database.fetch_all(
                "SELECT event_id, event_nid FROM events WHERE event_id = ANY($1::text[]) AND status <> $2",
                missing,
                int(Status.NOTED),
            )
            found.update(dict(rows))
        return found

    async def load_numbered(self, event_nids: Iterable[int]) -> dict[int, StoredEvent]:
        """Events by their numbers. Of many that are not in memory a part is read at a time: others get their turn."""
        found, missing = self._in_memory(event_nids)
        for start in range(0, len(missing), _READ_AT_ONCE):
            changes = self._changes
            rows = await self._database.fetch_all(
                f"SELECT {_COLUMNS} {_FROM} WHERE e.event_nid = ANY($1::bigint[])",
                missing[start : start + _READ_AT_ONCE],
            )
            for row in rows:
                stored = self._keep(row, changes)
                found[stored.event_nid] = stored
        return found

    async def load_contents(self, event_nids: Iterable[int]) -> dict[int, Mapping[str, Any]]:
        """The contents of events by their numbers, where nothing else of them is wanted: they are not kept in memory."""
        found, missing = self._in_memory(event_nids)
        contents: dict[int, Mapping[str, Any]] = {
            event_nid: stored.event.content for event_nid, stored in found.items()
        }
        for start in range(0, len(missing), _READ_AT_ONCE):
            rows = await self._database.fetch_all(
                "SELECT event_nid, json FROM events WHERE event_nid = ANY($1::bigint[])",
                missing[start : start + _READ_AT_ONCE],
            )
            contents.update((event_nid, orjson.loads(json)["content"]) for event_nid, json in rows)
        return contents

    def _in_memory(self, event_nids: Iterable[int]) -> tuple[dict[int, StoredEvent], list[int]]:
        """Those of these events that are in memory, and the numbers of the others."""
        found: dict[int, StoredEvent] = {}
        missing: list[int] = []
        for event_nid in event_nids:
            cached = self._cache.get(event_nid)
            if cached is None:
                missing.append(event_nid)
            else:
                found[event_nid] = cached
        return found, missing

    async def load_arrivals(
        self, room_nid: int, *, after: int, upto: int, limit: int, oldest_first: bool = False
    ) -> list[StoredEvent]:
        """Timeline events of a room with `after < stream_id <= upto`, in order of arrival.

        At most `limit` of them: the newest ones, or the oldest where `oldest_first`.
        """
        order = "ASC" if oldest_first else "DESC"
        changes = self._changes
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} {_FROM} WHERE e.room_nid = $1 AND e.stream_id > $2 AND e.stream_id <= $3"
            f" AND e.status = 0 ORDER BY e.stream_id {order} LIMIT $4",
            room_nid,
            after,
            upto,
            limit,
        )
        arrivals = [self._keep(row, changes) for row in rows]
        return arrivals if oldest_first else arrivals[::-1]

    async def load_newest(self, room_nids: Iterable[int], number: int) -> dict[int, list[StoredEvent]]:
        """The newest `number` events of the timelines of many rooms, in order of arrival, by the numbers of the rooms."""
        changes = self._changes
        rows = await self._database.fetch_many(
            f"SELECT {_COLUMNS} {_FROM} WHERE e.room_nid = $1 AND e.stream_id > 0 AND e.status = 0"
            " ORDER BY e.stream_id DESC LIMIT $2",
            [(room_nid, number) for room_nid in room_nids],
        )
        newest: dict[int, list[StoredEvent]] = {}
        for row in rows:
            newest.setdefault(row[2], []).insert(0, self._keep(row, changes))
        return newest

    async def load_timeline(
        self,
        room_nid: int,
        stretch: Stretch,
        *,
        backwards: bool,
        limit: int,
    ) -> list[StoredEvent]:
        """The first `limit` events of a stretch of a room, in walking order. What is in memory is not read again."""
        order = "DESC" if backwards else "ASC"
        arguments: list[object] = [room_nid]
        conditions = ["e.room_nid = $1", "e.status = 0", *stretch.conditions(arguments, backwards=backwards)]
        arguments.append(limit)
        rows = await self._database.fetch_all(
            f"SELECT e.event_nid FROM events e WHERE {' AND '.join(conditions)}"
            f" ORDER BY e.depth {order}, e.stream_id {order} LIMIT ${len(arguments)}",
            *arguments,
        )
        return await self._load_rows(rows)

    async def get_snapshot_at(self, room_nid: int, position: int) -> int:
        """The state snapshot of a room as it was at a position of the log; 0 before its first event."""
        snapshot = await self._database.fetch_value(
            "SELECT coalesce(room_state, state_after) FROM events"
            " WHERE room_nid = $1 AND stream_id <= $2 AND stream_id > 0 AND status = 0"
            " ORDER BY stream_id DESC LIMIT 1",
            room_nid,
            position,
        )
        return snapshot or 0

    async def load_snapshots_at(self, places: Iterable[tuple[int, int]]) -> dict[int, int]:
        """The same for many rooms, given by (number, position); those are left out that had no event then."""
        rows = await self._database.fetch_many(
            "SELECT room_nid, coalesce(room_state, state_after) FROM events"
            " WHERE room_nid = $1 AND stream_id <= $2 AND stream_id > 0 AND status = 0"
            " ORDER BY stream_id DESC LIMIT 1",
            list(places),
        )
        return dict(rows)

    async def load_nearest(
        self, room_nid: int, *, ts: int, backwards: bool, upto: int, skip: int, limit: int
    ) -> list[StoredEvent]:
        """The timeline events at a time and before (`backwards`) or after, closest first, that arrived up to `upto`."""
        sign, order = ("<=", "DESC") if backwards else (">=", "ASC")
        changes = self._changes
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} {_FROM} WHERE e.room_nid = $1 AND e.status = 0 AND e.origin_server_ts {sign} $2"
            f" AND e.stream_id <= $3 ORDER BY e.origin_server_ts {order}, e.depth {order} LIMIT $4 OFFSET $5",
            room_nid,
            ts,
            upto,
            limit,
            skip,
        )
        return [self._keep(row, changes) for row in rows]

    async def load_current_state(
        self, room_nid: int, keys: Iterable[tuple[str, str]] | None = None
    ) -> list[StoredEvent]:
        """The events of the current state of a room: all, or those of some keys."""
        if keys is None:
            rows = await self._database.fetch_all(
                "SELECT event_nid FROM current_state WHERE room_nid = $1", room_nid
            )
            return await self._load_rows(rows)
        wanted = list(keys)
        changes = self._changes
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM state_keys k"
            " JOIN current_state c ON c.room_nid = $1 AND c.key_nid = k.key_nid"
            " JOIN events e ON e.event_nid = c.event_nid JOIN rooms r ON r.room_nid = e.room_nid"
            " WHERE k.type = ANY($2::text[]) AND k.state_key = ANY($3::text[])",
            room_nid,
            list({event_type for event_type, _ in wanted}),
            list({state_key for _, state_key in wanted}),
        )
        return [self._keep(row, changes) for row in rows]

    async def load_current_state_of_rooms(
        self, room_nids: Iterable[int], keys: Iterable[tuple[str, str]]
    ) -> list[StoredEvent]:
        """The events of some keys in the current state of many rooms."""
        wanted = set(keys)
        rows = await self._database.fetch_all(
            "SELECT c.event_nid, k.type, k.state_key FROM state_keys k"
            " JOIN current_state c ON c.room_nid = ANY($1::bigint[]) AND c.key_nid = k.key_nid"
            " WHERE k.type = ANY($2::text[]) AND k.state_key = ANY($3::text[])",
            list(room_nids),
            list({event_type for event_type, _ in wanted}),
            list({state_key for _, state_key in wanted}),
        )
        event_nids = [row[0] for row in rows if (row[1], row[2]) in wanted]
        return list((await self.load_numbered(event_nids)).values())

    async def load_current_state_of_type(self, room_nid: int, event_type: str) -> list[StoredEvent]:
        """The events of one type in the current state of a room."""
        rows = await self._database.fetch_all(
            "SELECT c.event_nid FROM current_state c JOIN state_keys k ON k.key_nid = c.key_nid"
            " WHERE c.room_nid = $1 AND k.type = $2",
            room_nid,
            event_type,
        )
        return await self._load_rows(rows)

    async def _load_rows(self, rows: Sequence[tuple]) -> list[StoredEvent]:  # type: ignore[type-arg]
        """The events of rows that hold their numbers, in that order."""
        event_nids = [row[0] for row in rows]
        found = await self.load_numbered(event_nids)
        return [found[event_nid] for event_nid in event_nids]

    def _keep(self, row: tuple, changes: int) -> StoredEvent:  # type: ignore[type-arg]
        """The event of a row; kept in memory unless some row has changed since `changes`, when it was asked for."""
        cached = self._cache.get(row[0])
        if cached is not None:
            return cached
        stored = _read(row)
        if changes == self._changes:
            self.remember(stored)
        return stored
