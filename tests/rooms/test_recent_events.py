"""The newest events in memory: each once, in order, and within a budget of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import RoomId
from homeserver.rooms.recent_events import RecentEvents

if TYPE_CHECKING:
    from homeserver.storage.stored_event import StoredEvent
    from tests.client import Client
    from tests.server import Server

LAST = 2**60


async def stored_events(server: Server, room_id: str) -> list[StoredEvent]:
    room_nid = await server.application.rooms.reader.room_nid(RoomId(room_id))
    return await server.application.stores.events.load_arrivals(room_nid, after=-1, upto=LAST, limit=1_000)


async def test_an_event_that_was_read_before_its_commit_was_heard_of_is_there_once(
    server: Server, alice: Client
) -> None:
    """A reader can see what is committed before the one who committed it does."""
    room_id = await alice.create_room()
    await alice.send(room_id, "last")
    events = await stored_events(server, room_id)
    recent = RecentEvents(server.application.stores.events, 2**30)
    wanted = {"after": 0, "upto": LAST, "limit": 100}
    assert await recent.load(events[0].room_nid, **wanted) == events
    recent.add(events[-2])
    recent.add(events[-1])
    assert await recent.load(events[0].room_nid, **wanted) == events


async def test_what_is_held_stays_within_the_budget_and_what_is_not_held_is_read(
    server: Server, alice: Client
) -> None:
    rooms = [await alice.create_room() for _ in range(4)]
    for room_id in rooms:
        for number in range(4):
            await alice.send(room_id, f"{number} " + "x" * 20_000)
    recent = RecentEvents(server.application.stores.events, 250_000)
    for room_id in rooms:
        for stored in await stored_events(server, room_id):
            recent.add(stored)
            held = sum(len(event.event.json) * 5 for tail in recent._tails.values() for event in tail.events)
            assert held <= 250_000
    for room_id in rooms:
        events = await stored_events(server, room_id)
        found = await recent.load(events[0].room_nid, after=0, upto=LAST, limit=3)
        assert found == events[-3:]
