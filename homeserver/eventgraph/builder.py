"""Builds events: fields, content hash, signature, id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crypto import base64
from crypto.errors import CanonicalJsonError
from crypto.signatures import signature_of
from homeserver.eventgraph.checks import max_depth
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import content_hash, encoder_of, event_id_of
from homeserver.eventgraph.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId, ServerName, UserId


@dataclass(frozen=True, slots=True)
class EventReference:
    """How an event names another: by id, with its reference hash in room versions 1 and 2."""

    event_id: EventId
    sha256: str | None = None


def build(
    version: RoomVersion,
    *,
    room_id: RoomId | None,
    sender: UserId,
    type: str,
    state_key: str | None = None,
    content: dict[str, Any],
    origin_server_ts: int,
    depth: int,
    prev_events: Sequence[EventReference],
    auth_events: Sequence[EventReference],
    redacts: EventId | None = None,
    server_name: ServerName,
    key: SigningKey,
    event_id: EventId | None = None,
) -> Event:
    """A signed event. `room_id` is None for the create event from version 12 on; `event_id` is given in versions
    1 and 2. Raises `EventRefused` for content without a canonical form.
    """
    pdu: dict[str, Any] = {
        "auth_events": [_reference(version, reference) for reference in auth_events],
        "content": content,
        # "If the room's depth is already at the limit, the depth must be set to the limit."
        "depth": min(depth, max_depth(version)),
        "origin_server_ts": origin_server_ts,
        "prev_events": [_reference(version, reference) for reference in prev_events],
        "sender": sender,
        "type": type,
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if state_key is not None:
        pdu["state_key"] = state_key
    if redacts is not None:
        if version.redaction_is_v11:
            pdu["content"] = {**content, "redacts": redacts}
        else:
            pdu["redacts"] = redacts
    if version.event_ids_are_given:
        pdu["event_id"] = event_id
        pdu["origin"] = server_name
    try:
        pdu["hashes"] = {"sha256": base64.encode_unpadded(content_hash(version, pdu))}
        signature = signature_of(redact(version, pdu), key, encode=encoder_of(version))
        pdu["signatures"] = {server_name: {key.key_id: signature}}
        json = encoder_of(version)(pdu)
        return Event(version, pdu, event_id_of(version, pdu), json)
    except CanonicalJsonError as error:
        raise EventRefused(str(error)) from error


def _reference(version: RoomVersion, reference: EventReference) -> Any:
    if version.event_ids_are_given:
        return [reference.event_id, {"sha256": reference.sha256}]
    return reference.event_id
