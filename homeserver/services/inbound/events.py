"""An event of another server enters a room (SS "Checks performed on receipt of a PDU", steps 4 to 6).

One that follows all that stands in the room takes the short way, the way of our own events: built on the head in
memory, committed together with what comes at the same time. Any other is stored as an outlier first; then the state
at it and the state of the room are resolved from what is stored, and it gets its place.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from homeserver.eventgraph.auth_rules import auth_types_of, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.rooms.followed import load_followed
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS, DerivedSnapshot, Head, SnapshotReference
from homeserver.rooms.state_resolver import StatePoint
from homeserver.services.inbound.outliers import at_hand_of, cited_by, refusal
from homeserver.services.inbound.short_way import extremity_of, write_of
from homeserver.services.prepared_events import Fork, RoomWrite, Verdict
from homeserver.storage.state import GONE
from homeserver.storage.stored_event import NumberedEvent, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.snapshots import SnapshotWriter
    from homeserver.rooms.state_resolver import StateResolver
    from homeserver.services.event_preparation import EventPreparation
    from homeserver.services.inbound.redactions import InboundRedactions
    from homeserver.services.inbound.room_ends import RoomEnds
    from homeserver.services.inbound.short_way import ShortWay
    from homeserver.services.policy_servers import PolicyServers
    from homeserver.services.prepared_events import Older, PreparedEvent
    from homeserver.services.room_writes import RoomWrites
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.events import EventStore
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.outliers import OutlierStore
    from homeserver.storage.rooms import Extremity

_ATTEMPTS = 20

_log = structlog.get_logger(__name__)


class Unplaceable(Exception):
    """What an event follows or cites is not known here: it has to be fetched first."""


@dataclass(slots=True)
class _Placing:
    """An event on its way to its place, by the long way."""

    room: LiveRoom
    event: Event
    event_nid: int
    before: StatePoint
    is_arrival: bool = False
    """The room begins with it: nothing that stood there before counts."""
    goes_out: bool = False
    older: Older | None = None
    is_recommended: bool = True
    """The room's policy server, if it has one, has signed it."""
    furnish: Callable[[RoomWrite], None] | None = None
    at_hand: Mapping[int, NumberedEvent] = field(default_factory=dict)
    """Events of the state before it that need not be read."""
    snapshots: list[DerivedSnapshot] = field(default_factory=list)

    def reference(self, point: StatePoint) -> SnapshotReference:
        """The snapshot of a state, to be stored if it is none yet."""
        if not point.changes:
            return SnapshotReference(point.snapshot_nid)
        derived = DerivedSnapshot(None, SnapshotReference(point.snapshot_nid), point.changes)
        self.snapshots.append(derived)
        return derived


