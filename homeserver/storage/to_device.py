"""Messages that wait for devices, each in the order in which they came (CS "Send-to-Device messaging")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic
from homeserver.storage.transaction_ids import keys_of_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Database, Row, Transaction


MAX_MESSAGES = 100
"""In one answer. "100 messages is recommended as a reasonable limit.\""""
MAX_BYTES = 1 << 20
"""In one answer that holds more than one message."""


@dataclass(frozen=True, slots=True)
class Batch:
    """As many waiting messages as go into one answer, JSON as they go out."""

    messages: list[bytes]
    last: int
    """The place of the last of them; where there are none, the one from which on was asked."""
    is_last: bool
    """Whether none were left out."""


class ToDeviceStore:
    """The inboxes of devices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        transaction: Transaction,
        transaction_key: int,
        now_ms: int,
        messages: Sequence[tuple[UserId, DeviceId, bytes]],
    ) -> None:
        """Put a message each into the inboxes of some devices, unless the transaction id was seen before.

        Devices that are gone by now are passed over. Nothing is asked, so that many sends can be written at once.
        """
        stream_id = await transaction.next_position()
        await transaction.execute_many(
            "INSERT INTO to_device_messages (user_id, device_id, stream_id, message)"
            " SELECT user_id, device_id, $3::bigint, $4::bytea FROM devices"
            " WHERE user_id = $1 AND device_id = $2"
            " AND NOT EXISTS (SELECT 1 FROM to_device_transactions WHERE transaction_key = $5)",
            [
                (user_id, device_id, stream_id, message, transaction_key)
                for user_id, device_id, message in messages
            ],
        )
        await transaction.execute_many(
            "INSERT INTO to_device_transactions (transaction_key, created_ts) VALUES ($1, $2)"
            " ON CONFLICT DO NOTHING",
            [(transaction_key, now_ms)],
        )
        for user_id, device_id, _ in messages:
            transaction.announce(Topic.TO_DEVICE, f"{user_id}|{device_id}")

    async def load_batch(
        self, user_id: UserId, device_id: DeviceId, *, after: int, upto: int, limit: int = MAX_MESSAGES
    ) -> Batch:
        """The oldest messages of a device between two positions."""
        rows = await self._database.fetch_all(
            "SELECT stream_id, message FROM to_device_messages"
            " WHERE user_id = $1 AND device_id = $2 AND stream_id > $3 AND stream_id <= $4"
            " ORDER BY stream_id LIMIT $5",
            user_id,
            device_id,
            after,
            upto,
            limit + 1,
        )
        taken = rows[: _as_many_as_fit(rows[:limit])]
        return Batch(
            messages=[message for _, message in taken],
            last=taken[-1][0] if taken else after,
            is_last=len(taken) == len(rows),
        )

    async def get_ends(self, user_id: UserId, device_id: DeviceId) -> tuple[int, int] | None:
        """The places of the oldest and the newest message of a device; None where there are no messages."""
        # Each alone is one step into the index; together they would be a walk through it.
        row = await self._database.fetch_one(
            "SELECT"
            " (SELECT min(stream_id) FROM to_device_messages WHERE user_id = $1 AND device_id = $2),"
            " (SELECT max(stream_id) FROM to_device_messages WHERE user_id = $1 AND device_id = $2)",
            user_id,
            device_id,
        )
        return None if row is None or row[0] is None else (row[0], row[1])

    async def delete_upto(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, upto: int
    ) -> None:
        """Drop what a device has acknowledged."""
        await transaction.execute_many(
            "DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = $2 AND stream_id <= $3",
            [(user_id, device_id, upto)],
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop all messages of devices that go."""
        await transaction.execute(
            "DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )

    async def prune_transactions(self, transaction: Transaction, before_ts: int, part: int) -> None:
        """Forget the transaction ids from before a time that lie in one part of all keys."""
        await transaction.execute(
            "DELETE FROM to_device_transactions"
            " WHERE transaction_key >= $1 AND transaction_key <= $2 AND created_ts < $3",
            *keys_of_part(part),
            before_ts,
        )


def _as_many_as_fit(rows: Sequence[Row]) -> int:
    """How many of these fit into one answer; one does, however large it is."""
    size = 0
    for number, (_, message) in enumerate(rows):
        size += len(message)
        if size > MAX_BYTES and number:
            return number
    return len(rows)
