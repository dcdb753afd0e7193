"""Says what changed after a position, and wakes whoever waits for it; from memory, without any SQL.

Waiters are kept by user, and a user's rooms are registered once and not for every long poll, so that waiting
costs the same for one room as for a thousand.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic
from homeserver.storage.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from homeserver.ids import DeviceId, RoomId
    from homeserver.storage.announcements import Announcement
    from homeserver.storage.memberships import MembershipRow

_KEPT = 20_000
SENDER_FIRST_SECONDS = 0.002
"""matrix-js-sdk gives up on a message in a thread whose echo comes before the answer to its sending."""
_MAX_IDLE_USERS = 5_000
_ROOM_TOPICS = frozenset({Topic.ROOM_EVENTS, Topic.RECEIPTS, Topic.TYPING})
_USER_TOPICS = frozenset(
    {
        Topic.ACCOUNT_DATA,
        Topic.MEMBERSHIP,
        Topic.PUSH_RULES,
        Topic.CREDENTIALS,
        Topic.USER_SIGNATURES,
        Topic.DELIVERY,
        Topic.THREAD_SUBSCRIPTIONS,
    }
)
_DEVICE_TOPICS = frozenset({Topic.TO_DEVICE, Topic.ONE_TIME_KEYS})
_NEIGHBOUR_TOPICS = frozenset({Topic.PRESENCE, Topic.DEVICE_LISTS})


class _Watcher:
    """A user who syncs: their rooms, and their long polls that wait now."""

    __slots__ = ("has_sent", "memberships", "rooms", "user_id", "waiting")

    def __init__(self, user_id: UserId) -> None:
        self.user_id = user_id
        self.memberships: Mapping[RoomId, MembershipRow] | None = None
        self.rooms: frozenset[RoomId] = frozenset()
        self.waiting: dict[asyncio.Future[bool], str] = {}
        # What wakes them now is their own sending, whose answer is under way.
        self.has_sent = False

    def wake(self, device: str | None = None) -> None:
        if not self.has_sent:
            self._wake(device)
        elif self.waiting:
            asyncio.get_running_loop().call_later(SENDER_FIRST_SECONDS, self._wake, device)

    def _wake(self, device: str | None) -> None:
        for future, waiting_device in self.waiting.items():
            if not future.done() and (device is None or device == waiting_device):
                future.set_result(True)


class Notifier:
    """The newest announcements in order, and those who wait for the next ones."""

    def __init__(
        self,
        position: int,
        known_rooms: Callable[[UserId], Mapping[RoomId, MembershipRow] | None],
        load_rooms: Callable[[UserId], Awaitable[Mapping[RoomId, MembershipRow]]],
    ) -> None:
        """`known_rooms` tells the rooms of a user now, if they are in memory; `load_rooms` in any case."""
        self.position = position
        self._known_rooms = known_rooms
        self._load_rooms = load_rooms
        self._loading: set[asyncio.Task[None]] = set()
        # Everything after this position is in the lists below.
        self._floor = position
        self._positions: list[int] = []
        self._log: list[tuple[Topic, str]] = []
        self._watchers: OrderedDict[UserId, _Watcher] = OrderedDict()
        self._by_room: dict[RoomId, set[_Watcher]] = {}
        self._senders: set[UserId] = set()
        self._stopping = False

    # -- what changed ----------------------------------------------------------------------------------

    def changes_since(self, position: int, upto: int | None = None) -> list[tuple[Topic, str]] | None:
        """Everything announced after a position, up to another one or the newest.

        None where that is longer ago than memory reaches.
        """
        if position < self._floor:
            return None
        end = None if upto is None else bisect_right(self._positions, upto)
        return self._log[bisect_right(self._positions, position) : end]

    def positions_since(self, position: int) -> list[tuple[int, Topic, str]] | None:
        """Everything announced after a position, with its own; None where memory does not reach back so far."""
        if position < self._floor:
            return None
        start = bisect_right(self._positions, position)
        return [(place, *one) for place, one in zip(self._positions[start:], self._log[start:], strict=True)]

    def on_commit(self, position: int, announcements: Sequence[Announcement]) -> None:
        """Take in the announcements of a commit, and wake those whom they concern."""
        for announcement in announcements:
            self._positions.append(announcement.position)
            self._log.append((announcement.topic, announcement.key))
        if len(self._log) > 2 * _KEPT:
            # A position is forgotten whole, or kept whole.
            cut = bisect_right(self._positions, self._positions[_KEPT])
            self._floor = self._positions[cut - 1]
            del self._positions[:cut]
            del self._log[:cut]
        self.position = max(self.position, position)
        senders, self._senders = self._senders, set()
        held = [watcher for user_id in senders if (watcher := self._watchers.get(user_id)) is not None]
        for watcher in held:
            watcher.has_sent = True
        for announcement in announcements:
            self._wake(announcement.topic, announcement.key)
        for watcher in held:
            watcher.has_sent = False

    def answer_first(self, senders: Iterable[UserId]) -> None:
        """These have sent what is told next: each has the answer to that before their own devices are woken."""
        self._senders.update(senders)

    def _wake(self, topic: Topic, key: str) -> None:
        if topic in _ROOM_TOPICS:
            for watcher in self._by_room.get(key, ()):  # type: ignore[call-overload]
                watcher.wake()
        elif topic in _USER_TOPICS:
            watcher = self._watchers.get(key)  # type: ignore[call-overload]
            if watcher is not None:
                watcher.wake()
        elif topic in _DEVICE_TOPICS:
            user_id, _, device_id = key.partition("|")
            watcher = self._watchers.get(user_id)  # type: ignore[call-overload]
            if watcher is not None:
                watcher.wake(device_id)
        elif topic in _NEIGHBOUR_TOPICS:
            self._wake_neighbours(UserId(key))

    def _wake_neighbours(self, user_id: UserId) -> None:
        """Wake the user and everybody who shares a room with them."""
        watcher = self._watchers.get(user_id)
        if watcher is not None:
            watcher.wake()
        # Not those of the watcher: it knows the rooms that there were when the user last waited.
        rooms = self._known_rooms(user_id)
        if rooms is not None:
            self._wake_members(rooms)
        elif self._by_room:
            task = asyncio.get_running_loop().create_task(self._find_and_wake_neighbours(user_id))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)

    async def _find_and_wake_neighbours(self, user_id: UserId) -> None:
        try:
            self._wake_members(await self._load_rooms(user_id))
        except DatabaseUnavailable:
            # Those who wait look for themselves.
            for other in self._watchers.values():
                other.wake()

    def _wake_members(self, rooms: Mapping[RoomId, MembershipRow]) -> None:
        for room_id in _joined(rooms):
            for neighbour in self._by_room.get(room_id, ()):
                neighbour.wake()

    # -- waiting ---------------------------------------------------------------------------------------

    async def wait(
        self,
        user_id: UserId,
        device_id: DeviceId | None,
        rooms: Mapping[RoomId, MembershipRow],
        *,
        after: int,
        seconds: float,
        concerns: Callable[[Iterable[tuple[Topic, str]]], bool],
    ) -> bool:
        """Wait until something is announced after a position that may concern this device.

        `rooms` are the memberships of the user, `concerns` tells of announcements that came since `after` whether they
        do. The answer is whether there was something; False after `seconds`, or when the server stops.
        """
        if self._stopping:
            return False
        watcher = self._watch(user_id, rooms)
        since = self.changes_since(after)
        if since is None or (since and concerns(since)):
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        watcher.waiting[future] = device_id or ""
        timer = asyncio.get_running_loop().call_later(seconds, _let_go, future)
        try:
            return await future
        finally:
            timer.cancel()
            watcher.waiting.pop(future, None)

    def stop(self) -> None:
        """Let everybody who waits go, and nobody wait any more."""
        self._stopping = True
        for task in self._loading:
            task.cancel()
        for watcher in self._watchers.values():
            for future in watcher.waiting:
                _let_go(future)

    @property
    def waiting(self) -> int:
        """How many long polls wait now."""
        return sum(len(watcher.waiting) for watcher in self._watchers.values())

    def _watch(self, user_id: UserId, rooms: Mapping[RoomId, MembershipRow]) -> _Watcher:
        watcher = self._watchers.get(user_id)
        if watcher is None:
            watcher = self._watchers[user_id] = _Watcher(user_id)
            self._drop_idle()
        else:
            self._watchers.move_to_end(user_id)
        if watcher.memberships is not rooms:
            # Of rooms that they are not in, what concerns them is announced as a membership of theirs.
            joined = frozenset(_joined(rooms))
            for room_id in watcher.rooms - joined:
                self._unregister(watcher, room_id)
            for room_id in joined - watcher.rooms:
                self._by_room.setdefault(room_id, set()).add(watcher)
            watcher.memberships, watcher.rooms = rooms, joined
        return watcher

    def _unregister(self, watcher: _Watcher, room_id: RoomId) -> None:
        watchers = self._by_room.get(room_id)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._by_room[room_id]

    def _drop_idle(self) -> None:
        if len(self._watchers) <= _MAX_IDLE_USERS:
            return
        for user_id, watcher in list(islice(self._watchers.items(), 100)):
            if not watcher.waiting:
                del self._watchers[user_id]
                for room_id in watcher.rooms:
                    self._unregister(watcher, room_id)
                return


def _joined(rooms: Mapping[RoomId, MembershipRow]) -> Iterator[RoomId]:
    return (room_id for room_id, row in rooms.items() if row.membership == "join")


def _let_go(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
