"""Rooms: their head (what the next event is built on) and their last place in the log."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from homeserver.eventgraph.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.ids import EventId, RoomId, UserId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.storage.database import Database, Transaction


SAYING = frozenset(
    {
        "m.room.create",
        "m.room.message",
        "m.room.encrypted",
        "m.sticker",
        "m.call.invite",
        "m.poll.start",
        "m.beacon_info",
        # What polls and live locations are called in rooms today.
        "org.matrix.msc3381.poll.start",
        "org.matrix.msc3672.beacon_info",
    }
)
"""The types of events that say something: what else happens in a room is no reason to look at it (MSC4186)."""


@dataclass(frozen=True, slots=True)
class Extremity:
    """An event that no other event follows yet; `sha256` is its reference hash in room versions 1 and 2."""

    event_id: EventId
    sha256: str | None


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A room as stored. `head_version` changes with every event written into it."""

    room_nid: int
    room_id: RoomId
    version: RoomVersion
    head_version: int
    forward_extremities: tuple[Extremity, ...]
    depth: int
    state_snapshot: int
    last_position: int
    joined_members: int
    invited_members: int
    arrival_depth: int = 0
    """The depth at which this server came into the room; 0 where it was there from the start."""


@dataclass(slots=True)
class Head:
    """What a write into a room goes on from."""

    version: int
    messages: int = 0
    bytes: int = 0
    """How much arrived in the room so far."""
    said: int = 0
    """The position of the newest event that says something."""


def _read(row: tuple) -> RoomRow:  # type: ignore[type-arg]
    *columns, arrival_depth = row
    room_nid, room_id, version, head_version, extremities, depth, snapshot, position, joined, invited = (
        columns
    )
    return RoomRow(
        room_nid=room_nid,
        room_id=RoomId(room_id),
        version=ROOM_VERSIONS[version],
        head_version=head_version,
        forward_extremities=tuple(
            Extremity(event_id, sha256) for event_id, sha256 in orjson.loads(extremities)
        ),
        depth=depth,
        state_snapshot=snapshot,
        last_position=position,
        joined_members=joined,
        invited_members=invited,
        arrival_depth=arrival_depth,
    )


_COLUMNS = (
    "room_nid, room_id, room_version, head_version, forward_extremities, depth, state_snapshot, last_position,"
    " joined_members, invited_members, arrival_depth"
)


