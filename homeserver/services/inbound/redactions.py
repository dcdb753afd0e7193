"""Redactions of other servers, which may come before what they redact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import server_name_of
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS
from homeserver.services.event_preparation import redacted_form
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.prepared_events import PreparedEvent
    from homeserver.storage.events import EventStore
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.stored_event import StoredEvent


class InboundRedactions:
    """What redactions do, by the state of the room when both events are there."""

    def __init__(self, events: EventStore, gaps: GapStore) -> None:
        self._events = events
        self._gaps = gaps

    async def is_early(self, event: Event) -> bool:
        """Whether an event redacts one that has not come yet."""
        if event.type != "m.room.redaction" or event.redacts is None:
            return False
        return await self._events.get(event.redacts) is None

    async def target(
        self, room: LiveRoom, event: Event, state: Mapping[StateKey, Event]
    ) -> StoredEvent | None:
        """The event that this one redacts, where it is here and the sender may redact it."""
        if event.type != "m.room.redaction" or event.redacts is None:
            return None
        target = await self._events.get(event.redacts)
        if target is None or target.room_nid != room.room_nid:
            return None
        return target if _may_redact(room, event, target.event, state) else None

    async def redact_at_once(
        self, room: LiveRoom, prepared: PreparedEvent, state: Mapping[StateKey, Event]
    ) -> None:
        """Take the content of an event whose redaction came before it."""
        event = prepared.event
        early = await self._events.load(await self._gaps.load_early_redactions(room.room_nid, event.event_id))
        for redaction in early.values():
            if redaction.status is Status.TIMELINE and _may_redact(room, redaction.event, event, state):
                prepared.event = redacted_form(event)
                prepared.redacted_by = redaction.event.event_id
                prepared.relation, prepared.notifies, prepared.highlights = None, False, frozenset()
                return


def _may_redact(room: LiveRoom, redaction: Event, target: Event, state: Mapping[StateKey, Event]) -> bool:
    if redaction.version.redactions_are_authorised:
        return True
    if CREATE not in state:
        return False
    # "... the power level of the redaction event's sender is greater than or equal to the redact level", or
    # "the domain of the redaction event's sender matches that of the original event's sender".
    levels = room.power_levels(state[CREATE], state.get(POWER_LEVELS))
    if server_name_of(target.sender) == server_name_of(redaction.sender):
        return True
    return levels.user_level(redaction.sender) >= levels.required_for("redact")
