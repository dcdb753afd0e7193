"""Events that could not be placed at once wait in a queue of their room: one slow room stops no other.

They are durable from the moment in which their sender was told that they are taken in. A server that makes us wait for
what is missing before its events holds up these alone: other servers' events of the same room go by. One that cannot be
reached is waited for, since it does not send again what was taken in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

import structlog

from homeserver.eventgraph.event import Event
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed, SourceUnreachable
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

MAX_WAITING = 5_000
"""So many events wait for a room."""
MAX_WAITING_OF_SERVER = 1_000
"""So many of them are of one server."""
_READ_AT_ONCE = 100
AT_ONCE = 100
"""So many events are placed at the same time, in all rooms."""
AT_ONCE_OF_SERVER = 4
"""So many of them are of one server."""
ATTEMPTS = 6
"""After so many an event is given up."""
_PATIENCE_SECONDS = 5.0
_FIRST_WAIT_SECONDS = 2.0
# Seldom, since others of the room are asked each time, too.
_UNREACHABLE_GROWTH = 4
_MOST_WAIT_SECONDS = 4 * 3_600.0
UNREACHABLE_SECONDS = 24 * 3_600.0
"""So long an event waits for a server that cannot be reached, and has alone what is missing."""

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
        self._queues: dict[RoomId, _Queue] = {}
        self._out_of_reach: set[ServerName] = set()
        """Servers that something waits for, as far as they have not been heard from since they were tried."""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._slots_of: WeakValueDictionary[ServerName, asyncio.Semaphore] = WeakValueDictionary()
        self._stopping = False

    async def start(self) -> None:
        """Go on with what waited when the program ended."""
        for room_id in await self._store.load_rooms():
            self._wake(room_id)

    async def stop(self) -> None:
        """Stop; what waits, waits for the next start."""
        self._stopping = True
        await asyncio.gather(*(queue.stop() for queue in list(self._queues.values())))

    async def add(self, room: LiveRoom, origin: ServerName, events: Sequence[Event]) -> list[EventId]:
        """Take in events of a room; they are durable when this returns. The answer is those that there is no room for."""
        waiting, of_origin = await self._store.count(room.room_id, origin)
        free = max(0, min(MAX_WAITING - waiting, MAX_WAITING_OF_SERVER - of_origin))
        staged = [StagedEvent(one.event_id, room.room_id, origin, one.json) for one in events[:free]]
        if staged:
            await self._database.write(lambda t: self._store.insert(t, staged))
            self._wake(room.room_id)
        return [one.event_id for one in events[free:]]

    def _wake(self, room_id: RoomId) -> None:
        if self._stopping:
            return
        queue = self._queues.get(room_id)
        if queue is None:
            queue = self._queues[room_id] = _Queue(self, room_id)
        queue.news.set()

    def ended(self, room_id: RoomId) -> None:
        """Nothing waits for a room any more."""
        self._queues.pop(room_id, None)
        if not self._queues:
            self._out_of_reach.clear()

    def waits_for(self, origin: ServerName) -> None:
        """Something waits until a server can be reached."""
        self._out_of_reach.add(origin)

    def heard_from(self, origin: ServerName) -> None:
        """A server has made a valid request: whatever waits until it can be reached is tried again.

        It is asked at every request, so nothing is looked at where nothing waits for the server, or was told already.
        """
        if origin in self._out_of_reach:
            self._out_of_reach.remove(origin)
            for queue in self._queues.values():
                queue.heard_from(origin)

    async def place(self, room: LiveRoom, staged: StagedEvent, source: EventSource) -> bool:
        """Try to place an event; whether that is the end of it. Raises `SourceUnreachable`: that is no try."""
        event = Event.from_json(room.version, staged.json, event_id=staged.event_id)
        try:
            async with (
                self._slots_of.setdefault(staged.origin, asyncio.Semaphore(AT_ONCE_OF_SERVER)),
                self._slots,
            ):
                await self._filler.place(room, event, source)
        except (DatabaseClosed, DatabaseUnavailable, SourceUnreachable):
            raise
        except (Unplaceable, SourceFailed) as error:
            _log.info("event_not_placed", event_id=staged.event_id, attempts=staged.attempts, why=str(error))
        except Exception:  # noqa: BLE001 - the fault is ours, and the events behind it have none
            _log.exception("event_not_placed", event_id=staged.event_id, attempts=staged.attempts)
        else:
            await self.drop(staged)
            return True
        if staged.attempts + 1 >= ATTEMPTS:
            await self.drop(staged)
            return True
        await self._database.write(lambda t: self._store.count_attempt(t, staged.event_id))
        return False

    async def drop(self, staged: StagedEvent) -> None:
        """Have done with an event."""
        await self._database.write(lambda t: self._store.delete(t, [staged.event_id]))

    def source(self, room_id: RoomId, origin: ServerName) -> EventSource:
        """Who is asked for what is missing before events of a server."""
        return self._sources.of(room_id, origin)

    async def waiting(self, room_id: RoomId) -> list[StagedEvent]:
        """The next events of a room, of each server alike."""
        return await self._store.load(room_id, _READ_AT_ONCE)

    async def room(self, room_id: RoomId) -> LiveRoom:
        """A room."""
        return await self._live_rooms.get(room_id)


@dataclass(slots=True)
class _Postponed:
    """An event that could not be placed, by the time of the loop."""

    origin: ServerName
    tried_at: float
    retry_at: float
    unreachable_since: float | None = None
    """From when on its server could not be reached."""


class _Queue:
    """The queue of one room, while something is in it."""

    def __init__(self, queues: RoomQueues, room_id: RoomId) -> None:
        self._queues = queues
        self._room_id = room_id
        self._slow: dict[ServerName, asyncio.Task[None]] = {}
        """What is being placed and takes its time, by whose it is."""
        self._postponed: dict[EventId, _Postponed] = {}
        self.news = asyncio.Event()
        self.worker = asyncio.create_task(self._work_off())

    async def stop(self) -> None:
        """Put everything down."""
        tasks = [self.worker, *self._slow.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def heard_from(self, origin: ServerName) -> None:
        """A server can be reached again, as it seems."""
        for postponed in self._postponed.values():
            if postponed.origin == origin and postponed.unreachable_since is not None:
                postponed.retry_at = min(postponed.retry_at, postponed.tried_at + _FIRST_WAIT_SECONDS)
                self.news.set()

    async def _work_off(self) -> None:
        try:
            room = await self._queues.room(self._room_id)
            while self.news.is_set() or self._slow or self._postponed:
                self.news.clear()
                waiting = await self._queues.waiting(self._room_id)
                # One source for all events of a server: it remembers whom it could not reach.
                sources: dict[ServerName, EventSource] = {}
                for staged in waiting:
                    if staged.origin not in self._slow and self._seconds_left(staged) <= 0:
                        if staged.origin not in sources:
                            sources[staged.origin] = self._queues.source(self._room_id, staged.origin)
                        await self._try(room, staged, sources[staged.origin])
                await self._pause(waiting)
        except (DatabaseClosed, DatabaseUnavailable):
            return
        except Exception:  # noqa: BLE001 - it is logged, and tried again with the next event or start
            _log.exception("queue_stopped", room_id=self._room_id)
        finally:
            # With nothing in between: whoever brings more from here on begins a new one.
            self._queues.ended(self._room_id)

    def _seconds_left(self, staged: StagedEvent) -> float:
        """How long an event is not to be tried again."""
        postponed = self._postponed.get(staged.event_id)
        return 0.0 if postponed is None else postponed.retry_at - _time()

    async def _try(self, room: LiveRoom, staged: StagedEvent, source: EventSource) -> None:
        """Try to place an event, and go on without it where that takes long."""
        task = asyncio.create_task(self._place(room, staged, source))
        self._slow[staged.origin] = task
        task.add_done_callback(lambda _: self._done(staged.origin, task))
        await asyncio.wait([task], timeout=_PATIENCE_SECONDS)

    def _done(self, origin: ServerName, task: asyncio.Task[None]) -> None:
        del self._slow[origin]
        if not task.cancelled() and task.exception() is not None:
            # Of the database: the worker will hear of it, too.
            self.news.set()

    async def _place(self, room: LiveRoom, staged: StagedEvent, source: EventSource) -> None:
        try:
            if await self._queues.place(room, staged, source):
                self._postponed.pop(staged.event_id, None)
                return
            now = _time()
            retry_at = now + _FIRST_WAIT_SECONDS * 2**staged.attempts
            self._postponed[staged.event_id] = _Postponed(staged.origin, now, retry_at)
        except SourceUnreachable as error:
            _log.info("event_waits_for_server", event_id=staged.event_id, why=str(error))
            await self._wait_for_server(staged)

    async def _wait_for_server(self, staged: StagedEvent) -> None:
        """Try an event again after longer and longer, or when its server is heard from."""
        now = _time()
        before = self._postponed.get(staged.event_id)
        since = now if before is None or before.unreachable_since is None else before.unreachable_since
        if now - since >= UNREACHABLE_SECONDS:
            await self._queues.drop(staged)
            self._postponed.pop(staged.event_id, None)
            return
        wait = min(max(_FIRST_WAIT_SECONDS, (_UNREACHABLE_GROWTH - 1) * (now - since)), _MOST_WAIT_SECONDS)
        self._postponed[staged.event_id] = _Postponed(staged.origin, now, now + wait, since)
        self._queues.waits_for(staged.origin)

    async def _pause(self, waiting: Sequence[StagedEvent]) -> None:
        """Wait for what is slow, for what is to be tried again, or for more to come."""
        left = [self._seconds_left(staged) for staged in waiting if staged.event_id in self._postponed]
        if not left:
            self._postponed.clear()
        if not left and not self._slow:
            # There may be more than was read.
            if waiting:
                self.news.set()
            return
        news = asyncio.create_task(self.news.wait())
        try:
            await asyncio.wait(
                [news, *self._slow.values()],
                timeout=max(0.0, min(left)) if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            news.cancel()


def _time() -> float:
    return asyncio.get_running_loop().time()
