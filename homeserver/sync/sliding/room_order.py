"""The rooms of a user in the order of their last activity, kept in memory and carried on by what is announced.

"Rooms are ordered by last activity, based on when the last event in the room was received by the server." Of a room
that the user is not in, what counts is what became of them there last: of what happened since they are told nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

from homeserver.ids import RoomId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homeserver.ids import UserId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.sync.sliding.request import WantedTraits

_CACHED_ROOMS = 200_000
_OUT = ("leave", "ban")


class RoomOrder:
    """The order at a position. Others carry it on: what is taken from it is taken without waiting in between."""

    def __init__(
        self,
        user_id: UserId,
        position: int,
        rooms: Mapping[RoomId, MembershipRow],
        activity: Mapping[RoomId, int],
        was_in: set[int],
    ) -> None:
        self.user_id = user_id
        self.position = position
        self.rooms = rooms
        self.was_in = was_in
        """The numbers of the rooms that the user was in at any time."""
        newest = {
            room_id: max(activity.get(room_id, 0), row.stream_id)
            if row.membership == "join"
            else row.stream_id
            for room_id, row in rooms.items()
        }
        self.activity = dict(sorted(newest.items(), key=lambda item: item[1]))
        """Where what came last into each room stands, oldest first."""
        self.listed = {room_id for room_id, row in rooms.items() if self._is_listed(row)}
        """The rooms that every connection has in its lists."""
        self.left = {room_id for room_id, row in rooms.items() if row.membership in _OUT} - self.listed
        """The other rooms that the user went out of: in the lists of those connections that told of them."""
        self.changed_rooms: set[RoomId] = set()
        """Those in which something happened since lists were last filtered."""
        self.matching: dict[WantedTraits, set[RoomId]] = {}
        """Which rooms have what the filters of lists ask for."""
        self.children: dict[RoomId, frozenset[RoomId]] = {}
        """What the spaces list that filters name."""
        self.filtering = asyncio.Lock()

    def newest_first(self, *, after: int = -1) -> Iterator[RoomId]:
        """The rooms with activity after a position, newest first."""
        recent = takewhile(lambda item: item[1] > after, reversed(self.activity.items()))
        return (room_id for room_id, _ in recent)

    def follow(self, rooms: Mapping[RoomId, MembershipRow], notifier: Notifier) -> bool:
        """Carry the order on to what was announced until now; False where that is not known any more."""
        if notifier.position == self.position and rooms is self.rooms:
            return True
        announced = notifier.positions_since(self.position)
        if announced is None:
            return False
        moves = [
            (position, RoomId(key))
            for position, topic, key in announced
            if topic is Topic.ROOM_EVENTS and key in rooms and rooms[RoomId(key)].membership == "join"
        ]
        if rooms is not self.rooms:
            changed = {room_id: row for room_id, row in rooms.items() if self.rooms.get(room_id) != row}
            if any(row.membership in _OUT and row.room_nid not in self.was_in for row in changed.values()):
                # They may have come in and gone out since the last look.
                return False
            moves += [(row.stream_id, room_id) for room_id, row in changed.items()]
            for room_id in self.rooms.keys() - rooms.keys():
                self._drop(room_id)
            self.rooms = rooms
            for row in changed.values():
                self._place(row)
        self._move(moves)
        self.position = notifier.position
        return True

    def _move(self, moves: list[tuple[int, RoomId]]) -> None:
        """Something came into rooms at these positions: they go to the end, where these are the newest of all."""
        in_order = True
        last = next(reversed(self.activity.values()), 0)
        for position, room_id in sorted(moves):
            row, newest = self.rooms[room_id], self.activity.pop(room_id, 0)
            place = max(position, newest) if row.membership == "join" else row.stream_id
            in_order = in_order and place >= last
            last = max(last, place)
            self.activity[room_id] = place
            self.changed_rooms.add(room_id)
        if not in_order:
            self.activity = dict(sorted(self.activity.items(), key=lambda item: item[1]))

    def _place(self, row: MembershipRow) -> None:
        if row.membership == "join":
            self.was_in.add(row.room_nid)
        self.listed.discard(row.room_id)
        self.left.discard(row.room_id)
        if self._is_listed(row):
            self.listed.add(row.room_id)
        elif row.membership in _OUT:
            self.left.add(row.room_id)

    def _drop(self, room_id: RoomId) -> None:
        self.activity.pop(room_id, None)
        self.listed.discard(room_id)
        self.left.discard(room_id)
        self.changed_rooms.discard(room_id)
        for matching in self.matching.values():
            matching.discard(room_id)

    def _is_listed(self, row: MembershipRow) -> bool:
        """Not those that the user left of their own will: "the user knows they've left".

        "Rooms the user has been banned from, but never joined, should not be part of the list."
        """
        if row.membership not in _OUT:
            return True
        thrown_out = row.membership == "ban" or row.sender != row.user_id
        return thrown_out and not row.forgotten and row.room_nid in self.was_in


class RoomOrders:
    """The orders of the users that are about."""

    def __init__(self, notifier: Notifier, memberships: Memberships, store: MembershipStore) -> None:
        self._notifier = notifier
        self._memberships = memberships
        self._store = store
        self._orders: OrderedDict[UserId, RoomOrder] = OrderedDict()
        self._cached = 0

    async def now(self, user_id: UserId) -> RoomOrder:
        """The order of a user's rooms at the position that this process has heard of."""
        while True:
            rooms = await self._memberships.of_user(user_id)
            # Not awaited in between: whoever is in `rooms` at this position, or later, is there.
            order = self._orders.get(user_id)
            if order is not None:
                if order.follow(rooms, self._notifier):
                    self._orders.move_to_end(user_id)
                    return order
                self._forget(user_id)
            position = self._notifier.position
            activity = dict(await self._store.load_activity(user_id))
            was_in = await self._store.load_once_joined(user_id)
            was_in |= {row.room_nid for row in rooms.values() if row.membership == "join"}
            if user_id not in self._orders:
                self._remember(RoomOrder(user_id, position, rooms, activity, was_in))

    def _remember(self, order: RoomOrder) -> None:
        self._orders[order.user_id] = order
        self._cached += len(order.activity) + 1
        while self._cached > _CACHED_ROOMS and len(self._orders) > 1:
            self._forget(next(iter(self._orders)))

    def _forget(self, user_id: UserId) -> None:
        dropped = self._orders.pop(user_id)
        self._cached = max(0, self._cached - len(dropped.activity) - 1)
