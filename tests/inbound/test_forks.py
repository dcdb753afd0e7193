"""Events of other servers, in any order that a network may bring them in: the same states as in the room core alone."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from homeserver.storage.stored_event import Status
from tests.eventgraph.random_rooms import RandomRoom
from tests.inbound.foreign_rooms import ForeignRoom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from tests.eventgraph.rooms import Room
    from tests.server import Server

VERSIONS = ["1", "2", "6", "10", "11", "12"]


def some_order(room: Room, random: Random, known: set[EventId]) -> Iterator[Event]:
    """The events of a room, each after those that it follows and cites; which of several comes next is chance."""
    waiting = [event for event_id, event in room.events.items() if event_id not in known]
    come = set(known)
    while waiting:
        ready = [one for one in waiting[:8] if {*one.prev_event_ids, *one.auth_event_ids} <= come]
        event = random.choice(ready)
        waiting.remove(event)
        come.add(event.event_id)
        yield event


@pytest.mark.parametrize("version", VERSIONS)
async def test_random_rooms_come_to_the_states_of_the_room_core(version: str, server: Server) -> None:
    for seed in range(4):
        room = RandomRoom(version, seed, 40, without_effect=True).room
        first = list(room.events.values())[1]
        foreign = ForeignRoom(server, room)
        await foreign.arrive(first)
        for event in some_order(room, Random(seed), {room.create.event_id, first.event_id}):
            rejected = event.rejected
            event.rejected = False
            status = await foreign.take(event)
            assert (status is Status.REJECTED) == rejected, (seed, event)
            event.rejected = rejected
            assert await foreign.state_after(event.event_id) == room.state_after[event.event_id]
            tips = await foreign.extremities()
            expected = room.resolve([room.state_after[tip] for tip in tips])
            assert await foreign.current_state() == expected, (seed, event)
