"""What the answers to a device left out: stretches of rooms, in place of a row for each message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId
from homeserver.storage.room_stretch import RoomStretch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.storage.database import Database, Transaction

_MAX_OF_DEVICE = 5_000


class LeftOutStore:
    """Stretches by room and device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_ends(self, user_id: UserId, device_id: DeviceId) -> dict[int, int]:
        """The rooms of which something was left out for a device, each with the position up to which that is."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, max(upto_position) FROM left_out WHERE user_id = $1 AND device_id = $2"
            " GROUP BY room_nid",
            user_id,
            device_id,
        )
        return dict(rows)

    async def load_of_device(
        self, user_id: UserId, device_id: DeviceId, room_nids: Collection[int]
    ) -> list[RoomStretch]:
        """What was left out of some rooms for a device."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, after_position, upto_position FROM left_out"
            " WHERE room_nid = ANY($3::bigint[]) AND user_id = $1 AND device_id = $2",
            user_id,
            device_id,
            list(room_nids),
        )
        return [RoomStretch(*row) for row in rows]

    async def load_around(
        self, room_nid: int, user_ids: Collection[UserId], position: int
    ) -> set[tuple[UserId, DeviceId]]:
        """The devices of users for which what stands at a position of a room was left out."""
        rows = await self._database.fetch_all(
            "SELECT user_id, device_id FROM left_out WHERE room_nid = $1 AND user_id = ANY($2::text[])"
            " AND after_position < $3 AND upto_position >= $3",
            room_nid,
            list(user_ids),
            position,
        )
        return {(UserId(user_id), DeviceId(device_id)) for user_id, device_id in rows}

    async def add(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, stretches: Sequence[RoomStretch]
    ) -> None:
        """Note stretches; what touches one that is there, or overlaps it, becomes one with it."""
        known = await self._load(transaction, user_id, device_id, {one.room_nid for one in stretches})
        kept = {room_nid: list(of_room) for room_nid, of_room in known.items()}
        for one in stretches:
            others = kept.get(one.room_nid, [])
            touching = [(after, upto) for after, upto in others if after <= one.upto and upto >= one.after]
            joined = (
                min(one.after, *(after for after, _ in touching)) if touching else one.after,
                max(one.upto, *(upto for _, upto in touching)) if touching else one.upto,
            )
            kept[one.room_nid] = [*(other for other in others if other not in touching), joined]
        await self._replace(transaction, user_id, device_id, known, kept)
        await transaction.execute(
            "DELETE FROM left_out WHERE user_id = $1 AND device_id = $2 AND upto_position <="
            " (SELECT upto_position FROM left_out WHERE user_id = $1 AND device_id = $2"
            " ORDER BY upto_position DESC LIMIT 1 OFFSET $3)",
            user_id,
            device_id,
            _MAX_OF_DEVICE,
        )

    async def subtract(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, brought: RoomStretch
    ) -> None:
        """A stretch has come after all."""
        known = await self._load(transaction, user_id, device_id, {brought.room_nid})
        kept = []
        for after, upto in known.get(brought.room_nid, ()):
            if upto <= brought.after or after >= brought.upto:
                kept.append((after, upto))
                continue
            if after < brought.after:
                kept.append((after, brought.after))
            if upto > brought.upto:
                kept.append((brought.upto, upto))
        await self._replace(transaction, user_id, device_id, known, {brought.room_nid: kept})

    async def _load(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, room_nids: set[int]
    ) -> dict[int, list[tuple[int, int]]]:
        rows = await transaction.fetch_all(
            "SELECT room_nid, after_position, upto_position FROM left_out"
            " WHERE room_nid = ANY($3::bigint[]) AND user_id = $1 AND device_id = $2",
            user_id,
            device_id,
            list(room_nids),
        )
        known: dict[int, list[tuple[int, int]]] = {}
        for room_nid, after, upto in rows:
            known.setdefault(room_nid, []).append((after, upto))
        return known

    async def _replace(
        self,
        transaction: Transaction,
        user_id: UserId,
        device_id: DeviceId,
        known: dict[int, list[tuple[int, int]]],
        kept: dict[int, list[tuple[int, int]]],
    ) -> None:
        """Make the rows of rooms these, of a device that is still there."""
        before = {(room_nid, *one) for room_nid, of_room in known.items() for one in of_room}
        now = {(room_nid, *one) for room_nid, of_room in kept.items() for one in of_room}
        await transaction.execute_many(
            "DELETE FROM left_out WHERE user_id = $1 AND device_id = $2 AND room_nid = $3 AND after_position = $4",
            [(user_id, device_id, room_nid, after) for room_nid, after, _ in before - now],
        )
        await transaction.execute_many(
            "INSERT INTO left_out (user_id, device_id, room_nid, after_position, upto_position)"
            " SELECT $1::text, $2::text, $3::bigint, $4::bigint, $5::bigint"
            " WHERE EXISTS (SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2)",
            [(user_id, device_id, *one) for one in sorted(now - before)],
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop those of devices that are no more."""
        await transaction.execute(
            "DELETE FROM left_out WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )
