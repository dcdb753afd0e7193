"""The short way of an event of another server into a room: it follows all that stands there.

It is built on the head in memory, as our own events are, and committed together with what comes at the same time. So are
those that come one after the other in one transaction: each is built on the one before, which is still on its way.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from crypto import base64
from homeserver.eventgraph.auth_rules import auth_types_of, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.hashing import reference_hash
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS, Head
from homeserver.services.event_preparation import relation_of
from homeserver.services.inbound.outliers import at_hand_of, cited_by, refusal
from homeserver.services.prepared_events import RoomWrite, Verdict
from homeserver.storage.rooms import Extremity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.event_preparation import EventPreparation
    from homeserver.services.inbound.redactions import InboundRedactions
    from homeserver.services.policy_servers import PolicyServers
    from homeserver.services.prepared_events import PreparedEvent
    from homeserver.services.room_writes import RoomWrites
    from homeserver.storage.events import EventStore

_ATTEMPTS = 20


class ShortWay:
    """Places events at the head of their room."""

    def __init__(
        self,
        clock: Clock,
        live_rooms: LiveRooms,
        events: EventStore,
        preparation: EventPreparation,
        writes: RoomWrites,
        policy: PolicyServers,
        redactions: InboundRedactions,
    ) -> None:
        self._clock = clock
        self._live_rooms = live_rooms
        self._events = events
        self._preparation = preparation
        self._writes = writes
        self._policy = policy
        self._redactions = redactions

    async def place(
        self,
        room: LiveRoom,
        event: Event,
        *,
        goes_out: bool = False,
        furnish: Callable[[RoomWrite], None] | None = None,
    ) -> bool:
        """Place an event that is new and was judged; False where it does not follow all, or is not allowed there."""
        for _ in range(_ATTEMPTS):
            write = await self._enqueue(room, event, goes_out=goes_out, furnish=furnish)
            if write is None:
                return False
            outcome = await self._writes.finish(write)
            if outcome.verdict is Verdict.WRITTEN:
                return True
            if await self._events.get(event.event_id) is not None:
                # Another process was told of it as well.
                return False
        return False

    async def place_in_turn(self, room: LiveRoom, events: Sequence[Event]) -> int:
        """Place as many of these events as follow one another and all that stands in the room; how many that is."""
        # One alone loses nothing by the other way. What is to be read under the lock of the room is left for later.
        if len(events) < 2 or (room.head is not None and not _follows_all(events[0], room.head)):
            return 0
        # Whatever has a row gets its place by the long way, what was only noted as well.
        known = await self._events.load([event.event_id for event in events])
        writes: list[RoomWrite] = []
        under_way: set[EventId] = set()
        for event in events:
            if event.event_id in known or event.event_id in under_way or _names(event, under_way):
                break
            write = await self._judged(room, event)
            if write is None:
                break
            writes.append(write)
            under_way.add(event.event_id)
            if event.state_key is not None:
                # What it changes must be there before others are judged.
                break
        placed = 0
        for write in writes:
            outcome = await self._writes.finish(write)
            if outcome.verdict is not Verdict.WRITTEN:
                break
            placed += 1
        return placed

    async def _judged(self, room: LiveRoom, event: Event) -> RoomWrite | None:
        """Hand an event to the writer that its auth events and the policy server allow, and the state of the room does."""
        cited = cited_by([event])
        found = at_hand_of(await self._events.load(cited))
        if cited - found.keys() or refusal(event, found) is not None:
            return None
        if await self._policy.lacking(room, event) is not None:
            return None
        return await self._enqueue(room, event)

    async def _enqueue(
        self,
        room: LiveRoom,
        event: Event,
        *,
        goes_out: bool = False,
        furnish: Callable[[RoomWrite], None] | None = None,
    ) -> RoomWrite | None:
        """Build an event on the head of its room, and hand it to the writer; None where that cannot be."""
        for _ in range(_ATTEMPTS):
            async with room.lock:
                head = await self._live_rooms.load_head(room)
                if not _follows_all(event, head):
                    return None
                generation = room.generation
                keys = {*auth_types_of(event), CREATE, POWER_LEVELS}
                if event.state_key is not None:
                    keys.add(event.key)
                state = await self._live_rooms.state_to_build_on(room, keys)
                try:
                    check_auth_rules(event, state)
                except AuthRuleViolated:
                    return None
                if await self._redactions.is_early(event):
                    return None
                target = await self._redactions.target(room, event, state)
                prepared = await self._preparation.prepare(
                    room, event, state, before=head.snapshot, target=target
                )
                if generation != room.generation:
                    continue
                if event.state_key is not None:
                    room.pending[event.key] = event
                room.head = Head(
                    secrets.randbits(62),
                    (extremity_of(event),),
                    max(head.depth, event.depth),
                    prepared.state_after,
                )
                write = write_of(room, generation, head, room.head, prepared, self._clock.now_ms())
                write.goes_out = goes_out
                if furnish is not None:
                    furnish(write)
                self._writes.enqueue(write)
                return write
        return None


def write_of(
    room: LiveRoom, generation: int, head: Head, after: Head, prepared: PreparedEvent, now_ms: int
) -> RoomWrite:
    """The write of one event that was built on a head."""
    return RoomWrite(
        room=room,
        generation=generation,
        built_on=head.head_version,
        head=after,
        events=[prepared],
        done=asyncio.get_running_loop().create_future(),
        created_ts=now_ms,
    )


def extremity_of(event: Event) -> Extremity:
    """An event as the end of its room."""
    sha256 = None
    if event.version.event_ids_are_given:
        sha256 = base64.encode_unpadded(reference_hash(event.version, event.pdu))
    return Extremity(event.event_id, sha256)


def _follows_all(event: Event, head: Head) -> bool:
    return {extremity.event_id for extremity in head.extremities} == set(event.prev_event_ids)


def _names(event: Event, others: Collection[EventId]) -> bool:
    """Whether what an event is depends on one of these."""
    relation = relation_of(event)
    return event.redacts in others or (relation is not None and relation[0] in others)
