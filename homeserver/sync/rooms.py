"""The sections of `rooms` in a classic sync: joined, left, invited and knocked rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.storage.state import GONE
from homeserver.views.client_events import stripped, stripped_state_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.requester import Requester
    from homeserver.storage.events import EventStore, StoredEvent
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.storage.state import StateStore
    from homeserver.sync.timeline import Timeline, TimelineReader
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.filters import SyncFilter
    from homeserver.views.tokens import Tokens

HEROES = 5


@dataclass(frozen=True, slots=True)
class Interval:
    """What an answer covers: everything after `since` up to `upto`; `since` is None in a first sync."""

    since: int | None
    upto: int
    full_state: bool
    state_name: str

    @property
    def use_state_after(self) -> bool:
        """Whether the state is that after the timeline (MSC4222)."""
        return self.state_name != "state"


@dataclass(frozen=True, slots=True)
class RoomStores:
    """What rooms are read from."""

    reader: RoomReader
    events: EventStore
    state: StateStore
    memberships: MembershipStore
    numbers: NumberStore


class RoomSections:
    """Builds the part of an answer that is about one room."""

    def __init__(
        self, stores: RoomStores, timelines: TimelineReader, client_events: ClientEvents, tokens: Tokens
    ) -> None:
        self._stores = stores
        self._timelines = timelines
        self._client_events = client_events
        self._tokens = tokens

    async def joined(
        self,
        requester: Requester,
        row: MembershipRow,
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        newly_joined: bool,
        ignored: frozenset[UserId],
    ) -> tuple[dict[str, Any], Timeline]:
        """Timeline, state and summary of a joined room.

        In a room that is new to the client the whole state comes; otherwise what changed before the timeline.
        """
        full = interval.since is None or newly_joined or interval.full_state
        after = 0 if interval.since is None or newly_joined else interval.since
        timeline = await self._timelines.read(
            row.room_nid,
            requester.user_id,
            after=after,
            upto=interval.upto,
            filter_=sync_filter.room.timeline,
            limit=sync_filter.room.timeline.limit,
            ignored=ignored,
        )
        state = await self._state(requester, row.room_nid, timeline, after, interval, sync_filter, full=full)
        section = await self._section(requester, timeline, state, interval)
        if full or timeline.limited or _has_members(timeline.events) or _has_members(state):
            section["summary"] = await self._summary(requester.user_id, row)
            if sync_filter.room.state.lazy_load_members:
                missing = await self._members_of(
                    row, section["summary"]["m.heroes"], timeline, state, interval
                )
                if missing:
                    section[interval.state_name]["events"] += await self._client_events.render(
                        missing, requester, room_id=False, aggregate=False
                    )
        return section, timeline

    async def left(
        self,
        requester: Requester,
        row: MembershipRow,
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        was_joined: bool,
        ignored: frozenset[UserId],
    ) -> dict[str, Any]:
        """A room that the user left, or was thrown out of: history stops at the event that took them out."""
        if was_joined:
            after = interval.since or 0
        else:
            # Somebody who never was in the room sees the event that says so, and nothing of the room.
            after = row.stream_id - 1
        timeline = await self._timelines.read(
            row.room_nid,
            requester.user_id,
            after=after,
            upto=min(interval.upto, row.stream_id),
            filter_=sync_filter.room.timeline,
            limit=sync_filter.room.timeline.limit,
            ignored=ignored,
        )
        state: list[StoredEvent] = []
        if was_joined:
            full = interval.since is None or interval.full_state
            ended = Interval(
                interval.since, min(interval.upto, row.stream_id), interval.full_state, interval.state_name
            )
            state = await self._state(requester, row.room_nid, timeline, after, ended, sync_filter, full=full)
        return await self._section(requester, timeline, state, interval)

    async def invited(self, requester: Requester, row: MembershipRow) -> dict[str, Any]:
        """An invite: the stripped state that lets the client show what it is to."""
        return {"invite_state": {"events": await self._stripped_state(requester.user_id, row)}}

    async def knocked(self, requester: Requester, row: MembershipRow) -> dict[str, Any]:
        """A knock of the user's own."""
        return {"knock_state": {"events": await self._stripped_state(requester.user_id, row)}}

    # -- parts -----------------------------------------------------------------------------------------

    async def _section(
        self, requester: Requester, timeline: Timeline, state: Sequence[StoredEvent], interval: Interval
    ) -> dict[str, Any]:
        return {
            "timeline": {
                "events": await self._client_events.render(timeline.events, requester, room_id=False),
                "limited": timeline.limited,
                "prev_batch": self._tokens.page_token(timeline.gap_before, None),
            },
            interval.state_name: {
                "events": await self._client_events.render(state, requester, room_id=False, aggregate=False)
            },
        }

    async def _state(
        self,
        requester: Requester,
        room_nid: int,
        timeline: Timeline,
        after: int,
        interval: Interval,
        sync_filter: SyncFilter,
        *,
        full: bool,
    ) -> list[StoredEvent]:
        """The state that the client needs: up to the start of the timeline, or to its end for `state_after`."""
        if not full and not timeline.limited and not timeline.events:
            return []
        if interval.use_state_after or not timeline.events:
            end = await self._stores.events.get_snapshot_at(room_nid, interval.upto)
        else:
            end = timeline.events[0].state_before
        lazy = sync_filter.room.state.lazy_load_members
        if full:
            numbers = await self._full_state(requester, end, timeline, lazy=lazy)
        else:
            start = await self._stores.events.get_snapshot_at(room_nid, after)
            numbers = await self._stores.state.load_difference(start, end)
            if lazy:
                numbers |= await self._member_numbers(
                    end, {stored.event.sender for stored in timeline.events}
                )
        events = await self._stores.events.load_numbered(n for n in numbers.values() if n != GONE)
        wanted = sync_filter.room.state
        return [stored for stored in events.values() if wanted.allows(stored.event)]

    async def _full_state(
        self, requester: Requester, snapshot_nid: int, timeline: Timeline, *, lazy: bool
    ) -> dict[int, int]:
        if snapshot_nid == 0:
            return {}
        numbers = await self._stores.state.load_numbers(snapshot_nid)
        if not lazy:
            return numbers
        keys = await self._stores.state.load_keys(numbers)
        wanted = {requester.user_id, *(stored.event.sender for stored in timeline.events)}
        return {
            key_nid: event_nid
            for key_nid, event_nid in numbers.items()
            if keys[key_nid][0] != "m.room.member" or keys[key_nid][1] in wanted
        }

    async def _member_numbers(self, snapshot_nid: int, user_ids: Iterable[str]) -> dict[int, int]:
        numbers: dict[int, int] = {}
        if snapshot_nid == 0:
            return numbers
        for user_id in user_ids:
            key_nid = await self._stores.numbers.key_number(("m.room.member", user_id))
            event_nid = (
                await self._stores.state.get_number(snapshot_nid, key_nid) if key_nid is not None else None
            )
            if key_nid is not None and event_nid is not None:
                numbers[key_nid] = event_nid
        return numbers

    async def _summary(self, user_id: UserId, row: MembershipRow) -> dict[str, Any]:
        """Heroes and member counts (CS `GET /sync`, "RoomSummary")."""
        memberships = self._stores.memberships
        heroes = await memberships.load_first_members(row.room_nid, ("join", "invite"), user_id, HEROES)
        if not heroes:
            heroes = await memberships.load_first_members(row.room_nid, ("leave", "ban"), user_id, HEROES)
        joined, invited = await memberships.count(row.room_nid)
        return {"m.heroes": heroes, "m.joined_member_count": joined, "m.invited_member_count": invited}

    async def _members_of(
        self,
        row: MembershipRow,
        heroes: Sequence[UserId],
        timeline: Timeline,
        state: Sequence[StoredEvent],
        interval: Interval,
    ) -> list[StoredEvent]:
        """The member events of heroes that the answer does not hold yet."""
        known = {s.event.state_key for s in (*timeline.events, *state) if s.event.type == "m.room.member"}
        missing = [user_id for user_id in heroes if user_id not in known]
        if not missing:
            return []
        snapshot = await self._stores.events.get_snapshot_at(row.room_nid, interval.upto)
        numbers = await self._member_numbers(snapshot, missing)
        return list((await self._stores.events.load_numbered(numbers.values())).values())

    async def _stripped_state(self, user_id: UserId, row: MembershipRow) -> list[dict[str, Any]]:
        keys: Sequence[StateKey] = stripped_state_keys(user_id, row.sender)
        state: Mapping[StateKey, Any] = await self._stores.reader.state_entries(row.room_id, keys)
        return [stripped(state[key]) for key in dict.fromkeys(keys) if key in state]


def _has_members(events: Sequence[StoredEvent]) -> bool:
    return any(stored.event.type == "m.room.member" for stored in events)
