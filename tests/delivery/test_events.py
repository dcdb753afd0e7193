"""Which events go to which servers, from which point on, and what is kept for one that is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from homeserver.delivery import servers as outbox
from homeserver.ids import RoomId
from homeserver.storage import outgoing_events
from tests.delivery.far_servers import CAROL, FAR, FarServers, set_membership, shared_room, until

if TYPE_CHECKING:
    import pytest

    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.storage.database import Transaction
    from tests.client import Client
    from tests.server import Server

DAVE = "@dave:other.example"


async def rows(server: Server, sql: str, *arguments: Any) -> list[Any]:
    return await server.application.database.fetch_all(sql, *arguments)


async def test_events_go_to_the_servers_that_were_in_the_room_before_them(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = (await alice.post("/createRoom", {"preset": "public_chat"}))["room_id"]
    await alice.send(room_id, "before")
    await set_membership(server, room_id, CAROL)
    await alice.send(room_id, "with one")
    await set_membership(server, room_id, DAVE)
    await alice.send(room_id, "with both")
    await set_membership(server, room_id, CAROL, "leave")
    await alice.send(room_id, "with the other")
    await until(lambda: "with the other" in far.bodies("other.example"))
    await until(lambda: "with both" in far.bodies())
    assert far.bodies() == ["with one", "with both"]
    assert far.bodies("other.example") == ["with both", "with the other"]
    # Those of other servers are not for this one to send.
    assert {pdu["type"] for pdu in far.events()} == {"m.room.message"}


async def test_an_event_goes_out_as_it_stands_in_the_room(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    event_id = await alice.send(room_id, "hello")
    await until(far.events)
    (pdu,) = far.events()
    stored = await server.application.stores.events.get(event_id)
    assert stored is not None
    assert pdu == stored.event.pdu
    assert pdu["signatures"].keys() == {"example.org"}


async def test_whoever_is_thrown_out_hears_of_it(server: Server, alice: Client, far: FarServers) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.post(f"/rooms/{room_id}/kick", {"user_id": CAROL})
    await alice.send(room_id, "alone")
    # Of one who is not in the room too, as where an invite is taken back.
    await alice.post(f"/rooms/{room_id}/ban", {"user_id": DAVE})
    await until(lambda: far.events("other.example"))
    await until(far.events)
    assert [pdu["content"]["membership"] for pdu in far.events()] == ["leave"]
    assert [pdu["state_key"] for pdu in far.events("other.example")] == [DAVE]
    assert "alone" not in far.bodies()


async def test_what_a_server_leaves_to_us_goes_to_the_others(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await set_membership(server, room_id, DAVE, goes_out=True)
    await set_membership(server, room_id, "@erin:other.example", goes_out=True)
    await alice.send(room_id, "and then")
    await until(lambda: far.bodies() and far.bodies("other.example"))
    assert [pdu.get("state_key") for pdu in far.events()] == [DAVE, "@erin:other.example", None]
    # Its own it has.
    assert [pdu.get("state_key") for pdu in far.events("other.example")] == [None]


async def test_a_server_that_came_in_the_same_commit_gets_what_followed(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = (await alice.post("/createRoom", {"preset": "public_chat"}))["room_id"]
    room = await server.application.rooms.live.get(RoomId(room_id))
    # It is in memory that nobody else is there.
    assert not await server.application.stores.room_servers.load(room.room_nid)
    database, held = server.application.database, asyncio.Event()

    async def hold(_: Transaction) -> None:
        await held.wait()

    async def depth(of: LiveRoom, wanted: int) -> None:
        await until(lambda: of.head is not None and of.head.depth == wanted)

    head = await server.application.rooms.live.load_head(room)
    other = await server.application.rooms.live.get(RoomId(await shared_room(server, alice)))
    other_head = await server.application.rooms.live.load_head(other)
    holding = asyncio.create_task(database.write(hold))
    # What comes while this is on its way is written together.
    first = asyncio.create_task(alice.send(other.room_id, "elsewhere"))
    await depth(other, other_head.depth + 1)
    coming = asyncio.create_task(set_membership(server, room_id, CAROL))
    await depth(room, head.depth + 1)
    sending = asyncio.create_task(alice.send(room_id, "welcome"))
    await depth(room, head.depth + 2)
    held.set()
    await asyncio.gather(holding, first, coming, sending)
    await until(lambda: far.bodies() == ["welcome"])


async def test_an_event_is_not_passed_over_while_it_is_found_out_whom_it_concerns(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.send(room_id, "first")
    await until(lambda: far.taken)
    delivery, held = server.application.delivery, asyncio.Event()
    await until(lambda: not delivery._sender._lines)
    distribute = delivery._distribute

    async def slowly(news: Any) -> set[Any]:
        await held.wait()
        return await distribute(news)

    monkeypatch.setattr(delivery, "_distribute", slowly)
    await alice.send(room_id, "second")
    # Something else has the destination looked at meanwhile.
    delivery._sender.wake(FAR)
    await until(lambda: not delivery._sender._lines)
    held.set()
    await until(lambda: far.bodies() == ["first", "second"])


async def test_news_that_could_not_be_distributed_are_found_by_the_cursors(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.send(room_id, "first")
    await until(lambda: far.taken)
    delivery = server.application.delivery
    await until(lambda: not delivery._sender._lines)

    async def fail(_: Any) -> set[Any]:
        message = "the database is away"
        raise OSError(message)

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_distribute", fail)
        await alice.send(room_id, "second")
        await until(lambda: far.bodies() == ["first", "second"])
    await alice.send(room_id, "third")
    await until(lambda: far.bodies() == ["first", "second", "third"])


async def test_a_message_that_looks_like_a_join_is_none(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    path = f"/rooms/{room_id}/send/m.room.message/1"
    await alice.put(path, {"msgtype": "m.text", "body": "I join", "membership": "join"})
    await until(lambda: far.bodies() == ["I join"])


async def test_a_room_of_ours_alone_leaves_nothing_behind(
    server: Server, alice: Client, bob: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice)
    await bob.post(f"/join/{room_id}")
    for _ in range(3):
        await alice.send(room_id, "among us")
    assert await rows(server, "SELECT 1 FROM outgoing_events") == []
    assert await rows(server, "SELECT 1 FROM room_servers") == []
    assert await rows(server, "SELECT 1 FROM destinations") == []


async def test_a_server_that_was_away_gets_everything_in_order_and_once(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    far.away.add(FAR)
    for number in range(120):
        await alice.send(room_id, str(number))
    await until(lambda: far.tried)
    await server.restart()
    alice = server.reconnect(alice)
    await alice.send(room_id, "120")
    far.away.clear()
    assert server.application.delivery is not None
    await until(lambda: FAR in server.application.delivery._sender._lines)
    server.application.delivery.heard_from(FAR)
    await until(lambda: len(far.bodies()) == 121)
    assert far.bodies() == [str(number) for number in range(121)]


async def test_on_start_every_destination_with_something_waiting_is_resumed(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL, DAVE)
    await alice.send(room_id, "first")
    await until(lambda: len(far.taken) == 2)
    courier, server.courier = server.courier, None
    await server.restart()
    await server.reconnect(alice).send(room_id, "while nobody sends")
    server.courier = courier
    await server.restart()
    await until(lambda: len(far.taken) == 4)
    assert far.bodies() == far.bodies("other.example") == ["first", "while nobody sends"]


async def test_a_transaction_repeated_after_a_crash_is_the_same(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    stores = server.application.delivery._outbox._stores

    async def crash(*_: Any) -> None:
        message = "the power is cut"
        raise OSError(message)

    # It is taken, but that is not written down.
    stores.destinations.set_delivered = crash
    await alice.send(room_id, "hello")
    await until(lambda: far.taken)
    await server.restart()
    await until(lambda: len(far.taken) == 2)
    first, second = far.taken
    assert first == second


async def test_beyond_so_many_events_a_server_gets_the_newest_of_each_room(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_CAUGHT_UP", 100)
    rooms = [await shared_room(server, alice, CAROL) for _ in range(3)]
    far.away.add(FAR)
    for number in range(40):
        for room_id in rooms:
            await alice.send(room_id, str(number))
    await until(lambda: far.tried)
    await alice.post(f"/rooms/{rooms[0]}/ban", {"user_id": "@somebody:far.example"})
    far.away.clear()
    await server.restart()
    alice = server.reconnect(alice)
    await until(lambda: FAR in server.application.delivery._sender._lines)
    server.application.delivery.heard_from(FAR)
    await until(lambda: len(far.bodies()) == 2)
    # What is about its own users is not left out.
    assert [pdu["type"] for pdu in far.events()] == ["m.room.message", "m.room.message", "m.room.member"]
    assert far.bodies() == ["39", "39"]
    for room_id in rooms:
        await alice.send(room_id, "after")
    await until(lambda: far.bodies()[2:] == ["after"] * 3)


async def test_so_it_is_too_once_the_oldest_of_them_are_not_kept_any_more(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_CAUGHT_UP", 100)
    monkeypatch.setattr(outgoing_events, "KEPT_IN_ROOM", 100)
    room_id = await shared_room(server, alice, CAROL)
    far.away.add(FAR)
    for number in range(120):
        await alice.send(room_id, str(number))
    await until(lambda: far.tried)
    await server.application.delivery.prune()
    assert len(await rows(server, "SELECT 1 FROM outgoing_events")) <= 101
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: far.bodies() == ["119"])


async def test_what_a_server_does_not_take_is_set_aside(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    far.refuses = lambda pdus, edus: any(pdu["content"].get("body") == "bad" for pdu in pdus)
    for text in ("good", "bad", "also good"):
        await alice.send(room_id, text)
    await until(lambda: len(far.bodies()) == 2)
    assert far.bodies() == ["good", "also good"]
    ((count, last),) = await rows(server, "SELECT set_aside, last_set_aside FROM destinations")
    assert count == 1
    assert last.startswith("$")


async def test_what_everybody_has_is_pruned(server: Server, alice: Client, far: FarServers) -> None:
    busy = await shared_room(server, alice, CAROL)
    quiet = await shared_room(server, alice, DAVE)
    for text in ("1", "2"):
        await alice.send(busy, text)
    await alice.send(quiet, "1")
    await until(lambda: len(far.bodies()) == 2 and far.bodies("other.example"))
    await alice.send(busy, "3")
    await until(lambda: len(far.bodies()) == 3)
    await set_membership(server, busy, CAROL, "leave")
    delivery = server.application.delivery
    await until(lambda: not delivery._sender._lines)
    await delivery.prune()
    assert await rows(server, "SELECT 1 FROM outgoing_events") == []
    assert await rows(server, "SELECT server_name FROM room_servers") == [("other.example",)]
    far.away.add("other.example")
    await alice.send(quiet, "kept")
    await until(lambda: far.tried == len(far.taken) + 1)
    await delivery.prune()
    assert len(await rows(server, "SELECT 1 FROM outgoing_events")) == 1


async def test_servers_that_nobody_has_heard_of_for_long_are_forgotten(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL, DAVE)
    await alice.send(room_id, "hello")
    await until(lambda: len(far.taken) == 2)
    await set_membership(server, room_id, CAROL, "leave")
    delivery = server.application.delivery
    await until(lambda: not delivery._sender._lines)
    server.clock.offset_ms = 91 * 24 * 3_600_000
    await delivery.prune()
    assert await rows(server, "SELECT server_name FROM destinations") == [("other.example",)]
    # One that comes back is a new one.
    await set_membership(server, room_id, CAROL)
    await alice.send(room_id, "again")
    await until(lambda: far.bodies() == ["hello", "again"])
