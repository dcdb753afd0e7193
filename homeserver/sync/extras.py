"""What a sync tells besides events: account data, receipts, typing, presence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.ids import RoomId
from homeserver.storage.account_data import GLOBAL
from homeserver.storage.delivery_news import DELIVERED
from homeserver.views.presence import presence_content
from homeserver.views.push_rules import default_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.clock import Clock
    from homeserver.ids import UserId
    from homeserver.storage.account_data import AccountDataRow, AccountDataStore
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.sync.interval import Interval
    from homeserver.views.delivery_sharing import DeliverySharing
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
        news: DeliveryNewsStore,
        sharing: DeliverySharing,
    ) -> None:
        self._clock = clock
        self._account_data = account_data
        self._receipts = receipts
        self._typing = typing
        self._presence = presence
        self._ignored = ignored
        self._news = news
        self._sharing = sharing

    async def account_data(
        self, user_id: UserId, interval: Interval, sync_filter: SyncFilter
    ) -> tuple[list[Any], dict[RoomId, list[Any]]]:
        """Global account data, and that of rooms, as far as it changed; the push rules are in the first answer."""
        rows = await self._account_data.load_changes(user_id, after=interval.since or 0, upto=interval.upto)
        events: list[Any] = [
            account_data_event(row)
            for row in rows
            if row.room_id == GLOBAL and sync_filter.account_data.allows_type(row.type)
        ]
        if interval.since is None:
            if sync_filter.account_data.allows_type(PUSH_RULES):
                events.append(push_rules_event(user_id))
            return events, {}
        return events, _by_room([row for row in rows if row.room_id != GLOBAL], sync_filter)

    async def all_room_account_data(
        self, user_id: UserId, rooms: Iterable[RoomId], interval: Interval, sync_filter: SyncFilter
    ) -> dict[RoomId, list[Any]]:
        """All account data of rooms that are new to the client."""
        rows = await self._account_data.load_of_rooms(user_id, list(rooms), interval.upto)
        return _by_room(rows, sync_filter)

    async def receipts(
        self,
        user_id: UserId,
        interval: Interval,
        sync_filter: SyncFilter,
        changed: set[RoomId],
        fresh: set[RoomId],
    ) -> tuple[dict[RoomId, list[dict[str, Any]]], set[RoomId]]:
        """The `m.receipt` events of each room with new receipts, and the rooms where the user's own are new.

        "Receipts SHOULD be batched into one event per room and thread": one event could not say that somebody has
        read up to the same place in two threads.

        All receipts count as new in `fresh` rooms; of the others those are looked at that are among `changed`.
        """
        rows: list[ReceiptRow] = []
        if fresh:
            rows += await self._receipts.load_changes(fresh, user_id, after=0, upto=interval.upto)
        looked_at = changed - fresh
        if looked_at and interval.since is not None:
            rows += await self._receipts.load_changes(
                looked_at, user_id, after=interval.since, upto=interval.upto
            )
        own = {row.room_id for row in rows if row.user_id == user_id}
        if not rows or not sync_filter.room.ephemeral.allows_type("m.receipt"):
            return {}, own
        ignored = await self._ignored.of(user_id)
        contents: dict[tuple[RoomId, str], dict[str, Any]] = {}
        for row in rows:
            if row.user_id in ignored or not sync_filter.room.ephemeral.allows_room(row.room_id):
                continue
            by_type = contents.setdefault((row.room_id, row.thread_id), {}).setdefault(row.event_id, {})
            receipt: dict[str, Any] = {"ts": row.ts}
            if row.thread_id:
                receipt["thread_id"] = row.thread_id
            by_type.setdefault(row.receipt_type, {})[row.user_id] = receipt
        events: dict[RoomId, list[dict[str, Any]]] = {}
        for (room_id, _), content in contents.items():
            events.setdefault(room_id, []).append({"type": "m.receipt", "content": content})
        return events, own

    async def delivery_news(
        self, user_id: UserId, interval: Interval, sync_filter: SyncFilter
    ) -> dict[RoomId, list[dict[str, Any]]]:
        """What a user hears of their own events: a `dev.restante.delivered` event, and one with MSC4089's receipts."""
        contents: dict[tuple[RoomId, str], dict[str, Any]] = {}
        for news in await self._news.load_changes(user_id, after=interval.since or 0, upto=interval.upto):
            kind = DELIVERED if news.kind == DELIVERED else "m.receipt"
            wanted = sync_filter.room.ephemeral
            if (
                wanted.allows_type(kind)
                and wanted.allows_room(news.room_id)
                and await self._sharing.of(news.user_id)
            ):
                content = contents.setdefault((news.room_id, kind), {}).setdefault(news.event_id, {})
                by_user = content if kind == DELIVERED else content.setdefault(news.kind, {})
                by_user[news.user_id] = {"ts": news.ts}
        events: dict[RoomId, list[dict[str, Any]]] = {}
        for (room_id, kind), content in contents.items():
            events.setdefault(room_id, []).append({"type": kind, "content": content})
        return events

    async def typing(
        self, user_id: UserId, sync_filter: SyncFilter, changed: set[RoomId], fresh: set[RoomId]
    ) -> dict[RoomId, dict[str, Any]]:
        """One `m.typing` event for each of the `changed` rooms, and for the `fresh` ones where somebody is typing.

        An end of typing is told where it was announced; a room that is new to the client needs none.
        """
        if not (changed or fresh) or not sync_filter.room.ephemeral.allows_type("m.typing"):
            return {}
        typing = await self._typing.in_rooms(changed | fresh)
        ignored = await self._ignored.of(user_id)
        return {
            room_id: {
                "type": "m.typing",
                "content": {"user_ids": [one for one in typing.get(room_id, ()) if one not in ignored]},
            }
            for room_id in changed | typing.keys()
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


def push_rules_event(user_id: UserId) -> dict[str, Any]:
    """The push rules of a user, as account data."""
    return {"type": PUSH_RULES, "content": {"global": default_rules(user_id)}}


def account_data_event(row: AccountDataRow) -> dict[str, Any]:
    """A piece of account data as it goes out."""
    return {"type": row.type, "content": orjson.Fragment(row.content)}


def _by_room(rows: Iterable[AccountDataRow], sync_filter: SyncFilter) -> dict[RoomId, list[Any]]:
    events: dict[RoomId, list[Any]] = {}
    for row in rows:
        wanted = sync_filter.room.account_data
        if wanted.allows_type(row.type) and wanted.allows_room(row.room_id):
            events.setdefault(RoomId(row.room_id), []).append(account_data_event(row))
    return events
