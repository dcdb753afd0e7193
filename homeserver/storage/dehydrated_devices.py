"""Dehydrated devices (MSC3814): one for each user at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Database, Reader, Transaction


@dataclass(frozen=True, slots=True)
class DehydratedDevice:
    """A dehydrated device. Its data is JSON as it came."""

    device_id: DeviceId
    device_data: bytes


class DehydratedDeviceStore:
    """Dehydrated devices by user; that they are devices as well stands with the others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: UserId, reader: Reader | None = None) -> DehydratedDevice | None:
        """The dehydrated device of a user."""
        row = await (reader or self._database).fetch_one(
            "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = $1", user_id
        )
        return DehydratedDevice(*row) if row else None

    async def set(self, transaction: Transaction, user_id: UserId, device: DehydratedDevice) -> None:
        """Make this the dehydrated device of a user."""
        await transaction.execute_many(
            "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES ($1, $2, $3)"
            " ON CONFLICT (user_id) DO UPDATE"
            " SET device_id = excluded.device_id, device_data = excluded.device_data",
            [(user_id, device.device_id, device.device_data)],
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop the dehydrated device of a user, if it is among these."""
        await transaction.execute(
            "DELETE FROM dehydrated_devices WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )
