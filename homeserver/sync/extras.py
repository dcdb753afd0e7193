"""What a sync tells besides events: account data, receipts, typing, presence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.storage.account_data import GLOBAL
from homeserver.views.presence import presence_content
from homeserver.views.push_rules import default_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.storage.account_data import AccountDataRow, AccountDataStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.sync.rooms import Interval
    from homeserver.views.filters import SyncFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.presence import PresenceNow
    from homeserver.views.typing import TypingNow

PUSH_RULES = "m.push_rules"


class Extras:
    """Reads what is not an event."""

    def __init__(
        self,
        clock: Clock,
        account_data: AccountDataStore,
        receipts: ReceiptStore,
        typing: TypingNow,
        presence: PresenceNow,
        ignored: IgnoredUsers,
    ) -> None:
        self._clock = clock
        self._account_data = account_data
        self._receipts = receipts
        self._typing = typing
        self._presence = presence
        self._ignored = ignored

    async def account_data(self, user_id: UserId, interval: Interval, sync_filter: SyncFilter) -> list[Any]:
        """Global account data; the push rules are in the first answer."""
        rows = await self._account_data.load_changes(user_id, after=interval.since or 0, upto=interval.upto)
        events: list[Any] = [
            _account_data_event(row)
            for row in rows
            if row.room_id == GLOBAL and sync_filter.account_data.allows_type(row.type)
        ]
        if interval.since is None and sync_filter.account_data.allows_type(PUSH_RULES):
            events.append({"type": PUSH_RULES, "content": {"global": default_rules(user_id)}})
        return events

    async def room_account_data(
        self,
        user_id: UserId,
        joined: Iterable[RoomId],
        interval: Interval,
        sync_filter: SyncFilter,
        fresh: set[RoomId],
    ) -> dict[RoomId, list[Any]]:
        """Account data of rooms: what changed, and all of it in rooms that are new to the client."""
        rooms = set(joined)
        rows: list[AccountDataRow] = []
        if interval.since is not None:
            rows = await self._account_data.load_changes(user_id, after=interval.since, upto=interval.upto)
            rows = [row for row in rows if row.room_id in rooms and row.room_id not in fresh]
        if fresh:
            rows += await self._account_data.load_of_rooms(user_id, list(fresh), interval.upto)
        events: dict[RoomId, list[Any]] = {}
        for row in rows:
            wanted = sync_filter.room.account_data
            if wanted.allows_type(row.type) and wanted.allows_room(row.room_id):
                events.setdefault(row.room_id, []).append(_account_data_event(row))
        return events

    async def receipts(
        self,
        user_id: UserId,
        joined: Iterable[RoomId],
        interval: Interval,
        sync_filter: SyncFilter,
        changed: set[RoomId] | None,
        fresh: set[RoomId],
    ) -> tuple[dict[RoomId, dict[str, Any]], set[RoomId]]:
        """One `m.receipt` event for each room with new receipts, and the rooms where the user's own are new."""
        rooms = set(joined)
        ignored = await self._ignored.of(user_id)
        rows: list[ReceiptRow] = []
        if fresh:
            rows += await self._receipts.load_changes(fresh, user_id, after=0, upto=interval.upto)
        looked_at = (rooms if changed is None else changed & rooms) - fresh
        if looked_at and interval.since is not None:
            rows += await self._receipts.load_changes(
                looked_at, user_id, after=interval.since, upto=interval.upto
            )
        own = {row.room_id for row in rows if row.user_id == user_id}
        if not sync_filter.room.ephemeral.allows_type("m.receipt"):
            return {}, own
        contents: dict[RoomId, dict[str, Any]] = {}
        for row in rows:
            if row.user_id in ignored or not sync_filter.room.ephemeral.allows_room(row.room_id):
                continue
            by_type = contents.setdefault(row.room_id, {}).setdefault(row.event_id, {})
            receipt: dict[str, Any] = {"ts": row.ts}
            if row.thread_id:
                receipt["thread_id"] = row.thread_id
            by_type.setdefault(row.receipt_type, {})[row.user_id] = receipt
        events = {room_id: {"type": "m.receipt", "content": content} for room_id, content in contents.items()}
        return events, own

    async def typing(
        self,
        user_id: UserId,
        joined: Iterable[RoomId],
        sync_filter: SyncFilter,
        changed: set[RoomId] | None,
        fresh: set[RoomId],
    ) -> dict[RoomId, dict[str, Any]]:
        """One `m.typing` event for each room where somebody began or ended typing."""
        if not sync_filter.room.ephemeral.allows_type("m.typing"):
            return {}
        rooms = set(joined)
        looked_at = rooms if changed is None else changed & rooms
        if not looked_at and not fresh:
            return {}
        typing = await self._typing.in_rooms(looked_at | fresh)
        # An end of typing is told where it was announced; a room that is new to the client needs none.
        told = set(typing) if changed is None else (changed & rooms) | set(typing)
        ignored = await self._ignored.of(user_id)
        return {
            room_id: {
                "type": "m.typing",
                "content": {"user_ids": [one for one in typing.get(room_id, ()) if one not in ignored]},
            }
            for room_id in told
            if sync_filter.room.ephemeral.allows_room(room_id)
        }

    async def presence(self, user_id: UserId, interval: Interval, sync_filter: SyncFilter) -> list[Any]:
        """The presence of those who share a room with the user."""
        rows = await self._presence.seen_by(user_id, after=interval.since or 0, upto=interval.upto)
        now = self._clock.now_ms()
        return [
            {"type": "m.presence", "sender": row.user_id, "content": presence_content(row, now)}
            for row in rows
            if sync_filter.presence.allows_type("m.presence")
            and sync_filter.presence.allows_sender(row.user_id)
        ]


def _account_data_event(row: AccountDataRow) -> dict[str, Any]:
    return {"type": row.type, "content": orjson.Fragment(row.content)}