class RoomStore:
    """Rooms by id and by number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, room_id: RoomId) -> RoomRow | None:
        """A room by its id."""
        row = await self._database.fetch_one(f"SELECT {_COLUMNS} FROM rooms WHERE room_id = $1", room_id)
        return _read(row) if row else None

    async def load(self, room_nids: Iterable[int]) -> dict[int, RoomRow]:
        """Rooms by their numbers."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM rooms WHERE room_nid = ANY($1::bigint[])", list(room_nids)
        )
        return {row[0]: _read(row) for row in rows}

    async def load_by_id(self, room_ids: Iterable[RoomId]) -> list[RoomRow]:
        """Those of these rooms that are stored."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM rooms WHERE room_id = ANY($1::text[])", list(room_ids)
        )
        return [_read(row) for row in rows]

    async def load_last_positions(self) -> list[tuple[RoomId, int]]:
        """The position of the newest event of every room, for the notifier to start with."""
        rows = await self._database.fetch_all("SELECT room_id, last_position FROM rooms")
        return [(RoomId(room_id), position) for room_id, position in rows]

    async def changed_since(self, room_ids: Iterable[RoomId], position: int) -> list[RoomId]:
        """Those of these rooms that events came into after a position."""
        rows = await self._database.fetch_all(
            "SELECT room_id FROM rooms WHERE room_id = ANY($1::text[]) AND last_position > $2",
            list(room_ids),
            position,
        )
        return [RoomId(row[0]) for row in rows]

    async def load_said(self, room_nids: Iterable[int]) -> dict[int, int]:
        """The position of the newest event that says something, of those of these rooms in which one arrived."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, said_position FROM rooms WHERE room_nid = ANY($1::bigint[]) AND said_position > 0",
            list(room_nids),
        )
        return dict(rows)

    async def load_heads(self, transaction: Transaction, room_nids: Sequence[int]) -> dict[int, Head]:
        """The heads that a write compares, and counts on from."""
        rows = await transaction.fetch_all(
            "SELECT room_nid, head_version, messages, bytes, said_position FROM rooms WHERE room_nid = ANY($1::bigint[])",
            list(room_nids),
        )
        return {room_nid: Head(*columns) for room_nid, *columns in rows}

    async def is_known(self, transaction: Transaction, room_id: RoomId) -> bool:
        """Whether a room is stored."""
        return bool(await transaction.fetch_value("SELECT 1 FROM rooms WHERE room_id = $1", room_id))

    async def insert(self, transaction: Transaction, row: RoomRow) -> None:
        """Store a new room."""
        await transaction.execute(
            f"INSERT INTO rooms ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            row.room_nid,
            row.room_id,
            row.version.identifier,
            row.head_version,
            dump_extremities(row.forward_extremities),
            row.depth,
            row.state_snapshot,
            row.last_position,
            row.joined_members,
            row.invited_members,
            row.arrival_depth,
        )

    async def insert_empty(self, transaction: Transaction, room_id: RoomId, version: RoomVersion) -> int:
        """The number of a room, stored without anything in it where it is new."""
        known = await transaction.fetch_value("SELECT room_nid FROM rooms WHERE room_id = $1", room_id)
        if known is not None:
            return int(known)
        room_nid = await transaction.next_position()
        row = RoomRow(
            room_nid=room_nid,
            room_id=room_id,
            version=version,
            head_version=secrets.randbits(62),
            forward_extremities=(),
            depth=0,
            state_snapshot=0,
            last_position=room_nid,
            joined_members=0,
            invited_members=0,
        )
        await self.insert(transaction, row)
        return room_nid

    async def delete_empty(
        self, transaction: Transaction, room_id: RoomId
    ) -> tuple[list[UserId], list[EventId]]:
        """Drop a room in which nothing stands, with its invites and knocks: whose they were, and the events."""
        room_nid = await transaction.fetch_value(
            "SELECT room_nid FROM rooms WHERE room_id = $1 AND state_snapshot = 0", room_id
        )
        if room_nid is None:
            return [], []
        users = await transaction.fetch_all("SELECT user_id FROM memberships WHERE room_nid = $1", room_nid)
        events = await transaction.fetch_all("SELECT event_id FROM events WHERE room_nid = $1", room_nid)
        for table in ("rooms", "events", "memberships", "membership_log", "stripped_state"):
            await transaction.execute(f"DELETE FROM {table} WHERE room_nid = $1", room_nid)
        return [UserId(row[0]) for row in users], [EventId(row[0]) for row in events]

    async def update_heads(
        self,
        transaction: Transaction,
        heads: Sequence[tuple[int, int, str, int, int, int, int, int, int, int, int]],
    ) -> None:
        """Set the heads of rooms.

        Rows of (room number, head version, extremities as JSON, depth, snapshot, position, change of the number
        of joined members, of invited members, how many messages and bytes arrived so far, where something was said last).
        """
        await transaction.execute_many(
            "UPDATE rooms SET head_version = $2, forward_extremities = $3, depth = $4, state_snapshot = $5,"
            " last_position = $6, joined_members = joined_members + $7, invited_members = invited_members + $8,"
            " messages = $9, bytes = $10, said_position = $11 WHERE room_nid = $1",
            heads,
        )


def dump_extremities(extremities: Iterable[Extremity]) -> str:
    """Forward extremities as they are stored."""
    return orjson.dumps([[extremity.event_id, extremity.sha256] for extremity in extremities]).decode()
