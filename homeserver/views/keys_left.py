"""How many one-time keys a device has left, from memory: every `/sync` tells it."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

from homeserver.storage.one_time_keys import KeysLeft

if TYPE_CHECKING:
    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.one_time_keys import OneTimeKeyStore

_CACHED_DEVICES = 20_000
_NO_KEYS = KeysLeft({}, (), 0)


class KeysLeftNow:
    """Answers from memory; every upload and every claim, of any process, is noticed by its announcement."""

    def __init__(self, store: OneTimeKeyStore) -> None:
        self._store = store
        # In its place while the database is asked: the number of the question, which an announcement takes away.
        self._left: OrderedDict[str, KeysLeft | int] = OrderedDict()
        self._questions = itertools.count()

    async def of(self, user_id: UserId, device_id: DeviceId | None) -> KeysLeft:
        """What a device has left at the position of the log that this process has heard of, or later."""
        if device_id is None:
            return _NO_KEYS
        key = f"{user_id}|{device_id}"
        known = self._left.get(key)
        if isinstance(known, KeysLeft):
            self._left.move_to_end(key)
            return known
        question = self._left[key] = next(self._questions)
        left = await self._store.load_left(user_id, device_id)
        if self._left.get(key) == question:
            self._left[key] = left
        if len(self._left) > _CACHED_DEVICES:
            self._left.popitem(last=False)
        return left

    def invalidate(self, key: str) -> None:
        """Keys of a device came or went; `key` is `user_id|device_id`."""
        self._left.pop(key, None)
