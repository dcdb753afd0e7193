"""The sections of `rooms` in a classic sync: joined, left, invited and knocked rooms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from homeserver.storage.room_stretch import RoomStretch
from homeserver.views.own_memberships import own_membership

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import EventId, UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.interval import Interval
    from homeserver.sync.moves import Start
    from homeserver.sync.state import StateReader
    from homeserver.sync.stripped_states import StrippedStates
    from homeserver.sync.summaries import Summaries
    from homeserver.sync.timeline import Timeline, TimelineReader
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.filters import SyncFilter
    from homeserver.views.tokens import Tokens
    from homeserver.views.unread import UnreadCounts
    from homeserver.views.visibility import HistoryVisibility

_NAME = ("m.room.name", "")
_SEVERAL = 3
_MEMBER = "m.room.member"
_CANONICAL_ALIAS = ("m.room.canonical_alias", "")


@dataclass(frozen=True, slots=True)
class RoomSection:
    """The section of a room that the user is or was in, and what decides whether it has news."""

    section: dict[str, Any]
    members: set[int]
    """The numbers of the member events in it."""
    left_out: list[RoomStretch]
    """What of the timeline is not in it."""
    brought: RoomStretch
    """What is."""
    is_news: bool
    may_change_counts: bool


class RoomSections:
    """Builds the part of an answer that is about one room."""

    def __init__(
        self,
        recent: RecentEvents,
        timelines: TimelineReader,
        states: StateReader,
        summaries: Summaries,
        client_events: ClientEvents,
        tokens: Tokens,
        stripped_states: StrippedStates,
        visibility: HistoryVisibility,
        unread: UnreadCounts,
    ) -> None:
        self._recent = recent
        self._timelines = timelines
        self._states = states
        self._summaries = summaries
        self._client_events = client_events
        self._tokens = tokens
        self._stripped_states = stripped_states
        self._visibility = visibility
        self._unread = unread

    async def prepare(
        self,
        requester: Requester,
        rows: Sequence[MembershipRow],
        interval: Interval,
        sync_filter: SyncFilter,
    ) -> Mapping[EventId, bool]:
        """Have in memory what is to be read of several joined rooms, by fewer questions than each alone would take.

        The answer says of their newest events whether anything may be bundled with them.
        """
        if len(rows) < _SEVERAL:
            return {}
        limit, upto = sync_filter.room.timeline.limit, interval.upto
        whole = interval.since is None or interval.full_state
        await self._recent.prepare((row.room_nid for row in rows), limit + 1)
        newest = {
            row.room_nid: await self._recent.load(
                row.room_nid, after=max(interval.since or 0, interval.told), upto=upto, limit=limit + 1
            )
            for row in rows
        }
        keys = {
            nid: {_NAME, _CANONICAL_ALIAS, *((_MEMBER, stored.event.sender) for stored in events)}
            for nid, events in newest.items()
        }
        await self._states.prepare({row.room_nid: upto for row in rows}, keys, whole=whole)
        if interval.since is not None and not whole:
            starts = {row.room_nid: interval.since for row in rows}
            await self._recent.prepare_snapshots(starts.items())
            await self._states.prepare(starts, {}, whole=False)
            firsts = {nid: events[-limit:][0].stream_id - 1 for nid, events in newest.items() if events}
            await self._states.prepare(firsts, keys, whole=False)
        await self._visibility.load_histories(rows)
        await self._visibility.prepare(requester.user_id, newest.values())
        if whole or any(len(events) > limit for events in newest.values()):
            await self._summaries.load_counts(newest)
        await self._unread.prepare(requester.user_id, rows, upto=upto)
        shown = [stored for events in newest.values() for stored in events]
        related = await self._client_events.prepare(shown)
        return {stored.event.event_id: stored.event.event_id in related for stored in shown}

    async def joined(
        self,
        requester: Requester,
        row: MembershipRow,
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        came_in: Start | None,
        ignored: frozenset[UserId],
        known_members: frozenset[int],
        bundling: Mapping[EventId, bool],
    ) -> RoomSection:
        """Timeline, state and summary of a joined room.

        The whole state comes where the room is new to the client (`came_in`: the user came into it); otherwise
        what changed. `bundling` says of events whether anything may be bundled with them, as far as that is known.
        """
        whole = interval.since is None or came_in is not None or interval.full_state
        after = came_in.after if came_in is not None else interval.since or 0
        begin = came_in.timeline_after if came_in is not None else max(after, interval.told)
        timeline = await self._timelines.read(
            row.room_nid,
            requester.user_id,
            after=begin,
            upto=interval.upto,
            filter_=sync_filter.room.timeline,
            ignored=ignored,
        )
        overtaken = await self._states.overtaken_upto(row.room_nid, timeline, interval)
        if overtaken:
            timeline = timeline.after(overtaken, interval.upto)
        if begin > after:
            # What is to be said of the events that came by another way is said here.
            timeline = replace(timeline, may_change_summary=True, may_change_counts=True)
        if (came_in is not None and came_in.may_have_gap) or (
            whole and not timeline.limited and await self._timelines.begins_in_a_gap(timeline)
        ):
            timeline = replace(timeline, limited=True)
        timeline = _without_lost_memberships(timeline, row, interval)
        wanted = sync_filter.room.state
        state = await self._states.read(
            requester.user_id,
            row.room_nid,
            timeline,
            interval,
            wanted,
            known_members,
            after=after,
            whole=whole,
        )
        summary: dict[str, Any] | None = None
        if whole or timeline.may_change_summary:
            summary = dict(await self._summaries.counts(row.room_nid))
            if not await self._is_named(row, interval.upto):
                summary["m.heroes"] = await self._summaries.heroes(row.room_nid, requester.user_id)
                if wanted.lazy_load_members:
                    heroes = await self._missing_heroes(row, summary["m.heroes"], timeline, state, interval)
                    state += [stored for stored in heroes if whole or stored.event_nid not in known_members]
        section = await self._section(
            requester,
            timeline,
            state,
            interval,
            sync_filter,
            aggregate=(whole or timeline.limited)
            and any(bundling.get(stored.event.event_id, True) for stored in timeline.events),
        )
        if summary is not None:
            section["summary"] = summary
        return RoomSection(
            section,
            {
                stored.event_nid
                for stored in (*state, *timeline.events)
                if stored.event.type == "m.room.member"
            },
            _left_out(row.room_nid, timeline),
            RoomStretch(row.room_nid, timeline.gap_before, interval.upto),
            is_news=bool(whole or timeline.events or timeline.limited or state or summary),
            may_change_counts=timeline.may_change_counts,
        )

    async def left(
        self,
        requester: Requester,
        row: MembershipRow,
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        start: Start | None,
        told_apart: bool,
        ignored: frozenset[UserId],
    ) -> RoomSection:
        """A room that the user left, or was thrown out of: history stops at the event that took them out.

        Somebody who was not in the room (`start` is None) sees the event that says so and nothing else; its timeline is
        limited where that does not follow what they were told before (`told_apart`). Who has forgotten it is told the end
        of the timeline, which goes on should they come back.
        """
        ended = replace(interval, upto=min(interval.upto, row.stream_id))
        after = start.after if start is not None else row.stream_id - 1
        timeline = await self._timelines.read(
            row.room_nid,
            requester.user_id,
            after=start.timeline_after if start is not None else after,
            upto=ended.upto,
            filter_=sync_filter.room.timeline,
            ignored=ignored,
        )
        timeline = _without_lost_memberships(timeline, row, interval)
        state: list[StoredEvent] = []
        if told_apart or (start is not None and start.may_have_gap):
            timeline = replace(timeline, limited=True)
        if start is not None and not row.forgotten:
            state = await self._states.read(
                requester.user_id,
                row.room_nid,
                timeline,
                ended,
                sync_filter.room.state,
                frozenset(),
                after=after,
                whole=interval.since is None or interval.full_state,
            )
        if not row.forgotten:
            state += await self._untold_membership(row, [*timeline.events, *state], sync_filter)
        return RoomSection(
            await self._section(requester, timeline, state, ended, sync_filter, aggregate=timeline.limited),
            set(),
            _left_out(row.room_nid, timeline),
            RoomStretch(row.room_nid, timeline.gap_before, ended.upto),
            is_news=True,
            may_change_counts=False,
        )

    async def invited(self, row: MembershipRow) -> dict[str, Any]:
        """An invite: the stripped state that lets the client show what it is to."""
        return {"invite_state": {"events": await self._stripped_states.of(row)}}

    async def knocked(self, row: MembershipRow) -> dict[str, Any]:
        """A knock of the user's own."""
        return {"knock_state": {"events": await self._stripped_states.of(row)}}

    # -- parts -----------------------------------------------------------------------------------------

    async def _section(
        self,
        requester: Requester,
        timeline: Timeline,
        state: Sequence[StoredEvent],
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        aggregate: bool,
    ) -> dict[str, Any]:
        fields, federation = sync_filter.event_fields, sync_filter.event_format == "federation"
        return {
            "timeline": {
                # What relates to an event that is not new comes in the timeline itself, unless that has a gap.
                "events": await self._client_events.render(
                    timeline.events,
                    requester,
                    room_id=False,
                    aggregate=aggregate,
                    fields=fields,
                    federation=federation,
                ),
                "limited": timeline.limited,
                "prev_batch": self._tokens.page_token(timeline.gap_before, None),
            },
            interval.state_name: {
                "events": await self._client_events.render(
                    state, requester, room_id=False, aggregate=False, fields=fields, federation=federation
                )
            },
        }

    async def _untold_membership(
        self, row: MembershipRow, told: Sequence[StoredEvent], sync_filter: SyncFilter
    ) -> list[StoredEvent]:
        """What says that the user is out, where nothing of what is told does."""
        if any(stored.event_nid == row.event_nid and _is_own(stored, row) for stored in told):
            return []
        (stored,) = await self._states.numbered([row.event_nid])
        own = own_membership(row, stored)
        return [own] if sync_filter.room.state.allows(own.event) else []

    async def _is_named(self, row: MembershipRow, position: int) -> bool:
        """Whether a room has a name of its own, and needs no heroes to be called after."""
        entries = await self._states.entries(row.room_nid, position, (_NAME, _CANONICAL_ALIAS))
        return any(
            stored.event.content.get("name" if stored.event.key == _NAME else "alias") for stored in entries
        )

    async def _missing_heroes(
        self,
        row: MembershipRow,
        heroes: Sequence[UserId],
        timeline: Timeline,
        state: Sequence[StoredEvent],
        interval: Interval,
    ) -> list[StoredEvent]:
        """The member events of heroes that the answer does not hold yet."""
        held = state if interval.use_state_after else (*timeline.events, *state)
        known = {stored.event.state_key for stored in held if stored.event.type == "m.room.member"}
        missing = [user_id for user_id in heroes if user_id not in known]
        return await self._states.members(row.room_nid, interval.upto, missing) if missing else []


def _is_own(stored: StoredEvent, row: MembershipRow) -> bool:
    return stored.event.state_key is not None and stored.event.key == ("m.room.member", row.user_id)


def _without_lost_memberships(timeline: Timeline, row: MembershipRow, interval: Interval) -> Timeline:
    """A timeline from behind the last membership of the user in it that is not the one that holds.

    That lost in the resolution of a fork, and whoever takes it from the timeline believes it. `/messages` has it.
    """
    own = [stored for stored in timeline.events if _is_own(stored, row)]
    if not own or own[-1].event_nid == row.event_nid or interval.use_state_after:
        return timeline
    lost = own[-1].stream_id
    events = [stored for stored in timeline.events if stored.stream_id > lost]
    return replace(timeline, events=events, limited=True, filtered=True, gap_before=lost)


def _left_out(room_nid: int, timeline: Timeline) -> list[RoomStretch]:
    """The stretches that a timeline leaves out: before its first event, and messages that were not wanted."""
    stretches = [RoomStretch(room_nid, position - 1, position) for position in timeline.unwanted]
    if timeline.limited and timeline.begins_after < timeline.gap_before:
        stretches.append(RoomStretch(room_nid, timeline.begins_after, timeline.gap_before))
    return stretches
