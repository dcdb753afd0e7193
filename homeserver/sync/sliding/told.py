"""What answers told of rooms: once a client comes back with their `pos`, its device has got that.

The stretches that an answer told are remembered until then. Where they are not, after a restart or in another process,
all that the connection holds is compared with what is known to have come.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from homeserver.storage.room_stretch import RoomStretch
from homeserver.sync.sliding.holdings import LIVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.sliding_sync import ConnectionKey
    from homeserver.sync.delivered import Delivered
    from homeserver.sync.moves import MoveReader
    from homeserver.sync.sliding.draft import Draft
    from homeserver.sync.sliding.holdings import Holdings
    from homeserver.sync.sliding.room_order import RoomOrders
    from homeserver.sync.sliding.rooms import RoomResult

    _Place = tuple[int, int]
    """A position of the log, and the stored answer that tells what the client holds there."""

_CACHED_STRETCHES = 100_000
_ANSWERS_OF_CONNECTION = 4
_PENDING = ("invite", "knock")


class Told:
    """Tells what devices have got once they say so."""

    def __init__(self, delivered: Delivered, orders: RoomOrders, moves: MoveReader) -> None:
        self._delivered = delivered
        self._orders = orders
        self._moves = moves
        self._answers: OrderedDict[ConnectionKey, dict[_Place, Sequence[RoomStretch]]] = OrderedDict()
        self._cached = 0

    async def acknowledge(
        self, requester: Requester, key: ConnectionKey, place: _Place, held: Holdings
    ) -> None:
        """A client has come back with an answer, with which it holds `held`."""
        if not self._delivered.is_on:
            return
        stretches = self._answers.get(key, {}).get(place)
        if stretches is None:
            stretches = await self._all_held(requester.user_id, held, place[0])
        self._remember(key, {place: ()})
        self._delivered.arrived(requester, stretches)

    async def settle(self, draft: Draft) -> None:
        """Before an answer that begins timelines anew: what the client had of them is written down by then.

        The connection no longer says so.
        """
        for room_nid, now in draft.changes.rooms.items():
            before = draft.held.rooms.get(room_nid)
            if before is not None and before.begins is not None and before.begins < (now.begins or 0):
                await self._delivered.flush()
                return

    def note(self, draft: Draft, place: _Place) -> None:
        """An answer that ends at a place is about to be given."""
        if not self._delivered.is_on:
            return
        stretches = [
            RoomStretch(draft.selection.rooms[room_id].room_nid, *told)
            for room_id, result in draft.rooms.items()
            if (told := self._told(draft, room_id, result)) is not None
        ]
        others = [one for one in self._answers.get(draft.key, {}).items() if one[0] != place]
        self._remember(draft.key, {**dict(others[1 - _ANSWERS_OF_CONNECTION :]), place: stretches})

    def _remember(self, key: ConnectionKey, answers: dict[_Place, Sequence[RoomStretch]]) -> None:
        self._forget(key)
        self._answers[key] = answers
        self._cached += _size(answers)
        while self._cached > _CACHED_STRETCHES:
            self._forget(next(iter(self._answers)))

    def _forget(self, key: ConnectionKey) -> None:
        self._cached -= _size(self._answers.pop(key, {}))

    def _told(self, draft: Draft, room_id: RoomId, result: RoomResult) -> tuple[int, int] | None:
        """What the client holds of a room with the answer, where that is more than it held."""
        room_nid = draft.selection.rooms[room_id].room_nid
        begins, before = draft.held_room(room_nid).begins, draft.held.rooms.get(room_nid)
        if result.ends is None or begins is None:
            return None
        upto = None if before is None else draft.told(before.events, draft.since)
        if result.begins is None and draft.selection.activity[room_id] <= (upto or 0):
            return None
        return begins, result.ends

    async def _all_held(self, user_id: UserId, held: Holdings, position: int) -> list[RoomStretch]:
        """All that a client holds; of each room no more than there is."""
        order = await self._orders.now(user_id)
        stretches, moved = [], []
        for room_id, row in order.rooms.items():
            room = held.rooms.get(row.room_nid)
            if room is None or room.begins is None:
                continue
            upto = position if room.events == LIVE else room.events
            if row.membership != "join" or row.stream_id > upto:
                moved.append((row, room.begins, upto))
            else:
                stretches.append(RoomStretch(row.room_nid, room.begins, min(upto, order.activity[room_id])))
        for row, begins, upto in moved:
            at = await self._moves.at(row, upto)
            if at is not None and at.membership not in _PENDING:
                # Who is out was told of the room until they went.
                end = upto if at.membership == "join" else min(upto, at.stream_id)
                stretches.append(RoomStretch(row.room_nid, begins, end))
        return stretches


def _size(answers: Mapping[_Place, Sequence[RoomStretch]]) -> int:
    return sum(1 + len(stretches) for stretches in answers.values())
