"""History from before this server came into a room, or that it missed: fetched where somebody pages back to it.

What is fetched gets places before all others of the log (negative ones): nobody is told of it as news.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from homeserver.eventgraph.errors import EventRefused
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.gaps import GapFiller
    from homeserver.services.inbound.queues import Sources
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.stored_event import Stretch

_PAGE = 100
_MAX_NAMED = 20
_SECONDS = 30.0
_NOT_AGAIN_SECONDS = 60.0
_MAX_FAILED = 10_000

_log = structlog.get_logger(__name__)


class Backfill:
    """Fills gaps behind the timeline."""

    def __init__(
        self,
        clock: Clock,
        live_rooms: LiveRooms,
        hosted: HostedRooms,
        store: GapStore,
        filler: GapFiller,
        sources: Sources,
    ) -> None:
        self._clock = clock
        self._live_rooms = live_rooms
        self._hosted = hosted
        self._store = store
        self._filler = filler
        self._sources = sources
        self._under_way: dict[RoomId, asyncio.Task[bool]] = {}
        self._failed_at: OrderedDict[RoomId, float] = OrderedDict()

    async def stop(self) -> None:
        """Let go of what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fill(
        self, room_id: RoomId, *, depth_from: int, depth_upto: int, within: Stretch | None = None
    ) -> bool:
        """Fetch what is missing just before the events of a room between two depths; whether anything came.

        Only before those that arrived after the floor of the stretch `within`, if one is given. Waits for half a minute at most; what comes later is there for the next question.
        """
        room = await self._live_rooms.find(room_id)
        if room is None or not await self._hosted.hosts(room):
            return False
        task = self._under_way.get(room_id)
        if task is None:
            missing = await self._store.load_missing(
                room.room_nid, depth_from=depth_from, depth_upto=depth_upto, limit=_MAX_NAMED, within=within
            )
            failed_at = self._failed_at.get(room_id)
            if not missing or (
                failed_at is not None and self._clock.monotonic() - failed_at < _NOT_AGAIN_SECONDS
            ):
                return False
            event_ids = [event_id for event_id, _ in missing]
            task = self._under_way[room_id] = asyncio.create_task(self._fetch(room, event_ids))
            task.add_done_callback(lambda _: self._under_way.pop(room_id, None))
        done, _ = await asyncio.wait([task], timeout=_SECONDS)
        return bool(done) and not task.cancelled() and task.exception() is None and task.result()

    async def _fetch(self, room: LiveRoom, event_ids: list[EventId]) -> bool:
        source = self._sources.of_any(room.room_id)
        try:
            came = await self._filler.place_older(room, event_ids, source, _PAGE)
        except (EventRefused, SourceFailed, Unplaceable) as error:
            _log.info("backfill_failed", room_id=room.room_id, why=str(error))
            came = 0
        if came == 0:
            self._failed_at[room.room_id] = self._clock.monotonic()
            self._failed_at.move_to_end(room.room_id)
            if len(self._failed_at) > _MAX_FAILED:
                self._failed_at.popitem(last=False)
        return came > 0
