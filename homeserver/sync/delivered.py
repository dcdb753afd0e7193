"""What devices have got: what was in an answer that they have acknowledged.

Mostly that is one position for each device. What an answer left out, since its timeline was limited or a filter did not
want it, is kept as a stretch of the room until something brings it. Positions are gathered in memory, and written down with
what the senders are to hear once a second, and before anybody is told of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from homeserver.ids import UserId, server_name_of
from homeserver.storage.delivery_news import DELIVERED, DeliveryNews
from homeserver.storage.device_positions import DevicePosition
from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.config import DeliveryStatusSettings
    from homeserver.ids import DeviceId, ServerName
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.storage.device_positions import DevicePositionStore
    from homeserver.storage.left_out import LeftOutStore
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.owed_rooms import Owed, OwedRoomStore
    from homeserver.storage.room_stretch import RoomStretch
    from homeserver.storage.rooms import RoomStore
    from homeserver.views.delivery_sharing import DeliverySharing

    _Key = tuple[UserId, DeviceId]

_EVERY_SECONDS = 1
_KEPT_TIMES = 64
_APART_MS = 1_000
"""Times that are closer together than this are one."""
_CACHED_DEVICES = 10_000
_NO_GAP = -(2**62)
_MAX_NEWS_EVENTS = 1_000
"""Of a room, for one device at a time; whoever wrote before that hears of it by asking."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Acknowledged:
    """What a device has acknowledged since that was last written down: first, and (position, time)."""

    first: int
    times: list[tuple[int, int]] = field(default_factory=list)
    owed: int = 0


