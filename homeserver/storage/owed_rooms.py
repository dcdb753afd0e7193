"""What an answer over a weak link left owing: rooms, each with the position up to which the client has it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

import orjson

from homeserver.errors import UnknownPosition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Database, Transaction

_KEPT = 4
"""So many besides that of the token that is in use: answers get lost, and a device may have two loops open."""


class Owed(NamedTuple):
    """Up to where a client has a room: all of it, 0 where it has nothing, and the events by another way."""

    since: int
    told: int


class OwedRoomStore:
    """Such debts by device and number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        user_id: UserId,
        device_id: DeviceId | None,
        rooms: Mapping[int, Owed],
        *,
        in_use: int,
        now_ms: int,
    ) -> int:
        """Keep what is owed; the answer is its number, never 0. `in_use` is the number of the token that was brought."""
        number, device = secrets.randbits(62) | 1, device_id or ""

        async def work(transaction: Transaction) -> None:
            await transaction.execute(
                "INSERT INTO owed_rooms (user_id, device_id, number, rooms, created_ts)"
                " VALUES ($1, $2, $3, $4, $5)",
                user_id,
                device,
                number,
                orjson.dumps([(room_nid, *owed) for room_nid, owed in sorted(rooms.items())]).decode(),
                now_ms,
            )
            await transaction.execute(
                "DELETE FROM owed_rooms WHERE user_id = $1 AND device_id = $2 AND number <> $3"
                " AND number NOT IN (SELECT number FROM owed_rooms WHERE user_id = $1 AND device_id = $2"
                " ORDER BY created_ts DESC, number LIMIT $4) AND number <> $5 AND number NOT IN"
                # What is not delivered goes by it.
                " (SELECT owed FROM device_positions WHERE user_id = $1 AND device_id = $2)",
                user_id,
                device,
                in_use,
                _KEPT,
                number,
            )

        await self._database.write(work)
        return number

    async def get(self, user_id: UserId, device_id: DeviceId | None, number: int) -> dict[int, Owed] | None:
        """What is owed under a number; None where that is no longer known."""
        rooms = await self._database.fetch_value(
            "SELECT rooms FROM owed_rooms WHERE user_id = $1 AND device_id = $2 AND number = $3",
            user_id,
            device_id or "",
            number,
        )
        if rooms is None:
            return None
        return {room_nid: Owed(since, told) for room_nid, since, told in orjson.loads(rooms)}

    async def load(self, user_id: UserId, device_id: DeviceId | None, number: int) -> Mapping[int, Owed]:
        """The same, nothing for 0; raises `UnknownPosition` where it is no longer known."""
        if not number:
            return {}
        rooms = await self.get(user_id, device_id, number)
        if rooms is None:
            message = "It is no longer known what this token says: go on from a newer one"
            raise UnknownPosition(message)
        return rooms

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop those of devices that are no more."""
        await transaction.execute(
            "DELETE FROM owed_rooms WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )
