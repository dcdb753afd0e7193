"""Up to where in the log each device has acknowledged what it was told, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from homeserver.ids import DeviceId, UserId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from homeserver.storage.database import Database, Reader, Transaction


@dataclass(slots=True)
class DevicePosition:
    """A device's position; `acknowledged` are (position, time in milliseconds), the newest last.

    `owed` is the number of the rooms that were put off then (`owed_rooms`), 0 where none were.
    """

    user_id: UserId
    device_id: DeviceId
    position: int
    acknowledged: list[tuple[int, int]]
    owed: int = 0

    def when(self, position: int) -> int | None:
        """When the device acknowledged a position, at the latest; None where it has not."""
        if position > self.position:
            return None
        return next((ts for upto, ts in self.acknowledged if upto >= position), None)


class DevicePositionStore:
    """Positions by user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(
        self, user_ids: Collection[UserId], reader: Reader | None = None
    ) -> dict[tuple[UserId, DeviceId], DevicePosition]:
        """The positions of the devices of some users."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, device_id, position, acknowledged, owed FROM device_positions"
            " WHERE user_id = ANY($1::text[])",
            list(user_ids),
        )
        return {
            (UserId(user_id), DeviceId(device_id)): DevicePosition(
                UserId(user_id),
                DeviceId(device_id),
                position,
                [(upto, ts) for upto, ts in orjson.loads(acknowledged)],
                owed,
            )
            for user_id, device_id, position, acknowledged, owed in rows
        }

    async def set(self, transaction: Transaction, positions: Iterable[DevicePosition]) -> None:
        """Store positions, of devices that are still there."""
        await transaction.execute_many(
            "INSERT INTO device_positions (user_id, device_id, position, acknowledged, owed)"
            " SELECT $1::text, $2::text, $3::bigint, $4::text, $5::bigint"
            " WHERE EXISTS (SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2)"
            " ON CONFLICT (user_id, device_id) DO UPDATE"
            " SET position = excluded.position, acknowledged = excluded.acknowledged,"
            " owed = excluded.owed"
            # Another process may have heard of a later one.
            " WHERE device_positions.position <= excluded.position",
            [
                (one.user_id, one.device_id, one.position, orjson.dumps(one.acknowledged).decode(), one.owed)
                for one in positions
            ],
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop those of devices that are no more."""
        await transaction.execute(
            "DELETE FROM device_positions WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )
