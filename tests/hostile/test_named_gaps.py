"""Events with gaps before them, and servers that will not fill these: bounded in questions and in time, and nobody
else waits for them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import RoomId
from homeserver.services.inbound import gaps, queues
from homeserver.services.inbound.events import InboundEvents
from tests.client import Refused, bodies
from tests.eventgraph.rooms import KEY, Room
from tests.hostile.elsewhere import EVIL, HELEN, HONEST, MALLORY, Elsewhere, changing, room_elsewhere
from tests.hostile.mallory import Mallory
from tests.hostile.oracle import check_database
from tests.hostile.wire import Answered, Asked, Wire

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from tests.client import Client
    from tests.server import Server


class Rooms:
    """Alice in rooms of Mallory's and Helen's, whose servers are on the wire."""

    def __init__(self, server: Server, alice: Client) -> None:
        self.server = server
        self.alice = alice
        self.wire = Wire()
        self.wire.plug_in(server)
        self.evil = Elsewhere(self.wire, server)
        self.honest = Elsewhere(self.wire, server, name=HONEST)
        self.mallory = Mallory(server, EVIL, KEY)
        self.helen = Mallory(server, HONEST, KEY)

    async def join(self, room: Room) -> Room:
        for elsewhere in (self.evil, self.honest):
            elsewhere.rooms[room.room_id] = room
        await self.alice.post(f"/join/{room.room_id}?via={HONEST}")
        assert self.honest.joined is not None
        # The others have heard of it.
        newest = room.newest()
        room.add(self.honest.joined, room.state_after[newest.event_id])
        return room

    def late(self, room: Room, sender: str, body: str, *, after: Event | None = None) -> Event:
        """A message that follows one of which this server has not been told."""
        prev = None if after is None else [after]
        before = room.send("m.room.message", sender, {"body": f"before {body}"}, prev=prev)
        return room.send("m.room.message", sender, {"body": body}, prev=[before])

    async def until_said(self, room: Room, body: str) -> None:
        since = None
        async with asyncio.timeout(60):
            while True:
                answer = await self.alice.sync(since=since, timeout=10_000)
                section = answer.get("rooms", {}).get("join", {}).get(room.room_id)
                if section is not None and body in bodies(section["timeline"]["events"]):
                    return
                since = answer["next_batch"]

    async def until_given_up(self, event_id: EventId) -> None:
        async with asyncio.timeout(60):
            while await self.attempts(event_id) is not None:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)

    async def attempts(self, event_id: EventId) -> Any:
        return await self.server.application.database.fetch_value(
            "SELECT attempts FROM staged_events WHERE event_id = $1", event_id
        )

    async def is_sound(self) -> None:
        keys = {(name, KEY.key_id): KEY.private.verify_key for name in (EVIL, HONEST)}
        for own in self.server.application.remote.servers.keyring._own_keys:
            keys[self.server.settings.server_name, own.key_id] = own.private.verify_key
        await check_database(self.server, keys)


@pytest.fixture
async def rooms(server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    monkeypatch.setattr(queues, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(queues, "_PATIENCE_SECONDS", 0.05)
    return Rooms(server, alice)


async def silence(_: Asked) -> Answered:
    """An answer that does not come."""
    await asyncio.Event().wait()
    return Answered()


async def test_one_event_costs_so_many_questions(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ATTEMPTS", 2)
    monkeypatch.setattr(gaps, "MAX_QUESTIONS", 50)
    room = await rooms.join(room_elsewhere("11"))
    auth = [room.events[one].event_id for one in room.state_after[room.newest().event_id].values()]
    # Two hundred events, each of which follows what nobody has and cites what nobody has.
    forged: list[dict[str, Any]] = []
    before: list[str] = []
    for number in range(200):
        content = {"body": str(number)}
        event = await rooms.mallory.event_in(
            room.room_id,
            "m.room.message",
            content,
            prev=[*before[-1:], *(f"${number:03}{index:040}" for index in range(15))],
            auth=[auth[0], f"${number:043}"],
            depth=1000 + number,
        )
        forged.append(event.pdu)
        before.append(event.event_id)
    rooms.evil.lies["get_missing_events"] = lambda *_: Answered.json({"events": forged})
    rooms.evil.lies["backfill"] = lambda *_: Answered.json({"pdus": forged})
    last = await rooms.mallory.event_in(
        room.room_id, "m.room.message", {"body": "last"}, prev=[before[-1]], depth=2000
    )
    asked = rooms.wire.count(of="example.org")
    await rooms.mallory.tell(last)
    await rooms.until_given_up(last.event_id)
    servers_asked = 2
    asked = rooms.wire.count(of="example.org") - asked
    assert asked <= queues.ATTEMPTS * gaps.MAX_QUESTIONS * servers_asked
    await rooms.is_sound()
    event = rooms.late(room, HELEN, "still here")
    await rooms.helen.tell(event)
    await rooms.until_said(room, "still here")


async def test_what_was_not_asked_for_gets_no_place(rooms: Rooms) -> None:
    """Mallory would like an event of Helen's to be history before anybody reads it."""
    room = await rooms.join(room_elsewhere("11", creator=HELEN))
    talk = [room.send("m.room.message", HELEN, {"body": f"{n}"}) for n in range(3)]
    ban = room.set_member(HELEN, MALLORY, "ban")

    def with_ban(answer: Any) -> Any:
        answer["pdus"].append(ban.pdu)
        return answer

    rooms.evil.lies["backfill"] = rooms.honest.lies["backfill"] = changing("backfill", with_ban)
    await rooms.alice.messages(room.room_id, limit=1000)
    stored = await rooms.server.application.stores.events.get(ban.event_id)
    assert stored is None
    await rooms.helen.tell(*talk, ban)
    state = await rooms.alice.get_state(room.room_id, "m.room.member", MALLORY)
    assert state["membership"] == "ban"
    await rooms.is_sound()


