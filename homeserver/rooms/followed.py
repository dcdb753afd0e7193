"""What an event follows in the graph of its room, as far as it has a place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent

_REFUSED = (Status.SOFT_FAILED, Status.REJECTED)
_MAX_FOLLOWED = 200


async def load_followed(events: EventStore, event: Event) -> dict[EventId, StoredEvent | None]:
    """The events that one follows, also by way of events that were refused a place; None for those that are not here.

    Refused events are not shown, and are no ends of the room: what stands behind them stands before whoever follows them.
    """
    followed: dict[EventId, StoredEvent | None] = {}
    ahead = set(event.prev_event_ids)
    while ahead and len(followed) < _MAX_FOLLOWED:
        stored = await events.load(ahead)
        followed.update({event_id: stored.get(event_id) for event_id in ahead})
        ahead = {
            event_id
            for one in stored.values()
            if one.status in _REFUSED
            for event_id in one.event.prev_event_ids
        } - followed.keys()
    return followed
