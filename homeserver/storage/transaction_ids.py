"""Transaction ids of clients: a repeated request finds the event that the first one made (CS "Transaction identifiers")."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from homeserver.ids import EventId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Transaction


PARTS = 1_024
"""Into how many parts the keys are divided to be pruned."""
_LOWEST_KEY = -(2**63)
_KEYS_IN_PART = 2**64 // PARTS


def transaction_key(user_id: str, device_id: str | None, endpoint: str, transaction_id: str) -> int:
    """The signed 64-bit number that stands for a transaction id within a user, a device and an endpoint."""
    parts = (user_id, device_id or "", endpoint, transaction_id)
    digest = hashlib.blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def keys_of_part(part: int) -> tuple[int, int]:
    """The lowest and the highest key of one of `PARTS` parts."""
    return _LOWEST_KEY + part * _KEYS_IN_PART, _LOWEST_KEY + (part + 1) * _KEYS_IN_PART - 1


class TransactionIdStore:
    """Which event each transaction id made."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, transaction: Transaction, keys: Sequence[int]) -> dict[int, EventId]:
        """The events that these transaction ids made already."""
        rows = await transaction.fetch_all(
            "SELECT t.transaction_key, e.event_id FROM transaction_ids t"
            " JOIN events e ON e.event_nid = t.event_nid WHERE t.transaction_key = ANY($1::bigint[])",
            list(keys),
        )
        return {key: EventId(event_id) for key, event_id in rows}

    async def get(self, key: int) -> EventId | None:
        """The event that a transaction id made."""
        event_id = await self._database.fetch_value(
            "SELECT e.event_id FROM transaction_ids t JOIN events e ON e.event_nid = t.event_nid"
            " WHERE t.transaction_key = $1",
            key,
        )
        return EventId(event_id) if event_id is not None else None

    async def insert(self, transaction: Transaction, rows: Sequence[tuple[int, int, int]]) -> None:
        """Remember rows of (transaction key, event number, time in ms)."""
        await transaction.execute_many(
            "INSERT INTO transaction_ids (transaction_key, event_nid, created_ts) VALUES ($1, $2, $3)", rows
        )

    async def prune(self, transaction: Transaction, before_ts: int, part: int) -> None:
        """Forget the transaction ids from before a time that lie in one of `PARTS` parts of all keys.

        So each time only few rows are looked at, without an index on the time that every message would pay for.
        """
        await transaction.execute(
            "DELETE FROM transaction_ids WHERE transaction_key >= $1 AND transaction_key <= $2 AND created_ts < $3",
            *keys_of_part(part),
            before_ts,
        )
