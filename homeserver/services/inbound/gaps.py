"""What stands between an event that came and what is known: fetched from those who have it, within bounds.

First the missing events themselves, walking back until they meet what is known. Where the gap is too wide for that,
the state at its near end, so that the room can go on; what is in the gap is paged in when somebody reads back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.receiving import in_order
from homeserver.rooms.live_rooms import CREATE
from homeserver.rooms.state_resolver import StatePoint
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.outliers import cited_by
from homeserver.services.inbound.sources import BoundedSource, SourceFailed, SourceRefused
from homeserver.services.prepared_events import Older
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.rooms.state_resolver import StateResolver
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.inbound.outliers import Outliers
    from homeserver.services.inbound.sources import EventSource
    from homeserver.storage.events import EventStore
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.rooms import RoomStore

_MAX_EVENTS = 2_000
_MAX_SECONDS = 60
_PAGE = 100
_MAX_NAMED = 20
_MAX_STATES = 20
_ONE_BY_ONE = 50
_AT_ONCE = 10
MAX_QUESTIONS = 300
"""So many questions are asked for the sake of one event that came,"""
MAX_SECONDS_IN_ALL = 600.0
"""and so long is waited for the answers: a whole state may take its time."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Effort:
    """What has been spent on one event that came."""

    source: BoundedSource
    deadline: float
    states: dict[EventId, StatePoint] = field(default_factory=dict)


