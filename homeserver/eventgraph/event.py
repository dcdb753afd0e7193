"""An event (a PDU) as the room core sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.eventgraph.hashing import event_id_of
from homeserver.ids import EventId, RoomId, UserId

if TYPE_CHECKING:
    from homeserver.eventgraph.room_versions import RoomVersion

StateKey = tuple[str, str]
"""A type and a state key: the name of an entry in the state of a room."""
StateMap = Mapping[StateKey, EventId]
"""The state of a room by the ids of its events."""


class Event:
    """An event of a known room version; its fields are of the right types, and it is not changed."""

    __slots__ = (
        "auth_event_ids",
        "content",
        "depth",
        "event_id",
        "json",
        "origin_server_ts",
        "pdu",
        "prev_event_ids",
        "rejected",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    def __init__(
        self,
        version: RoomVersion,
        pdu: dict[str, Any],
        event_id: EventId,
        json: bytes,
        *,
        rejected: bool = False,
    ) -> None:
        self.version = version
        self.pdu = pdu
        self.event_id = event_id
        self.json = json
        self.rejected = rejected
        self.type: str = pdu["type"]
        self.sender = UserId(pdu["sender"])
        self.state_key: str | None = pdu.get("state_key")
        self.content: dict[str, Any] = pdu["content"]
        self.origin_server_ts: int = pdu["origin_server_ts"]
        self.depth: int = pdu["depth"]
        room_id = pdu.get("room_id")
        # From version 12 on the create event is the room: `!` for `$`.
        self.room_id = RoomId(room_id if room_id is not None else "!" + event_id[1:])
        self.prev_event_ids = _referenced(version, pdu["prev_events"])
        self.auth_event_ids = _referenced(version, pdu["auth_events"])

    @classmethod
    def from_json(
        cls,
        version: RoomVersion,
        data: bytes | dict[str, Any],
        *,
        event_id: EventId | None = None,
        rejected: bool = False,
    ) -> Event:
        """An event from its federation JSON, which must have passed `checks.check_format`."""
        if isinstance(data, dict):
            pdu = data
            json = orjson.dumps(data)
        else:
            pdu = orjson.loads(data)
            json = data
        return cls(version, pdu, event_id or event_id_of(version, pdu), json, rejected=rejected)

    @property
    def key(self) -> StateKey:
        """The entry of the state that this event sets; only state events have one."""
        assert self.state_key is not None
        return (self.type, self.state_key)

    @property
    def redacts(self) -> EventId | None:
        """The event that this one redacts, wherever the room version keeps it."""
        target = self.content.get("redacts") if self.version.redaction_is_v11 else self.pdu.get("redacts")
        return EventId(target) if isinstance(target, str) else None

    @property
    def membership(self) -> str | None:
        """The membership of a member event."""
        membership = self.content.get("membership")
        return membership if isinstance(membership, str) else None

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r} in {self.room_id}>"


def _referenced(version: RoomVersion, references: list[Any]) -> tuple[EventId, ...]:
    if version.event_ids_are_given:
        return tuple(EventId(reference[0]) for reference in references)
    return tuple(references)
