"""Identity keys of this server's devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Reader, Transaction


@dataclass(frozen=True, slots=True)
class StoredDeviceKeys:
    """The keys of a device: JSON without its signatures; and the device's name."""

    user_id: UserId
    device_id: DeviceId
    keys: bytes
    display_name: str | None


class DeviceKeyStore:
    """Device keys by device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: UserId, device_id: DeviceId, reader: Reader | None = None) -> bytes | None:
        """The keys of a device, without their signatures."""
        value = await (reader or self._database).fetch_value(
            "SELECT keys FROM device_keys WHERE user_id = $1 AND device_id = $2", user_id, device_id
        )
        return None if value is None else bytes(value)

    async def set(self, transaction: Transaction, user_id: UserId, device_id: DeviceId, keys: bytes) -> None:
        """Store the keys of a device in the place of older ones."""
        await transaction.execute(
            "INSERT INTO device_keys (user_id, device_id, stream_id, keys) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (user_id, device_id) DO UPDATE SET stream_id = excluded.stream_id,"
            " keys = excluded.keys",
            user_id,
            device_id,
            await transaction.next_position(),
            keys,
        )

    async def load(self, user_ids: Sequence[UserId], reader: Reader | None = None) -> list[StoredDeviceKeys]:
        """The keys of all devices of some users."""
        rows = await (reader or self._database).fetch_all(
            "SELECT k.user_id, k.device_id, k.keys, d.display_name FROM device_keys k"
            " LEFT JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id"
            " WHERE k.user_id = ANY($1::text[]) ORDER BY k.user_id, k.device_id",
            list(user_ids),
        )
        return [
            StoredDeviceKeys(UserId(user_id), DeviceId(device_id), bytes(keys), display_name)
            for user_id, device_id, keys, display_name in rows
        ]

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop the keys of some devices."""
        await transaction.execute(
            "DELETE FROM device_keys WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )
