"""An event with what this server knows of it, and its place: in the log, and in the order of its room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.ids import DeviceId, EventId, RoomId


class Status(IntEnum):
    """What became of an event. Only `TIMELINE` events are shown to clients."""

    TIMELINE = 0
    SOFT_FAILED = 1
    REJECTED = 2
    OUTLIER = 3
    NOTED = 4
    """An invite or the like, from outside its room: nobody has judged it, and nothing rests on it."""


class NumberedEvent(NamedTuple):
    """An event with its number in the database."""

    event: Event
    event_nid: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with what this server knows of it."""

    event: Event
    event_nid: int
    stream_id: int
    room_nid: int
    room_id: RoomId
    status: Status
    state_after: int
    state_before: int
    replaces_state: EventId | None
    redacted_by: EventId | None
    notifies: bool
    thread_root: EventId | None
    device_id: DeviceId | None
    transaction_id: str | None
    highlights: frozenset[str] | None = None
    """Whom it highlights; None where it was read from the database, which has rows for that."""
    room_state: int | None = None
    """The snapshot of the room's state once the event had come, where it was not built on the whole of the room."""

    @property
    def has_state(self) -> bool:
        """Whether the state at the event is known; it is not for an outlier."""
        return self.state_after != 0

    @property
    def forks(self) -> bool:
        """Whether it was not built on all that stood in the room when it came."""
        return self.room_state is not None

    @property
    def state_then(self) -> int:
        """The snapshot of the room's state once the event had come."""
        return self.state_after if self.room_state is None else self.room_state

    @property
    def point(self) -> RoomPoint:
        """Its place in the order of the room."""
        return RoomPoint(self.event.depth, self.stream_id)


@dataclass(frozen=True, slots=True, order=True)
class RoomPoint:
    """A place in the order of a room: by depth, then by arrival."""

    depth: int
    stream_id: int

    @property
    def after(self) -> RoomPoint:
        """The gap just after an event that stands here."""
        return RoomPoint(self.depth, self.stream_id + 1)

    @property
    def before(self) -> RoomPoint:
        """Where an event just before this gap stands, at the latest."""
        return RoomPoint(self.depth, self.stream_id - 1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What arrived in a room after `floor` and up to `ceiling`, walking from `start` to `stop` in the order of the room.

    Both points are exclusive; None is the end of the room in that direction. History that was fetched later counts as
    having arrived after `floor` where it was first missed after that, or, if it is from before this server's time in
    the room, where it stands deeper than `floor_depth`, which was the end of the room then.
    """

    ceiling: int
    floor: int | None = None
    floor_depth: int | None = None
    start: RoomPoint | None = None
    stop: RoomPoint | None = None

    def conditions(self, arguments: list[object], *, backwards: bool) -> list[str]:
        """The stretch as SQL, for the columns of `events`; its values are added to `arguments`."""
        arguments.append(self.ceiling)
        conditions = [f"stream_id <= ${len(arguments)}", *self.arrived(arguments)]
        lower, upper = (self.stop, self.start) if backwards else (self.start, self.stop)
        for point, sign in ((lower, ">"), (upper, "<")):
            if point is not None:
                arguments += [point.depth, point.stream_id]
                n = len(arguments)
                conditions.append(f"(depth, stream_id) {sign} (${n - 1}, ${n})")
        return conditions

    def arrived(self, arguments: list[object]) -> list[str]:
        """That something arrived after `floor`, as SQL, if there is one."""
        if self.floor is None:
            return []
        arguments.append(self.floor)
        floor = f"${len(arguments)}"
        if self.floor_depth is None:
            return [f"stream_id > {floor}"]
        arguments.append(self.floor_depth)
        missed = f"coalesce(missed_at > {floor}, depth > ${len(arguments)})"
        return [f"(stream_id > {floor} OR stream_id < 0 AND {missed})"]


@dataclass(frozen=True, slots=True)
class EventRow:
    """What is written for one event."""

    event: Event
    event_nid: int
    room_nid: int
    sender_nid: int
    notifies: bool
    thread_root: EventId | None
    state_after: int
    state_before: int
    replaces_state: EventId | None
    device_id: DeviceId | None
    transaction_id: str | None
    stream_id: int
    room_state: int | None = None
    redacted_by: EventId | None = None
    messages_so_far: int | None = None
    bytes_so_far: int | None = None
    """How much arrived in the room up to this event; None for what is older than the log."""
    missed_at: int | None = None
    """The position at which history was first missed that was fetched later; None where it never was."""

    def stored(self, room_id: RoomId, highlights: frozenset[str]) -> StoredEvent:
        """The event as it is kept in memory from its commit on."""
        return StoredEvent(
            event=self.event,
            event_nid=self.event_nid,
            stream_id=self.stream_id,
            room_nid=self.room_nid,
            room_id=room_id,
            status=Status.TIMELINE,
            state_after=self.state_after,
            state_before=self.state_before,
            replaces_state=self.replaces_state,
            redacted_by=self.redacted_by,
            notifies=self.notifies,
            thread_root=self.thread_root,
            device_id=self.device_id,
            transaction_id=self.transaction_id,
            highlights=highlights,
            room_state=self.room_state,
        )


def with_redaction(stored: StoredEvent, pruned: Event, redacted_by: EventId) -> StoredEvent:
    """The event as it is after its redaction."""
    return replace(stored, event=pruned, redacted_by=redacted_by, notifies=False, highlights=frozenset())


def size_of(stored: StoredEvent) -> int:
    """About how many bytes of memory an event takes."""
    # The parsed form takes about four times the JSON.
    return 5 * len(stored.event.json) + 1000
