"""The one door by which an event of this server's users enters a room.

An event is built on the room's head in memory, authorised, hashed and signed under the room's lock; the lock is
given back before the commit, so that the next event of the room can join the same commit. If a commit fails or
another process wrote first, the head is dropped and the event is built anew.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from crypto import base64
from homeserver.errors import BadJson, Forbidden, MatrixError, NotFound, TooLarge
from homeserver.eventgraph.auth_rules import auth_types_for, check_auth_rules
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.checks import MAX_PREV_EVENTS, check_format, check_size
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.eventgraph.hashing import reference_hash
from homeserver.ids import EventId, RoomId, random_string
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS, Head, LiveRoom, LiveRooms, SnapshotReference
from homeserver.services.prepared_events import PreparedEvent, RoomWrite, Verdict
from homeserver.storage.rooms import Extremity
from homeserver.storage.transaction_ids import transaction_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from crypto.keys import SigningKey
    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import DeviceId, ServerName, UserId
    from homeserver.services.event_preparation import EventPreparation
    from homeserver.services.room_writes import RoomWrites
    from homeserver.storage.database import Transaction
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent

_ATTEMPTS = 20


class PolicedRooms(Protocol):
    """Sends events into rooms that have a policy server."""

    async def covers(self, room: LiveRoom) -> bool:
        """Whether a room has one."""
        ...

    async def write_all(
        self,
        room: LiveRoom,
        events: Sequence[NewEvent],
        transaction: TransactionReference | None,
        extra: Callable[[Transaction, RoomId], Awaitable[None]] | None,
    ) -> list[EventId]:
        """Send events; raises as `EventWriter.write_all` does."""
        ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that somebody wants to send."""

    type: str
    content: dict[str, Any]
    sender: UserId
    state_key: str | None = None
    redacts: EventId | None = None
    origin_server_ts: int | None = None


@dataclass(frozen=True, slots=True)
class TransactionReference:
    """The transaction id of a client's request, unique within its user, device and endpoint."""

    device_id: DeviceId | None
    endpoint: str
    transaction_id: str


