"""Where events come from that are missing here, and who says that their signatures are right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId

T = TypeVar("T")


class SourceFailed(Exception):
    """The other server did not answer, or not with what was asked for."""


class SourceRefused(SourceFailed):
    """The server that an event came from does not tell us more about its room."""


class SourceUnreachable(SourceFailed):
    """The server that an event came from cannot be asked now, and no other has what is missing."""


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


class BoundedSource:
    """A source that is asked so many questions, and waited for so long in all: then every question fails.

    Without it one event could keep a server busy for as long as whoever sent it likes.
    """

    def __init__(self, source: EventSource, *, questions: int, seconds: float) -> None:
        self._source = source
        self._left = questions
        self._until = asyncio.get_running_loop().time() + seconds

    async def missing_events(
        self, room_id: RoomId, *, earliest: Sequence[EventId], latest: Sequence[EventId], min_depth: int
    ) -> list[Any]:
        """As `EventSource`."""
        return await self._ask(
            lambda: self._source.missing_events(
                room_id, earliest=earliest, latest=latest, min_depth=min_depth
            )
        )

    async def backfill(self, room_id: RoomId, event_ids: Sequence[EventId], limit: int) -> list[Any]:
        """As `EventSource`."""
        return await self._ask(lambda: self._source.backfill(room_id, event_ids, limit))

    async def event(self, room_id: RoomId, event_id: EventId) -> Any:
        """As `EventSource`."""
        return await self._ask(lambda: self._source.event(room_id, event_id))

    async def state_ids(self, room_id: RoomId, event_id: EventId) -> StateIds:
        """As `EventSource`."""
        return await self._ask(lambda: self._source.state_ids(room_id, event_id))

    async def state(self, room_id: RoomId, event_id: EventId) -> tuple[list[Any], list[Any]]:
        """As `EventSource`."""
        return await self._ask(lambda: self._source.state(room_id, event_id))

    async def event_auth(self, room_id: RoomId, event_id: EventId) -> list[Any]:
        """As `EventSource`."""
        return await self._ask(lambda: self._source.event_auth(room_id, event_id))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        if self._left == 0:
            message = "so many questions were asked for this event already"
            raise SourceFailed(message)
        self._left -= 1
        try:
            async with asyncio.timeout_at(self._until):
                return await question()
        except TimeoutError:
            message = "the answers took too long"
            raise SourceFailed(message) from None


class SignatureCheck(Protocol):
    """Checks the signatures of events with the keys of their servers."""

    async def rightly_signed(
        self, events: Collection[Event], checked: Callable[[int], None] | None = None
    ) -> set[EventId]:
        """Those of these events that all servers have signed which must; `checked` hears how many more were looked at."""
        ...
