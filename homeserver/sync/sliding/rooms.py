"""What an answer says of a room (MSC4186 `RoomResult`), in the names of the accepted dialect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from homeserver.ids import UserId
from homeserver.sync.sliding.required_state import MEMBER
from homeserver.sync.sliding.room_state import StateChange
from homeserver.views.client_events import stripped
from homeserver.views.filters import RoomEventFilter
from homeserver.views.own_memberships import own_membership

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.sliding.bump_stamps import BumpStamps
    from homeserver.sync.sliding.request import RoomConfig
    from homeserver.sync.sliding.required_state import RequiredState
    from homeserver.sync.sliding.room_metadata import RoomMetadata
    from homeserver.sync.sliding.room_state import WantedState
    from homeserver.sync.stripped_states import StrippedStates
    from homeserver.sync.timeline import Timeline, TimelineReader
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.tokens import Tokens
    from homeserver.views.unread import UnreadCounts
    from homeserver.views.visibility import HistoryVisibility

_PENDING = ("invite", "knock")


@dataclass(frozen=True, slots=True)
class RoomView:
    """How a client looks at a room."""

    config: RoomConfig
    told: int | None
    """Up to which position it was told of the room; None for a room that is new to it."""
    limit: int
    """So many of the newest events before that place it holds."""
    held_state: RequiredState | None
    """Of which part of the state it holds what was true at that place."""
    is_dm: bool
    was_dm: bool
    known_members: frozenset[int]
    """The numbers of member events that it has, where it loads members lazily."""
    bundling: Mapping[EventId, bool]
    """Whether anything may be bundled with events, as far as that was asked."""


@dataclass(slots=True)
class RoomResult:
    """The room in the answer."""

    fields: dict[str, Any]
    is_news: bool
    events: list[EventId] = field(default_factory=list)
    """The ids of the events in its timeline."""
    since: int = 0
    """Where the timeline begins."""
    begins: int | None = None
    """After which position the client holds the timeline, where that is not as it was before."""
    ends: int | None = None
    """Up to which position the timeline was told; None where there is none."""
    members: set[int] = field(default_factory=set)
    """The numbers of the member events in it."""
    is_new: bool = False
    """Whether the client replaces what it had of the room."""
    limit: int = 0
    """So many of the newest events the client holds with it."""
    flushes_members: bool = False
    """Whether the client forgets the members that it had."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Which part of a room is told."""

    told: int | None
    """Where what the client holds ends; None where it begins anew."""
    after: int
    """Where the timeline goes on."""
    end: int
    state_from: int | None
    """From where on changes of the state are told; None for all of the state."""
    state_at: int
    """Where the state stands that is told; 0 for none."""
    became: Mapping[StateKey, StoredEvent]
    """What became of the user later."""
    own: StoredEvent | None = None
    """What says so in a room that they are out of: clients take those of which they hear without it for rooms to be in."""


