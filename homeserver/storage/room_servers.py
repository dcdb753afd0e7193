"""Which other servers are in which rooms, and from which position of the log to which they were."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.storage.database import Database, Transaction

STILL_THERE = 2**63 - 1
"""`left_position` of a server that is in the room."""
_CACHED_SERVERS = 500_000

Moves = dict[tuple[int, ServerName, int], int]
"""(room, server, position) -> how many members the server has more, or less, from there on."""


class RoomServerStore:
    """The servers of rooms, this one left out; what was asked for stays in memory and follows the commits."""

    def __init__(self, database: Database, server_name: ServerName) -> None:
        self._database = database
        self._server_name = server_name
        self._cache: OrderedDict[int, frozenset[ServerName]] = OrderedDict()
        self._cached = 0
        self._changes = 0
        # Rooms that were changed by a transaction that is not committed yet, or was taken back.
        self._touched: set[int] = set()

    async def move(self, transaction: Transaction, moves: Mapping[tuple[int, ServerName, int], int]) -> None:
        """Note that servers have more members in rooms, or less; in the order of the log."""
        rows = [
            (room_nid, server_name, STILL_THERE, position, change)
            for (room_nid, server_name, position), change in moves.items()
            if change and server_name != self._server_name
        ]
        if not rows:
            return
        # For each position in turn: a server may go and come back.
        for position in dict.fromkeys(row[3] for row in rows):
            there = [row for row in rows if row[3] == position]
            await transaction.execute_many(
                "INSERT INTO room_servers (room_nid, server_name, left_position, joined_position, members)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (room_nid, server_name, left_position)"
                " DO UPDATE SET members = room_servers.members + excluded.members",
                there,
            )
            await transaction.execute_many(
                "UPDATE room_servers SET left_position = $4"
                " WHERE room_nid = $1 AND server_name = $2 AND left_position = $3 AND members <= 0",
                [row[:4] for row in there if row[4] < 0],
            )
            await transaction.execute_many(
                "INSERT INTO destinations (server_name, position) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                [(row[1], position - 1) for row in there],
            )
        for room_nid, server_name, _, _, change in rows:
            transaction.announce(Topic.ROOM_SERVERS, str(room_nid))
            if change < 0:
                # What came before it went may still wait for it.
                transaction.announce(Topic.DESTINATIONS, server_name)

        rooms = {row[0] for row in rows}
        self._touched |= rooms

        def take_over() -> None:
            self._touched -= rooms
            for room_nid in rooms:
                self.invalidate(room_nid)

        transaction.after_commit(take_over)

    async def load(self, room_nid: int) -> frozenset[ServerName]:
        """The other servers that are in a room."""
        servers = self._cache.get(room_nid)
        if servers is not None:
            self._cache.move_to_end(room_nid)
            return servers
        while True:
            changes = self._changes
            rows = await self._database.fetch_all(
                "SELECT server_name FROM room_servers WHERE room_nid = $1 AND left_position = $2",
                room_nid,
                STILL_THERE,
            )
            if changes == self._changes:
                break
        servers = frozenset(ServerName(server_name) for (server_name,) in rows)
        if room_nid not in self._cache:
            self._cache[room_nid] = servers
            self._cached += len(servers) + 1
            while self._cached > _CACHED_SERVERS and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached -= len(dropped) + 1
        return servers

    async def load_since(self, room_nid: int) -> dict[ServerName, int]:
        """The other servers that are in a room, with the position from which on they are."""
        rows = await self._database.fetch_all(
            "SELECT server_name, joined_position FROM room_servers WHERE room_nid = $1 AND left_position = $2",
            room_nid,
            STILL_THERE,
        )
        return {ServerName(server_name): position for server_name, position in rows}

    def known_to_be_alone(self, room_nid: int) -> bool:
        """Whether it is in memory, and true inside the transaction that writes now, that no other server is in a room."""
        servers = self._cache.get(room_nid)
        return servers is not None and not servers and room_nid not in self._touched

    def invalidate(self, room_nid: int) -> None:
        """Read the servers of a room anew: they have changed."""
        self._changes += 1
        dropped = self._cache.pop(room_nid, None)
        if dropped is not None:
            self._cached -= len(dropped) + 1
