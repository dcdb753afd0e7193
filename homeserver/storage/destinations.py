"""Other servers as destinations: the cursor of each, how things stand with it, and which process sends to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.storage.announcements import Topic
from homeserver.storage.room_servers import STILL_THERE

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.storage.database import Database, Transaction


@dataclass(slots=True)
class Destination:
    """A server that things are sent to."""

    server_name: ServerName
    position: int
    skip_upto: int
    failures: int
    failing_since_ts: int | None
    retry_ts: int | None
    why: str | None
    alive_ts: int | None
    set_aside: int
    last_set_aside: str | None
    process_id: str | None


_COLUMNS = (
    "d.server_name, d.position, d.skip_upto, d.failures, d.failing_since_ts, d.retry_ts, d.why, d.alive_ts,"
    " d.set_aside, d.last_set_aside, d.process_id"
)
_SHARES_A_ROOM = (
    "EXISTS (SELECT 1 FROM room_servers s JOIN memberships m ON m.room_nid = s.room_nid"
    f" WHERE s.server_name = {{server}} AND s.left_position = {STILL_THERE}"
    " AND m.user_id = c.user_id AND m.membership = 'join')"
)
SHARES_A_ROOM_WITH = _SHARES_A_ROOM.format(server="$1")
"""The condition that the user of a device change `c` is in a room with the server `$1`."""
_WAITS = (
    "(EXISTS (SELECT 1 FROM outgoing_events o WHERE o.target = d.server_name AND o.stream_id > d.position{upto})"
    " OR EXISTS (SELECT 1 FROM room_servers s JOIN outgoing_events o ON o.room_nid = s.room_nid"
    " AND o.stream_id > s.joined_position AND o.stream_id <= s.left_position AND o.stream_id > d.position{upto}"
    " WHERE s.server_name = d.server_name AND s.left_position > d.position)"
    " OR EXISTS (SELECT 1 FROM outgoing_to_device o WHERE o.server_name = d.server_name)"
    " OR EXISTS (SELECT 1 FROM outgoing_device_changes c WHERE c.stream_id > d.position"
    f" AND {_SHARES_A_ROOM.format(server='d.server_name')}))"
)


class DestinationStore:
    """Destinations by server name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, server_name: ServerName) -> Destination | None:
        """One destination."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} FROM destinations d WHERE d.server_name = $1", server_name
        )
        return Destination(*row) if row else None

    async def load(self, server_names: Collection[ServerName]) -> list[Destination]:
        """Those of these servers that are destinations."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM destinations d WHERE d.server_name = ANY($1::text[])", list(server_names)
        )
        return [Destination(*row) for row in rows]

    async def load_all(self) -> list[Destination]:
        """Every destination, by name."""
        rows = await self._database.fetch_all(f"SELECT {_COLUMNS} FROM destinations d ORDER BY d.server_name")
        return [Destination(*row) for row in rows]

    async def load_waiting(self) -> list[ServerName]:
        """The destinations that something waits for."""
        rows = await self._database.fetch_all(
            f"SELECT d.server_name FROM destinations d WHERE {_WAITS.format(upto='')}"
        )
        return [ServerName(server_name) for (server_name,) in rows]

    async def load_acquainted(self, now_ms: int, *, alive_for_ms: int, limit: int) -> list[ServerName]:
        """The destinations in our rooms that were alive lately, for so long before any last was; the latest first.

        Those of another process that is there are left out.
        """
        rows = await self._database.fetch_all(
            "SELECT d.server_name FROM destinations d"
            " WHERE d.alive_ts > (SELECT max(alive_ts) FROM destinations) - $1"
            " AND EXISTS (SELECT 1 FROM room_servers s WHERE s.server_name = d.server_name"
            f" AND s.left_position = {STILL_THERE})"
            " AND NOT EXISTS (SELECT 1 FROM processes p"
            " WHERE p.process_id = d.process_id AND p.alive_until_ts > $2)"
            " ORDER BY d.alive_ts DESC LIMIT $3",
            alive_for_ms,
            now_ms,
            limit,
        )
        return [ServerName(server_name) for (server_name,) in rows]

    # -- how things stand ------------------------------------------------------------------------------

    async def set_delivered(
        self, transaction: Transaction, server_name: ServerName, position: int, now_ms: int
    ) -> None:
        """A destination has everything up to a position, and is well."""
        await transaction.execute_many(
            "UPDATE destinations SET position = CASE WHEN position < $2 THEN $2 ELSE position END, failures = 0,"
            " failing_since_ts = NULL, retry_ts = NULL, why = NULL, alive_ts = $3 WHERE server_name = $1",
            [(server_name, position, now_ms)],
        )

    async def set_failed(
        self,
        transaction: Transaction,
        server_name: ServerName,
        failures: int,
        retry_ts: int,
        why: str,
        now_ms: int,
    ) -> None:
        """A destination is not to be tried before a time."""
        await transaction.execute_many(
            "UPDATE destinations SET failures = $2, retry_ts = $3, why = $4,"
            " failing_since_ts = coalesce(failing_since_ts, $5) WHERE server_name = $1",
            [(server_name, failures, retry_ts, why, now_ms)],
        )

    async def add_set_aside(self, transaction: Transaction, server_name: ServerName, name: str) -> None:
        """Something was passed over."""
        await transaction.execute_many(
            "UPDATE destinations SET set_aside = set_aside + 1, last_set_aside = $2 WHERE server_name = $1",
            [(server_name, name)],
        )

    async def skip(self, transaction: Transaction, server_name: ServerName, upto: int) -> None:
        """Of the events up to a position only the newest of each room are to be delivered."""
        await transaction.execute_many(
            "UPDATE destinations SET skip_upto = $2 WHERE server_name = $1", [(server_name, upto)]
        )

    async def end_back_off(
        self, transaction: Transaction, server_name: ServerName, alive_ts: int | None = None
    ) -> bool:
        """Have a destination tried at once, whichever process sends to it; False where there is none.

        `alive_ts` is when it gave a sign of life, if it did.
        """
        if not await transaction.execute(
            "UPDATE destinations SET alive_ts = coalesce($2::bigint, alive_ts), retry_ts = NULL"
            " WHERE server_name = $1",
            server_name,
            alive_ts,
        ):
            return False
        transaction.announce(Topic.DESTINATION_ALIVE, server_name)
        return True

    # -- which process ---------------------------------------------------------------------------------

    async def claim(
        self, transaction: Transaction, server_name: ServerName, process_id: str, now_ms: int
    ) -> bool:
        """Take a destination on, unless another process that is alive has it."""
        return bool(
            await transaction.execute(
                "UPDATE destinations SET process_id = $2 WHERE server_name = $1 AND (process_id IS NULL"
                " OR process_id = $2 OR NOT EXISTS (SELECT 1 FROM processes p"
                " WHERE p.process_id = destinations.process_id AND p.alive_until_ts > $3))",
                server_name,
                process_id,
                now_ms,
            )
        )

    async def stay_alive(
        self, transaction: Transaction, process_id: str, alive_until_ts: int, now_ms: int
    ) -> tuple[bool, bool]:
        """Say that a process is there. Whether it was still known, and whether another one is there no more."""
        known = await transaction.execute(
            "UPDATE processes SET alive_until_ts = $2 WHERE process_id = $1", process_id, alive_until_ts
        )
        if not known:
            await transaction.execute(
                "INSERT INTO processes (process_id, alive_until_ts) VALUES ($1, $2)",
                process_id,
                alive_until_ts,
            )
        gone = await transaction.execute("DELETE FROM processes WHERE alive_until_ts <= $1", now_ms)
        return bool(known), bool(gone)

    async def leave(self, transaction: Transaction, process_id: str) -> None:
        """A process ends: others may take on what it had."""
        await transaction.execute(
            "UPDATE destinations SET process_id = NULL WHERE process_id = $1", process_id
        )
        # Found to be over by the next one that looks.
        await transaction.execute("UPDATE processes SET alive_until_ts = 0 WHERE process_id = $1", process_id)

    async def forget_processes(self, transaction: Transaction) -> None:
        """No process but the one that asks is there."""
        await transaction.execute("DELETE FROM processes")

    # -- pruning ---------------------------------------------------------------------------------------

    async def advance_idle(self, transaction: Transaction, upto: int) -> None:
        """Move the cursors of destinations that nothing waits for up to a position."""
        await transaction.execute(
            "UPDATE destinations SET position = $1 WHERE server_name IN (SELECT d.server_name FROM destinations d"
            f" WHERE d.position < $1 AND NOT {_WAITS.format(upto=' AND o.stream_id <= $1')})",
            upto,
        )

    async def forget_silent(self, transaction: Transaction, before_ts: int) -> Collection[ServerName]:
        """Forget destinations without a room in common that were not alive since a time, with what waits for them."""
        rows = await transaction.fetch_all(
            "DELETE FROM destinations WHERE coalesce(alive_ts, failing_since_ts, $1) < $1 AND NOT EXISTS ("
            "SELECT 1 FROM room_servers s WHERE s.server_name = destinations.server_name"
            " AND s.left_position = $2) RETURNING server_name",
            before_ts,
            STILL_THERE,
        )
        gone = [ServerName(server_name) for (server_name,) in rows]
        for table in ("outgoing_to_device", "handovers", "passed_over"):
            await transaction.execute(f"DELETE FROM {table} WHERE server_name = ANY($1::text[])", gone)
        # Of a server that shares a room, and is away for so long, only the messages go.
        await transaction.execute(
            "DELETE FROM outgoing_to_device WHERE server_name IN (SELECT server_name FROM destinations"
            " WHERE failing_since_ts < $1 AND coalesce(alive_ts, 0) < $1)",
            before_ts,
        )
        return gone