class GapFiller:
    """Places events, and before them what they follow and cite."""

    def __init__(
        self,
        server_name: ServerName,
        clock: Clock,
        rooms: RoomStore,
        events: EventStore,
        gaps: GapStore,
        memberships: MembershipStore,
        resolver: StateResolver,
        outliers: Outliers,
        inbound: InboundEvents,
    ) -> None:
        self._server_name = server_name
        self._clock = clock
        self._rooms = rooms
        self._events = events
        self._gaps = gaps
        self._memberships = memberships
        self._resolver = resolver
        self._outliers = outliers
        self._inbound = inbound

    async def place(self, room: LiveRoom, event: Event, source: EventSource) -> Status:
        """Place an event whose signatures are right; what is missing before it comes from `source`.

        Raises `Unplaceable` or `SourceFailed` where that cannot be had.
        """
        effort = self._effort(source)
        missing = await self._without_state(event.prev_event_ids)
        if missing:
            between = await self._collect(room, event, missing, effort)
            try:
                ordered = in_order(between)
            except EventRefused as error:
                raise Unplaceable(str(error)) from error
            for one in ordered:
                try:
                    await self._place(room, one, effort)
                except (Unplaceable, SourceFailed) as error:
                    _log.info("missing_event_not_placed", event_id=one.event_id, why=str(error))
        try:
            return await self._place(room, event, effort)
        except SourceRefused:
            if not await self._puts_out_the_last(room, event):
                raise
            # Who was put out while this server was away is told no more of the room: what is known of it must do.
            # Nothing here builds on that: who comes back is told the state anew.
            return await self._inbound.place(room, event, await self._as_it_is(room, event))

    async def _puts_out_the_last(self, room: LiveRoom, event: Event) -> bool:
        """Whether somebody else ends the membership of the only user of this server who is in the room."""
        if (
            event.type != "m.room.member"
            or event.membership not in ("leave", "ban")
            or event.sender == event.state_key
        ):
            return False
        ours = await self._memberships.load_local_members(room.room_nid, self._server_name, 2)
        return ours == [event.state_key]

    async def _as_it_is(self, room: LiveRoom, event: Event) -> dict[EventId, StatePoint]:
        """The state of the room as the one after whatever an event follows that has no place here."""
        row = await self._rooms.get(room.room_id)
        assert row is not None
        return dict.fromkeys(await self._without_state(event.prev_event_ids), StatePoint(row.state_snapshot))

    async def place_older(
        self, room: LiveRoom, event_ids: list[EventId], source: EventSource, limit: int
    ) -> int:
        """Place these events and older ones, behind the timeline; how many came.

        The state before the oldest of them comes from the source as well. Raises as `place` does.
        """
        effort = self._effort(source)
        found: dict[EventId, Event] = {}
        pdus = await effort.source.backfill(room.room_id, event_ids, limit)
        await self._add(room, pdus, event_ids, 0, found, backfilled=True)
        came = 0
        ordered = in_order(found)
        missed_at = await self._missed_at(room, ordered)
        for event in ordered:
            try:
                await self._place(room, event, effort, older=Older(missed_at.get(event.event_id)))
            except (Unplaceable, SourceFailed) as error:
                _log.info("older_event_not_placed", event_id=event.event_id, why=str(error))
            else:
                came += 1
        return came

    async def _missed_at(self, room: LiveRoom, ordered: Sequence[Event]) -> dict[EventId, int]:
        """Where these events were first missed: when the first that follows them came over a gap.

        What is from before this server came into the room was not.
        """
        row = await self._rooms.get(room.room_id)
        assert row is not None
        since = [event for event in ordered if event.depth >= row.arrival_depth]
        missed_at = await self._gaps.load_missed_at(room.room_nid, [event.event_id for event in since])
        for event in reversed(since):
            position = missed_at.get(event.event_id)
            if position is not None:
                for event_id in event.prev_event_ids:
                    missed_at[event_id] = min(missed_at.get(event_id, position), position)
        return {event.event_id: missed_at[event.event_id] for event in since if event.event_id in missed_at}

    def _effort(self, source: EventSource) -> _Effort:
        bounded = BoundedSource(source, questions=MAX_QUESTIONS, seconds=MAX_SECONDS_IN_ALL)
        return _Effort(bounded, self._clock.monotonic() + _MAX_SECONDS)

    async def _place(
        self, room: LiveRoom, event: Event, effort: _Effort, *, older: Older | None = None
    ) -> Status:
        await self._fetch_cited(room, event, effort)
        given = {
            event_id: await self._state_after(room, event_id, effort)
            for event_id in await self._without_state(event.prev_event_ids)
        }
        return await self._inbound.place(room, event, given, older=older)

    async def _without_state(self, event_ids: Iterable[EventId]) -> list[EventId]:
        """Those of these events that are not here, or not with the state at them."""
        wanted = list(dict.fromkeys(event_ids))
        stored = await self._events.load(wanted)
        return [one for one in wanted if one not in stored or not stored[one].has_state]

    # -- missing events --------------------------------------------------------------------------------

    async def _collect(
        self, room: LiveRoom, event: Event, missing: Collection[EventId], effort: _Effort
    ) -> dict[EventId, Event]:
        """The events before one, as far back as what is known, or as the bounds allow."""
        row = await self._rooms.get(room.room_id)
        assert row is not None
        found: dict[EventId, Event] = {}
        known = [extremity.event_id for extremity in row.forward_extremities][:_MAX_NAMED]
        try:
            pdus = await effort.source.missing_events(
                room.room_id, earliest=known, latest=[event.event_id], min_depth=row.arrival_depth
            )
            await self._add(room, pdus, missing, row.arrival_depth, found)
        except SourceFailed as error:
            # Others may have heard of them.
            _log.info("missing_events_not_fetched", room_id=room.room_id, why=str(error))
        try:
            while ahead := await self._ahead(missing, found):
                if len(found) >= _MAX_EVENTS or self._clock.monotonic() >= effort.deadline:
                    break
                pdus = await effort.source.backfill(room.room_id, ahead[:_MAX_NAMED], _PAGE)
                depth = row.arrival_depth
                if not await self._add(room, pdus, missing, depth, found, backfilled=True):
                    break
        except SourceFailed as error:
            _log.info("missing_events_not_backfilled", room_id=room.room_id, why=str(error))
        return found

    async def _ahead(self, missing: Collection[EventId], found: dict[EventId, Event]) -> list[EventId]:
        """What is followed and not known, newest followers first."""
        followed = [*missing]
        for one in sorted(found.values(), key=lambda other: -other.depth):
            followed += one.prev_event_ids
        return await self._without_state(one for one in followed if one not in found)

    async def _add(
        self,
        room: LiveRoom,
        pdus: Sequence[Any],
        wanted: Iterable[EventId],
        least_depth: int,
        found: dict[EventId, Event],
        *,
        backfilled: bool = False,
    ) -> bool:
        """Add the events that are new, rightly signed and not from before we came; whether there were any.

        Only those that are `wanted`, or followed by one that is: nobody else's place in the room is for a source to say.
        Events that were `backfilled` may follow and cite more than new ones may: such were taken in once.
        """
        events = await self._outliers.read_many(room.version, room.room_id, pdus, any_references=backfilled)
        new: dict[EventId, Event] = {}
        ahead = [*wanted, *(one for event in found.values() for one in event.prev_event_ids)]
        while ahead and len(found) + len(new) < _MAX_EVENTS:
            event = events.get(ahead.pop())
            if event is None or event.event_id in found or event.event_id in new:
                continue
            if event.depth >= least_depth:
                new[event.event_id] = event
                ahead += event.prev_event_ids
        fresh = [new[one] for one in await self._without_state(new)]
        signed = await self._outliers.rightly_signed(fresh)
        found.update({one.event_id: one for one in fresh if one.event_id in signed})
        return bool(signed)

    # -- what is cited ---------------------------------------------------------------------------------

    async def _fetch_cited(self, room: LiveRoom, event: Event, effort: _Effort) -> None:
        cited = cited_by([event])
        if not cited - (await self._events.load_event_numbers(cited)).keys():
            return
        pdus = await effort.source.event_auth(room.room_id, event.event_id)
        chain: dict[EventId, Event] = {}
        told = await self._outliers.read_many(room.version, room.room_id, pdus)
        ahead = list(cited)
        while ahead:
            one = told.get(ahead.pop())
            if one is not None and one.event_id not in chain:
                chain[one.event_id] = one
                ahead += one.auth_event_ids
        await self._outliers.take(room, chain)

    # -- states ----------------------------------------------------------------------------------------

    async def _state_after(self, room: LiveRoom, event_id: EventId, effort: _Effort) -> StatePoint:
        """The state after an event that has no place here, as the source tells it."""
        known = effort.states.get(event_id)
        if known is not None:
            return known
        if len(effort.states) >= _MAX_STATES:
            message = "the state of too many events is missing"
            raise Unplaceable(message)
        ids = await effort.source.state_ids(room.room_id, event_id)
        await self._fetch(room, event_id, {*ids.state, *ids.auth_chain, event_id}, effort)
        row = await self._rooms.get(room.room_id)
        assert row is not None
        stored = await self._events.load([*ids.state, event_id])
        event = stored.pop(event_id, None) if event_id not in ids.state else stored.get(event_id)
        entries = {
            one.event.key: one.event_nid
            for one in stored.values()
            if one.event.state_key is not None
            and not one.event.rejected
            and one.status is not Status.NOTED
            and one.room_nid == room.room_nid
        }
        here = StatePoint(row.state_snapshot)
        create = (await self._resolver.entries(here, [CREATE])).get(CREATE)
        if create is not None and create.event.event_id == event_id:
            return StatePoint(0, {CREATE: create.event_nid})
        if create is None or entries.get(CREATE) != create.event_nid:
            message = f"the state at {event_id} is not of this room"
            raise SourceFailed(message)
        # Told from the current state, which it mostly equals.
        point = here.changed(await self._resolver.difference(here, StatePoint(0, entries)))
        sets_state = event is not None and event.event.state_key is not None and not event.event.rejected
        if event is not None and sets_state and await self._inbound.is_allowed(event.event, point):
            point = point.changed({event.event.key: event.event_nid})
        effort.states[event_id] = point
        return point

    async def _fetch(self, room: LiveRoom, event_id: EventId, wanted: set[EventId], effort: _Effort) -> None:
        missing = wanted - (await self._events.load_event_numbers(wanted)).keys()
        pdus: list[Any] = []
        if len(missing) > _ONE_BY_ONE:
            state, auth_chain = await effort.source.state(room.room_id, event_id)
            pdus = [*auth_chain, *state]
            missing &= {event_id}
        slots = asyncio.Semaphore(_AT_ONCE)

        async def fetch(one: EventId) -> None:
            async with slots:
                pdus.append(await effort.source.event(room.room_id, one))

        failures = await asyncio.gather(*map(fetch, missing), return_exceptions=True)
        for failure in failures:
            if isinstance(failure, BaseException) and not isinstance(failure, SourceFailed):
                raise failure
        told = await self._outliers.read_many(room.version, room.room_id, pdus)
        await self._outliers.take(room, {one: told[one] for one in told if one in wanted})
