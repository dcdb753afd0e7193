"""When other servers were handed the events that waited for them, and which they were not handed.

There is no row for an event and a server. A server's cursor moves on as it takes transactions; that it had come to a
position by a time is a mark. An event was handed over by the time of the first mark at or after it. The older marks
are, the farther apart they are kept.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from homeserver.ids import ServerName
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.storage.database import Database, Transaction

IMPRECISION = 0.1
"""A time is told as later than it was by at most this part of how long ago it is."""
_MAX_PASSED_OVER = 100


class Handover(NamedTuple):
    """By a time (milliseconds; None where it is not known) a server had the events up to a position."""

    position: int
    ts: int | None


class PassedOver(NamedTuple):
    """What a server was not given up to a position: all but the newest of each room, or what it refused."""

    upto: int
    why: str | None


class HandoverStore:
    """Marks of the cursors of other servers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- what was handed over --------------------------------------------------------------------------

    async def note(
        self, transaction: Transaction, server_name: ServerName, mark: Handover, *, instead_of: int | None
    ) -> None:
        """A server has the events up to a position; this takes the place of its mark at `instead_of`."""
        if instead_of is not None:
            await transaction.execute_many(
                "DELETE FROM handovers WHERE server_name = $1 AND position = $2", [(server_name, instead_of)]
            )
        await transaction.execute_many(
            "INSERT INTO handovers (server_name, position, ts) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            [(server_name, *mark)],
        )

    async def thin(self, transaction: Transaction, server_name: ServerName, now_ms: int) -> None:
        """Drop the marks of a server without which its times are precise enough."""
        rows = await transaction.fetch_all(
            "SELECT position, ts FROM handovers WHERE server_name = $1 ORDER BY position", server_name
        )
        marks = [Handover(*row) for row in rows]
        kept = set(thinned(marks, now_ms))
        await transaction.execute_many(
            "DELETE FROM handovers WHERE server_name = $1 AND position = $2",
            [(server_name, mark.position) for mark in marks if mark not in kept],
        )

    async def load_times(
        self, server_names: Collection[ServerName], position: int
    ) -> dict[ServerName, int | None]:
        """By when servers had the event at a position; those that have come so far are in the answer."""
        rows = await self._database.fetch_all(
            "SELECT h.server_name, h.ts FROM handovers h WHERE h.server_name = ANY($1::text[]) AND h.position = ("
            "SELECT min(f.position) FROM handovers f WHERE f.server_name = h.server_name AND f.position >= $2)",
            list(server_names),
            position,
        )
        return {ServerName(server_name): ts for server_name, ts in rows}

    # -- what was not ----------------------------------------------------------------------------------

    async def pass_over(
        self, transaction: Transaction, server_name: ServerName, after: int, skipped: PassedOver
    ) -> None:
        """A server is not given what stands after a position, but for the newest of each room where it refused nothing."""
        await transaction.execute(
            "DELETE FROM passed_over WHERE server_name = $1 AND upto_position < ("
            "SELECT upto_position FROM passed_over WHERE server_name = $1"
            " ORDER BY upto_position DESC LIMIT 1 OFFSET $2)",
            server_name,
            _MAX_PASSED_OVER - 2,
        )
        await transaction.execute_many(
            "INSERT INTO passed_over (server_name, after_position, upto_position, why) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (server_name, upto_position, after_position) DO UPDATE SET why = excluded.why",
            [(server_name, after, skipped.upto, skipped.why)],
        )

    async def load_passed_over(
        self, server_names: Collection[ServerName], position: int
    ) -> dict[ServerName, PassedOver]:
        """What servers were not given of where an event at a position lies."""
        rows = await self._database.fetch_all(
            "SELECT server_name, upto_position, why FROM passed_over WHERE server_name = ANY($1::text[])"
            " AND after_position < $2 AND upto_position >= $2",
            list(server_names),
            position,
        )
        # Before a server has got to the end of a long absence it may have been put off further; what it refused, it refused.
        rows.sort(key=lambda row: (row[2] is not None, row[1]))
        return {ServerName(server_name): PassedOver(upto, why) for server_name, upto, why in rows}

    async def is_newest(self, room_nid: int, position: int, upto: int, own: ServerName) -> bool:
        """Whether an event is the newest that a server's own users have sent to a room up to a position."""
        return not await self._database.fetch_value(
            "SELECT 1 FROM events e JOIN user_numbers u ON u.user_nid = e.sender_nid WHERE e.room_nid = $1"
            " AND e.stream_id > $2 AND e.stream_id <= $3 AND e.status = $4 AND u.user_id LIKE $5 LIMIT 1",
            room_nid,
            position,
            upto,
            int(Status.TIMELINE),
            f"%:{own}",
        )


def thinned(marks: Sequence[Handover], now_ms: int) -> list[Handover]:
    """Some of a server's marks, oldest first: the older, the farther apart.

    What a mark that is dropped stood for is told with the next one that is kept, and came after the one before it.
    So these two may be as far apart as `IMPRECISION` of the time since the earlier one.
    """
    kept = list(marks[:1])
    for mark, following in pairwise(marks[1:]):
        since = kept[-1].ts or 0
        if mark.ts is None or (following.ts or 0) - since > IMPRECISION * (now_ms - since):
            kept.append(mark)
    return [*kept, *marks[max(1, len(marks) - 1) :]]