class InboundEvents:
    """Judges and places events whose signatures are right and whose predecessors are known."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        live_rooms: LiveRooms,
        events: EventStore,
        outliers: OutlierStore,
        gaps: GapStore,
        resolver: StateResolver,
        snapshots: SnapshotWriter,
        preparation: EventPreparation,
        writes: RoomWrites,
        policy: PolicyServers,
        redactions: InboundRedactions,
        short_way: ShortWay,
        ends: RoomEnds,
    ) -> None:
        self._database = database
        self._clock = clock
        self._live_rooms = live_rooms
        self._events = events
        self._outliers = outliers
        self._gaps = gaps
        self._resolver = resolver
        self._snapshots = snapshots
        self._preparation = preparation
        self._writes = writes
        self._policy = policy
        self._redactions = redactions
        self._short_way = short_way
        self._ends = ends
        self.on_forked: Callable[[LiveRoom, int], None] = _nobody_listens
        """Hears how many forward extremities a room has once an event came beside others."""

    async def place(
        self,
        room: LiveRoom,
        event: Event,
        given: Mapping[EventId, StatePoint] | None = None,
        *,
        goes_out: bool = False,
        older: Older | None = None,
        is_recommended: bool = False,
        furnish: Callable[[RoomWrite], None] | None = None,
    ) -> Status:
        """Give an event its place in a room, or say why it has none; when this returns, that is durable.

        `given` has the states after events that it follows and that have no place here; `goes_out` says that it is for
        this server to send the event to the others, as its sender's server leaves it to us. An `older` event stands
        behind the timeline. About one that `is_recommended` no policy server is asked. `furnish` adds to the write what is
        to be written with the event. Raises `Unplaceable` where it follows or cites what is not known.
        """
        stored = await self._events.get(event.event_id)
        if stored is not None and stored.room_nid != room.room_nid:
            # In versions 1 and 2 servers make ids up: this one is taken.
            return Status.REJECTED
        if stored is not None and stored.has_state:
            return stored.status
        if stored is not None:
            # It may have been noted when nobody could judge it.
            event = stored.event
        event.rejected = event.rejected or refusal(event, await self._cited(event)) is not None
        recommended = True
        if not (event.rejected or older or is_recommended):
            signed = await self._policy.recommended(room, event)
            event, recommended = signed or event, signed is not None
        short = stored is None and recommended and not (event.rejected or given or older)
        if short and await self._short_way.place(room, event, goes_out=goes_out, furnish=furnish):
            return Status.TIMELINE
        try:
            point = await self._state_before(room, event, given or {})
        except EventRefused as error:
            _log.info("event_rejected", event_id=event.event_id, reason=str(error))
            return Status.REJECTED
        numbers = await self._database.write(lambda t: self._outliers.insert(t, room.room_nid, [event]))
        placing = _Placing(
            room,
            event,
            numbers[event.event_id],
            point,
            goes_out=goes_out,
            older=older,
            is_recommended=recommended,
            furnish=furnish,
        )
        if event.rejected or not await self.is_allowed(event, point):
            return await self._settle(placing, Status.REJECTED)
        for _ in range(_ATTEMPTS):
            status = await self._place_beside(placing)
            if status is not None:
                return status
        message = "The room is too busy"
        raise Unplaceable(message)

    async def place_in_turn(self, room: LiveRoom, events: Sequence[Event]) -> int:
        """Place events that follow one another and all that stands in the room; how many, from the first on.

        They are committed together. What is left is for `place`, one by one.
        """
        return await self._short_way.place_in_turn(room, events)

    async def arrive(self, room: LiveRoom, event: Event, state: Mapping[StateKey, NumberedEvent]) -> None:
        """Begin a room, or begin it anew, with an event of ours (a join, say) and the state that it came into.

        Where all that the event follows is here, what is known of the state counts more. What was in the room before
        stays, and ends in a gap. Raises `Unplaceable` where the state does not allow the event.
        """
        try:
            before = await self._state_before(room, event, {})
        except Unplaceable:
            before = StatePoint(0, {key: one.event_nid for key, one in state.items()})
        numbers = await self._database.write(lambda t: self._outliers.insert(t, room.room_nid, [event]))
        placing = _Placing(
            room,
            event,
            numbers[event.event_id],
            before,
            is_arrival=True,
            at_hand={one.event_nid: one for one in state.values()},
        )
        if not await self.is_allowed(event, placing.before):
            message = "the state does not allow it"
            raise Unplaceable(message)
        for _ in range(_ATTEMPTS):
            if await self._place_beside(placing) is not None:
                return
        message = "The room is too busy"
        raise Unplaceable(message)

    async def is_allowed(self, event: Event, point: StatePoint) -> bool:
        """Whether the rules allow an event in a state."""
        keys = {*auth_types_of(event), CREATE}
        entries = await self._resolver.entries(point, keys)
        try:
            check_auth_rules(event, {key: stored.event for key, stored in entries.items()})
        except (AuthRuleViolated, EventRefused) as error:
            _log.info("event_rejected", event_id=event.event_id, reason=str(error))
            return False
        return True

    async def _cited(self, event: Event) -> dict[EventId, Event]:
        cited = cited_by([event])
        found = at_hand_of(await self._events.load(cited))
        if cited - found.keys():
            message = f"cites {min(cited - found.keys())}, which is not known"
            raise Unplaceable(message)
        return found

    # -- the long way ----------------------------------------------------------------------------------

    async def _state_before(
        self, room: LiveRoom, event: Event, given: Mapping[EventId, StatePoint]
    ) -> StatePoint:
        """The state before an event: that after those it follows, resolved where they differ.

        Raises `Unplaceable`, and `EventRefused` where it follows an event of another room: the state there is none of
        this room's.
        """
        followed = await self._events.load(event.prev_event_ids)
        if any(one.room_nid != room.room_nid for one in followed.values()):
            raise EventRefused("follows an event of another room")
        points: list[StatePoint] = []
        for event_id in event.prev_event_ids:
            stored = followed.get(event_id)
            point = given.get(event_id)
            if stored is not None and stored.has_state:
                point = StatePoint(stored.state_after)
            if point is None:
                message = f"follows {event_id}, which has no place"
                raise Unplaceable(message)
            if point not in points:
                points.append(point)
        if not points:
            create = (await self._live_rooms.state_entries(room, [CREATE])).get(CREATE)
            if create is not None and create.event_id == event.event_id:
                return StatePoint(0)
            message = "follows nothing"
            raise Unplaceable(message)
        return await self._resolved(room, points)

    async def _resolved(self, room: LiveRoom, points: Sequence[StatePoint]) -> StatePoint:
        if len(points) == 1:
            return points[0]
        try:
            return await self._resolver.resolve(room.version, points)
        except LookupError as error:
            raise Unplaceable(str(error)) from error

    async def _place_beside(self, placing: _Placing) -> Status | None:
        """Place an event beside others, under the room's lock until it is written; None: try again."""
        room, event = placing.room, placing.event
        async with room.lock:
            # What is resolved is read from the database: nothing of the room may be on its way there.
            await self._writes.settle(room)
            stored = await self._events.get(event.event_id)
            if stored is not None and stored.has_state:
                # It came twice at the same time.
                return stored.status
            head = await self._live_rooms.load_head(room)
            generation = room.generation
            keys = {*auth_types_of(event), CREATE, POWER_LEVELS}
            if placing.is_arrival or placing.older:
                entries = await self._resolver.entries(placing.before, keys)
                current = {key: stored.event for key, stored in entries.items()}
            else:
                current = await self._live_rooms.state_entries(room, keys)
            try:
                check_auth_rules(event, current)
            except AuthRuleViolated as error:
                _log.info("event_soft_failed", event_id=event.event_id, reason=str(error))
                return await self._settle(placing, Status.SOFT_FAILED)
            if not placing.is_recommended:
                # Its policy server would not have the room see it: "the homeserver SHOULD soft fail the event".
                return await self._settle(placing, Status.SOFT_FAILED)
            placing.snapshots.clear()
            prepared = await self._prepare_beside(placing, current)
            after = await self._follow(placing, head, prepared)
            if generation != room.generation:
                return None
            write = write_of(room, generation, head, after, prepared, self._clock.now_ms())
            write.extra, write.goes_out = await self._gap_writer(placing), placing.goes_out
            if placing.furnish is not None:
                placing.furnish(write)
            room.head = after
            self._writes.enqueue(write)
            outcome = await self._writes.finish(write)
        if outcome.verdict is not Verdict.WRITTEN:
            return None
        self.on_forked(room, len(after.extremities))
        return Status.TIMELINE

    async def _prepare_beside(self, placing: _Placing, current: Mapping[StateKey, Event]) -> PreparedEvent:
        room, event = placing.room, placing.event
        before = placing.reference(placing.before)
        keys = {CREATE, POWER_LEVELS}
        if event.state_key is not None:
            keys.add(event.key)
        entries = await self._resolver.entries(placing.before, keys)
        state = {key: stored.event for key, stored in entries.items()}
        target = await self._redactions.target(room, event, current)
        prepared = await self._preparation.prepare(room, event, state, before=before, target=target)
        await self._redactions.redact_at_once(room, prepared, current)
        if placing.older:
            prepared.notifies, prepared.highlights = False, frozenset()
        if event.state_key is not None:
            changes = {event.key: placing.event_nid}
            prepared.state_after = DerivedSnapshot(None, before, changes)
            placing.snapshots.append(prepared.state_after)
        return prepared

    async def _follow(self, placing: _Placing, head: Head, prepared: PreparedEvent) -> Head:
        """The head of the room once the event has come, and what that changes in its state."""
        room, event = placing.room, placing.event
        extremities, snapshot, changes = head.extremities, head.snapshot, {}
        left = await self._left(placing, head)
        if left is not None:
            extremities = (*left, extremity_of(event))
            after = placing.before
            if event.state_key is not None:
                after = after.changed({event.key: placing.event_nid})
            stored = await self._events.load([one.event_id for one in left])
            others = dict.fromkeys(one.state_after for one in stored.values())
            now = await self._resolved(room, [*map(StatePoint, others), after])
            old = StatePoint(head.snapshot.snapshot_nid or 0)
            changes = await self._resolver.difference(old, now)
            if not left:
                snapshot = prepared.state_after
            elif changes:
                snapshot = placing.reference(old.changed(changes))
        numbered = await self._numbered(placing, {number for number in changes.values() if number != GONE})
        # Where nothing stood in the room before, nothing need be looked for.
        before = await self._live_rooms.state_entries(room, changes) if head.snapshot.snapshot_nid else {}
        prepared.fork = Fork(
            event_nid=placing.event_nid,
            room_state=snapshot,
            changes={key: (before.get(key), numbered.get(number)) for key, number in changes.items()},
            snapshots=placing.snapshots,
            older=placing.older,
        )
        depth = head.depth if placing.older else max(head.depth, event.depth)
        return Head(secrets.randbits(62), extremities, depth, snapshot)

    async def _numbered(self, placing: _Placing, wanted: set[int]) -> dict[int, NumberedEvent]:
        stored = await self._events.load_numbered(wanted - placing.at_hand.keys())
        found = {number: NumberedEvent(one.event, number) for number, one in stored.items()}
        return {**found, **{number: placing.at_hand[number] for number in wanted & placing.at_hand.keys()}}

    async def _left(self, placing: _Placing, head: Head) -> Sequence[Extremity] | None:
        """The forward extremities that stay beside an event; None where it is to be none itself."""
        if placing.is_arrival:
            return []
        if placing.older:
            return None
        return await self._ends.left(placing.room, placing.event, placing.before, head.extremities)

    async def _gap_writer(self, placing: _Placing) -> Callable[[Transaction, RoomId], Awaitable[None]]:
        missing = await self._missing_before(placing.event)
        room_nid, event = placing.room.room_nid, placing.event
        redacts = event.redacts if await self._redactions.is_early(event) else None

        async def write(transaction: Transaction, _: RoomId) -> None:
            await self._gaps.set(transaction, room_nid, event.event_id, placing.event_nid, missing)
            if placing.is_arrival:
                await self._gaps.set_arrival(transaction, room_nid, event.depth)
            if redacts is not None:
                await self._gaps.add_early_redaction(transaction, room_nid, redacts, event.event_id)

        return write

    async def _missing_before(self, event: Event) -> list[EventId]:
        followed = await load_followed(self._events, event)
        return [event_id for event_id, one in followed.items() if one is None or not one.has_state]

    async def _settle(self, placing: _Placing, status: Status) -> Status:
        """Store what became of an event that gets no place in the timeline, with the state at it."""
        event = placing.event
        placing.snapshots.clear()
        before = placing.reference(placing.before)
        after = before
        if event.state_key is not None and status is Status.SOFT_FAILED:
            # Others may build on it, and their state counts it in.
            after = DerivedSnapshot(None, before, {event.key: placing.event_nid})
            placing.snapshots.append(after)
        snapshots = tuple(placing.snapshots)
        missing = await self._missing_before(event)

        async def work(transaction: Transaction) -> None:
            await self._snapshots.store(transaction, placing.room.room_nid, snapshots)
            await self._outliers.settle(
                transaction,
                event,
                placing.event_nid,
                status,
                state_before=before.snapshot_nid or 0,
                state_after=after.snapshot_nid or 0,
            )
            await self._gaps.pass_on(transaction, placing.room.room_nid, event.event_id, missing)

        await self._database.write(work)
        return status


def _nobody_listens(room: LiveRoom, number: int) -> None:
    """Until the program has said who listens."""
