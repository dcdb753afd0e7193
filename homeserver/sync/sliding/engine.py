"""Simplified sliding sync (MSC4186): a client says which rooms it wants and how much of each, and is told what is new there.

An answer goes up to the newest position that this process has heard of. Which rooms there is something to tell of is
known from the order of the user's rooms, in memory, and from what the client holds (`homeserver.sync.sliding.holdings`):
rooms that are not asked for cost nothing, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.storage.announcements import Topic
from homeserver.sync.interval import Concern, Interval, read_changes
from homeserver.sync.sliding.draft import Draft, connection_of
from homeserver.sync.sliding.holdings import LIVE, Holdings
from homeserver.sync.sliding.rooms import RoomView

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from homeserver.clock import Clock
    from homeserver.ids import EventId, RoomId
    from homeserver.notifier.notifier import Notifier
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.receipts import ReceiptStore
    from homeserver.sync.lazy_members import LazyMembers
    from homeserver.sync.moves import MoveReader
    from homeserver.sync.sliding.connections import Connections
    from homeserver.sync.sliding.extensions import Extensions
    from homeserver.sync.sliding.request import RoomConfig, SlidingRequest
    from homeserver.sync.sliding.room_lists import RoomLists
    from homeserver.sync.sliding.rooms import RoomResult, RoomResults
    from homeserver.sync.sliding.rooms_together import RoomsTogether
    from homeserver.sync.sliding.told import Told
    from homeserver.views.tokens import Tokens

MAX_TIMEOUT_MS = 600_000
_MAX_EVENTS = 10_000
"""Once an answer holds so many events, what is left of the rooms comes with the next one."""
_AT_ONCE, _EVENTS_AT_ONCE = 250, 2_000
"""So many rooms, and events of theirs, are read together."""


@dataclass(frozen=True, slots=True)
class SlidingAnswer:
    """An answer, in the names of the accepted dialect."""

    pos: str
    counts: Mapping[str, int]
    """The number of rooms in each list."""
    rooms: Mapping[RoomId, Mapping[str, Any]]
    extensions: Mapping[str, Any]


class SlidingSync:
    """Answers requests."""

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        tokens: Tokens,
        connections: Connections,
        lists: RoomLists,
        moves: MoveReader,
        together: RoomsTogether,
        results: RoomResults,
        extensions: Extensions,
        receipts: ReceiptStore,
        lazy_members: LazyMembers,
        told: Told,
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._tokens = tokens
        self._connections = connections
        self._lists = lists
        self._moves = moves
        self._together = together
        self._results = results
        self._extensions = extensions
        self._receipts = receipts
        self._lazy_members = lazy_members
        self._told = told

    async def answer(
        self, requester: Requester, request: SlidingRequest, check_access: Callable[[], Awaitable[None]]
    ) -> SlidingAnswer:
        """The answer to a request; waits for something to tell, for as long as the client allows.

        Raises `UnknownPos` for a `pos` with which this client cannot go on, `InvalidParam` for a wrong `since` of an
        extension, and what `check_access` raises once the device may read no more: it is asked whenever the wait ends.
        """
        key = connection_of(requester, request)
        since, held = None, Holdings()
        if request.pos is not None:
            pos = await self._tokens.read_pos(request.pos, *key)
            since, held = pos.position, await self._connections.find(key, pos.answer_nid)
            await self._told.acknowledge(requester, key, (since, pos.answer_nid), held)
        acknowledged = await self._extensions.acknowledge(requester, request.extensions.to_device)
        deadline = self._clock.monotonic() + min(request.timeout_ms, MAX_TIMEOUT_MS) / 1000
        while True:
            draft = await self._draft(requester, request, held, since, acknowledged)
            remaining = deadline - self._clock.monotonic()
            if since is None or draft.has_news or remaining <= 0:
                break
            rooms = draft.selection.rooms
            woken = await self._notifier.wait(
                requester.user_id,
                requester.device_id,
                rooms,
                after=draft.upto,
                seconds=remaining,
                concerns=Concern(requester.user_id, requester.device_id, rooms),
            )
            await check_access()
            if not woken:
                break
        return await self._finish(draft)

    async def _finish(self, draft: Draft) -> SlidingAnswer:
        """Note what the client will hold: it is durable before the answer is given."""
        key, held = draft.key, draft.held
        await self._told.settle(draft)
        if draft.changes or not held.answer_nid:
            room_nids = {row.room_nid for row in draft.selection.rooms.values()}
            held = await self._connections.note(key, held, draft.changes, room_nids)
        place = (draft.upto, held.answer_nid)
        self._told.note(draft, place)
        self._note_members(draft, place)
        return SlidingAnswer(
            self._tokens.pos(*key, draft.upto, held.answer_nid),
            draft.selection.counts,
            {room_id: result.fields for room_id, result in draft.rooms.items() if result.is_news},
            draft.extensions,
        )

    def _note_members(self, draft: Draft, place: tuple[int, int]) -> None:
        known = dict(self._known_members(draft))
        sent: dict[int, set[int]] = {}
        for room_id, result in draft.rooms.items():
            room_nid = draft.selection.rooms[room_id].room_nid
            if result.is_news and draft.selection.wanted[room_id].required_state.lazy_members:
                sent[room_nid] = result.members
                if result.flushes_members:
                    known.pop(room_nid, None)
        if sent or known:
            self._lazy_members.note(draft.key, known, sent, place)

    def _known_members(self, draft: Draft) -> Mapping[int, frozenset[int]]:
        place = None if draft.since is None else (draft.since, draft.held.answer_nid)
        return self._lazy_members.known(draft.key, place)

    # -- what there is to tell -------------------------------------------------------------------------

    async def _draft(
        self,
        requester: Requester,
        request: SlidingRequest,
        held: Holdings,
        since: int | None,
        acknowledged: int,
    ) -> Draft:
        selection = await self._lists.select(requester.user_id, request, held, since)
        concern = Concern(requester.user_id, requester.device_id, selection.rooms)
        interval = Interval(since, selection.upto, full_state=False, state_name="state_after")
        announced = read_changes(self._notifier, interval, concern, selection.rooms)
        draft = Draft(requester, request, held, since, selection, announced)
        await self._add_rooms(draft)
        await self._extensions.add(draft, acknowledged)
        return draft

    async def _add_rooms(self, draft: Draft) -> None:
        selection = draft.selection
        read = await self._read_rooms(draft)
        looked_at = [
            room_id
            for room_id, config in selection.wanted.items()
            if self._may_have_news(draft, selection.rooms[room_id], config, read)
        ]
        number = 0
        while looked_at and number < _MAX_EVENTS:
            most = max(selection.wanted[room_id].timeline_limit for room_id in looked_at[:_AT_ONCE])
            rooms = min(_AT_ONCE, _EVENTS_AT_ONCE // (most + 1) + 1, (_MAX_EVENTS - number) // (most + 1) + 1)
            some, looked_at = looked_at[:rooms], looked_at[rooms:]
            bundling = await self._together.prepare(
                draft.requester,
                [(selection.rooms[room_id], selection.wanted[room_id]) for room_id in some],
                self._told_before(draft, some),
                upto=draft.upto,
                with_counts=draft.request.with_counts,
            )
            for room_id in some:
                result = await self._look_at(draft, room_id, read, bundling)
                if result is not None:
                    draft.rooms[room_id] = result
                    number += len(result.events) + len(result.fields.get("required_state", ()))
        draft.has_news = draft.has_news or any(result.is_news for result in draft.rooms.values())
        # What there was no place for comes with the next answer.
        self._put_off(draft, (selection.activity.keys() | read) - selection.wanted.keys() | set(looked_at))

    def _told_before(self, draft: Draft, room_ids: Iterable[RoomId]) -> dict[int, int]:
        """Up to where the client was told of those of these rooms that it knows, by their numbers."""
        told = {}
        for room_id in room_ids:
            room_nid = draft.selection.rooms[room_id].room_nid
            held = draft.held.rooms.get(room_nid)
            position = None if held is None else draft.told(held.events, draft.since)
            if position is not None:
                told[room_nid] = position
        return told

    async def _read_rooms(self, draft: Draft) -> set[RoomId]:
        """The rooms in which the user has read on, or other threads count, where unread counts are wanted."""
        if draft.since is None or not draft.request.with_counts:
            return set()
        rooms, user_id = draft.selection.rooms, draft.requester.user_id
        if draft.announced.known and not draft.announced.has(Topic.THREAD_SUBSCRIPTIONS):
            return set(draft.announced.read_rooms & rooms.keys())
        live = [
            room_id
            for room_id, row in rooms.items()
            if row.membership == "join" and draft.held_room(row.room_nid).events == LIVE
        ]
        recounted = await self._results.recounted(user_id, live, after=draft.since, upto=draft.upto)
        if draft.announced.known:
            return recounted | (draft.announced.read_rooms & rooms.keys())
        read = await self._receipts.load_read_rooms(live, user_id, after=draft.since, upto=draft.upto)
        return recounted.union(read)

    def _may_have_news(self, draft: Draft, row: MembershipRow, config: RoomConfig, read: set[RoomId]) -> bool:
        held = draft.held.rooms.get(row.room_nid)
        return (
            held is None
            or held.events != LIVE
            or draft.selection.activity[row.room_id] > (draft.since or 0)
            or held.limit < config.timeline_limit
            or held.required_state != config.required_state.number
            or held.is_dm is not (row.room_id in draft.selection.marks.direct)
            or row.room_id in read
        )

    async def _look_at(
        self, draft: Draft, room_id: RoomId, read: set[RoomId], bundling: Mapping[EventId, bool]
    ) -> RoomResult | None:
        selection = draft.selection
        row, config = selection.rooms[room_id], selection.wanted[room_id]
        at_end = await self._moves.at(row, draft.upto)
        if at_end is None:
            return None
        held = draft.held.rooms.get(row.room_nid)
        is_dm = row.room_id in selection.marks.direct
        view = RoomView(
            config,
            told=None if held is None else draft.told(held.events, draft.since),
            limit=0 if held is None else held.limit,
            held_state=None if held is None else draft.held.required_states.get(held.required_state),
            is_dm=is_dm,
            was_dm=held is not None and held.is_dm,
            known_members=self._known_members(draft).get(row.room_nid, frozenset()),
            bundling=bundling,
        )
        result = await self._results.of(
            draft.requester,
            at_end,
            view,
            since=draft.since,
            upto=draft.upto,
            ignored=selection.ignored,
        )
        was_put_off = held is not None and held.events != LIVE
        if (
            draft.request.with_counts
            and at_end.membership == "join"
            and (result.is_news or room_id in read or was_put_off)
        ):
            result.fields |= await self._results.counts(draft.requester, at_end, draft.upto)
            result.is_news = True
        if draft.request.with_lists and result.is_news:
            names = [name for name, window in selection.windows.items() if row.room_id in window]
            if names:
                result.fields["lists"] = names
        self._hold(draft, row.room_nid, config, result, is_dm=is_dm)
        return result

    def _hold(
        self, draft: Draft, room_nid: int, config: RoomConfig, result: RoomResult, *, is_dm: bool
    ) -> None:
        wanted = config.required_state
        if wanted.number not in draft.held.required_states:
            draft.changes.required_states[wanted.number] = wanted
        held = draft.held_room(room_nid)
        draft.hold(
            room_nid,
            held._replace(
                events=LIVE,
                limit=result.limit,
                required_state=wanted.number,
                is_dm=is_dm,
                begins=held.begins if result.begins is None else result.begins,
            ),
        )

    def _put_off(self, draft: Draft, room_ids: set[RoomId]) -> None:
        """Something came in rooms that are not told of now: it is told when they are."""
        for room_id in room_ids:
            row = draft.selection.rooms.get(room_id)
            if row is None or draft.since is None:
                continue
            held = draft.held.rooms.get(row.room_nid)
            if held is not None and held.events == LIVE:
                draft.hold(row.room_nid, held._replace(events=draft.since))
