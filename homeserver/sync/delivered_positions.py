"""Up to where devices have acknowledged the answers of `/sync`: of each one position, gathered in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from homeserver.storage.device_positions import DevicePosition
from homeserver.storage.room_stretch import RoomStretch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Transaction
    from homeserver.storage.delivery_news import DeliveryNews
    from homeserver.storage.device_positions import DevicePositionStore
    from homeserver.storage.owed_rooms import Owed, OwedRoomStore
    from homeserver.sync.delivery_reports import DeliveryReports
    from homeserver.sync.left_out import LeftOut

_KEPT_TIMES = 64
_APART_MS = 1_000
"""Times that are closer together than this are one."""
_CACHED_DEVICES = 10_000


class DeviceKey(NamedTuple):
    """Which device."""

    user_id: UserId
    device_id: DeviceId


@dataclass(slots=True)
class _Acknowledged:
    """What a device has acknowledged since that was last written down: first, and (position, time)."""

    first: int
    times: list[tuple[int, int]] = field(default_factory=list)
    owed: int = 0


class DeliveredPositions:
    """Gathers them."""

    def __init__(
        self,
        positions: DevicePositionStore,
        owed_rooms: OwedRoomStore,
        left_out: LeftOut,
        reports: DeliveryReports,
    ) -> None:
        self._positions = positions
        self._owed_rooms = owed_rooms
        self._left_out = left_out
        self._reports = reports
        self._gathered: dict[DeviceKey, _Acknowledged] = {}
        self._known: OrderedDict[DeviceKey, tuple[int, int]] = OrderedDict()

    async def of(self, key: DeviceKey) -> int:
        """The position of a device; 0 where it has acknowledged nothing."""
        known = self._known.get(key)
        if known is not None:
            return known[0]
        stored = (await self._positions.load({key.user_id})).get(key)
        return stored.position if stored is not None else 0

    def add(self, key: DeviceKey, position: int, owed: int, now_ms: int) -> None:
        """A device has come back with the token that ended an answer at this position, and says what is owed."""
        known = self._known.get(key, (-1, 0))
        if known in ((position, owed), (position, 0)) or known[0] > position:
            return
        self._known[key] = (position, owed)
        self._known.move_to_end(key)
        if len(self._known) > _CACHED_DEVICES:
            self._known.popitem(last=False)
        gathered = self._gathered.setdefault(key, _Acknowledged(position))
        gathered.owed = owed
        times = gathered.times
        if times and now_ms - times[-1][1] < _APART_MS:
            times[-1] = (position, now_ms)
        else:
            times.append((position, now_ms))

    def take(self) -> Mapping[DeviceKey, _Acknowledged]:
        """What was gathered, to be written down."""
        gathered, self._gathered = self._gathered, {}
        return gathered

    def put_back(self, taken: Mapping[DeviceKey, _Acknowledged]) -> None:
        """What could not be written down is to be written down still."""
        for key, gathered in taken.items():
            later = self._gathered.get(key)
            if later is not None:
                gathered.times = [*gathered.times, *later.times][-_KEPT_TIMES:]
                gathered.owed = later.owed
            self._gathered[key] = gathered

    async def prepare(
        self, taken: Mapping[DeviceKey, _Acknowledged]
    ) -> tuple[list[DevicePosition], list[DeliveryNews]]:
        """The positions to be stored, and who hears of that."""
        known = await self._positions.load({key.user_id for key in taken}) if taken else {}
        moved: list[DevicePosition] = []
        news: list[DeliveryNews] = []
        for key, gathered in taken.items():
            before = known.get(key) or DevicePosition(*key, position=0, acknowledged=[])
            position, ts = gathered.times[-1]
            if (position, bool(before.owed)) <= (before.position, False):
                continue
            kept = [*before.acknowledged, *(one for one in gathered.times if one[0] > before.position)]
            now = DevicePosition(*key, position, thinned(kept), gathered.owed)
            moved.append(now)
            # Nobody waits for what a new device gets in its first answer.
            news += await self._news_of(before, now, before.position or gathered.first, ts)
        return moved, news

    async def write(self, transaction: Transaction, moved: Sequence[DevicePosition]) -> None:
        """Store positions that `prepare` found."""
        await self._positions.set(transaction, moved)

    async def _news_of(
        self, before: DevicePosition, now: DevicePosition, after: int, ts: int
    ) -> list[DeliveryNews]:
        """Who hears what a device has got since it acknowledged another answer."""
        was_owed, is_owed = await self._owed(before), await self._owed(now)
        changed = await self._reports.rooms_with_news(now.user_id, after, now.position) | was_owed.keys()
        came = [
            RoomStretch(room_nid, was_owed[room_nid].since if room_nid in was_owed else after, now.position)
            for room_nid in changed - is_owed.keys()
        ]
        if not came:
            return []
        left_out = await self._left_out.load(now.user_id, now.device_id, {one.room_nid for one in came})
        return await self._reports.of(now.user_id, came, left_out, ts)

    async def _owed(self, position: DevicePosition) -> Mapping[int, Owed]:
        if not position.owed:
            return {}
        return await self._owed_rooms.get(position.user_id, position.device_id, position.owed) or {}


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
