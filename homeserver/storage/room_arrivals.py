"""What came to devices apart from their positions in the log: stretches of rooms, with when each came.

A device that follows by sliding sync is told of some rooms, and not of others; a page of `/messages` brings what an
answer left out. A row stands for a device and a room, however many messages that are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import orjson

from homeserver.ids import DeviceId, UserId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.storage.database import Database, Reader, Transaction

_MAX_PIECES = 32
_MAX_OF_DEVICE = 20_000


class Piece(NamedTuple):
    """What stands after a position and up to another came at a time, at the latest."""

    after: int
    upto: int
    ts: int


@dataclass(slots=True)
class Arrivals:
    """What came to a device of a room: pieces that do not overlap, in order."""

    pieces: list[Piece] = field(default_factory=list)

    def missing(self, after: int, upto: int) -> list[tuple[int, int]]:
        """The parts of a stretch that have not come."""
        missing = []
        for piece in self.pieces:
            if piece.upto <= after:
                continue
            if piece.after >= upto:
                break
            if piece.after > after:
                missing.append((after, piece.after))
            after = piece.upto
        if after < upto:
            missing.append((after, upto))
        return missing

    def add(self, after: int, upto: int, ts: int) -> list[tuple[int, int]]:
        """A stretch has come; the answer is which parts of it had not come before."""
        new = self.missing(after, upto)
        if new:
            self.pieces = _thinned(_joined(sorted([*self.pieces, *(Piece(*part, ts) for part in new)])))
        return new

    def take_in(self, others: Arrivals) -> bool:
        """Add what others are; whether something of it had not come before."""
        new = [part for piece in others.pieces for part in self.add(*piece)]
        return bool(new)

    def when(self, position: int) -> int | None:
        """When what stands at a position came; None where it has not."""
        return next((ts for after, upto, ts in self.pieces if after < position <= upto), None)


class Place(NamedTuple):
    """Which device, and which room."""

    user_id: UserId
    device_id: DeviceId
    room_nid: int


class RoomArrivalStore:
    """Arrivals by room and device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(
        self, room_nids: Collection[int], user_ids: Collection[UserId], reader: Reader | None = None
    ) -> dict[Place, Arrivals]:
        """What came to the devices of some users of some rooms."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, device_id, room_nid, pieces FROM room_arrivals"
            " WHERE room_nid = ANY($1::bigint[]) AND user_id = ANY($2::text[])",
            list(room_nids),
            list(user_ids),
        )
        return {
            Place(UserId(user_id), DeviceId(device_id), room_nid): Arrivals(
                [Piece(*piece) for piece in orjson.loads(pieces)]
            )
            for user_id, device_id, room_nid, pieces in rows
        }

    async def add(self, transaction: Transaction, came: Mapping[Place, Arrivals]) -> None:
        """Note what came to devices that are still there."""
        known = await self.load(
            {place.room_nid for place in came}, {place.user_id for place in came}, transaction
        )
        rows = []
        for place, arrivals in came.items():
            kept = known.get(place, Arrivals())
            if kept.take_in(arrivals):
                pieces = orjson.dumps([tuple(piece) for piece in kept.pieces]).decode()
                rows.append((*place, pieces, kept.pieces[-1].upto))
        await transaction.execute_many(
            "INSERT INTO room_arrivals (user_id, device_id, room_nid, pieces, upto_position)"
            " SELECT $1::text, $2::text, $3::bigint, $4::text, $5::bigint"
            " WHERE EXISTS (SELECT 1 FROM devices WHERE user_id = $1 AND device_id = $2)"
            " ON CONFLICT (room_nid, user_id, device_id) DO UPDATE"
            " SET pieces = excluded.pieces, upto_position = excluded.upto_position",
            rows,
        )
        for user_id, device_id in {place[:2] for place in came.keys() - known.keys()}:
            await self._drop_oldest(transaction, user_id, device_id)

    async def _drop_oldest(self, transaction: Transaction, user_id: UserId, device_id: DeviceId) -> None:
        number = await transaction.fetch_value(
            "SELECT count(*) FROM room_arrivals WHERE user_id = $1 AND device_id = $2", user_id, device_id
        )
        if (number or 0) > _MAX_OF_DEVICE:
            await transaction.execute(
                "DELETE FROM room_arrivals WHERE user_id = $1 AND device_id = $2 AND upto_position <="
                " (SELECT upto_position FROM room_arrivals WHERE user_id = $1 AND device_id = $2"
                " ORDER BY upto_position DESC LIMIT 1 OFFSET $3)",
                user_id,
                device_id,
                _MAX_OF_DEVICE,
            )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop those of devices that are no more."""
        await transaction.execute(
            "DELETE FROM room_arrivals WHERE user_id = $1 AND device_id = ANY($2::text[])",
            user_id,
            list(device_ids),
        )


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """What touches and came at the same time is one piece."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.upto == piece.after and last.ts == piece.ts:
            joined[-1] = Piece(last.after, piece.upto, piece.ts)
        else:
            joined.append(piece)
    return joined


def _thinned(pieces: list[Piece]) -> list[Piece]:
    """A bounded number: the older, the farther apart the times, so that none is told as much later than it was.

    Where only gaps are left to close, what is oldest goes.
    """
    while len(pieces) > _MAX_PIECES:
        newest = max(piece.ts for piece in pieces)
        costs = {
            index: _cost(pieces, index, newest)
            for index, (first, second) in enumerate(pairwise(pieces))
            if first.upto == second.after
        }
        if costs:
            index = min(costs, key=costs.__getitem__)
            first, second = pieces[index : index + 2]
            pieces[index : index + 2] = [Piece(first.after, second.upto, max(first.ts, second.ts))]
        else:
            del pieces[0]
    return pieces


def _cost(pieces: Sequence[Piece], index: int, newest: int) -> tuple[bool, float]:
    """Of making a piece one with the next: by how much of its age what is in it may then be told too late."""
    first, second = pieces[index : index + 2]
    before = pieces[index - 1] if index else first
    # What became part of the piece earlier came after the one before.
    is_bounded = before is not first and before.upto == first.after and before.ts <= first.ts <= second.ts
    earliest = before.ts if is_bounded else min(first.ts, second.ts)
    return not is_bounded, (max(first.ts, second.ts) - earliest) / (newest - earliest + 1)