class Delivered:
    """Takes note of acknowledgements, and of what answers left out."""

    def __init__(
        self,
        server_name: ServerName,
        settings: DeliveryStatusSettings,
        database: Database,
        clock: Clock,
        positions: DevicePositionStore,
        left_out: LeftOutStore,
        news: DeliveryNewsStore,
        memberships: Memberships,
        rooms: RoomStore,
        recent: RecentEvents,
        sharing: DeliverySharing,
        owed_rooms: OwedRoomStore,
    ) -> None:
        self._server_name = server_name
        self._settings = settings
        self._database = database
        self._clock = clock
        self._positions = positions
        self._left_out = left_out
        self._news = news
        self._memberships = memberships
        self._rooms = rooms
        self._recent = recent
        self._sharing = sharing
        self._owed_rooms = owed_rooms
        self._acknowledged: dict[_Key, _Acknowledged] = {}
        self._known: OrderedDict[_Key, tuple[int, int]] = OrderedDict()
        self._gaps: OrderedDict[_Key, dict[int, int]] = OrderedDict()
        """Of devices the rooms with gaps, each with the end of the last."""
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write down what comes in."""
        if self._settings.enabled:
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
        if requester.device_id is None or self._task is None:
            return
        key = (requester.user_id, requester.device_id)
        known = self._known.get(key, (-1, 0))
        if known in ((position, owed), (position, 0)) or known[0] > position:
            return
        self._known[key] = (position, owed)
        self._known.move_to_end(key)
        if len(self._known) > _CACHED_DEVICES:
            self._known.popitem(last=False)
        gathered = self._acknowledged.setdefault(key, _Acknowledged(position))
        gathered.owed = owed
        times, now = gathered.times, self._clock.now_ms()
        if times and now - times[-1][1] < _APART_MS:
            times[-1] = (position, times[-1][1])
        else:
            times.append((position, now))

    async def note_left_out(self, requester: Requester, stretches: Sequence[RoomStretch]) -> None:
        """An answer that is about to be given does not hold these stretches; kept before it is given."""
        if requester.device_id is None or not stretches or not self._settings.enabled:
            return
        small = await self._small_rooms({one.room_nid for one in stretches})
        kept = [one for one in stretches if one.room_nid in small]
        if not kept:
            return
        user_id, device_id = requester.user_id, requester.device_id
        await self._database.write(lambda t: self._left_out.add(t, user_id, device_id, kept))
        gaps = self._gaps.get((user_id, device_id))
        if gaps is not None:
            for one in kept:
                gaps[one.room_nid] = max(one.upto, gaps.get(one.room_nid, 0))

    async def brought(self, requester: Requester, *stretches: RoomStretch, is_news: bool = False) -> None:
        """Stretches of rooms are being given to a device; `is_news` where each is the newest of its room."""
        if requester.device_id is None or not self._settings.enabled:
            return
        user_id, device_id = requester.user_id, requester.device_id
        # Another process may have left out more. What is news lies behind all gaps that the device knows of.
        gaps = await self._gaps_of(user_id, device_id, anew=self._database.is_shared and not is_news)
        closing = [
            one for one in stretches if one.after < one.upto and one.after < gaps.get(one.room_nid, _NO_GAP)
        ]
        if not closing:
            return

        async def work(transaction: Transaction) -> None:
            for one in closing:
                await self._left_out.subtract(transaction, user_id, device_id, one)

        await self._database.write(work)

    async def _gaps_of(self, user_id: UserId, device_id: DeviceId, *, anew: bool) -> dict[int, int]:
        key = (user_id, device_id)
        gaps = None if anew else self._gaps.get(key)
        if gaps is None:
            gaps = self._gaps[key] = await self._left_out.load_ends(*key)
            if len(self._gaps) > _CACHED_DEVICES:
                self._gaps.popitem(last=False)
        return gaps

    async def _small_rooms(self, room_nids: set[int]) -> set[int]:
        rooms = await self._rooms.load(room_nids)
        return {nid for nid, row in rooms.items() if row.joined_members <= self._settings.max_members}

    # -- writing down ----------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write down what has come in."""
        async with self._flushing:
            acknowledged, self._acknowledged = self._acknowledged, {}
            try:
                if acknowledged:
                    await self._write_down(acknowledged)
            except BaseException:
                self._take_back(acknowledged)
                raise

    async def _write_down(self, acknowledged: Mapping[_Key, _Acknowledged]) -> None:
        known = await self._positions.load({user_id for user_id, _ in acknowledged})
        moved, news = [], []
        for key, gathered in acknowledged.items():
            before = known.get(key) or DevicePosition(*key, position=0, acknowledged=[])
            position, ts = gathered.times[-1]
            if (position, bool(before.owed)) <= (before.position, False):
                continue
            kept = [*before.acknowledged, *(one for one in gathered.times if one[0] > before.position)]
            after = DevicePosition(*key, position, thinned(kept), gathered.owed)
            moved.append(after)
            # Nobody waits for what a new device gets in its first answer.
            news += await self._news_of(before, after, before.position or gathered.first, ts)

        async def work(transaction: Transaction) -> None:
            await self._positions.set(transaction, moved)
            await self._news.insert(transaction, _newest(news))

        if moved:
            await self._database.write(work)

    def _take_back(self, acknowledged: Mapping[_Key, _Acknowledged]) -> None:
        """What could not be written down is to be written down still."""
        for key, gathered in acknowledged.items():
            later = self._acknowledged.get(key)
            if later is not None:
                gathered.times = [*gathered.times, *later.times][-_KEPT_TIMES:]
                gathered.owed = later.owed
            self._acknowledged[key] = gathered

    async def _news_of(
        self, before: DevicePosition, now: DevicePosition, after: int, ts: int
    ) -> list[DeliveryNews]:
        """Whose messages a device has got since it acknowledged another answer; the newest of each sender and room."""
        user_id = now.user_id
        if not await self._sharing.of(user_id):
            return []
        was_owed = await self._owed(before)
        is_owed = await self._owed(now)
        rooms = await self._memberships.of_user(user_id)
        joined: dict[int, MembershipRow] = {
            row.room_nid: row for row in rooms.values() if row.membership == "join"
        }
        changed = await self._rooms.changed_since([row.room_id for row in joined.values()], after)
        moved = {rooms[room_id].room_nid for room_id in changed} | (was_owed.keys() & joined.keys())
        news = []
        rooms_with_news = await self._small_rooms(moved - is_owed.keys())
        if not rooms_with_news:
            return []
        gaps = await self._gaps_of(user_id, now.device_id, anew=self._database.is_shared)
        left_out: dict[int, list[RoomStretch]] = {}
        if rooms_with_news & gaps.keys():
            for one in await self._left_out.load_of_device(user_id, now.device_id, rooms_with_news):
                left_out.setdefault(one.room_nid, []).append(one)
        for room_nid in rooms_with_news:
            begin = was_owed[room_nid].since if room_nid in was_owed else after
            told = set()
            events = await self._recent.load(room_nid, after=begin, upto=now.position, limit=_MAX_NEWS_EVENTS)
            for stored in reversed(events):
                sender = UserId(stored.event.sender)
                if not stored.notifies or sender in told or sender == user_id:
                    continue
                if any(one.holds(stored.stream_id) for one in left_out.get(room_nid, ())):
                    continue
                told.add(sender)
                if (
                    server_name_of(sender) == self._server_name
                    and stored.stream_id > joined[room_nid].stream_id
                ):
                    room_id, event_id = stored.room_id, stored.event.event_id
                    news.append(DeliveryNews(sender, room_id, user_id, DELIVERED, event_id, ts))
        return news

    async def _owed(self, position: DevicePosition) -> Mapping[int, Owed]:
        if not position.owed:
            return {}
        return await self._owed_rooms.get(position.user_id, position.device_id, position.owed) or {}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.flush()
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("acknowledgements_not_written")


def thinned(times: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Some of the (position, time): the older the farther apart, so that none is told as much later than it was."""
    kept = list(times)
    while len(kept) > _KEPT_TIMES:
        newest = kept[-1][1]
        # What is dropped counts with the next that is kept, as does what was dropped before it.
        spans = [
            (later[1] - before[1]) / (newest - before[1] + 1)
            for before, later in zip(kept, kept[2:], strict=False)
        ]
        del kept[1 + spans.index(min(spans))]
    return kept


def _newest(news: Sequence[DeliveryNews]) -> list[DeliveryNews]:
    """Of several about the same, the last."""
    return list({(one.sender, one.room_id, one.user_id): one for one in news}.values())
