"""Changes of this server's users' devices that other servers have to hear of (SS "Device Management")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId
from homeserver.storage.destinations import SHARES_A_ROOM_WITH
from homeserver.storage.room_servers import STILL_THERE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.ids import ServerName
    from homeserver.storage.database import Database, Transaction

CROSS_SIGNING_KEYS = DeviceId("")
"""Stands for the user's cross-signing keys among their devices."""


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """The newest change of a device."""

    user_id: UserId
    device_id: DeviceId
    stream_id: int


class OutgoingDeviceStore:
    """The newest change of each device that was not told of everywhere."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self, transaction: Transaction, user_id: UserId, positions: Sequence[tuple[DeviceId, int]]
    ) -> None:
        """Note changes, in the place of older ones of the same devices."""
        await transaction.execute_many(
            "INSERT INTO outgoing_device_changes (user_id, device_id, stream_id) VALUES ($1, $2, $3)"
            " ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = excluded.stream_id",
            [(user_id, device_id, position) for device_id, position in positions],
        )

    async def load(self, server_name: ServerName, *, after: int, upto: int, limit: int) -> list[DeviceChange]:
        """The oldest changes that a server has to hear of: of users who share a room with it."""
        rows = await self._database.fetch_all(
            "SELECT c.user_id, c.device_id, c.stream_id FROM outgoing_device_changes c"
            f" WHERE c.stream_id > $2 AND c.stream_id <= $3 AND {SHARES_A_ROOM_WITH}"
            " ORDER BY c.stream_id LIMIT $4",
            server_name,
            after,
            upto,
            limit,
        )
        return [DeviceChange(*row) for row in rows]

    async def load_last_before(self, user_ids: Collection[UserId], position: int) -> dict[UserId, int]:
        """The last changes of users up to a position, as far as they are known."""
        rows = await self._database.fetch_all(
            "SELECT user_id, max(stream_id) FROM device_list_changes"
            " WHERE user_id = ANY($1::text[]) AND stream_id <= $2 GROUP BY user_id",
            list(user_ids),
            position,
        )
        return {UserId(user_id): stream_id for user_id, stream_id in rows}

    async def is_in_other_room_with(
        self, user_id: UserId, server_name: ServerName, room_nid: int, before: int
    ) -> bool:
        """Whether a user came into another room with a server before a position, and is there."""
        return bool(
            await self._database.fetch_value(
                "SELECT 1 FROM memberships m JOIN room_servers s ON s.room_nid = m.room_nid"
                " WHERE m.user_id = $1 AND m.membership = 'join' AND m.room_nid <> $3 AND m.stream_id < $4"
                f" AND s.server_name = $2 AND s.left_position = {STILL_THERE} LIMIT 1",
                user_id,
                server_name,
                room_nid,
                before,
            )
        )

    async def prune(self, transaction: Transaction) -> None:
        """Drop what was told everywhere."""
        await transaction.execute(
            "DELETE FROM outgoing_device_changes WHERE stream_id <= (SELECT min(position) FROM destinations)"
        )
        # Without destinations nobody has to hear of anything.
        await transaction.execute(
            "DELETE FROM outgoing_device_changes WHERE NOT EXISTS (SELECT 1 FROM destinations)"
        )