class EventWriter:
    """Builds, authorises and signs events, and has them committed."""

    def __init__(
        self,
        server_name: ServerName,
        key: SigningKey,
        clock: Clock,
        live_rooms: LiveRooms,
        events: EventStore,
        preparation: EventPreparation,
        writes: RoomWrites,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._clock = clock
        self._live_rooms = live_rooms
        self._events = events
        self._preparation = preparation
        self._writes = writes
        self._created_ts = 0
        self.policed: PolicedRooms | None = None
        """Sends what is sent into rooms that have a policy server."""

    async def write(
        self, room_id: RoomId, new: NewEvent, *, transaction: TransactionReference | None = None
    ) -> EventId:
        """Send one event; the answer is its id, and it is durable.

        A repeated transaction id answers with the event that it made the first time. A state event that equals
        the current one is not sent again: the answer is the id of the current one.

        Raises `NotFound` for an unknown room, `Forbidden` where the authorisation rules refuse, `BadJson` and
        `TooLarge` for what cannot be an event.
        """
        event_id = (await self.write_all(room_id, [new], transaction=transaction))[-1]
        return event_id

    async def write_all(
        self,
        room_id: RoomId,
        events: Sequence[NewEvent],
        *,
        transaction: TransactionReference | None = None,
        extra: Callable[[Transaction, RoomId], Awaitable[None]] | None = None,
    ) -> list[EventId]:
        """Send several events of one room in one transaction: all of them, or none.

        Only where a policy server must sign each they are sent one by one.
        """
        for _ in range(_ATTEMPTS):
            room = await self._live_rooms.get(room_id)
            if self.policed is not None and await self.policed.covers(room):
                return await self.policed.write_all(room, events, transaction, extra)
            async with room.lock:
                head = await self._live_rooms.load_head(room)
                generation = room.generation
                prepared: list[PreparedEvent] = []
                event_ids: list[EventId] = []
                built_head = head
                try:
                    for new in events:
                        # What comes with them is to be written even where the state is so already.
                        current = await self.current_equal(room, new) if extra is None else None
                        if current is not None:
                            event_ids.append(current)
                            continue
                        event, built_head = await self._prepare(room, built_head, new)
                        prepared.append(event)
                        event_ids.append(event.event.event_id)
                except BaseException:
                    # What was built so far is not going to be written.
                    if prepared:
                        room.invalidate()
                    raise
                if generation != room.generation:
                    # The state that was prepared counts as pending, and is not going to be written.
                    room.invalidate()
                    continue
                if not prepared:
                    return event_ids
                room.head = built_head
                write = self._enqueue(
                    room,
                    generation,
                    head.head_version,
                    built_head,
                    prepared,
                    transaction,
                    events[-1].sender,
                    extra,
                )
            outcome = await self._writes.finish(write)
            if outcome.verdict is Verdict.WRITTEN:
                return event_ids
            if outcome.verdict is Verdict.REPEATED and outcome.event_id is not None:
                return [outcome.event_id]
        message = "The room is too busy"
        raise MatrixError(message, status=503, errcode="M_UNKNOWN")

    async def draft(self, room_id: RoomId, new: NewEvent) -> Event:
        """An event on the head of a room, allowed and signed but not sent: another server is to see it first.

        It enters the room by `InboundEvents.place`. Raises as `write` does.
        """
        room = await self._live_rooms.get(room_id)
        async with room.lock:
            # It must not follow what may yet fail.
            await self._writes.settle(room)
            head = await self._live_rooms.load_head(room)
            auth_keys = _auth_keys(room.version, new)
            state = await self._live_rooms.state_to_build_on(room, {*auth_keys, CREATE, POWER_LEVELS})
            if new.redacts is not None:
                await self._redacted(room, state, new)
            event = self._build(room, head, new, auth_keys, state)
        try:
            check_auth_rules(event, state)
        except AuthRuleViolated as error:
            raise Forbidden(str(error)) from error
        return event

    async def create_room(
        self,
        version: RoomVersion,
        events: Sequence[NewEvent],
        *,
        extra: Callable[[Transaction, RoomId], Awaitable[None]] | None = None,
    ) -> RoomId:
        """Make a room out of its first events, `m.room.create` at their head: all of them, or nothing.

        `extra` writes what belongs to the new room (an alias, its place in the directory) in the same transaction.
        """
        room_id = None
        if not version.room_id_is_create_hash:
            room_id = RoomId(f"!{random_string(18)}:{self._server_name}")
        head = Head(0, (), 0, SnapshotReference(None))
        room = LiveRoom(0, room_id or RoomId(""), version)
        async with room.lock:
            # Known to be empty: nothing is looked up in the database.
            room.state = _EmptyState()
            prepared = []
            first = replace(events[0], origin_server_ts=self._creation_ts())
            for new in (first, *events[1:]):
                event, head = await self._prepare(room, head, new)
                room.room_id = event.event.room_id
                prepared.append(event)
            room.head = head
            write = self._enqueue(room, 0, None, head, prepared, None, events[0].sender, extra)
        outcome = await self._writes.finish(write)
        if outcome.verdict is not Verdict.WRITTEN:
            message = "The room could not be created"
            raise MatrixError(message, status=500)
        room.state = dict(room.state)
        self._live_rooms.add(room)
        return room.room_id

    def _creation_ts(self) -> int:
        """The time of a new room, never the same twice: else two that are made alike would have one id."""
        self._created_ts = max(self._clock.now_ms(), self._created_ts + 1)
        return self._created_ts

    # -- building --------------------------------------------------------------------------------------

    async def current_equal(self, room: LiveRoom, new: NewEvent) -> EventId | None:
        """The event that has set an entry of the state already as this one would."""
        if new.state_key is None:
            return None
        key = (new.type, new.state_key)
        current = (await self._live_rooms.state_to_build_on(room, [key])).get(key)
        if current is None or key in room.pending:
            return None
        if current.sender == new.sender and current.content == new.content:
            return current.event_id
        return None

    async def _prepare(self, room: LiveRoom, head: Head, new: NewEvent) -> tuple[PreparedEvent, Head]:
        """Build one event on a head, authorise it, and say what the head is after it."""
        version = room.version
        if new.type == "m.room.create" and head.extremities:
            message = "A room has one create event"
            raise Forbidden(message)
        auth_keys = _auth_keys(version, new)
        keys = {*auth_keys, CREATE, POWER_LEVELS}
        if new.state_key is not None:
            keys.add((new.type, new.state_key))
        state = await self._live_rooms.state_to_build_on(room, keys)
        redacted = await self._redacted(room, state, new) if new.redacts is not None else None
        event = self._build(room, head, new, auth_keys, state)
        try:
            check_auth_rules(event, state)
        except AuthRuleViolated as error:
            raise Forbidden(str(error)) from error
        prepared = await self._preparation.prepare(room, event, state, before=head.snapshot, target=redacted)
        if new.state_key is not None:
            room.pending[event.key] = event
        sha256 = (
            base64.encode_unpadded(reference_hash(version, event.pdu))
            if version.event_ids_are_given
            else None
        )
        after = Head(
            # Unique, so that nothing built on a head that never came to be is ever taken for built on this one.
            secrets.randbits(62),
            (*head.extremities[:-MAX_PREV_EVENTS], Extremity(event.event_id, sha256)),
            event.depth,
            prepared.state_after,
        )
        return prepared, after

    def _build(
        self,
        room: LiveRoom,
        head: Head,
        new: NewEvent,
        auth_keys: frozenset[StateKey],
        state: dict[StateKey, Event],
    ) -> Event:
        version = room.version
        auth_events = [
            state[key]
            for key in sorted(auth_keys)
            if key in state and not (version.room_id_is_create_hash and key == CREATE)
        ]
        try:
            event = build(
                version,
                room_id=None
                if new.type == "m.room.create" and version.room_id_is_create_hash
                else room.room_id,
                sender=new.sender,
                type=new.type,
                state_key=new.state_key,
                content=new.content,
                origin_server_ts=new.origin_server_ts or self._clock.now_ms(),
                depth=head.depth + 1,
                prev_events=[
                    EventReference(extremity.event_id, extremity.sha256)
                    for extremity in head.extremities[-MAX_PREV_EVENTS:]
                ],
                auth_events=[_reference(event) for event in auth_events],
                redacts=new.redacts,
                server_name=self._server_name,
                key=self._key,
                event_id=EventId(f"${random_string(32)}:{self._server_name}")
                if version.event_ids_are_given
                else None,
            )
            check_format(version, event.pdu)
            check_size(event.json)
        except EventRefused as error:
            raise (TooLarge if error.too_large else BadJson)(str(error)) from error
        return event

    async def _redacted(self, room: LiveRoom, state: dict[StateKey, Event], new: NewEvent) -> StoredEvent:
        """The event that a redaction is of; raises unless the sender may redact it."""
        assert new.redacts is not None
        target = await self._events.get(new.redacts)
        if target is None or target.room_nid != room.room_nid:
            message = "The event to redact is not in this room"
            raise NotFound(message)
        levels = room.power_levels(state[CREATE], state.get(POWER_LEVELS))
        if target.event.sender != new.sender and levels.user_level(new.sender) < levels.required_for(
            "redact"
        ):
            message = "You may not redact other people's events in this room"
            raise Forbidden(message)
        return target

    # -- committing ------------------------------------------------------------------------------------

    def _enqueue(
        self,
        room: LiveRoom,
        generation: int,
        built_on: int | None,
        head: Head,
        prepared: list[PreparedEvent],
        transaction: TransactionReference | None,
        sender: UserId,
        extra: Callable[[Transaction, RoomId], Awaitable[None]] | None,
    ) -> RoomWrite:
        write = RoomWrite(
            room=room,
            generation=generation,
            built_on=built_on,
            head=head,
            events=prepared,
            done=asyncio.get_running_loop().create_future(),
            created_ts=self._clock.now_ms(),
            extra=extra,
            goes_out=True,
        )
        if transaction is not None:
            write.device_id = transaction.device_id
            write.transaction_id = transaction.transaction_id
            write.transaction_key = transaction_key(
                sender, transaction.device_id, transaction.endpoint, transaction.transaction_id
            )
        self._writes.enqueue(write)
        return write


class _EmptyState(dict[Any, Any]):
    """The state of a room that is being made: what is not there is known not to be there."""

    def __missing__(self, key: object) -> None:
        return None


def _auth_keys(version: RoomVersion, new: NewEvent) -> frozenset[StateKey]:
    try:
        return auth_types_for(
            version, type=new.type, state_key=new.state_key, sender=new.sender, content=new.content
        )
    except (AuthRuleViolated, EventRefused) as error:
        raise Forbidden(str(error)) from error


def _reference(event: Event) -> EventReference:
    sha256 = (
        base64.encode_unpadded(reference_hash(event.version, event.pdu))
        if event.version.event_ids_are_given
        else None
    )
    return EventReference(event.event_id, sha256)
