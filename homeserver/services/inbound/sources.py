"""Where events come from that are missing here, and who says that their signatures are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId


class SourceFailed(Exception):
    """The other server did not answer, or not with what was asked for."""


@dataclass(frozen=True, slots=True)
class StateIds:
    """The state before an event by ids, and the events of its auth chain."""

    state: Sequence[EventId]
    auth_chain: Sequence[EventId]


class EventSource(Protocol):
    """Servers that are asked for what is missing. PDUs come as they were sent: nothing in them is checked.

    Every call raises `SourceFailed`.
    """

    async def missing_events(
        self, room_id: RoomId, *, earliest: Sequence[EventId], latest: Sequence[EventId], min_depth: int
    ) -> list[Any]:
        """Events between those that are known (`earliest`) and those that led here (`latest`)."""
        ...

    async def backfill(self, room_id: RoomId, event_ids: Sequence[EventId], limit: int) -> list[Any]:
        """These events and older ones."""
        ...

    async def event(self, room_id: RoomId, event_id: EventId) -> Any:
        """One event."""
        ...

    async def state_ids(self, room_id: RoomId, event_id: EventId) -> StateIds:
        """The state before an event."""
        ...

    async def state(self, room_id: RoomId, event_id: EventId) -> tuple[list[Any], list[Any]]:
        """The events of the state before an event, and those of their auth chain."""
        ...

    async def event_auth(self, room_id: RoomId, event_id: EventId) -> list[Any]:
        """The auth chain of an event."""
        ...


class SignatureCheck(Protocol):
    """Checks the signatures of events with the keys of their servers."""

    async def rightly_signed(self, events: Collection[Event]) -> set[EventId]:
        """Those of these events that all servers have signed which must."""
        ...
