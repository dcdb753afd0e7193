"""Stores state snapshots that are told by what they have otherwise than another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.rooms.live_rooms import DerivedSnapshot
    from homeserver.storage.database import Transaction
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.state import StateStore


class SnapshotWriter:
    """Gives derived snapshots their numbers."""

    def __init__(self, state: StateStore, numbers: NumberStore) -> None:
        self._state = state
        self._numbers = numbers

    async def store(
        self, transaction: Transaction, room_nid: int, snapshots: Sequence[DerivedSnapshot]
    ) -> None:
        """Store snapshots of a room in this order: each may be derived from those before it."""
        for snapshot in snapshots:
            numbers = await self._numbers.number_keys(transaction, snapshot.changes)
            snapshot.snapshot_nid = await transaction.next_position()
            await self._state.add_snapshot(
                transaction,
                snapshot_nid=snapshot.snapshot_nid,
                room_nid=room_nid,
                # Number 0 is the empty state.
                previous=snapshot.base.snapshot_nid or None,
                changes={numbers[key]: event_nid for key, event_nid in snapshot.changes.items()},
            )
