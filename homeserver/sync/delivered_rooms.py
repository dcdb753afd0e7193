"""What came to devices of single rooms, by sliding sync and by `/messages`: gathered in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.room_arrivals import Arrivals, Place
from homeserver.storage.room_stretch import RoomStretch
from homeserver.sync.delivered_positions import DeviceKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from homeserver.storage.database import Transaction
    from homeserver.storage.delivery_news import DeliveryNews
    from homeserver.storage.room_arrivals import RoomArrivalStore
    from homeserver.sync.delivery_reports import DeliveryReports
    from homeserver.views.delivery_sharing import DeliverySharing

_MANY = 100
"""Who has got something of so many rooms is asked for apart from the others."""


class DeliveredRooms:
    """Gathers it."""

    def __init__(
        self, arrivals: RoomArrivalStore, sharing: DeliverySharing, reports: DeliveryReports
    ) -> None:
        self._arrivals = arrivals
        self._sharing = sharing
        self._reports = reports
        self._gathered: dict[DeviceKey, dict[int, Arrivals]] = {}

    def add(self, key: DeviceKey, stretches: Iterable[RoomStretch], now_ms: int) -> None:
        """A device has stretches of rooms."""
        for one in stretches:
            if one.after >= one.upto:
                continue
            rooms = self._gathered.setdefault(key, {})
            rooms.setdefault(one.room_nid, Arrivals()).add(one.after, one.upto, now_ms)

    def take(self) -> Mapping[DeviceKey, dict[int, Arrivals]]:
        """What was gathered, to be written down."""
        gathered, self._gathered = self._gathered, {}
        return gathered

    def put_back(self, taken: Mapping[DeviceKey, dict[int, Arrivals]]) -> None:
        """What could not be written down is to be written down still."""
        for key, rooms in taken.items():
            later = self._gathered.get(key, {})
            for room_nid, arrivals in later.items():
                rooms.setdefault(room_nid, Arrivals()).take_in(arrivals)
            self._gathered[key] = rooms

    async def prepare(
        self, taken: Mapping[DeviceKey, dict[int, Arrivals]]
    ) -> tuple[dict[Place, Arrivals], list[DeliveryNews]]:
        """What had not come before, and who hears of that."""
        new: dict[Place, Arrivals] = {}
        for keys in _batches(taken):
            known = await self._arrivals.load(
                {room_nid for key in keys for room_nid in taken[key]}, {key.user_id for key in keys}
            )
            for key in keys:
                for room_nid, came in taken[key].items():
                    arrived = Arrivals()
                    held = known.get(Place(*key, room_nid), Arrivals())
                    for after, upto, ts in came.pieces:
                        for part in held.missing(after, upto):
                            arrived.add(*part, ts)
                    if arrived.pieces:
                        new[Place(*key, room_nid)] = arrived
        small = await self._sharing.rooms_among({place.room_nid for place in new}) if new else set()
        new = {place: arrived for place, arrived in new.items() if place.room_nid in small}
        return new, await self._news_of(new)

    async def write(self, transaction: Transaction, new: Mapping[Place, Arrivals]) -> None:
        """Store what `prepare` found."""
        if new:
            await self._arrivals.add(transaction, new)

    async def _news_of(self, new: Mapping[Place, Arrivals]) -> list[DeliveryNews]:
        by_device: dict[DeviceKey, list[RoomStretch]] = {}
        ts: dict[DeviceKey, int] = {}
        for (user_id, device_id, room_nid), arrived in new.items():
            key = DeviceKey(user_id, device_id)
            for piece in arrived.pieces:
                by_device.setdefault(key, []).append(RoomStretch(room_nid, piece.after, piece.upto))
                ts[key] = max(piece.ts, ts.get(key, 0))
        news: list[DeliveryNews] = []
        for key, came in by_device.items():
            news += await self._reports.of(key.user_id, came, (), ts[key])
        return news


def _batches(taken: Mapping[DeviceKey, dict[int, Arrivals]]) -> Iterator[list[DeviceKey]]:
    """Devices that are asked for together: their rooms by their users is not much more than there is."""
    few = [key for key, rooms in taken.items() if len(rooms) <= _MANY]
    if few:
        yield few
    for key, rooms in taken.items():
        if len(rooms) > _MANY:
            yield [key]