class RoomResults:
    """Builds the part of an answer that is about one room."""

    def __init__(
        self,
        recent: RecentEvents,
        timelines: TimelineReader,
        state: WantedState,
        metadata: RoomMetadata,
        bump_stamps: BumpStamps,
        visibility: HistoryVisibility,
        client_events: ClientEvents,
        stripped_states: StrippedStates,
        unread: UnreadCounts,
        tokens: Tokens,
    ) -> None:
        self._recent = recent
        self._timelines = timelines
        self._state = state
        self._metadata = metadata
        self._bump_stamps = bump_stamps
        self._visibility = visibility
        self._client_events = client_events
        self._stripped_states = stripped_states
        self._unread = unread
        self._tokens = tokens

    async def of(
        self,
        requester: Requester,
        row: MembershipRow,
        view: RoomView,
        *,
        since: int | None,
        upto: int,
        ignored: frozenset[UserId],
    ) -> RoomResult:
        """A room up to a position of the log; `row` is the user's membership there, `since` the last answer's position."""
        if row.membership in _PENDING:
            result = await self._pending(row, view)
        elif row.membership == "join":
            result = await self._joined(requester, row, view, since=since, upto=upto, ignored=ignored)
        else:
            result = await self._left(requester, row, view, since=since, ignored=ignored)
        # "Must be included in an incremental sync if the DM state changes."
        if view.is_dm is not (view.was_dm and not result.is_new):
            result.fields["is_dm"] = view.is_dm
            result.is_news = True
        return result

    async def counts(self, requester: Requester, row: MembershipRow, upto: int) -> dict[str, int]:
        """How much is unread in a room that the user is in."""
        counts = await self._unread.of(requester.user_id, row, upto=upto, by_thread=False)
        unread: dict[str, int] = counts["unread_notifications"]
        return unread

    async def recounted(
        self, user_id: UserId, rooms: Iterable[RoomId], *, after: int, upto: int
    ) -> set[RoomId]:
        """Those of a user's rooms in which other threads count as unread than before."""
        return await self._unread.recounted(user_id, rooms, after=after, upto=upto)

    async def _pending(self, row: MembershipRow, view: RoomView) -> RoomResult:
        """An invite or a knock."""
        if view.told is not None and view.told >= row.stream_id:
            return RoomResult({}, is_news=False, limit=view.limit)
        fields = {
            "initial": True,
            "membership": row.membership,
            "bump_stamp": row.stream_id,
            "stripped_state": await self._stripped_states.of(row),
        }
        return RoomResult(fields, is_news=True, is_new=True)

    async def _left(
        self,
        requester: Requester,
        row: MembershipRow,
        view: RoomView,
        *,
        since: int | None,
        ignored: frozenset[UserId],
    ) -> RoomResult:
        """A room that the user went out of, or was kept out of.

        What became of the room once they were out is not theirs to know; what became of them there later is.
        """
        told, own = view.told, (MEMBER, UserId(row.user_id))
        history = await self._visibility.history(row)
        out_at = history.last_left(row.stream_id)
        before = history.at(told) if told is not None else "leave"
        if before in _PENDING or (before != "join" and history.came_in_between(told or 0, row.stream_id)):
            told = None
        shown = out_at > 0 and not row.forgotten
        after = told or 0
        if not (shown and before == "join"):
            after = max(after, row.stream_id - 1)
        (stored,) = (await self._state.numbered([row.event_nid])).values()
        stored = own_membership(row, stored)
        became: dict[StateKey, StoredEvent] = {}
        if told is None or row.stream_id > told:
            became[own] = stored
        place = _Place(
            told=told,
            after=0 if shown and told is None else after,
            end=row.stream_id,
            state_from=min(told, out_at) if told is not None else None,
            state_at=out_at if shown else 0,
            became=became,
            own=stored,
        )
        result = await self._known(requester, row, view, place, since=since, ignored=ignored)
        if out_at == 0:
            # Of a room that they never were in they are shown what became of them, and no longer what it is.
            result.fields["stripped_state"] = [stripped(stored.event) for stored in became.values()]
        return result

    async def _joined(
        self,
        requester: Requester,
        row: MembershipRow,
        view: RoomView,
        *,
        since: int | None,
        upto: int,
        ignored: frozenset[UserId],
    ) -> RoomResult:
        """A room that the user is in.

        Who came back is shown what happened meanwhile, and the client begins anew.
        """
        told = view.told
        if told is not None and row.stream_id > told:
            history = await self._visibility.history(row)
            told = told if history.at(told) == "join" else None
        place = _Place(told=told, after=told or 0, end=upto, state_from=told, state_at=upto, became={})
        return await self._known(requester, row, view, place, since=since, ignored=ignored)

    async def _known(
        self,
        requester: Requester,
        row: MembershipRow,
        view: RoomView,
        place: _Place,
        *,
        since: int | None,
        ignored: frozenset[UserId],
    ) -> RoomResult:
        told, wanted = place.told, view.config.required_state
        timeline, expanded = await self._timeline(row, view, place, ignored)
        snapshot = await self._recent.snapshot_at(row.room_nid, place.state_at) if place.state_at else 0
        change = StateChange({}, [])
        if place.state_from:
            start = await self._recent.snapshot_at(row.room_nid, place.state_from)
            change = await self._state.change(start, snapshot)
        change.entries |= place.became
        state = await self._required(snapshot, wanted, view.held_state, change, whole=told is None)
        state |= place.became
        flushes = told is None or timeline.limited
        lazily = wanted.lazy_members and not flushes
        gone = [key for key in change.gone if wanted.matches(key) or (lazily and key[0] == MEMBER)]
        if wanted.lazy_members:
            known = frozenset[int]() if flushes else view.known_members
            state = {**await self._lazy_members(snapshot, timeline, change, known), **state}
        fields: dict[str, Any] = {}
        if told is None:
            fields["initial"] = True
        if told is None or row.stream_id > told:
            fields["membership"] = row.membership
        fields |= await self._metadata.of(
            row, snapshot, change, whole=told is None, may_count_otherwise=timeline.may_change_summary
        )
        stamp = await self._stamp(row, place.end)
        if told is None or stamp > told:
            fields["bump_stamp"] = stamp
        is_told = bool(state or gone or fields or timeline.events or view.is_dm is not view.was_dm)
        if place.own is not None and is_told:
            state[place.own.event.key] = place.own
        anew = told is None or timeline.limited or expanded
        bundles = anew and any(view.bundling.get(one.event.event_id, True) for one in timeline.events)
        entries = sorted(state.values(), key=_position) if len(state) > 1 else list(state.values())
        rendered = await self._client_events.render(
            [*entries, *timeline.events], requester, room_id=False, aggregate=bundles
        )
        if state or gone:
            stubs = ({"type": key[0], "state_key": key[1]} for key in gone)
            fields["required_state"] = [*rendered[: len(state)], *stubs]
        if timeline.events or timeline.limited or told is None:
            fields["timeline"] = rendered[len(state) :]
            fields["prev_batch"] = self._tokens.page_token(timeline.gap_before, None)
            fields["num_live"] = sum(since is not None and one.stream_id > since for one in timeline.events)
            if timeline.limited:
                fields["limited"] = True
            if expanded:
                fields["expanded_timeline"] = True
        return RoomResult(
            fields,
            is_news=bool(fields.keys() - {"bump_stamp"}),
            events=[one.event.event_id for one in timeline.events],
            since=timeline.gap_before,
            begins=_begins(timeline) if told is None or timeline.limited or expanded else None,
            ends=place.end,
            members={
                one.event_nid for one in (*state.values(), *timeline.events) if one.event.type == MEMBER
            },
            is_new=told is None,
            limit=_limit(view, anew=anew),
            flushes_members=flushes,
        )

    async def _timeline(
        self, row: MembershipRow, view: RoomView, place: _Place, ignored: frozenset[UserId]
    ) -> tuple[Timeline, bool]:
        """The timeline, and whether it reaches behind what the client was told (MSC4186 "Changes to `timeline_limit`")."""
        limit = view.config.timeline_limit

        async def read(after: int) -> Timeline:
            filter_ = _limited_to(limit)
            return await self._timelines.read(
                row.room_nid, row.user_id, after=after, upto=place.end, filter_=filter_, ignored=ignored
            )

        if place.told is None:
            timeline = await read(place.after)
            if not timeline.limited and await self._timelines.begins_in_a_gap(timeline):
                timeline = replace(timeline, limited=True)
            return timeline, False
        if limit > view.limit:
            timeline = await read(0)
            if sum(one.stream_id <= place.told for one in timeline.events) > view.limit:
                return timeline, True
        return await read(place.after), False

    async def _required(
        self,
        snapshot: int,
        wanted: RequiredState,
        held: RequiredState | None,
        change: StateChange,
        *,
        whole: bool,
    ) -> dict[StateKey, StoredEvent]:
        if whole:
            return await self._state.whole(snapshot, wanted)
        state = {key: one for key, one in change.entries.items() if wanted.matches(key)}
        if held is not None and not held.covers(wanted):
            state |= await self._state.whole(snapshot, wanted, but=held)
        return state

    async def _lazy_members(
        self, snapshot: int, timeline: Timeline, change: StateChange, known: Collection[int]
    ) -> dict[StateKey, StoredEvent]:
        """MSC4186 "Lazy loaded memberships"."""
        needed: set[str] = {stored.event.sender for stored in timeline.events}
        needed |= {
            stored.event.state_key
            for stored in timeline.events
            if stored.event.type == MEMBER and stored.event.state_key is not None
        }
        members = {
            key: one
            for key, one in (await self._state.members(snapshot, sorted(needed))).items()
            if one.event_nid not in known
        }
        if not timeline.limited:
            members |= {key: one for key, one in change.entries.items() if key[0] == MEMBER}
        return members

    async def _stamp(self, row: MembershipRow, end: int) -> int:
        """ "For rooms that the user is not currently joined to, this instead represents when the relevant membership
        happened."
        """
        return await self._bump_stamps.of(row.room_nid, end) if row.membership == "join" else row.stream_id


def _position(stored: StoredEvent) -> int:
    return stored.stream_id


def _limit(view: RoomView, *, anew: bool) -> int:
    """So many of the newest events the client has been told of, whatever comes later."""
    return view.config.timeline_limit if anew else max(view.config.timeline_limit, view.limit)


def _begins(timeline: Timeline) -> int:
    return timeline.gap_before if timeline.limited else timeline.begins_after


@lru_cache
def _limited_to(limit: int) -> RoomEventFilter:
    return RoomEventFilter(limit=limit)
