"""The outbox of the sender: what waits for another server is read from the log, from the server's cursor on.

There is no row for an event and a destination: an event goes to the servers that were in its room before it, which
`room_servers` tells, by position. Messages to devices stand in rows of their own until they are acknowledged; of a
device's changes the newest is kept. All three have positions in the one order, so each destination has one cursor.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import orjson

from federation.outgoing import MAX_PDUS, Item, Standing, Waiting
from homeserver.delivery.handover_marks import HandoverMarks
from homeserver.ids import ServerName, server_name_of
from homeserver.storage.handovers import PassedOver
from homeserver.storage.outgoing_events import KEPT_IN_ROOM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from federation.answers import Json
    from homeserver.clock import Clock
    from homeserver.delivery.device_updates import DeviceUpdates
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.destinations import Destination, DestinationStore
    from homeserver.storage.events import EventStore
    from homeserver.storage.handovers import HandoverStore
    from homeserver.storage.outgoing_events import OutgoingEventStore
    from homeserver.storage.outgoing_to_device import OutgoingToDeviceStore

MAX_CAUGHT_UP = KEPT_IN_ROOM
"""So many events a server gets all of that was away."""
_ALIVE_MS = 30 * 24 * 3_600_000
_ALIVE_NOTED_MS = 24 * 3_600_000
_MESSAGES_AT_ONCE = 20
_COUNT_AFTER_LOADS = 20
_MAX_KNOWN = 50_000
_MAX_WHY = 300
_ELSEWHERE_MS = 10_000


class Kind(Enum):
    """What may wait for a destination."""

    EVENTS = auto()
    MESSAGES = auto()
    DEVICES = auto()


_ALL = frozenset(Kind)


class Passing(Protocol):
    """EDUs that tell of this moment."""

    async def take(self, destination: ServerName) -> Sequence[Json]:
        """What there is to tell a destination; it is not told again."""
        ...

    def drop(self, destination: ServerName) -> None:
        """Forget what there is to tell."""


@dataclass(slots=True)
class _State:
    """A destination that this process sends to."""

    stored: Destination
    kinds: set[Kind] = field(default_factory=lambda: set(_ALL))
    """Of which kinds something may wait after the position."""
    news: set[Kind] = field(default_factory=set)
    """Of which kinds something came since the last loading."""
    loads: int = 0
    has_events: bool = False
    has_messages: bool = False
    complete_upto: int | None = None
    """Where the last loading ended, if it was of all that waits."""
    marks: HandoverMarks = field(default_factory=HandoverMarks)


@dataclass(frozen=True, slots=True)
class OutboxStores:
    """What the outbox reads."""

    destinations: DestinationStore
    outgoing_events: OutgoingEventStore
    to_device: OutgoingToDeviceStore
    events: EventStore
    handovers: HandoverStore


class ServerOutbox:
    """What waits for other servers. `process_id` names this process among several on one database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        stores: OutboxStores,
        device_updates: DeviceUpdates,
        passing: Passing,
        process_id: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stores = stores
        self._device_updates = device_updates
        self._passing = passing
        self._process_id = process_id
        self._known: OrderedDict[ServerName, _State] = OrderedDict()
        self.heard_upto = database.position
        """Of everything up to there it was found out which destinations it concerns."""
        # Until when not to ask again whether another process is still there to send.
        self._elsewhere: OrderedDict[ServerName, int] = OrderedDict()

    def mark(self, destination: ServerName, kind: Kind) -> None:
        """Something of a kind may wait for a destination."""
        state = self._known.get(destination)
        if state is not None:
            state.kinds.add(kind)
            state.news.add(kind)

    def is_away(self, destination: ServerName) -> bool:
        """Whether a destination failed when it was last tried."""
        state = self._known.get(destination)
        return state is not None and state.stored.failures > 0

    def is_alive(self, destination: ServerName) -> None:
        """A destination has called."""
        state = self._known.get(destination)
        if state is not None:
            state.stored = replace(state.stored, alive_ts=self._clock.now_ms(), retry_ts=None)

    def forget(self, destination: ServerName) -> None:
        """Look anew how things stand with a destination."""
        self._known.pop(destination, None)

    def forget_all(self) -> None:
        """Find out anew which destinations this process sends to."""
        self._known.clear()
        self._elsewhere.clear()

    # -- what the sender asks --------------------------------------------------------------------------

    async def load_destinations(self) -> Iterable[str]:
        return await self._stores.destinations.load_waiting()

    async def standing(self, destination: str) -> Standing | None:
        state = await self._state(ServerName(destination))
        if state is None:
            self._passing.drop(ServerName(destination))
            return None
        now, stored = self._clock.now_ms(), state.stored
        return Standing(
            stored.failures,
            0.0 if stored.retry_ts is None else max(0.0, (stored.retry_ts - now) / 1000),
            recently_alive=stored.alive_ts is not None and now - stored.alive_ts < _ALIVE_MS,
        )

    async def load(self, destination: str) -> Waiting:
        state = self._known.get(ServerName(destination)) or await self._state(ServerName(destination))
        if state is None:
            return Waiting((), 0)
        items, upto = await self._load_all(state)
        while not items and state.complete_upto is None:
            # Nothing of what was read is for this server: the next, then.
            state.stored = replace(state.stored, position=upto)
            items, upto = await self._load_all(state)
        if not items:
            # In memory only: it saves the reading, and is written with the next delivery.
            state.kinds = set(state.news)
            state.stored = replace(state.stored, position=max(state.stored.position, upto))
        return Waiting(items, upto, await self._passing.take(state.stored.server_name))

    async def _load_all(self, state: _State) -> tuple[list[Item], int]:
        """The oldest of what waits, in order, and up to where this is all."""
        head = self._database.position
        if state.kinds != _ALL:
            # Of a kind that is not read nothing may lie before the cursor that nobody has told of yet.
            head = min(head, self.heard_upto)
        upto = head
        state.news.clear()
        items: list[Item] = []
        for kind, load in (
            (Kind.EVENTS, self._load_events),
            (Kind.MESSAGES, self._load_messages),
            (Kind.DEVICES, self._load_devices),
        ):
            if kind in state.kinds:
                found, complete_upto = await load(state, head)
                items += found
                upto = min(upto, complete_upto)
        state.has_events = any(item.pdu is not None for item in items)
        state.complete_upto = head if upto == head else None
        return sorted((item for item in items if item.position <= upto), key=lambda item: item.position), upto

    async def delivered(self, destination: str, upto: int) -> None:
        state = await self._state(ServerName(destination))
        if state is None:
            return
        if state.complete_upto is not None and upto >= state.complete_upto:
            state.kinds = set(state.news)
        stored, now = state.stored, self._clock.now_ms()
        is_well = stored.failures == 0 and now - (stored.alive_ts or 0) < _ALIVE_NOTED_MS
        if is_well and upto <= stored.position and not state.has_messages:
            return
        await self._write_position(state, upto, now)

    async def failed(self, destination: str, failures: int, retry_seconds: float, why: str) -> None:
        state = await self._state(ServerName(destination))
        if state is None:
            return
        name, now = state.stored.server_name, self._clock.now_ms()
        retry_ts, why = now + round(retry_seconds * 1000), why[:_MAX_WHY]
        self._passing.drop(name)
        await self._database.write(
            lambda t: self._stores.destinations.set_failed(t, name, failures, retry_ts, why, now)
        )
        state.stored = replace(
            state.stored,
            failures=failures,
            retry_ts=retry_ts,
            why=why,
            failing_since_ts=state.stored.failing_since_ts or now,
        )

    async def set_aside(self, destination: str, item: Item, why: str) -> None:
        state = await self._state(ServerName(destination))
        if state is None:
            return
        name, now = state.stored.server_name, self._clock.now_ms()

        async def work(transaction: Transaction) -> None:
            await self._stores.destinations.add_set_aside(transaction, name, item.name)
            if item.pdu is not None:
                refused = PassedOver(item.position, why[:_MAX_WHY])
                await self._stores.handovers.pass_over(transaction, name, item.position - 1, refused)

        await self._write_position(state, item.position, now, work)

    # -- reading ---------------------------------------------------------------------------------------

    async def _state(self, name: ServerName) -> _State | None:
        """How things stand with a destination, if it is one and this process sends to it."""
        state = self._known.get(name)
        if state is not None:
            self._known.move_to_end(name)
            return state
        now = self._clock.now_ms()
        if now < self._elsewhere.get(name, 0):
            return None
        stored = await self._stores.destinations.get(name)
        if stored is None or not await self._claim(stored, now):
            return None
        state = self._known.setdefault(name, _State(stored))
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return state

    async def _claim(self, stored: Destination, now: int) -> bool:
        """Whether this process sends to a destination; if not it is not asked again for a while."""
        name = stored.server_name
        if not self._database.is_shared or stored.process_id == self._process_id:
            return True
        if await self._database.write(
            lambda t: self._stores.destinations.claim(t, name, self._process_id, now)
        ):
            return True
        self._elsewhere[name] = now + _ELSEWHERE_MS
        while len(self._elsewhere) > _MAX_KNOWN:
            self._elsewhere.popitem(last=False)
        return False

    async def _load_events(self, state: _State, head: int) -> tuple[list[Item], int]:
        rows = await self._waiting_events(state, head)
        if len(rows) == MAX_PDUS:
            if state.loads % _COUNT_AFTER_LOADS == 0 and await self._skip(state, head):
                rows = await self._waiting_events(state, head)
            state.loads += 1
        else:
            state.loads = 0
        stored = await self._stores.events.load_numbered(event_nid for _, event_nid in rows)
        items = []
        for position, event_nid in rows:
            if event_nid not in stored:
                continue
            event = stored[event_nid].event
            if server_name_of(event.sender) == state.stored.server_name:
                # Its own, which it left to us to send to the others.
                continue
            edus: Sequence[Json] = ()
            size = len(event.json)
            if event.type == "m.room.member" and event.membership == "join":
                edus, more = await self._device_updates.on_join(state.stored.server_name, stored[event_nid])
                size += more
            items.append(Item(position, event.event_id, event.pdu, edus, size))
        return items, head if len(rows) < MAX_PDUS else rows[-1][0]

    async def _waiting_events(self, state: _State, head: int) -> list[tuple[int, int]]:
        return await self._stores.outgoing_events.load(
            state.stored.server_name,
            after=state.stored.position,
            skip_upto=state.stored.skip_upto,
            upto=head,
            limit=MAX_PDUS,
        )

    async def _skip(self, state: _State, head: int) -> bool:
        """Where more waits than a server gets all of, go on with the newest event of each room."""
        stored = state.stored
        waiting = await self._stores.outgoing_events.count(
            stored.server_name,
            after=max(stored.position, stored.skip_upto),
            upto=head,
            limit=MAX_CAUGHT_UP + 1,
        )
        if waiting <= MAX_CAUGHT_UP:
            return False

        async def work(transaction: Transaction) -> None:
            await self._stores.destinations.skip(transaction, stored.server_name, head)
            await self._stores.handovers.pass_over(
                transaction, stored.server_name, stored.position, PassedOver(head, None)
            )

        await self._database.write(work)
        state.stored = replace(stored, skip_upto=head)
        return True

    async def _load_messages(self, state: _State, head: int) -> tuple[list[Item], int]:
        messages = await self._stores.to_device.load(
            state.stored.server_name, upto=head, limit=_MESSAGES_AT_ONCE
        )
        state.has_messages = bool(messages)
        items = [
            Item(
                message.stream_id,
                f"m.direct_to_device {message.message_id}",
                None,
                ({"edu_type": "m.direct_to_device", "content": orjson.loads(message.content)},),
                len(message.content) + 100,
            )
            for message in messages
        ]
        return items, head if len(messages) < _MESSAGES_AT_ONCE else messages[-1].stream_id

    async def _load_devices(self, state: _State, head: int) -> tuple[list[Item], int]:
        return await self._device_updates.load(
            state.stored.server_name, after=state.stored.position, upto=head
        )

    # -- writing ---------------------------------------------------------------------------------------

    async def _write_position(
        self,
        state: _State,
        upto: int,
        now: int,
        more: Callable[[Transaction], Awaitable[None]] | None = None,
    ) -> None:
        name, stores, has_messages = state.stored.server_name, self._stores, state.has_messages
        hands_over = more is None and state.has_events and upto > state.stored.position

        async def work(transaction: Transaction) -> None:
            await stores.destinations.set_delivered(transaction, name, upto, now)
            if has_messages:
                await stores.to_device.delete_upto(transaction, name, upto)
            if hands_over:
                await state.marks.note(transaction, stores.handovers, name, upto, now)
            if more is not None:
                await more(transaction)

        await self._database.write(work)
        if hands_over:
            state.marks.noted(upto, now)
        state.has_events = state.has_messages = False
        state.stored = replace(
            state.stored,
            position=max(state.stored.position, upto),
            failures=0,
            retry_ts=None,
            why=None,
            failing_since_ts=None,
            alive_ts=now,
        )
