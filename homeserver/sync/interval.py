"""What an answer covers, and what was announced meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.ids import DeviceId
    from homeserver.notifier.notifier import Notifier

_NEIGHBOURS = frozenset({Topic.PRESENCE, Topic.DEVICE_LISTS})
"""Topics whose key is a user, and which concern those who share a room with them."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What an answer covers: everything after `since` up to `upto`; `since` is None in a first sync."""

    since: int | None
    upto: int
    full_state: bool
    state_name: str
    told: int = 0
    """Events up to here came by another way (`homeserver.sync.missed`); the rest of the interval did not."""

    @property
    def use_state_after(self) -> bool:
        """Whether the state is that after the timeline (MSC4222)."""
        return self.state_name != "state"


@dataclass(frozen=True, slots=True)
class Changes:
    """What was announced in an interval, as far as it concerns a user."""

    known: bool
    """False where it is longer ago than memory reaches: anything may have changed."""
    rooms_with_events: frozenset[RoomId]
    rooms_with_receipts: frozenset[RoomId]
    rooms_with_typing: frozenset[RoomId]
    shared_rooms: frozenset[RoomId]
    """Encrypted rooms that somebody came into or went out of."""
    read_rooms: frozenset[RoomId]
    """Rooms in which the user has read on."""
    changed_devices: frozenset[UserId]
    """Users whose devices changed, whether they share a room with the user or not."""
    topics: frozenset[Topic]

    @property
    def none(self) -> bool:
        """Whether nothing has changed."""
        return self.known and not (
            self.rooms_with_events or self.rooms_with_receipts or self.rooms_with_typing or self.topics
        )

    def has(self, topic: Topic) -> bool:
        """Whether something of this kind may have changed."""
        return not self.known or topic in self.topics


_NOTHING: frozenset[RoomId] = frozenset()
UNKNOWN = Changes(
    known=False,
    rooms_with_events=_NOTHING,
    rooms_with_receipts=_NOTHING,
    rooms_with_typing=_NOTHING,
    shared_rooms=_NOTHING,
    read_rooms=_NOTHING,
    changed_devices=frozenset(),
    topics=frozenset(),
)


def read_changes(
    notifier: Notifier, interval: Interval, concern: Concern, rooms: Mapping[RoomId, object]
) -> Changes:
    """What was announced in an interval that concerns a user with these rooms."""
    announced = None if interval.since is None else notifier.changes_since(interval.since, interval.upto)
    if announced is None:
        return UNKNOWN
    by_topic: dict[Topic, set[RoomId]] = {
        Topic.ROOM_EVENTS: set(),
        Topic.RECEIPTS: set(),
        Topic.TYPING: set(),
        Topic.SHARED_ROOM: set(),
    }
    topics = set()
    changed_devices = set()
    read_rooms = set()
    for topic, key in announced:
        in_rooms = by_topic.get(topic)
        if in_rooms is not None:
            if key in rooms:
                in_rooms.add(RoomId(key))
        elif topic is Topic.READ:
            if key.startswith(concern.read_prefix):
                read_rooms.add(RoomId(key.removeprefix(concern.read_prefix)))
        elif key in concern.own_keys or topic in _NEIGHBOURS:
            topics.add(topic)
            if topic is Topic.DEVICE_LISTS:
                changed_devices.add(UserId(key))
    return Changes(
        known=True,
        rooms_with_events=frozenset(by_topic[Topic.ROOM_EVENTS]),
        rooms_with_receipts=frozenset(by_topic[Topic.RECEIPTS]),
        rooms_with_typing=frozenset(by_topic[Topic.TYPING]),
        shared_rooms=frozenset(by_topic[Topic.SHARED_ROOM]),
        read_rooms=frozenset(read_rooms),
        changed_devices=frozenset(changed_devices),
        topics=frozenset(topics),
    )


class Concern:
    """Whether announcements may concern a device."""

    __slots__ = ("_rooms", "own_keys", "read_prefix")

    def __init__(self, user_id: UserId, device_id: DeviceId | None, rooms: Mapping[RoomId, object]) -> None:
        self.own_keys = frozenset({user_id, f"{user_id}|{device_id}"})
        self.read_prefix = f"{user_id}|"
        self._rooms = rooms

    def __call__(self, announcements: Iterable[tuple[Topic, str]]) -> bool:
        """Whether one of these does."""
        return any(
            key in self.own_keys or key in self._rooms or topic in _NEIGHBOURS for topic, key in announcements
        )
