"""Presence as clients see it (CS "Presence"): who may be told what, from memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.presence import PresenceRow, PresenceStore

CURRENTLY_ACTIVE_MS = 60_000
_KEPT = 10_000


class PresenceNow:
    """Knows the newest changes and the rows of those who changed: a waiting sync asks the database nothing."""

    def __init__(self, position: int, store: PresenceStore, memberships: Memberships) -> None:
        self._store = store
        self._memberships = memberships
        # User -> the position of their last change, oldest first; all that came after `_floor` are here.
        self._changed: OrderedDict[UserId, int] = OrderedDict()
        self._floor = position
        self._rows: dict[UserId, PresenceRow | None] = {}
        self._loading = asyncio.Lock()

    def hear(self, position: int, user_id: UserId) -> None:
        """The presence of a user has changed, or who sees it: they came into a room, or have another name there."""
        self._rows.pop(user_id, None)
        self._changed[user_id] = position
        self._changed.move_to_end(user_id)
        while len(self._changed) > _KEPT:
            dropped, self._floor = self._changed.popitem(last=False)
            self._rows.pop(dropped, None)

    async def seen_by(self, user_id: UserId, *, after: int, upto: int) -> Sequence[PresenceRow]:
        """What is news to a user, with `after < position <= upto`, of those who share a room with them.

        That is what changed, and all members of the rooms that the user came into.
        """
        if after < self._floor:
            return await self._store.load_seen_by(user_id, after=after, upto=upto)
        changed = []
        for other, position in reversed(self._changed.items()):
            if position <= after:
                break
            if position <= upto:
                changed.append(other)
        if not changed:
            return []
        joined = await self._joined(user_id)
        seen = [
            other
            for other in reversed(changed)
            if other == user_id or not joined.keys().isdisjoint(await self._joined(other))
        ]
        rows = await self._load(seen)
        if user_id in changed:
            new = [row.room_nid for row in joined.values() if after < row.stream_id <= upto]
            if new:
                told = {user_id, *seen}
                members = await self._store.load_in_rooms(new, upto=upto)
                rows += [row for row in members if row.user_id not in told]
        return rows

    async def _joined(self, user_id: UserId) -> dict[RoomId, MembershipRow]:
        rooms = await self._memberships.of_user(user_id)
        return {room_id: row for room_id, row in rooms.items() if row.membership == "join"}

    async def _load(self, user_ids: Sequence[UserId]) -> list[PresenceRow]:
        rows = {user_id: self._rows.get(user_id) for user_id in user_ids}
        if any(user_id not in self._rows for user_id in user_ids):
            # Those who are woken together come here together; the first asks for all of them.
            async with self._loading:
                missing = [user_id for user_id in user_ids if user_id not in self._rows]
                loaded = await self._load_missing(missing) if missing else {}
                rows = {user_id: loaded.get(user_id) or self._rows.get(user_id) for user_id in user_ids}
        return [row for row in rows.values() if row is not None]

    async def _load_missing(self, user_ids: Sequence[UserId]) -> dict[UserId, PresenceRow]:
        positions = {user_id: self._changed.get(user_id) for user_id in user_ids}
        loaded = {row.user_id: row for row in await self._store.load(user_ids)}
        for user_id, position in positions.items():
            if position is not None and self._changed.get(user_id) == position:
                self._rows[user_id] = loaded.get(user_id)
        return loaded


def presence_content(row: PresenceRow, now_ms: int) -> dict[str, Any]:
    """The content of an `m.presence` event."""
    ago = max(0, now_ms - row.last_active_ts)
    content: dict[str, Any] = {"presence": row.state, "last_active_ago": ago}
    if row.state == "online":
        content["currently_active"] = ago < CURRENTLY_ACTIVE_MS
    if row.status_message is not None:
        content["status_msg"] = row.status_message
    if row.display_name is not None:
        content["displayname"] = orjson.Fragment(row.display_name)
    if row.avatar_url is not None:
        content["avatar_url"] = orjson.Fragment(row.avatar_url)
    return content
