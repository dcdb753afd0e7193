"""Who is in which room, answered from memory for the users that are about."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.storage.memberships import MembershipRow, MembershipStore

_CACHED_MEMBERSHIPS = 500_000


class Memberships:
    """The memberships of users, kept in memory from their first use on and changed by every commit."""

    def __init__(self, store: MembershipStore) -> None:
        self._store = store
        self._rooms_of: OrderedDict[UserId, dict[RoomId, MembershipRow]] = OrderedDict()
        self._cached = 0
        self._changes = 0

    async def of_user(self, user_id: UserId) -> dict[RoomId, MembershipRow]:
        """Every room that the user has a membership in. The answer is not to be changed."""
        rooms = self._rooms_of.get(user_id)
        if rooms is not None:
            self._rooms_of.move_to_end(user_id)
            return rooms
        while True:
            changes = self._changes
            rooms = {row.room_id: row for row in await self._store.load_of_user(user_id)}
            if changes == self._changes:
                break
        known = self._rooms_of.get(user_id)
        if known is not None:
            return known
        self._rooms_of[user_id] = rooms
        self._cached += len(rooms) + 1
        while self._cached > _CACHED_MEMBERSHIPS and len(self._rooms_of) > 1:
            _, dropped = self._rooms_of.popitem(last=False)
            self._cached -= len(dropped) + 1
        return rooms

    def known(self, user_id: UserId) -> dict[RoomId, MembershipRow] | None:
        """The same, if it is in memory."""
        return self._rooms_of.get(user_id)

    async def get(self, room_id: RoomId, user_id: UserId) -> MembershipRow | None:
        """The membership of a user in a room."""
        return (await self.of_user(user_id)).get(room_id)

    def apply(self, rows: Sequence[MembershipRow]) -> None:
        """Take over memberships that were just committed."""
        self._changes += 1
        for row in rows:
            rooms = self._rooms_of.get(row.user_id)
            if rooms is not None:
                known = rooms.get(row.room_id)
                self._cached += known is None
                stays = known is not None and known.forgotten and row.membership in ("leave", "ban")
                # A new dict: whoever holds the old one goes on with what was true when they asked.
                self._rooms_of[row.user_id] = {**rooms, row.room_id: replace(row, forgotten=stays)}

    def invalidate(self, user_id: UserId) -> None:
        """Read a user's memberships anew: another process changed them."""
        self._changes += 1
        dropped = self._rooms_of.pop(user_id, None)
        if dropped is not None:
            self._cached -= len(dropped) + 1

    def clear(self) -> None:
        """Read everybody's memberships anew: another process changed very many."""
        self._changes += 1
        self._rooms_of.clear()
        self._cached = 0
