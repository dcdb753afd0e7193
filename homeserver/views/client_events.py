"""The client form of events (CS "Room event format"), put together from ready pieces of JSON.

The part of an event that is the same for every reader is made once and kept as bytes; what depends on the reader
and the moment (`age`, `membership`, `transaction_id`, aggregations) is put behind it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.views.event_fields import select_fields

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from homeserver.services.requester import Requester
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.aggregations import Aggregations
    from homeserver.views.erasure import Erasure
    from homeserver.views.visibility import HistoryVisibility

_STRIPPED_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)

_AT_ONCE = 250


class ClientEvents:
    """Makes the client form of events for a reader."""

    def __init__(
        self,
        clock: Clock,
        events: EventStore,
        visibility: HistoryVisibility,
        aggregations: Aggregations,
        erasure: Erasure,
        cache_bytes: int,
    ) -> None:
        self._clock = clock
        self._events = events
        self._visibility = visibility
        self._aggregations = aggregations
        self._erasure = erasure
        # Event number and whether the room id is in it -> (the event it was made of, the JSON without its end).
        self._cache: OrderedDict[tuple[int, bool], tuple[Event, bytes]] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes

    async def render(
        self,
        events: Sequence[StoredEvent],
        reader: Requester,
        *,
        room_id: bool = True,
        aggregate: bool = True,
        threads: bool = True,
        memberships: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        federation: bool = False,
    ) -> list[orjson.Fragment]:
        """Events of one room as their reader gets them, in the order given.

        `room_id` is left out in `/sync`; `aggregate` and `threads` say what is bundled with them. `memberships` are
        those of the reader at the events, where the caller knows them already. `fields` are those that are wanted, where
        not all are; `federation` asks for the form that servers send each other.
        """
        if memberships is None:
            memberships = await self._visibility.memberships_at(reader.user_id, events)
        events = await self._erasure.apply(events, reader.user_id)
        relations: Mapping[EventId, Any] = {}
        if aggregate:
            relations = await self._aggregations.of(events, reader, self, threads=threads)
        others = await self._load_others(events, reader)
        now = self._clock.now_ms()
        rendered = []
        for index, (stored, membership) in enumerate(zip(events, memberships, strict=True)):
            if index % _AT_ONCE == _AT_ONCE - 1:
                # The members of a big room are many: others get their turn.
                await asyncio.sleep(0)
            event = stored.event
            unsigned: dict[str, Any] = {"age": max(0, now - event.origin_server_ts), "membership": membership}
            if (
                stored.transaction_id is not None
                and stored.device_id == reader.device_id
                and event.sender == reader.user_id
            ):
                unsigned["transaction_id"] = stored.transaction_id
            if event.event_id in relations:
                unsigned["m.relations"] = relations[event.event_id]
            if others:
                _add_others(unsigned, stored, others, room_id=room_id)
            static = _federation_form(event) if federation else self._static(stored, room_id)
            rendered.append(static + b',"unsigned":' + orjson.dumps(unsigned) + b"}")
        if fields is not None:
            rendered = [orjson.dumps(select_fields(orjson.loads(one), fields)) for one in rendered]
        return [orjson.Fragment(one) for one in rendered]

    async def prepare(self, events: Collection[StoredEvent]) -> set[EventId]:
        """Have in memory what events of whatever rooms tell of; the ids of those with which something may be bundled."""
        await self._events.load(_others_of(events))
        return await self._aggregations.among(events)

    async def _load_others(
        self, events: Sequence[StoredEvent], reader: Requester
    ) -> Mapping[EventId, StoredEvent]:
        """The events that these tell of: what they replaced in the state, what redacted them."""
        wanted = _others_of(events)
        if not wanted:
            return {}
        others = await self._erasure.apply((await self._events.load(wanted)).values(), reader.user_id)
        return {stored.event.event_id: stored for stored in others}

    def _static(self, stored: StoredEvent, room_id: bool) -> bytes:
        key = (stored.event_nid, room_id)
        cached = self._cache.get(key)
        if cached is not None and cached[0] is stored.event:
            return cached[1]
        made = orjson.dumps(client_event(stored.event, room_id=room_id))[:-1]
        if cached is not None:
            self._cached_bytes -= len(cached[1]) + 200
            del self._cache[key]
        self._cache[key] = (stored.event, made)
        self._cached_bytes += len(made) + 200
        while self._cached_bytes > self._cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped[1]) + 200
        return made


def _others_of(events: Iterable[StoredEvent]) -> list[EventId]:
    wanted = []
    for stored in events:
        if stored.replaces_state is not None:
            wanted.append(stored.replaces_state)
        if stored.redacted_by is not None:
            wanted.append(stored.redacted_by)
    return wanted


def _federation_form(event: Event) -> bytes:
    """The JSON, without its end, of an event as servers send it, with its id."""
    form = {name: value for name, value in event.pdu.items() if name != "unsigned"}
    return orjson.dumps({**form, "event_id": event.event_id})[:-1]


def _add_others(
    unsigned: dict[str, Any], stored: StoredEvent, others: Mapping[EventId, StoredEvent], *, room_id: bool
) -> None:
    if stored.event.state_key is not None and stored.replaces_state is not None:
        unsigned["replaces_state"] = stored.replaces_state
        previous = others.get(stored.replaces_state)
        if previous is not None:
            unsigned["prev_content"] = previous.event.content
            unsigned["prev_sender"] = previous.event.sender
    redaction = others.get(stored.redacted_by) if stored.redacted_by is not None else None
    if redaction is not None:
        unsigned["redacted_because"] = client_event(redaction.event, room_id=room_id)


def client_event(event: Event, *, room_id: bool = True) -> dict[str, Any]:
    """The client form of an event without `unsigned`."""
    form: dict[str, Any] = {
        "content": event.content,
        "event_id": event.event_id,
        "origin_server_ts": event.origin_server_ts,
        "sender": event.sender,
        "type": event.type,
    }
    if event.state_key is not None:
        form["state_key"] = event.state_key
    if room_id:
        form["room_id"] = event.room_id
    if event.type == "m.room.redaction":
        # Both places, whatever the room version: clients look in either.
        redacts = event.redacts
        if redacts is not None:
            form["redacts"] = redacts
            form["content"] = {**event.content, "redacts": redacts}
    return form


def stripped(event: Event) -> dict[str, Any]:
    """An event of the stripped state (CS "Stripped state")."""
    return {
        "content": event.content,
        "sender": event.sender,
        "state_key": event.state_key,
        "type": event.type,
        "origin_server_ts": event.origin_server_ts,
        "event_id": event.event_id,
    }


def stripped_state_keys(user_id: str, inviter: str) -> list[tuple[str, str]]:
    """The entries of the state that an invited or knocking user is shown."""
    keys = [(event_type, "") for event_type in _STRIPPED_TYPES]
    keys += [("m.room.member", user_id), ("m.room.member", inviter)]
    return keys
