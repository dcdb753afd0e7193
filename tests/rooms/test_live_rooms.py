"""What a room in memory holds of its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import RoomId
from homeserver.rooms.live_rooms import LiveRoom
from tests.eventgraph.rooms import Room

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event, StateKey

NAME, TOPIC = ("m.room.name", ""), ("m.room.topic", "")


def test_of_very_many_changes_only_what_was_asked_for_is_held() -> None:
    event = Room("11").create
    room = LiveRoom(1, RoomId("!room:example.org"), ROOM_VERSIONS["11"])
    room.state = held = {NAME: None, TOPIC: event}
    members: dict[StateKey, Event | None] = {
        ("m.room.member", f"@{n}:example.org"): event for n in range(2_000)
    }
    room.take_over({**members, NAME: event, TOPIC: None})
    assert room.state == {NAME: event, TOPIC: None}
    # Who reads an entry at this moment sees that it was read too early.
    assert room.state is not held
    room.take_over({NAME: None})
    assert room.state == {NAME: None, TOPIC: None}
