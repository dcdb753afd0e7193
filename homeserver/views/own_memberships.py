"""The event that tells users what they are in a room."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from crypto import base64
from homeserver.eventgraph.event import Event
from homeserver.ids import EventId

if TYPE_CHECKING:
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stored_event import StoredEvent

_MEMBER = "m.room.member"


def own_membership(row: MembershipRow, stored: StoredEvent) -> StoredEvent:
    """What tells users of their membership; `stored` is the event that the membership is by.

    Where the resolution of a fork undid how they came into the room, they are out of it, and no event of the room says
    so: `stored` is the one that came with the fork. Clients take what their user is from member events, and would show
    a room as joined that refuses everything. So they are told that they have left, by an event made for them.
    """
    cause = stored.event
    if cause.state_key is not None and cause.key == (_MEMBER, row.user_id):
        return stored
    event_id = EventId("$" + base64.encode_unpadded_urlsafe(_digest(row)))
    pdu = {
        "type": _MEMBER,
        "state_key": row.user_id,
        "sender": row.user_id,
        "content": {"membership": row.membership},
        "room_id": row.room_id,
        "origin_server_ts": cause.origin_server_ts,
        "depth": cause.depth,
        "prev_events": [],
        "auth_events": [],
    }
    return replace(
        stored,
        event=Event.from_json(cause.version, pdu, event_id=event_id),
        # A number that no stored event has.
        event_nid=-stored.event_nid,
        replaces_state=None,
        redacted_by=None,
        notifies=False,
        thread_root=None,
        device_id=None,
        transaction_id=None,
        highlights=frozenset(),
    )


def _digest(row: MembershipRow) -> bytes:
    return hashlib.sha256(f"{row.room_id} {row.user_id} {row.stream_id}".encode()).digest()
