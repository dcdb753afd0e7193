"""What is decided about an event, besides whether it may be sent, before it is stored: from memory where a room is warm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.redaction import redact
from homeserver.ids import MAX_ID_BYTES, EventId, is_event_id, server_name_of
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS, SnapshotReference
from homeserver.services.prepared_events import PreparedEvent
from homeserver.views.push_rules import EVERYBODY, evaluate_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent


class EventPreparation:
    """Prepares the rows of events."""

    def __init__(self, server_name: ServerName, live_rooms: LiveRooms, events: EventStore) -> None:
        self._server_name = server_name
        self._live_rooms = live_rooms
        self._events = events

    async def prepare(
        self,
        room: LiveRoom,
        event: Event,
        state: Mapping[StateKey, Event],
        *,
        before: SnapshotReference,
        target: StoredEvent | None,
    ) -> PreparedEvent:
        """Prepare an event that was allowed.

        `state` holds the create event, the power levels and the entry that the event replaces, as far as they
        exist; `before` is the snapshot before the event, `target` the event that it takes the content of.
        """
        prepared = PreparedEvent(
            event=event,
            state_before=before,
            state_after=before if event.state_key is None else SnapshotReference(None),
            replaces=None if event.state_key is None else state.get(event.key),
            relation=relation_of(event),
            redaction=None
            if target is None or target.redacted_by is not None
            else (target, redacted_form(target.event)),
        )
        if prepared.relation is not None:
            prepared.thread_root = await self._thread_root(prepared.relation)
        levels = room.power_levels(state[CREATE], state.get(POWER_LEVELS)) if CREATE in state else None
        if levels is not None:
            verdict = evaluate_defaults(event, levels)
            prepared.notifies = verdict.notifies
            prepared.highlights = await self._members_of_ours(room, verdict.highlights)
        return prepared

    async def _members_of_ours(self, room: LiveRoom, highlights: frozenset[str]) -> frozenset[str]:
        """Those for whom a highlight is kept: members who are users of this server, or `EVERYBODY`."""
        if not highlights - {EVERYBODY}:
            return highlights
        ours = [
            ("m.room.member", user_id)
            for user_id in highlights - {EVERYBODY}
            if server_name_of(user_id) == self._server_name
        ]
        state = await self._live_rooms.state_to_build_on(room, ours)
        members = {user_id for (_, user_id), event in state.items() if event.membership == "join"}
        return frozenset(members) | (highlights & {EVERYBODY})

    async def _thread_root(self, relation: tuple[EventId, str]) -> EventId | None:
        """The thread that an event belongs to: by its own relation, or by that of the event it relates to."""
        relates_to, relation_type = relation
        if relation_type == "m.thread":
            return relates_to
        parent = await self._events.get(relates_to)
        return parent.thread_root if parent is not None else None


def redacted_form(event: Event) -> Event:
    """The redacted form of an event."""
    return Event.from_json(event.version, redact(event.version, event.pdu), event_id=event.event_id)


def relation_of(event: Event) -> tuple[EventId, str] | None:
    """Where an event points to by `m.relates_to` (CS "Forming relationships between events"); never for state."""
    relates_to = event.content.get("m.relates_to")
    if event.state_key is not None or not isinstance(relates_to, dict):
        return None
    event_id, relation_type = relates_to.get("event_id"), relates_to.get("rel_type")
    if not isinstance(event_id, str) or not isinstance(relation_type, str):
        return None
    if not is_event_id(event_id) or len(relation_type.encode()) > MAX_ID_BYTES:
        return None
    return EventId(event_id), relation_type
