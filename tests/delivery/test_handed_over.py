"""Whether, and when, other servers were handed an event: what its sender is told of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.delivery import servers as outbox
from tests.delivery.far_servers import CAROL, FAR, FarServers, set_membership, shared_room, until

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

DAVE = "@dave:other.example"
OTHER = "other.example"
PREFIX = "/_matrix/client/unstable/dev.restante.delivery"


async def servers(sender: Client, room_id: str, event_id: str) -> dict[str, Any]:
    status = await sender.call("GET", f"{PREFIX}/rooms/{room_id}/events/{event_id}")
    told: dict[str, Any] = status["servers"]
    return told


async def handed_over(sender: Client, room_id: str, event_id: str, server_name: str = FAR) -> int:
    """When an event was handed over, once it was."""
    ts: int = (await told_with(sender, room_id, event_id, server_name, "ts"))["ts"]
    return ts


async def told_with(sender: Client, room_id: str, event_id: str, server_name: str, field: str) -> Any:
    """What is told of a server, once that has a field: what is sent is sent in the background."""
    async with asyncio.timeout(60):
        while True:
            told = (await servers(sender, room_id, event_id))[server_name]
            if field in told:
                return told


async def sent_at(sender: Client, room_id: str, event_id: str) -> int:
    ts: int = (await sender.event(room_id, event_id))["origin_server_ts"]
    return ts


async def test_what_was_handed_over_has_a_time_and_what_was_not_says_why(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL, DAVE)
    far.away.add(OTHER)
    event_id = await alice.send(room_id, "hello")
    sent = await sent_at(alice, room_id, event_id)
    assert sent <= await handed_over(alice, room_id, event_id) <= server.clock.now_ms()
    await until(lambda: far.tried == 2)
    waiting = await told_with(alice, room_id, event_id, OTHER, "why")
    assert waiting["handed_over"] is False
    assert waiting["waiting_since_ts"] == sent
    assert waiting["why"] == "it is away"
    assert sent <= waiting["failing_since_ts"] <= server.clock.now_ms() < waiting["retry_ts"]
    assert "ts" not in waiting


async def test_when_it_was_is_known_after_a_restart_and_whatever_comes_later(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    first = await alice.send(room_id, "first")
    ts = await handed_over(alice, room_id, first)
    server.clock.offset_ms += 3_600_000
    later = await alice.send(room_id, "later")
    assert await handed_over(alice, room_id, later) >= ts + 3_600_000
    await server.restart()
    alice = server.reconnect(alice)
    assert await handed_over(alice, room_id, first) == ts
    server.clock.offset_ms += 3_600_000
    last = await alice.send(room_id, "last")
    assert await handed_over(alice, room_id, last) >= ts + 7_200_000
    assert await handed_over(alice, room_id, first) == ts


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_it_stays_known_to_a_second_or_a_tenth_of_how_long_ago_it_was(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    true_times: dict[str, int] = {}
    for number in range(400):
        server.clock.offset_ms += 100 * number
        event_id = await alice.send(room_id, str(number))
        await until(lambda number=number: len(far.bodies()) > number)
        await until(lambda: not server.application.delivery._sender._lines)
        true_times[event_id] = server.clock.now_ms()
    told = {event_id: await handed_over(alice, room_id, event_id) for event_id in true_times}
    now = server.clock.now_ms()
    for event_id, true_ts in true_times.items():
        late = told[event_id] - true_ts
        assert -1_000 <= late <= max(1_000, (now - true_ts) // 10)
    rows = await server.application.database.fetch_value("SELECT count(*) FROM handovers")
    assert rows < 200


async def test_a_server_that_came_later_was_not_handed_it(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    event_id = await alice.send(room_id, "before")
    await handed_over(alice, room_id, event_id)
    await set_membership(server, room_id, DAVE)
    later = await alice.send(room_id, "after")
    await handed_over(alice, room_id, later, OTHER)
    told = await servers(alice, room_id, event_id)
    assert told.keys() == {FAR, OTHER}
    assert told[OTHER] == {"handed_over": False, "why": "it came into the room later"}


async def test_a_server_that_went_and_came_back_was_handed_what_it_was_there_for(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    there = await alice.send(room_id, "there")
    ts = await handed_over(alice, room_id, there)
    server.clock.offset_ms += 60_000
    await set_membership(server, room_id, CAROL, "leave")
    absent = await alice.send(room_id, "absent")
    assert await servers(alice, room_id, there) == {}
    delivery = server.application.delivery
    await until(lambda: not delivery._sender._lines)
    await delivery.prune()
    await set_membership(server, room_id, CAROL)
    back = await alice.send(room_id, "back")
    await handed_over(alice, room_id, back)
    assert await handed_over(alice, room_id, there) == ts
    assert (await servers(alice, room_id, absent))[FAR]["handed_over"] is False


async def test_what_a_server_was_not_given_after_a_long_absence_was_not_handed_over(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await shared_room(server, alice, CAROL) for _ in range(2)]
    before = await alice.send(rooms[0], "before")
    await handed_over(alice, rooms[0], before)
    far.away.add(FAR)
    sent = [[await alice.send(room_id, str(number)) for number in range(40)] for room_id in rooms]
    await server.stop()
    far.away.clear()
    # Not before: it would be passed over in two parts, where it was tried meanwhile.
    monkeypatch.setattr(outbox, "MAX_CAUGHT_UP", 60)
    await server.start()
    alice = server.reconnect(alice)

    def caught_up() -> bool:
        server.application.delivery.heard_from(FAR)
        return far.bodies()[1:] == ["39", "39"]

    await until(caught_up)
    after = await alice.send(rooms[0], "after")
    await handed_over(alice, rooms[0], after)
    for room_id, events in zip(rooms, sent, strict=True):
        for event_id in (events[1], events[-2]):
            told = (await servers(alice, room_id, event_id))[FAR]
            assert told["handed_over"] is False
            assert "asks for the rest" in told["why"]
            assert "waiting_since_ts" not in told
        await handed_over(alice, room_id, events[-1])
    await handed_over(alice, rooms[0], before)


async def test_what_a_server_does_not_take_was_not_handed_over(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    far.refuses = lambda pdus, edus: any(pdu["content"].get("body") == "bad" for pdu in pdus)
    good, bad, also_good = [await alice.send(room_id, text) for text in ("good", "bad", "also good")]
    await handed_over(alice, room_id, also_good)
    await handed_over(alice, room_id, good)
    told = (await servers(alice, room_id, bad))[FAR]
    assert told["handed_over"] is False
    assert told["why"].startswith("it refused it: ")


async def test_of_what_was_handed_over_before_this_was_noted_no_time_is_made_up(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    event_id = await alice.send(room_id, "hello")
    await handed_over(alice, room_id, event_id)
    # As the migration leaves it.
    await server.application.database.write(lambda t: t.execute("UPDATE handovers SET ts = NULL"))
    assert (await servers(alice, room_id, event_id))[FAR] == {"handed_over": True}


async def test_a_server_that_is_forgotten_leaves_nothing_behind(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    far.refuses = lambda pdus, edus: any(pdu["content"].get("body") == "bad" for pdu in pdus)
    for text in ("bad", "good"):
        event_id = await alice.send(room_id, text)
    await handed_over(alice, room_id, event_id)
    await set_membership(server, room_id, CAROL, "leave")
    delivery = server.application.delivery
    await until(lambda: not delivery._sender._lines)
    server.clock.offset_ms = 91 * 24 * 3_600_000
    await delivery.prune()
    for table in ("handovers", "passed_over"):
        assert await server.application.database.fetch_value(f"SELECT count(*) FROM {table}") == 0
