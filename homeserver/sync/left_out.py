"""What the answers of `/sync` left out: since a timeline was limited, or a filter did not want it.

It is kept as stretches of rooms, until something brings them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from homeserver.ids import DeviceId, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.left_out import LeftOutStore
    from homeserver.storage.room_stretch import RoomStretch
    from homeserver.views.delivery_sharing import DeliverySharing

_CACHED_DEVICES = 10_000
_NO_GAP = -(2**62)


class LeftOut:
    """Keeps account of it; which rooms of a device have gaps is known from memory."""

    def __init__(self, database: Database, store: LeftOutStore, sharing: DeliverySharing) -> None:
        self._database = database
        self._store = store
        self._sharing = sharing
        self._ends: OrderedDict[tuple[UserId, DeviceId], dict[int, int]] = OrderedDict()
        """Of devices the rooms with gaps, each with the end of the last."""

    async def note(self, requester: Requester, stretches: Iterable[RoomStretch]) -> None:
        """An answer that is about to be given does not hold these stretches; kept before it is given."""
        stretches = [one for one in stretches if one.after < one.upto]
        if requester.device_id is None or not stretches or not self._sharing.is_on:
            return
        small = await self._sharing.rooms_among({one.room_nid for one in stretches})
        kept = [one for one in stretches if one.room_nid in small]
        if not kept:
            return
        user_id, device_id = requester.user_id, requester.device_id
        await self._database.write(lambda t: self._store.add(t, user_id, device_id, kept))
        ends = self._ends.get((user_id, device_id))
        if ends is not None:
            for one in kept:
                ends[one.room_nid] = max(one.upto, ends.get(one.room_nid, 0))

    async def close(
        self, requester: Requester, stretches: Iterable[RoomStretch], *, is_news: bool = False
    ) -> None:
        """Stretches of rooms are being given to a device; `is_news` where each is the newest of its room."""
        if requester.device_id is None or not self._sharing.is_on:
            return
        user_id, device_id = requester.user_id, requester.device_id
        # Another process may have left out more. What is news lies behind all gaps that the device knows of.
        ends = await self._ends_of(user_id, device_id, anew=self._database.is_shared and not is_news)
        closing = [
            one for one in stretches if one.after < one.upto and one.after < ends.get(one.room_nid, _NO_GAP)
        ]
        if not closing:
            return

        async def work(transaction: Transaction) -> None:
            for one in closing:
                await self._store.subtract(transaction, user_id, device_id, one)

        await self._database.write(work)

    async def load(
        self, user_id: UserId, device_id: DeviceId, room_nids: Collection[int]
    ) -> list[RoomStretch]:
        """What was left out of some rooms for a device."""
        ends = await self._ends_of(user_id, device_id, anew=self._database.is_shared)
        with_gaps = ends.keys() & set(room_nids)
        return await self._store.load_of_device(user_id, device_id, with_gaps) if with_gaps else []

    async def _ends_of(self, user_id: UserId, device_id: DeviceId, *, anew: bool) -> dict[int, int]:
        key = (user_id, device_id)
        ends = None if anew else self._ends.get(key)
        if ends is None:
            ends = self._ends[key] = await self._store.load_ends(*key)
            if len(self._ends) > _CACHED_DEVICES:
                self._ends.popitem(last=False)
        return ends
