"""Devices of this server's users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.storage.database import Database, Reader, Transaction
    from homeserver.storage.device_lists import DeviceListStore


@dataclass(frozen=True, slots=True)
class Device:
    """A device."""

    user_id: UserId
    device_id: DeviceId
    display_name: str | None
    created_ts: int
    last_seen_ts: int | None
    last_seen_ip: str | None


class DeviceStore:
    """Devices by user."""

    def __init__(self, database: Database, lists: DeviceListStore) -> None:
        self._database = database
        self._lists = lists

    async def ensure(
        self,
        transaction: Transaction,
        user_id: UserId,
        device_id: DeviceId,
        display_name: str | None,
        now_ms: int,
    ) -> None:
        """Make a device, unless it is there; the name of one that is there stays."""
        if await transaction.execute(
            "INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING",
            user_id,
            device_id,
            display_name,
            now_ms,
        ):
            await self._lists.note_change(transaction, user_id, [device_id])

    async def load(self, user_id: UserId, reader: Reader | None = None) -> list[Device]:
        """The devices of a user, oldest first."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip FROM devices"
            " WHERE user_id = $1 ORDER BY created_ts, device_id",
            user_id,
        )
        return [Device(*row) for row in rows]

    async def load_ids(
        self, user_ids: Iterable[UserId], reader: Reader | None = None
    ) -> dict[UserId, list[DeviceId]]:
        """The ids of the devices of users, of those who have any."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, device_id FROM devices WHERE user_id = ANY($1::text[])", list(user_ids)
        )
        found: dict[UserId, list[DeviceId]] = {}
        for user_id, device_id in rows:
            found.setdefault(UserId(user_id), []).append(DeviceId(device_id))
        return found

    async def get(self, user_id: UserId, device_id: DeviceId) -> Device | None:
        """One device."""
        row = await self._database.fetch_one(
            "SELECT user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip FROM devices"
            " WHERE user_id = $1 AND device_id = $2",
            user_id,
            device_id,
        )
        return Device(*row) if row else None

    async def exists(self, reader: Reader, user_id: UserId, device_id: DeviceId) -> bool:
        """Whether there is such a device."""
        return bool(
            await reader.fetch_value(
                "SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2", user_id, device_id
            )
        )

    async def rename(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, display_name: str | None
    ) -> bool:
        """Give a device another name; False where there is none. Other servers are not told the names of devices."""
        renamed = await transaction.execute(
            "UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2",
            user_id,
            device_id,
            display_name,
        )
        if renamed:
            await self._lists.note_change(transaction, user_id)
        return bool(renamed)

    async def delete(self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]) -> None:
        """Delete devices."""
        rows = await transaction.fetch_all(
            "DELETE FROM devices WHERE user_id = $1 AND device_id = ANY($2::text[]) RETURNING device_id",
            user_id,
            list(device_ids),
        )
        gone = [DeviceId(device_id) for (device_id,) in rows]
        if gone:
            await self._lists.note_change(transaction, user_id, gone)

    async def set_last_seen(
        self, transaction: Transaction, rows: Sequence[tuple[UserId, DeviceId, int, str, str | None]]
    ) -> None:
        """Note where devices were seen: rows of (user, device, time in ms, address, user agent)."""
        await transaction.execute_many(
            "UPDATE devices SET last_seen_ts = $3, last_seen_ip = $4, last_seen_user_agent = $5"
            " WHERE user_id = $1 AND device_id = $2",
            rows,
        )
