"""What waits for a device, handed out in order and dropped once it was acknowledged (CS "Send-to-Device messaging").

A since token says up to which message the answers went that led to it. The device that returns with it has all of
them, and they go; nothing else ends a message but the end of its device. What was handed out is handed out again to
whoever returns with an older token, or with none.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import orjson

from homeserver.storage.to_device import MAX_MESSAGES

if TYPE_CHECKING:
    from homeserver.ids import DeviceId, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database
    from homeserver.storage.to_device import ToDeviceStore
    from homeserver.views.tokens import SyncToken

_KEPT_INBOXES = 20_000


class _Inbox:
    """Between which places of the log a device's messages lie, as far as they are visible here."""

    __slots__ = ("known", "newest", "oldest")

    def __init__(self) -> None:
        self.known = False
        self.oldest = 0
        """There is none before this place."""
        self.newest = 0
        """There is none after this place."""


class Inboxes:
    """Knows whether there is something for a device, without asking the database for the same thing twice."""

    def __init__(self, database: Database, store: ToDeviceStore) -> None:
        self._database = database
        self._store = store
        self._inboxes: OrderedDict[str, _Inbox] = OrderedDict()

    def hear(self, position: int, key: str) -> None:
        """A message was put into the inbox with this key, `user_id|device_id`, at this position or shortly before."""
        inbox = self._inboxes.get(key)
        if inbox is not None:
            inbox.newest = position

    async def acknowledge(self, requester: Requester, token: SyncToken | None) -> int:
        """Drop what a device has when it returns with this token; the answer is from which place on it has nothing.

        A token that was given to another device, or before a backup was restored, says nothing of this inbox.
        """
        if token is None or not token.own or requester.device_id is None:
            return 0
        user_id, device_id, upto = requester.user_id, requester.device_id, token.to_device_position
        inbox = await self._inbox(user_id, device_id)
        if inbox.oldest <= upto:
            await self._database.write(lambda t: self._store.delete_upto(t, user_id, device_id, upto))
            inbox.oldest = max(inbox.oldest, upto + 1)
        return upto

    async def read(
        self, requester: Requester, *, after: int, upto: int, limit: int = MAX_MESSAGES
    ) -> tuple[list[orjson.Fragment], int]:
        """The oldest messages of a device between two positions, and the place of the last of them.

        At most `limit`, and so many as go into one answer. Where there are none the place is `after`.
        """
        user_id, device_id = requester.user_id, requester.device_id
        if device_id is None:
            return [], after
        inbox = await self._inbox(user_id, device_id)
        if inbox.newest <= after:
            return [], after
        batch = await self._store.load_batch(user_id, device_id, after=after, upto=upto, limit=limit)
        # What was heard of meanwhile lies after `upto`.
        if batch.is_last and inbox.newest <= upto:
            inbox.newest = batch.last
        return [orjson.Fragment(message) for message in batch.messages], batch.last

    async def _inbox(self, user_id: UserId, device_id: DeviceId) -> _Inbox:
        key = f"{user_id}|{device_id}"
        inbox = self._inboxes.get(key)
        if inbox is None:
            # It is there before it is known: what is announced meanwhile must not be missed.
            inbox = self._inboxes[key] = _Inbox()
            if len(self._inboxes) > _KEPT_INBOXES:
                self._inboxes.popitem(last=False)
        else:
            self._inboxes.move_to_end(key)
        if not inbox.known:
            position = self._database.position
            ends = await self._store.get_ends(user_id, device_id)
            inbox.oldest, newest = ends or (position + 1, 0)
            inbox.newest = max(inbox.newest, newest)
            inbox.known = True
        return inbox