async def test_a_server_that_does_not_answer_holds_up_nobody_else(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In many rooms at once, nor anybody else's events in the same room."""
    joined = [await rooms.join(room_elsewhere("11", name=f"room{n}")) for n in range(8)]
    rooms.wire.sites[EVIL] = silence
    for room in joined:
        await rooms.mallory.tell(*(rooms.late(room, MALLORY, "waiting") for _ in range(3)))
    for room in (joined[0], joined[-1]):
        rooms.honest.rooms[room.room_id] = room
        event = rooms.late(room, HELEN, "at once")
        await rooms.helen.tell(event)
        await rooms.until_said(room, "at once")
    await rooms.is_sound()


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "MAX_SECONDS_IN_ALL", 0.05)
    room = await rooms.join(room_elsewhere("11"))
    rooms.wire.sites[EVIL] = silence
    event = rooms.late(room, MALLORY, "waiting")
    await rooms.mallory.tell(event)
    await rooms.until_given_up(event.event_id)
    await rooms.is_sound()


async def test_a_flood_of_late_events_is_refused_one_by_one(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING_OF_SERVER", 5)
    room, other = await rooms.join(room_elsewhere("11")), await rooms.join(room_elsewhere("11", name="other"))
    rooms.wire.sites[EVIL] = silence
    late = [rooms.late(room, MALLORY, str(n)) for n in range(20)]
    taken = other.send("m.room.message", MALLORY, {"body": "in the other"})
    answer = await rooms.mallory.tell(*late, taken)
    assert sum("error" in outcome for outcome in answer.values()) == 15
    assert answer[taken.event_id] == {}
    # Others have their own places.
    event = rooms.late(room, HELEN, "at once")
    assert await rooms.helen.tell(event) == {event.event_id: {}}
    await rooms.until_said(room, "at once")


async def test_an_event_over_which_the_server_stumbles_is_given_up(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await rooms.join(room_elsewhere("11"))
    place = InboundEvents.place
    base = room.newest()
    bad = rooms.late(room, MALLORY, "bad")

    async def stumble(self: Any, in_room: Any, event: Event, *rest: Any, **options: Any) -> Any:
        if event.event_id == bad.event_id and rest:
            message = "a fault of ours"
            raise ZeroDivisionError(message)
        return await place(self, in_room, event, *rest, **options)

    monkeypatch.setattr(InboundEvents, "place", stumble)
    good = rooms.late(room, HELEN, "good", after=base)
    await rooms.mallory.tell(bad)
    await rooms.until_given_up(bad.event_id)
    await rooms.helen.tell(good)
    await rooms.until_said(room, "good")


async def test_a_thousand_messages_over_the_limit_are_refused_as_a_whole(rooms: Rooms) -> None:
    room = await rooms.join(room_elsewhere("11"))
    event = room.send("m.room.message", MALLORY, {"body": "x"})
    for pdus, edus in ((51, 0), (0, 101), (1000, 1000)):
        content = {"pdus": [event.pdu] * pdus, "edus": [{"edu_type": "m.typing", "content": {}}] * edus}
        response = await _send(rooms, content)
        assert response == 400
    row = await rooms.server.application.stores.rooms.get(RoomId(room.room_id))
    assert row is not None
    assert event.event_id not in [one.event_id for one in row.forward_extremities]


async def _send(rooms: Rooms, content: Any) -> int:
    try:
        await rooms.mallory.call("PUT", "/_matrix/federation/v1/send/limits", content)
    except Refused as error:
        return error.status
    return 200
