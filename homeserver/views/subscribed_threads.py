"""The threads that users have subscribed to (MSC4306): in memory, for their unread counts, and as clients are told."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from homeserver.storage.thread_subscriptions import EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import EventId, RoomId, UserId
    from homeserver.storage.thread_subscriptions import ThreadSubscription, ThreadSubscriptionStore

_CACHED_USERS = 10_000
_CACHED_THREADS = 200_000
_ByRoom = dict["RoomId", frozenset["EventId"]]


class SubscribedThreads:
    """Answers from memory; a change is noticed by its announcement."""

    def __init__(self, store: ThreadSubscriptionStore) -> None:
        self._store = store
        # None for those who have never subscribed to anything.
        self._of: OrderedDict[UserId, _ByRoom | None] = OrderedDict()
        self._cached = 0
        self._changes = 0

    async def of(self, user_id: UserId, room_id: RoomId) -> frozenset[EventId] | None:
        """The roots of the threads of a room that a user has subscribed to.

        None for a user who has never subscribed to any thread, nor ended a subscription: their clients know nothing of
        it, and all threads count.
        """
        if user_id not in self._of:
            await self._load(user_id)
        by_room = self._of.get(user_id)
        return None if by_room is None else by_room.get(room_id, frozenset())

    async def changed_rooms(
        self, user_id: UserId, rooms: Iterable[RoomId], *, after: int, upto: int
    ) -> set[RoomId]:
        """Those of a user's rooms in which other threads count since a position of the log."""
        changed = set(await self._store.load_changed_rooms(user_id, after=after, upto=upto))
        return set(rooms) if EVERYWHERE in changed else changed.intersection(rooms)

    def invalidate(self, user_id: UserId) -> None:
        """The subscriptions of a user have changed."""
        self._changes += 1
        self._cached -= _size(self._of.pop(user_id, None))

    async def _load(self, user_id: UserId) -> None:
        while True:
            changes = self._changes
            subscriptions = await self._store.load_all(user_id)
            if changes == self._changes:
                break
        by_room: dict[RoomId, set[EventId]] = {}
        for one in subscriptions:
            if one.is_subscribed and one.room_id != EVERYWHERE:
                by_room.setdefault(one.room_id, set()).add(one.thread_root)
        found = {room_id: frozenset(roots) for room_id, roots in by_room.items()} if subscriptions else None
        self._cached -= _size(self._of.pop(user_id, None))
        self._of[user_id] = found
        self._cached += _size(found)
        while len(self._of) > 1 and (len(self._of) > _CACHED_USERS or self._cached > _CACHED_THREADS):
            self._cached -= _size(self._of.popitem(last=False)[1])


def told_by_room(
    subscriptions: Iterable[ThreadSubscription],
) -> dict[str, dict[RoomId, dict[EventId, dict[str, Any]]]]:
    """As MSC4308 tells of changes: `subscribed` and `unsubscribed` by room and root, as far as there are any."""
    told: dict[str, dict[RoomId, dict[EventId, dict[str, Any]]]] = {}
    for one in subscriptions:
        kind = told.setdefault("subscribed" if one.is_subscribed else "unsubscribed", {})
        change: dict[str, Any] = {"bump_stamp": one.stream_id}
        if one.is_subscribed:
            change["automatic"] = one.automatic
        kind.setdefault(one.room_id, {})[one.thread_root] = change
    return told


def _size(by_room: _ByRoom | None) -> int:
    return sum(map(len, by_room.values())) if by_room else 0
