"""What an answer tells besides rooms: MSC3885 (to-device), MSC3884 (e2ee), MSC3959 to 3961 (account data, receipts, typing).

Thread subscriptions (MSC4308) stand in `homeserver.sync.sliding.thread_subscriptions`.

What is told of rooms goes along with them: nothing is told of a room that the client does not hold, and of one that was
out of sight meanwhile what came since it was told of last. One is of this server's own: `dev.restante.delivery`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.storage.account_data import GLOBAL
from homeserver.storage.announcements import Topic
from homeserver.sync.extras import account_data_event, push_rules_event
from homeserver.sync.interval import UNKNOWN, Interval
from homeserver.sync.sliding.holdings import LIVE, NEVER
from homeserver.sync.sliding.request import ALL
from homeserver.views.filters import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.services.requester import Requester
    from homeserver.storage.account_data import AccountDataRow, AccountDataStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.sync.device_lists import DeviceLists
    from homeserver.sync.extras import Extras
    from homeserver.sync.sliding.draft import Draft
    from homeserver.sync.sliding.request import Scope, ToDeviceRequest
    from homeserver.sync.sliding.thread_subscriptions import ThreadSubscriptionNews
    from homeserver.sync.to_device import Inboxes
    from homeserver.views.keys_left import KeysLeftNow
    from homeserver.views.tokens import Tokens

DELIVERY = "dev.restante.delivery"


class Extensions:
    """Reads them."""

    def __init__(
        self,
        tokens: Tokens,
        inboxes: Inboxes,
        device_lists: DeviceLists,
        keys_left: KeysLeftNow,
        account_data: AccountDataStore,
        receipts: ReceiptStore,
        recent: RecentEvents,
        extras: Extras,
        thread_subscriptions: ThreadSubscriptionNews,
    ) -> None:
        self._tokens = tokens
        self._inboxes = inboxes
        self._device_lists = device_lists
        self._keys_left = keys_left
        self._account_data = account_data
        self._receipts = receipts
        self._recent = recent
        self._extras = extras
        self._thread_subscriptions = thread_subscriptions

    async def acknowledge(self, requester: Requester, wanted: ToDeviceRequest | None) -> int:
        """Drop the messages that the device says it has; from which place on it has none.

        Raises `InvalidParam` for a `since` that this server did not make.
        """
        if wanted is None or wanted.since is None:
            return 0
        token = await self._tokens.read_sync_token(wanted.since, requester.user_id, requester.device_id)
        return await self._inboxes.acknowledge(requester, token)

    async def add(self, draft: Draft, acknowledged: int) -> None:
        """Put into a draft what there is to tell."""
        wanted = draft.request.extensions
        if wanted.to_device is not None:
            await self._add_to_device(draft, wanted.to_device, acknowledged)
        await self._add_e2ee(draft, wanted=wanted.e2ee)
        await self._add_account_data(draft, wanted.account_data)
        await self._add_receipts(draft, wanted.receipts)
        await self._add_typing(draft, wanted.typing)
        await self._thread_subscriptions.add(draft, wanted.thread_subscriptions)
        await self._add_delivery(draft, wanted=wanted.delivery)

    def _tell(self, draft: Draft, name: str, **parts: Any) -> None:
        told = {part: value for part, value in parts.items() if value}
        if told:
            draft.extensions[name] = told
            draft.has_news = True

    # -- of the device ---------------------------------------------------------------------------------

    async def _add_to_device(self, draft: Draft, wanted: ToDeviceRequest, acknowledged: int) -> None:
        """MSC3885: "`next_batch`: REQUIRED: even if no changes"."""
        messages, last = await self._inboxes.read(
            draft.requester, after=acknowledged, upto=draft.upto, limit=wanted.limit
        )
        user_id, device_id = draft.requester.user_id, draft.requester.device_id
        told: dict[str, Any] = {"next_batch": self._tokens.sync_token(user_id, device_id, last, last)}
        if messages:
            told["events"] = messages
            draft.has_news = True
        draft.extensions["to_device"] = told

    async def _add_e2ee(self, draft: Draft, *, wanted: bool) -> None:
        """MSC3884: "an initial response will include all fields. When there are updates, only the changed fields"."""
        told = draft.extension_told("e2ee", wanted=wanted)
        if not wanted:
            return
        user_id = draft.requester.user_id
        keys = await self._keys_left.of(user_id, draft.requester.device_id)
        fields: dict[str, Any] = {}
        if told is not None:
            announced = draft.announced if told == draft.since else UNKNOWN
            interval = Interval(told, draft.upto, full_state=False, state_name="state")
            lists = await self._device_lists.read(user_id, draft.selection.rooms, interval, announced)
            if any(lists.values()):
                fields["device_lists"] = lists
        if told is None or told < keys.changed_at <= draft.upto:
            fields["device_one_time_keys_count"] = {"signed_curve25519": 0, **keys.counts}
            # Empty, it says that the key was used; absent, that nothing changed.
            fields["device_unused_fallback_key_types"] = keys.unused_fallback
        if fields:
            draft.extensions["e2ee"] = fields
            draft.has_news = True

    # -- of the user and their rooms -------------------------------------------------------------------

    async def _add_account_data(self, draft: Draft, scope: Scope | None) -> None:
        told = draft.extension_told("account_data", wanted=scope is not None)
        if scope is None:
            return
        user_id, upto = draft.requester.user_id, draft.upto
        rows: list[AccountDataRow] = []
        if told is not None and (told != draft.since or draft.announced.has(Topic.ACCOUNT_DATA)):
            rows = await self._account_data.load_changes(user_id, after=told, upto=upto)
        if told is None:
            whole = await self._account_data.load_of_rooms(user_id, [GLOBAL], upto)
            events = [*map(account_data_event, whole), push_rules_event(user_id)]
        else:
            events = [account_data_event(row) for row in rows if row.room_id == GLOBAL]
        shown = self._shown(draft, scope)
        new = {
            room_id: nid
            for room_id, nid in shown.items()
            if self._is_new(draft, room_id, nid, "account_data")
        }
        told_rows = [row for row in rows if row.room_id in shown.keys() - new.keys()]
        if new:
            told_rows += await self._account_data.load_of_rooms(user_id, list(new), upto)
        self._hold_all(draft, new.values(), "account_data")
        if told is not None:
            missed = {row.room_id for row in rows if row.room_id != GLOBAL} - shown.keys()
            self._put_off(draft, missed, "account_data", told)
        by_room: dict[RoomId, list[Any]] = {}
        for row in told_rows:
            by_room.setdefault(row.room_id, []).append(account_data_event(row))
        self._tell(draft, "account_data", **{"global": events, "rooms": by_room})

    async def _add_receipts(self, draft: Draft, scope: Scope | None) -> None:
        """MSC3960: of a room that is new those at the events in its timeline, and the user's own."""
        told = draft.extension_told("receipts", wanted=scope is not None)
        if scope is None:
            return
        user_id, upto = draft.requester.user_id, draft.upto
        shown = self._shown(draft, scope)
        rows: list[ReceiptRow] = []
        after: dict[RoomId, int] = {}
        timelines: dict[RoomId, tuple[int, list[EventId]]] = {}
        for room_id, room_nid in shown.items():
            position = draft.told(draft.held_room(room_nid).receipts, told)
            if position is None or self._begins_anew(draft, room_id):
                timelines[room_id] = await self._timeline_of_new_room(draft, room_id, room_nid)
            if position is not None:
                after[room_id] = position
        if timelines:
            rows += await self._receipts.load_for_timelines(user_id, timelines, upto=upto)
        changed = self._rooms_with_receipts(draft, told)
        looked_at = {
            room_id: position
            for room_id, position in after.items()
            if position != told or changed is None or room_id in changed or room_id in timelines
        }
        if looked_at:
            rows += [
                row
                for row in await self._receipts.load_changes(
                    looked_at, user_id, after=min(looked_at.values()), upto=upto
                )
                if row.stream_id > looked_at[row.room_id]
            ]
        self._hold_all(draft, shown.values(), "receipts")
        # Of a room that begins anew some may be found in both ways.
        rooms, too_many = _receipt_events(
            sorted(dict.fromkeys(rows), key=lambda row: row.stream_id), draft.selection.ignored
        )
        for room_id, position in too_many.items():
            self._hold(draft, shown[room_id], "receipts", position)
        if told is not None:
            if changed is None:
                live = self._live(draft, "receipts") - shown.keys()
                changed = set(await self._receipts.load_changed_rooms(live, after=told, upto=upto))
            self._put_off(draft, changed - shown.keys(), "receipts", told)
        self._tell(draft, "receipts", rooms=rooms)

    async def _timeline_of_new_room(
        self, draft: Draft, room_id: RoomId, room_nid: int
    ) -> tuple[int, list[EventId]]:
        """The events that the client has, as far as that is known, and a position before them."""
        result = draft.rooms.get(room_id)
        if result is not None and result.is_new:
            return result.since, result.events
        newest = await self._recent.load(
            room_nid, after=0, upto=draft.upto, limit=draft.held_room(room_nid).limit
        )
        since = newest[0].stream_id if newest else draft.upto
        return since, [stored.event.event_id for stored in newest]

    def _rooms_with_receipts(self, draft: Draft, told: int | None) -> set[RoomId] | None:
        """In which rooms somebody has read on since the extension was told; None where that is not known."""
        if told is None or told != draft.since or not draft.announced.known:
            return None
        return set(draft.announced.rooms_with_receipts)

    async def _add_typing(self, draft: Draft, scope: Scope | None) -> None:
        """MSC3961."""
        told = draft.extension_told("typing", wanted=scope is not None)
        if scope is None:
            return
        shown = self._shown(draft, scope)
        new = {i: nid for i, nid in shown.items() if self._is_new(draft, i, nid, "typing")}
        # One that was out of sight may still seem to have somebody typing.
        changed = {i for i, nid in new.items() if draft.held_room(nid).typing != NEVER}
        fresh = new.keys() - changed
        if told is not None:
            if told == draft.since and draft.announced.known:
                rooms = draft.announced.rooms_with_typing
                changed |= rooms & shown.keys()
                self._put_off(draft, rooms - shown.keys(), "typing", told)
            else:
                fresh = shown.keys() - changed
        events = await self._extras.typing(draft.requester.user_id, EVERYTHING, changed, set(fresh))
        self._hold_all(draft, new.values(), "typing")
        self._tell(draft, "typing", rooms=events)

    async def _add_delivery(self, draft: Draft, *, wanted: bool) -> None:
        """What the user hears of their own events (docs/offline.md), from when the client first wants to hear of it."""
        told = draft.extension_told("delivery", wanted=wanted)
        if not wanted or told is None:
            return
        if told == draft.since and not draft.announced.has(Topic.DELIVERY):
            return
        interval = Interval(told, draft.upto, full_state=False, state_name="state")
        news = await self._extras.delivery_news(draft.requester.user_id, interval, EVERYTHING)
        rows = draft.selection.rooms
        rooms = {
            room_id: events
            for room_id, events in news.items()
            if room_id in rows and rows[room_id].membership == "join"
        }
        self._tell(draft, DELIVERY, rooms=rooms)

    # -- which rooms -----------------------------------------------------------------------------------

    def _shown(self, draft: Draft, scope: Scope) -> Mapping[RoomId, int]:
        """The rooms in the scope of an extension that the user is in and the client holds, with their numbers."""
        known = draft.shown.get(scope)
        if known is not None:
            return known
        selection = draft.selection
        room_ids: set[RoomId] = set()
        for name, window in selection.windows.items():
            if ALL in scope.lists or name in scope.lists:
                room_ids |= window
        for room_id in draft.request.subscriptions:
            if ALL in scope.rooms or room_id in scope.rooms:
                room_ids.add(room_id)
        rows = (selection.rooms[room_id] for room_id in room_ids & selection.wanted.keys())
        draft.shown[scope] = {
            row.room_id: row.room_nid
            for row in rows
            if row.membership == "join" and draft.knows(row.room_nid)
        }
        return draft.shown[scope]

    def _is_new(self, draft: Draft, room_id: RoomId, room_nid: int, part: str) -> bool:
        """Whether something of a room is not live: it was not told, or not of late, or the client begins anew."""
        return self._begins_anew(draft, room_id) or getattr(draft.held_room(room_nid), part) != LIVE

    def _begins_anew(self, draft: Draft, room_id: RoomId) -> bool:
        result = draft.rooms.get(room_id)
        return result is not None and result.is_new

    def _live(self, draft: Draft, part: str) -> set[RoomId]:
        """The rooms of which something is live."""
        return {
            room_id
            for room_id, row in draft.selection.rooms.items()
            if getattr(draft.held_room(row.room_nid), part) == LIVE
        }

    def _put_off(self, draft: Draft, room_ids: Iterable[RoomId], part: str, told: int) -> None:
        """Something came in rooms that are not shown: it is told when they are."""
        for room_id in room_ids:
            row = draft.selection.rooms.get(room_id)
            if row is not None and getattr(draft.held_room(row.room_nid), part) == LIVE:
                self._hold(draft, row.room_nid, part, told)

    def _hold_all(self, draft: Draft, room_nids: Iterable[int], part: str) -> None:
        for room_nid in room_nids:
            self._hold(draft, room_nid, part, LIVE)

    def _hold(self, draft: Draft, room_nid: int, part: str, upto: int) -> None:
        held = draft.held_room(room_nid)
        if getattr(held, part) != upto:
            draft.hold(room_nid, held.with_part(part, upto))


def _receipt_events(
    rows: Iterable[ReceiptRow], ignored: frozenset[Any]
) -> tuple[dict[RoomId, dict[str, Any]], dict[RoomId, int]]:
    """One `m.receipt` event for each room; and up to where receipts are in it, where that is not all of them.

    An event cannot say that somebody has read up to the same place in two threads: the second comes with the next
    answer.
    """
    contents: dict[RoomId, dict[str, Any]] = {}
    too_many: dict[RoomId, int] = {}
    for row in rows:
        if row.room_id in too_many or row.user_id in ignored:
            continue
        content = contents.setdefault(row.room_id, {})
        by_user = content.setdefault(row.event_id, {}).setdefault(row.receipt_type, {})
        if row.user_id in by_user:
            too_many[row.room_id] = row.stream_id - 1
            continue
        by_user[row.user_id] = {"ts": row.ts, **({"thread_id": row.thread_id} if row.thread_id else {})}
    return {room_id: {"type": "m.receipt", "content": one} for room_id, one in contents.items()}, too_many
