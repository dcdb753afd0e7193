"""What devices have got: what was in an answer that they have acknowledged (docs/offline.md).

Of a device that uses `/sync` that is one position, but for what its answers left out (`left_out`); of one that uses
sliding sync, the stretches of those rooms that it was told of. Acknowledgements are gathered in memory, and written down with what the
senders are to hear once a second, and before anybody is told of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from homeserver.storage.errors import DatabaseClosed
from homeserver.storage.room_stretch import RoomStretch
from homeserver.sync.delivered_positions import DeviceKey
from homeserver.sync.delivery_reports import newest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.clock import Clock
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.sync.delivered_positions import DeliveredPositions
    from homeserver.sync.delivered_rooms import DeliveredRooms
    from homeserver.sync.left_out import LeftOut

_EVERY_SECONDS = 1

_log = structlog.get_logger(__name__)


class Delivered:
    """Takes note of it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        positions: DeliveredPositions,
        rooms: DeliveredRooms,
        news: DeliveryNewsStore,
        left_out: LeftOut,
        *,
        is_on: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._positions = positions
        self._rooms = rooms
        self._news = news
        self._left_out = left_out
        self.is_on = is_on
        """Whether this server keeps account of it."""
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write down what comes in."""
        if self.is_on:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write down what came in, and end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self.flush()

    # -- what devices say ------------------------------------------------------------------------------

    def acknowledge(self, requester: Requester, position: int, owed: int) -> None:
        """A device has come back with the token that ended an answer at this position, and says what is owed."""
        key = self._key(requester)
        if key is not None:
            self._positions.add(key, position, owed, self._clock.now_ms())

    def arrived(self, requester: Requester, stretches: Iterable[RoomStretch]) -> None:
        """A device says that it has stretches of rooms, or has been given them by a page."""
        key = self._key(requester)
        if key is not None:
            self._rooms.add(key, stretches, self._clock.now_ms())

    async def paged(self, requester: Requester, stretch: RoomStretch) -> None:
        """A page of `/messages` holds a stretch of a room."""
        key = self._key(requester)
        if key is None:
            return
        await self._left_out.close(requester, [stretch])
        # Up to its position the device has all that was not left out.
        after = max(stretch.after, await self._positions.of(key))
        self.arrived(requester, [RoomStretch(stretch.room_nid, after, stretch.upto)])

    def _key(self, requester: Requester) -> DeviceKey | None:
        if requester.device_id is None or self._task is None:
            return None
        return DeviceKey(requester.user_id, requester.device_id)

    # -- writing down ----------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write down what has come in."""
        async with self._flushing:
            positions, rooms = self._positions.take(), self._rooms.take()
            if not positions and not rooms:
                return
            try:
                moved, news = await self._positions.prepare(positions)
                came, more_news = await self._rooms.prepare(rooms)

                async def work(transaction: Transaction) -> None:
                    await self._positions.write(transaction, moved)
                    await self._rooms.write(transaction, came)
                    await self._news.insert(transaction, newest([*news, *more_news]))

                if moved or came:
                    await self._database.write(work)
            except BaseException:
                self._positions.put_back(positions)
                self._rooms.put_back(rooms)
                raise

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.flush()
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("acknowledgements_not_written")
