"""Events that are built and allowed, on their way to the database, and how their writing ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import DeviceId, EventId, RoomId
    from homeserver.rooms.live_rooms import DerivedSnapshot, Head, LiveRoom, SnapshotReference
    from homeserver.storage.database import Transaction
    from homeserver.storage.stored_event import NumberedEvent, StoredEvent


@dataclass(slots=True, eq=False)
class PreparedEvent:
    """An event that is built and authorised, with what its row needs."""

    event: Event
    state_before: SnapshotReference
    state_after: SnapshotReference
    replaces: Event | None
    relation: tuple[EventId, str] | None = None
    thread_root: EventId | None = None
    notifies: bool = False
    highlights: frozenset[str] = frozenset()
    redaction: tuple[StoredEvent, Event] | None = None
    redacted_by: EventId | None = None
    """The redaction that came before it."""
    fork: Fork | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """What an event has that was not built on the whole of its room. It is stored already, as an outlier."""

    event_nid: int
    room_state: SnapshotReference
    """The state of the room once the event has come."""
    changes: Mapping[StateKey, tuple[Event | None, NumberedEvent | None]]
    """What that changes in the current state: before and after."""
    snapshots: Sequence[DerivedSnapshot]
    """What is to be stored first, in this order."""
    older: Older | None = None


@dataclass(frozen=True, slots=True)
class Older:
    """That an event stands behind the timeline: it is nobody's news, and changes nothing in the room."""

    missed_at: int | None
    """The position at which it was first missed; None where it is from before this server's time in the room."""


@dataclass(slots=True, eq=False)
class RoomWrite:
    """Events of one room that are committed together."""

    room: LiveRoom
    generation: int
    built_on: int | None
    head: Head
    events: Sequence[PreparedEvent]
    done: asyncio.Future[Outcome]
    device_id: DeviceId | None = None
    transaction_id: str | None = None
    transaction_key: int | None = None
    created_ts: int = 0
    extra: Callable[[Transaction, RoomId], Awaitable[None]] | None = None
    goes_out: bool = False
    """Whether it is for this server to send the events to the others."""


class Verdict(Enum):
    """How a write ended."""

    WRITTEN = auto()
    REPEATED = auto()
    CONFLICT = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a write ended, and the id of its (last) event."""

    verdict: Verdict
    event_id: EventId | None = None
