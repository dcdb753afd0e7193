"""Who is typing where, from memory: many who wait in a room ask the database once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.storage.typing import TypingStore

_CACHED_ROOMS = 20_000


class TypingNow:
    """Answers from memory; whatever changes is noticed by its announcement, the end of typing included."""

    def __init__(self, clock: Clock, store: TypingStore) -> None:
        self._clock = clock
        self._store = store
        self._typing: OrderedDict[RoomId, tuple[UserId, ...]] = OrderedDict()
        self._changes = 0
        self._loading = asyncio.Lock()

    async def in_rooms(self, room_ids: Iterable[RoomId]) -> dict[RoomId, tuple[UserId, ...]]:
        """Who is typing in some rooms; those where nobody is are left out."""
        typing = {room_id: self._typing.get(room_id) for room_id in room_ids}
        if None in typing.values():
            # Those who are woken together come here together; the first asks for all of them.
            async with self._loading:
                missing = [room_id for room_id in typing if room_id not in self._typing]
                loaded = await self._load(missing) if missing else {}
                typing = {room_id: loaded.get(room_id) or self._typing.get(room_id) for room_id in typing}
        return {room_id: user_ids for room_id, user_ids in typing.items() if user_ids}

    async def _load(self, room_ids: list[RoomId]) -> dict[RoomId, tuple[UserId, ...]]:
        while True:
            changes = self._changes
            rows = await self._store.load_in_rooms(room_ids, self._clock.now_ms())
            if changes == self._changes:
                break
        loaded = {room_id: tuple(rows.get(room_id, ())) for room_id in room_ids}
        self._typing.update(loaded)
        while len(self._typing) > _CACHED_ROOMS:
            self._typing.popitem(last=False)
        return loaded

    def invalidate(self, room_id: RoomId) -> None:
        """Somebody began or ended typing in a room."""
        self._changes += 1
        self._typing.pop(room_id, None)
