"""One-time keys and fallback keys of devices, and which one-time keys were given out lately.

Every change of what a device has left takes a position of the log and is announced to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from homeserver.storage.database import Database, Reader, Row, Transaction

Device = tuple[UserId, DeviceId]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored: JSON as it was uploaded."""

    algorithm: str
    key_id: str
    key: bytes


@dataclass(frozen=True, slots=True)
class TakenKey:
    """A key that was given out."""

    user_id: UserId
    device_id: DeviceId
    algorithm: str
    key_id: str
    key: bytes


@dataclass(frozen=True, slots=True)
class KeysLeft:
    """What a device has left: one-time keys by algorithm, algorithms with an unused fallback key."""

    counts: dict[str, int]
    unused_fallback: tuple[str, ...]
    changed_at: int
    """The position at which this last changed, 0 where there never was a key."""


class OneTimeKeyStore:
    """Keys that are given out, by device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- one-time keys ---------------------------------------------------------------------------------

    async def count(self, user_id: UserId, device_id: DeviceId, reader: Reader) -> dict[str, int]:
        """How many one-time keys of each algorithm a device has left."""
        rows = await reader.fetch_all(
            "SELECT algorithm, COUNT(*) FROM one_time_keys WHERE user_id = $1 AND device_id = $2"
            " GROUP BY algorithm",
            user_id,
            device_id,
        )
        return dict(rows)

    async def load_present(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, key_ids: Iterable[str]
    ) -> dict[tuple[str, str], bytes]:
        """Those one-time keys of a device that have one of these ids: (algorithm, id) -> key."""
        rows = await transaction.fetch_all(
            "SELECT algorithm, key_id, key FROM one_time_keys"
            " WHERE user_id = $1 AND device_id = $2 AND key_id = ANY($3::text[])",
            user_id,
            device_id,
            list(key_ids),
        )
        return {(algorithm, key_id): bytes(key) for algorithm, key_id, key in rows}

    async def load_claimed(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, key_ids: Iterable[str]
    ) -> dict[tuple[str, str], bytes]:
        """Those lately claimed keys of a device that had one of these ids: (algorithm, id) -> hash."""
        rows = await transaction.fetch_all(
            "SELECT algorithm, key_id, key_hash FROM claimed_one_time_keys"
            " WHERE user_id = $1 AND device_id = $2 AND key_id = ANY($3::text[])",
            user_id,
            device_id,
            list(key_ids),
        )
        return {(algorithm, key_id): bytes(key_hash) for algorithm, key_id, key_hash in rows}

    async def insert(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, keys: Sequence[NewKey]
    ) -> None:
        """Store one-time keys behind all that are there."""
        await transaction.execute_many(
            "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, upload_order, key)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (user_id, device_id, key.algorithm, key.key_id, await transaction.next_position(), key.key)
                for key in keys
            ],
        )
        transaction.announce(Topic.ONE_TIME_KEYS, f"{user_id}|{device_id}")

    async def load_oldest(
        self, transaction: Transaction, devices: Collection[Device], algorithm: str
    ) -> list[TakenKey]:
        """The one-time key of an algorithm that is next to be given out, of each of these devices that has one."""
        rows = await transaction.fetch_all(
            # CROSS JOIN: SQLite would look at every key of these users otherwise.
            "SELECT k.user_id, k.device_id, k.key_id, k.key FROM devices d CROSS JOIN one_time_keys k"
            # By user alone: every user with every device's name would be far too many to look for.
            " WHERE d.user_id = ANY($1::text[])"
            " AND k.user_id = d.user_id AND k.device_id = d.device_id AND k.algorithm = $2"
            " AND k.upload_order = (SELECT MIN(f.upload_order) FROM one_time_keys f"
            " WHERE f.user_id = d.user_id AND f.device_id = d.device_id AND f.algorithm = $2)",
            _users(devices),
            algorithm,
        )
        return _taken(rows, devices, algorithm)

    async def take(self, transaction: Transaction, keys: Sequence[tuple[TakenKey, bytes]]) -> None:
        """Give one-time keys out: they are there no longer. With each the hash by which it is remembered."""
        position = await transaction.next_position()
        await transaction.execute_many(
            "DELETE FROM one_time_keys"
            " WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = $4",
            [(key.user_id, key.device_id, key.algorithm, key.key_id) for key, _ in keys],
        )
        await transaction.execute_many(
            "INSERT INTO claimed_one_time_keys (user_id, device_id, algorithm, key_id, key_hash, stream_id)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, device_id, algorithm, key_id)"
            " DO UPDATE SET key_hash = excluded.key_hash, stream_id = excluded.stream_id",
            [
                (key.user_id, key.device_id, key.algorithm, key.key_id, key_hash, position)
                for key, key_hash in keys
            ],
        )
        for key, _ in keys:
            transaction.announce(Topic.ONE_TIME_KEYS, f"{key.user_id}|{key.device_id}")

    async def prune_claimed(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, keep: int
    ) -> None:
        """Forget which keys of a device were claimed, but for the last so many."""
        await transaction.execute(
            "DELETE FROM claimed_one_time_keys WHERE user_id = $1 AND device_id = $2 AND stream_id <= ("
            "SELECT stream_id FROM claimed_one_time_keys WHERE user_id = $1 AND device_id = $2"
            " ORDER BY stream_id DESC LIMIT 1 OFFSET $3)",
            user_id,
            device_id,
            keep,
        )

    # -- fallback keys ---------------------------------------------------------------------------------

    async def load_fallback(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId
    ) -> dict[str, tuple[str, bytes]]:
        """The fallback keys of a device: algorithm -> (id, key)."""
        rows = await transaction.fetch_all(
            "SELECT algorithm, key_id, key FROM fallback_keys WHERE user_id = $1 AND device_id = $2",
            user_id,
            device_id,
        )
        return {algorithm: (key_id, bytes(key)) for algorithm, key_id, key in rows}

    async def set_fallback(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, keys: Sequence[NewKey]
    ) -> None:
        """Store unused fallback keys in the place of older ones."""
        position = await transaction.next_position()
        await transaction.execute_many(
            "INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key, used, stream_id)"
            " VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT (user_id, device_id, algorithm) DO UPDATE"
            " SET key_id = excluded.key_id, key = excluded.key, used = 0, stream_id = excluded.stream_id",
            [(user_id, device_id, key.algorithm, key.key_id, key.key, position) for key in keys],
        )
        transaction.announce(Topic.ONE_TIME_KEYS, f"{user_id}|{device_id}")

    async def use_fallback(
        self, transaction: Transaction, devices: Collection[Device], algorithm: str
    ) -> list[TakenKey]:
        """The fallback keys of some devices, which are used from now on."""
        rows = await transaction.fetch_all(
            "SELECT user_id, device_id, key_id, key, used FROM fallback_keys"
            " WHERE user_id = ANY($1::text[]) AND algorithm = $2",
            _users(devices),
            algorithm,
        )
        unused = [(row[0], row[1]) for row in rows if not row[4] and (row[0], row[1]) in devices]
        if unused:
            position = await transaction.next_position()
            await transaction.execute_many(
                "UPDATE fallback_keys SET used = 1, stream_id = $4"
                " WHERE user_id = $1 AND device_id = $2 AND algorithm = $3",
                [(user_id, device_id, algorithm, position) for user_id, device_id in unused],
            )
        for user_id, device_id in unused:
            transaction.announce(Topic.ONE_TIME_KEYS, f"{user_id}|{device_id}")
        return _taken([row[:4] for row in rows], devices, algorithm)

    # -- both ------------------------------------------------------------------------------------------

    async def load_left(self, user_id: UserId, device_id: DeviceId) -> KeysLeft:
        """What a device has left now."""
        rows = await self._database.fetch_all(
            "SELECT 'one-time', algorithm, COUNT(*), MAX(upload_order) FROM one_time_keys"
            " WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm"
            " UNION ALL SELECT CASE used WHEN 0 THEN 'fallback' ELSE 'used' END, algorithm, 1, stream_id"
            " FROM fallback_keys WHERE user_id = $1 AND device_id = $2"
            " UNION ALL SELECT 'claimed', '', 0, MAX(stream_id) FROM claimed_one_time_keys"
            " WHERE user_id = $1 AND device_id = $2"
            # New keys of the device may have made all others worthless.
            " UNION ALL SELECT 'device', '', 0, stream_id FROM device_keys"
            " WHERE user_id = $1 AND device_id = $2",
            user_id,
            device_id,
        )
        return KeysLeft(
            {algorithm: count for kind, algorithm, count, _ in rows if kind == "one-time"},
            tuple(sorted(algorithm for kind, algorithm, _, _ in rows if kind == "fallback")),
            max((position or 0 for _, _, _, position in rows), default=0),
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop the keys of some devices, and what is remembered of those that they had."""
        for table in ("one_time_keys", "claimed_one_time_keys", "fallback_keys"):
            await transaction.execute(
                f"DELETE FROM {table} WHERE user_id = $1 AND device_id = ANY($2::text[])",
                user_id,
                list(device_ids),
            )
        for device_id in device_ids:
            transaction.announce(Topic.ONE_TIME_KEYS, f"{user_id}|{device_id}")


def _users(devices: Iterable[Device]) -> list[UserId]:
    return sorted({user_id for user_id, _ in devices})


def _taken(rows: Iterable[Row], devices: Collection[Device], algorithm: str) -> list[TakenKey]:
    return [
        TakenKey(user_id, device_id, algorithm, key_id, bytes(key))
        for user_id, device_id, key_id, key in rows
        if (user_id, device_id) in devices
    ]
