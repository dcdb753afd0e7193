"""What is made of a PDU that another server sent (SS "Checks performed on receipt of a PDU", steps 1 to 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from crypto import exact_json
from crypto.errors import CanonicalJsonError
from homeserver.eventgraph.checks import check_format, check_size
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import encoder_of, event_id_of, has_right_content_hash
from homeserver.eventgraph.redaction import redact

if TYPE_CHECKING:
    from homeserver.eventgraph.room_versions import RoomVersion


def read_pdu(version: RoomVersion, pdu: Any, *, any_references: bool = False) -> Event:
    """The event in a PDU, redacted where its content hash is wrong; its signatures are not checked.

    Raises `EventRefused` for what is no event of this room version. `unsigned` is dropped: nobody vouches for it.
    `any_references` takes an old event that follows or cites more than new ones may.
    """
    if not isinstance(pdu, dict):
        raise EventRefused("an event is an object")
    signed = {name: value for name, value in pdu.items() if name != "unsigned"}
    check_format(version, signed, any_references=any_references)
    try:
        json = encoder_of(version)(signed)
        check_size(json)
        event_id = event_id_of(version, signed)
        if not has_right_content_hash(version, signed):
            signed = redact(version, signed)
            json = encoder_of(version)(signed)
    except CanonicalJsonError as error:
        raise EventRefused(str(error)) from error
    if not version.strict_canonical_json and exact_json.has_long_numbers(json):
        # As it is when it is read from where it is stored.
        signed = orjson.loads(json)
    return Event(version, signed, event_id, json)


def in_order(events: dict[Any, Event]) -> list[Event]:
    """Events by id, each after those of them that it cites or follows. Raises `EventRefused` for a loop."""
    ordered: list[Event] = []
    done: set[Any] = set()
    for first in events:
        stack = [(first, False)]
        under_way: set[Any] = set()
        while stack:
            event_id, left = stack.pop()
            if left:
                under_way.discard(event_id)
                if event_id not in done:
                    done.add(event_id)
                    ordered.append(events[event_id])
                continue
            if event_id in done:
                continue
            if event_id in under_way:
                raise EventRefused("the events go round in a circle")
            under_way.add(event_id)
            stack.append((event_id, True))
            event = events[event_id]
            stack += [
                (other, False)
                for other in (*event.auth_event_ids, *event.prev_event_ids)
                if other in events and other not in done
            ]
    return ordered
