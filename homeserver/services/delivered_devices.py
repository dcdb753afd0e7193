"""To which devices an event was delivered, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from homeserver.storage.room_arrivals import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.device_positions import DevicePosition, DevicePositionStore
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.left_out import LeftOutStore
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.owed_rooms import Owed, OwedRoomStore
    from homeserver.storage.room_arrivals import RoomArrivalStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.visibility import HistoryVisibility

    _Key = tuple[UserId, DeviceId]


class Acknowledgements(Protocol):
    """What devices have said that they got."""

    async def flush(self) -> None:
        """Write down what was said so far."""
        ...


class DeliveredDevices:
    """Says so of the devices of members of a room.

    A device has got what stands before its position, but for what was left out of its answers and rooms that were put
    off; and what has come to it of the room by another way.
    """

    def __init__(
        self,
        acknowledgements: Acknowledgements,
        visibility: HistoryVisibility,
        devices: DeviceStore,
        positions: DevicePositionStore,
        left_out: LeftOutStore,
        owed_rooms: OwedRoomStore,
        arrivals: RoomArrivalStore,
    ) -> None:
        self._acknowledgements = acknowledgements
        self._visibility = visibility
        self._devices = devices
        self._positions = positions
        self._left_out = left_out
        self._owed_rooms = owed_rooms
        self._arrivals = arrivals

    async def of(
        self, members: Mapping[UserId, MembershipRow], stored: StoredEvent
    ) -> dict[UserId, dict[str, Any]]:
        """For each of these members: how many devices they have, and how many of these have got an event."""
        await self._acknowledgements.flush()
        positions = await self._positions.load(members)
        owed = {
            key: await self._owed_rooms.get(*key, position.owed) or {}
            for key, position in positions.items()
            if position.owed
        }
        without = await self._left_out.load_around(stored.room_nid, members, stored.stream_id)
        arrivals = await self._arrivals.load({stored.room_nid}, members.keys())
        devices_of = await self._devices.load_ids(members)
        status = {}
        for user_id, row in members.items():
            told_at = await self._told_at(row, stored)
            devices = devices_of.get(user_id, [])
            times = []
            for device_id in devices:
                key = (user_id, device_id)
                came = arrivals.get(Place(*key, stored.room_nid))
                ways = [came.when(stored.stream_id)] if came is not None else []
                if key not in without:
                    debt = owed.get(key, {}).get(stored.room_nid)
                    ways.append(_passed(positions.get(key), debt, told_at))
                known = [ts for ts in ways if ts is not None]
                if known:
                    times.append(min(known))
            delivery: dict[str, Any] = {"devices": len(devices), "delivered": len(times)}
            if times:
                delivery |= {"first_ts": min(times), "last_ts": max(times)}
            status[user_id] = delivery
        return status

    async def _told_at(self, row: MembershipRow, stored: StoredEvent) -> int:
        """From which position on answers tell a member of an event: who came later was told nothing before."""
        if row.stream_id <= stored.stream_id:
            return stored.stream_id
        return (await self._visibility.history(row)).first_there(stored.stream_id) or row.stream_id


def _passed(position: DevicePosition | None, debt: Owed | None, told_at: int) -> int | None:
    """When a device passed a position, unless the room was put off then."""
    if position is None or (debt is not None and max(debt) < told_at):
        return None
    return position.when(told_at)
