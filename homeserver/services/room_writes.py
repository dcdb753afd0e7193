"""The queue of writes into rooms: what waits at the same time is committed together."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import structlog

from homeserver.errors import MatrixError
from homeserver.services.prepared_events import Outcome, Verdict
from homeserver.storage.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.event_persistence import EventPersistence
    from homeserver.services.prepared_events import RoomWrite

_BATCH = 128
_MAX_WAITING = 10_000

_log = structlog.get_logger(__name__)


class RoomWrites:
    """Has the events committed that were prepared under the locks of their rooms."""

    def __init__(self, persistence: EventPersistence) -> None:
        self._persistence = persistence
        self._waiting: list[RoomWrite] = []
        self._committing: asyncio.Task[None] | None = None

    def enqueue(self, write: RoomWrite) -> None:
        """Take in a write, under the lock of its room; raises `MatrixError` where too many wait."""
        if len(self._waiting) >= _MAX_WAITING:
            write.room.invalidate()
            message = "The server is too busy"
            raise MatrixError(message, status=503, errcode="M_UNKNOWN")
        write.room.last_write = write.done
        self._waiting.append(write)
        if self._committing is None:
            # In a context of its own: it works for all, and must not log under the request that came first.
            self._committing = asyncio.create_task(self._commit_waiting(), context=contextvars.Context())

    async def finish(self, write: RoomWrite) -> Outcome:
        """How a write ended; a caller that goes away does not stop the commit."""
        return await asyncio.shield(write.done)

    async def settle(self, room: LiveRoom) -> None:
        """Wait until nothing of a room is under way to the database. Under its lock, so that nothing new comes."""
        if room.last_write is not None:
            await asyncio.wait([room.last_write])

    async def close(self) -> None:
        """Wait until everything that was taken in is committed."""
        if self._committing is not None:
            await self._committing

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                await self._commit(batch)
        finally:
            self._committing = None

    async def _commit(self, batch: list[RoomWrite]) -> None:
        try:
            outcomes = await self._persistence.commit(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders are told
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
                # One of them cannot be written: each on its own, so that only that one fails.
                for write in batch:
                    await self._commit([write])
                return
            if not isinstance(error, MatrixError | DatabaseUnavailable):
                _log.exception("event_not_written", room_id=batch[0].room.room_id)
            for write in batch:
                _drop(write)
                _fail(write.done, error)
            return
        for write, outcome in zip(batch, outcomes, strict=True):
            if outcome.verdict is not Verdict.WRITTEN:
                _drop(write)
            if not write.done.done():
                write.done.set_result(outcome)


def _drop(write: RoomWrite) -> None:
    if write.room.generation == write.generation:
        write.room.invalidate()


def _fail(done: asyncio.Future[Outcome], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
        # The caller may be gone.
        done.exception()
