"""Typing notifications: rows that end by themselves (CS "Typing Notifications")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from homeserver.errors import Forbidden
from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.database import Database
    from homeserver.storage.typing import TypingStore

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 120_000

_log = structlog.get_logger(__name__)


class Typing:
    """Notes who is typing where, and until when."""

    def __init__(self, database: Database, clock: Clock, store: TypingStore, rooms: RoomReader) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._rooms = rooms
        self._next_end: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """End what ran out while the program was down, and take up the rest."""
        await self.end_expired()

    async def set(self, user_id: UserId, room_id: RoomId, *, typing: bool, timeout_ms: int) -> None:
        """Note that a user is typing for so long, or no more."""
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        if not typing:
            await self._database.write(lambda t: self._store.delete(t, room_id, user_id))
            return
        expires_ts = self._clock.now_ms() + min(timeout_ms, MAX_TIMEOUT_MS)
        await self._database.write(lambda t: self._store.set(t, room_id, user_id, expires_ts))
        self._schedule(expires_ts)

    def stop(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._ending:
            task.cancel()

    def _schedule(self, end: int | None) -> None:
        if end is None or (self._next_end is not None and self._next_end <= end):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._next_end = end
        # A little later, so that what was to end has ended.
        seconds = max(0.0, (end - self._clock.now_ms()) / 1000) + 0.01
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self._timer = self._next_end = None
        task = asyncio.create_task(self.end_expired())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def end_expired(self) -> None:
        """End what has run out, whichever process noted it."""
        try:
            self._schedule(
                await self._database.write(lambda t: self._store.delete_expired(t, self._clock.now_ms()))
            )
        except DatabaseClosed:
            return
        except Exception:  # noqa: BLE001 - it is logged, and the next one comes
            _log.exception("typing_not_ended")
