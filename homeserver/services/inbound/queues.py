"""Events that could not be placed at once wait in a queue of their room: one slow room stops no other.

They are durable from the moment in which their sender was told that they are taken in.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from homeserver.errors import MatrixError
from homeserver.eventgraph.event import Event
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed
from homeserver.storage.errors import DatabaseClosed, DatabaseUnavailable
from homeserver.storage.staged_events import StagedEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import EventId, RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.gaps import GapFiller
    from homeserver.services.inbound.sources import EventSource
    from homeserver.storage.database import Database
    from homeserver.storage.staged_events import StagedEventStore

_MAX_WAITING = 5_000
_READ_AT_ONCE = 100
_ROOMS_AT_ONCE = 20
_ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Sources(Protocol):
    """Who can be asked for missing events of a room."""

    def of(self, room_id: RoomId, origin: ServerName) -> EventSource:
        """A source that asks the server that an event came from first, then others of the room."""
        ...

    def of_any(self, room_id: RoomId) -> EventSource:
        """A source that asks servers of the room."""
        ...


class RoomQueues:
    """Works off what waits, each room by itself."""

    def __init__(
        self,
        database: Database,
        store: StagedEventStore,
        live_rooms: LiveRooms,
        filler: GapFiller,
        sources: Sources,
    ) -> None:
        self._database = database
        self._store = store
        self._live_rooms = live_rooms
        self._filler = filler
        self._sources = sources
        self._workers: dict[RoomId, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_ROOMS_AT_ONCE)
        self._stopping = False

    async def start(self) -> None:
        """Go on with what waited when the program ended."""
        for room_id in await self._store.load_rooms():
            self._wake(room_id)

    async def stop(self) -> None:
        """Stop; what waits, waits for the next start."""
        self._stopping = True
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def add(self, room: LiveRoom, origin: ServerName, events: Sequence[Event]) -> None:
        """Take in events of a room; they are durable when this returns. Raises `MatrixError` where too many wait."""
        if await self._store.count(room.room_id) + len(events) > _MAX_WAITING:
            message = "Too many events wait for this room"
            raise MatrixError(message, status=503, errcode="M_UNKNOWN")
        staged = [StagedEvent(event.event_id, room.room_id, origin, event.json) for event in events]
        await self._database.write(lambda t: self._store.insert(t, staged))
        self._wake(room.room_id)

    def _wake(self, room_id: RoomId) -> None:
        if room_id in self._workers or self._stopping:
            return
        worker = self._workers[room_id] = asyncio.create_task(self._work_off(room_id))
        worker.add_done_callback(lambda _: self._workers.pop(room_id, None))

    async def _work_off(self, room_id: RoomId) -> None:
        try:
            room = await self._live_rooms.get(room_id)
            while waiting := await self._store.load(room_id, _READ_AT_ONCE):
                # Not counted while it waits for its next attempt.
                async with self._slots:
                    postponed = await self._place_all(room, waiting)
                if postponed is not None:
                    await asyncio.sleep(_FIRST_WAIT_SECONDS * 2**postponed)
        except (DatabaseClosed, DatabaseUnavailable):
            return
        except Exception:  # noqa: BLE001 - it is logged, and tried again with the next event or start
            _log.exception("queue_stopped", room_id=room_id)

    async def _place_all(self, room: LiveRoom, waiting: Sequence[StagedEvent]) -> int | None:
        """Place what can be placed; the answer is how often the first that could not has been tried, if one could not."""
        done: list[EventId] = []
        postponed: int | None = None
        for staged in waiting:
            event = Event.from_json(room.version, staged.json, event_id=staged.event_id)
            try:
                await self._filler.place(room, event, self._sources.of(room.room_id, staged.origin))
            except (Unplaceable, SourceFailed) as error:
                _log.info(
                    "event_not_placed", event_id=staged.event_id, attempts=staged.attempts, why=str(error)
                )
                if staged.attempts + 1 < _ATTEMPTS:
                    postponed = staged.attempts if postponed is None else postponed
                    await self._database.write(
                        lambda t, event_id=staged.event_id: self._store.count_attempt(t, event_id)  # type: ignore[misc]
                    )
                    continue
            done.append(staged.event_id)
        if done:
            await self._database.write(lambda t: self._store.delete(t, done))
        return postponed
