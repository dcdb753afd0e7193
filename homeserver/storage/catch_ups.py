"""What the parts of a catch-up go by, so that all of them go by the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Database, Transaction

_KEPT = 2
_KEPT_MS = 30 * 24 * 3_600_000


class CatchUpStore:
    """Keeps the newest of each device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self, user_id: UserId, device_id: DeviceId | None, number: int, plan: bytes, now_ms: int
    ) -> None:
        """Keep a plan under a number; of those of the device the newest stay."""

        async def work(transaction: Transaction) -> None:
            device = device_id or ""
            await transaction.execute(
                "INSERT INTO catch_ups (user_id, device_id, number, plan, created_ts)"
                " VALUES ($1, $2, $3, $4, $5)",
                user_id,
                device,
                number,
                plan,
                now_ms,
            )
            await transaction.execute(
                "DELETE FROM catch_ups WHERE user_id = $1 AND device_id = $2 AND number NOT IN"
                " (SELECT number FROM catch_ups WHERE user_id = $1 AND device_id = $2"
                " ORDER BY created_ts DESC LIMIT $3)",
                user_id,
                device,
                _KEPT,
            )

        await self._database.write(work)

    async def get(self, user_id: UserId, device_id: DeviceId | None, number: int) -> bytes | None:
        """The plan of a catch-up."""
        plan = await self._database.fetch_value(
            "SELECT plan FROM catch_ups WHERE user_id = $1 AND device_id = $2 AND number = $3",
            user_id,
            device_id or "",
            number,
        )
        return None if plan is None else bytes(plan)

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop those of devices that are no more."""
        await transaction.execute(
            "DELETE FROM catch_ups WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop what nobody goes on with."""
        await transaction.execute("DELETE FROM catch_ups WHERE created_ts < $1", now_ms - _KEPT_MS)
