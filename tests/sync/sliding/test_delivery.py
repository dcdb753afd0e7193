"""What a device that follows by sliding sync has got, and how senders who do so hear of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.storage.room_arrivals import RoomArrivalStore
from tests.client import Client, hear_all
from tests.delivery_status import all_delivered, delivered, room_of, status
from tests.sync.sliding.client import DEPLOYED, Sliding, a_list, texts

if TYPE_CHECKING:
    from tests.server import Server

sqlite_only = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

ALL = {"all": a_list()}
TWO = {"all": a_list(2)}
TOP = {"all": a_list(range=[0, 0])}
NEWS = {"dev.restante.delivery": {"enabled": True}}


async def test_an_event_is_delivered_once_the_device_comes_back_with_the_pos_of_its_answer(
    alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    before = await alice.send(room_id, "before")
    phone = Sliding(bob, lists=ALL)
    await phone.sync()
    assert await delivered(alice, room_id, before, bob) == (0, 1)
    await phone.sync()
    assert await delivered(alice, room_id, before, bob) == (1, 1)
    event_id = await alice.send(room_id, "hello")
    lost = await phone.ask()
    assert texts(lost["rooms"][room_id]) == ["hello"]
    later = await alice.send(room_id, "more")
    # It comes back with the `pos` from before.
    answer = await phone.sync()
    assert texts(answer["rooms"][room_id]) == ["hello", "more"]
    assert await all_delivered(alice, room_id, [before, event_id, later], bob) == [1, 0, 0]
    last = await alice.send(room_id, "last")
    await phone.sync()
    assert await all_delivered(alice, room_id, [before, event_id, later, last], bob) == [1, 1, 1, 0]
    delivery = (await status(alice, room_id, event_id))["users"][bob.user_id]["delivery"]
    sent = (await alice.event(room_id, event_id))["origin_server_ts"]
    assert sent <= delivery["first_ts"] == delivery["last_ts"]


async def test_what_a_limited_timeline_left_out_is_delivered_when_it_is_fetched(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    phone = Sliding(bob, lists=TWO)
    await phone.sync()
    known = await alice.send(room_id, "known")
    await phone.sync()
    sent = [known, *[await alice.send(room_id, f"{number}") for number in range(5)]]
    answer = await phone.sync()
    assert answer["rooms"][room_id]["limited"]
    await phone.sync()
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 0, 0, 1, 1]
    prev_batch = answer["rooms"][room_id]["prev_batch"]
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 0, 0, 1, 1]
    page = await bob.messages(room_id, limit=2, **{"from": prev_batch})
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 1, 1, 1, 1]
    # A page that leaves something out proves nothing.
    await bob.messages(room_id, limit=2, filter='{"not_types": ["org.example"]}', **{"from": page["end"]})
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 1, 1, 1, 1]
    await bob.messages(room_id, limit=2, **{"from": page["end"]})
    assert await all_delivered(alice, room_id, sent, bob) == [1] * 6


async def test_an_answer_from_before_a_restart_is_acknowledged_after_it(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await room_of(alice, bob) for _ in range(3)]
    phone = Sliding(bob, lists={"all": a_list(2, range=[0, 1])})
    await phone.sync()
    await phone.sync()
    first = [await alice.send(rooms[1], f"{number}") for number in range(3)]
    second = await alice.send(rooms[2], "hello")
    hidden = await alice.send(rooms[0], "hello")
    await phone.sync(lists={"all": a_list(2, range=[1, 2])})
    await server.restart()
    alice, phone.client = server.reconnect(alice), server.reconnect(bob)
    assert await all_delivered(alice, rooms[1], first, bob) == [0, 0, 0]
    await phone.sync(lists={"all": a_list(2, range=[1, 2])})
    assert await all_delivered(alice, rooms[1], first, bob) == [0, 1, 1]
    assert await delivered(alice, rooms[2], second, bob) == (1, 1)
    assert await delivered(alice, rooms[0], hidden, bob) == (0, 1)


@sqlite_only
async def test_a_killed_server_forgets_nothing_that_a_connection_no_longer_says(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await room_of(alice, bob)
    phone = Sliding(bob, lists=TWO)
    await phone.sync()
    known = await alice.send(room_id, "known")
    await phone.sync()
    for number in range(5):
        await alice.send(room_id, f"{number}")
    # The same request acknowledges the one, and is answered with a timeline that begins anew.
    await phone.sync()

    async def nothing() -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(server.application.delivered, "flush", nothing)
        await server.restart()
    alice, phone.client = server.reconnect(alice), server.reconnect(bob)
    await phone.sync()
    assert await delivered(alice, room_id, known, bob) == (1, 1)


@sqlite_only
async def test_of_rooms_that_no_list_shows_nothing_is_delivered(alice: Client, bob: Client) -> None:
    other = await room_of(alice, bob)
    room_id = await room_of(alice, bob)
    phone = Sliding(bob, lists=TOP)
    await phone.sync()
    elsewhere, here = await alice.send(other, "elsewhere"), await alice.send(room_id, "here")
    await phone.sync()
    await phone.sync()
    assert await delivered(alice, room_id, here, bob) == (1, 1)
    assert await delivered(alice, other, elsewhere, bob) == (0, 1)
    # Once it is shown it is.
    await phone.sync(lists=ALL)
    assert await delivered(alice, other, elsewhere, bob) == (0, 1)
    await phone.sync(lists=ALL)
    assert await delivered(alice, other, elsewhere, bob) == (1, 1)


@sqlite_only
async def test_of_a_room_that_is_out_of_sight_what_comes_is_not_delivered_until_it_is_seen(
    alice: Client, bob: Client
) -> None:
    rooms = [await room_of(alice, bob) for _ in range(2)]
    phone = Sliding(bob, lists=ALL)
    await phone.sync()
    seen = await alice.send(rooms[0], "seen")
    await alice.send(rooms[1], "on top")
    await phone.sync(lists=TOP)
    later = await alice.send(rooms[0], "later")
    top = await alice.send(rooms[1], "on top")
    for _ in range(2):
        await phone.sync(lists=TOP)
    # Both were told of at first, and then only the one.
    assert await all_delivered(alice, rooms[0], [seen, later], bob) == [0, 0]
    assert await delivered(alice, rooms[1], top, bob) == (1, 1)
    for _ in range(2):
        await phone.sync(lists=ALL)
    assert await all_delivered(alice, rooms[0], [seen, later], bob) == [1, 1]


@sqlite_only
async def test_delivered_by_any_connection_and_by_any_sync_is_delivered(alice: Client, bob: Client) -> None:
    rooms = [await room_of(alice, bob) for _ in range(3)]
    since = (await bob.sync())["next_batch"]
    one, two = (
        Sliding(bob, f"{number}", room_subscriptions={rooms[number]: a_list()}) for number in range(2)
    )
    for connection in (one, two):
        await connection.sync()
    sent = [await alice.send(room_id, "hello") for room_id in rooms]

    async def state() -> list[int]:
        pairs = zip(rooms, sent, strict=True)
        return [(await delivered(alice, room_id, event_id, bob))[0] for room_id, event_id in pairs]

    for _ in range(2):
        await one.sync()
    assert await state() == [1, 0, 0]
    for _ in range(2):
        await two.sync()
    assert await state() == [1, 1, 0]
    # What classic sync leaves out does not take back what came by another way.
    nothing = {"room": {"timeline": {"limit": 0}}}
    answer = await bob.sync(since, filter=nothing)
    await bob.sync(answer["next_batch"], filter=nothing)
    assert await state() == [1, 1, 0]
    await bob.sync((await bob.sync(since))["next_batch"])
    assert await state() == [1, 1, 1]
    # A connection that begins anew with less takes nothing back.
    fresh = Sliding(bob, "0", room_subscriptions={rooms[0]: a_list(0)})
    for _ in range(2):
        await fresh.sync()
    assert await state() == [1, 1, 1]


@sqlite_only
async def test_what_came_while_the_user_was_out_of_the_room_is_not_delivered(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    phone = Sliding(bob, lists=TWO)
    await phone.sync()
    inside = await alice.send(room_id, "inside")
    await phone.sync()
    await bob.leave(room_id)
    outside = await alice.send(room_id, "outside")
    for _ in range(2):
        await phone.sync()
    await alice.send(room_id, "outside, too")
    await bob.join(room_id)
    last = await alice.send(room_id, "last")
    sent = [inside, outside, last]
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 0]
    # All that the connection holds is looked at anew.
    await server.restart()
    alice, phone.client = server.reconnect(alice), server.reconnect(bob)
    answer = await phone.sync()
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 0]
    assert texts(answer["rooms"][room_id]) == ["last"]
    await phone.sync()
    assert await all_delivered(alice, room_id, sent, bob) == [1, 0, 1]


@sqlite_only
async def test_a_sender_does_not_learn_that_they_are_ignored(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    await bob.put(
        f"/user/{bob.user_id}/account_data/m.ignored_user_list", {"ignored_users": {alice.user_id: {}}}
    )
    phone = Sliding(bob, lists=ALL)
    await phone.sync()
    event_id = await alice.send(room_id, "hello")
    answer = await phone.sync()
    assert texts(answer["rooms"].get(room_id, {})) == []
    await phone.sync()
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)


# -- what it costs ----------------------------------------------------------------------------------------


@sqlite_only
async def test_a_row_for_each_room_that_was_told_of_and_none_where_nothing_came(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await room_of(alice, bob) for _ in range(8)]
    phone = Sliding(bob, lists={"top": a_list(range=[0, 1])})
    for _ in range(2):
        await phone.sync()
    phone.body = {"room_subscriptions": {room_id: a_list() for room_id in rooms[-2:]}}
    for number in range(5):
        await alice.send(rooms[-1], f"{number}")
        await phone.sync()
    await phone.sync()
    application = server.application
    await application.delivered.flush()
    query = "SELECT count(*) FROM room_arrivals"
    assert await application.database.fetch_value(query) == 2

    async def add(*_: Any) -> None:
        pytest.fail("nothing has come")

    with monkeypatch.context() as patch:
        patch.setattr(RoomArrivalStore, "add", add)
        for _ in range(3):
            await alice.send(rooms[0], "in a room that is not shown")
            await phone.sync()
            await application.delivered.flush()


@sqlite_only
async def test_after_a_restart_nothing_is_written_that_is_known(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await room_of(alice, bob)
    await room_of(alice, bob)
    phone = Sliding(bob, lists=ALL)
    for _ in range(2):
        await phone.sync()
    await server.restart()
    alice, phone.client = server.reconnect(alice), server.reconnect(bob)

    async def add(*_: Any) -> None:
        pytest.fail("nothing has come")

    with monkeypatch.context() as patch:
        patch.setattr(RoomArrivalStore, "add", add)
        await phone.sync()
        await server.application.delivered.flush()
    event_id = await alice.send(room_id, "hello")
    for _ in range(2):
        await phone.sync()
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)


# -- news -------------------------------------------------------------------------------------------------


def news(answer: dict[str, Any], room_id: str, kind: str = "dev.restante.delivered") -> dict[str, Any]:
    events = answer["extensions"].get("dev.restante.delivery", {}).get("rooms", {}).get(room_id, [])
    return next((event["content"] for event in events if event["type"] == kind), {})


@sqlite_only
@pytest.mark.parametrize("dialect", ["accepted", "deployed"])
async def test_a_waiting_sender_is_woken_by_a_delivery_and_nobody_else_hears_of_it(
    server: Server, alice: Client, bob: Client, dialect: str
) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    event_id = await alice.send(room_id, "hello")
    phone = Sliding(bob, lists=ALL)
    waiting: list[dict[str, Any]] = []
    places: dict[str, str] = {}

    async def ask(client: Client, timeout: int) -> dict[str, Any]:
        pos = places.get(client.user_id)
        if dialect == "accepted":
            body = {"extensions": NEWS, "timeout": timeout, **({"pos": pos} if pos else {})}
            answer = await Sliding(client, "news").ask(**body)
        else:
            answer = await client.post(
                DEPLOYED, {"conn_id": "news", "extensions": NEWS}, pos=pos, timeout=timeout
            )
        places[client.user_id] = answer["pos"]
        return answer

    for client in (alice, bob, carol):
        assert "dev.restante.delivery" not in (await ask(client, 0))["extensions"]
    await phone.sync()

    async def wait() -> None:
        while not waiting:
            answer = await ask(alice, 60_000)
            if news(answer, room_id):
                waiting.append(answer)

    async with asyncio.timeout(60):
        waits = asyncio.create_task(wait())
        # Acknowledged while the sender waits, and told within a second.
        await phone.sync()
        await waits
    heard = news(waiting[0], room_id)
    assert heard.keys() == {event_id}
    assert heard[event_id][bob.user_id]["ts"] > 0
    # Once, and to the sender alone.
    for client in (alice, bob, carol):
        assert "dev.restante.delivery" not in (await ask(client, 0))["extensions"]
    await bob.post(f"/rooms/{room_id}/receipt/org.matrix.msc4089.delivery/{event_id}")
    decrypted = news(await ask(alice, 60_000), room_id, "m.receipt")
    assert decrypted[event_id]["org.matrix.msc4089.delivery"].keys() == {bob.user_id}


@sqlite_only
async def test_news_are_told_to_who_wants_them_also_of_the_time_when_they_did_not(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    desk, phone = Sliding(alice, lists=ALL), Sliding(bob, lists=ALL)
    await desk.sync(extensions=NEWS)
    event_id = await alice.send(room_id, "hello")
    for _ in range(2):
        await phone.sync()
    await server.application.delivered.flush()
    assert "dev.restante.delivery" not in (await desk.sync())["extensions"]
    assert news(await desk.sync(extensions=NEWS), room_id).keys() == {event_id}


@sqlite_only
async def test_who_switches_it_off_is_not_told_of(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    desk, phone = Sliding(alice, extensions=NEWS), Sliding(bob, lists=ALL)
    await desk.sync()
    event_id = await alice.send(room_id, "hello")
    for _ in range(2):
        await phone.sync()
    await server.application.delivered.flush()
    path = f"/user/{bob.user_id}/account_data/dev.restante.delivery_status"
    await bob.put(path, {"share": False})
    assert news(await desk.ask(), room_id) == {}
    assert (await status(alice, room_id, event_id))["users"] == {}
    await bob.put(path, {"share": True})
    assert news(await desk.ask(), room_id).keys() == {event_id}
    # Nor who has left.
    await alice.leave(room_id)
    assert news(await desk.ask(), room_id) == {}


@sqlite_only
async def test_a_device_that_is_behind_takes_no_news_back(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    tablet = await server.login(bob)
    desk, first = Sliding(alice, extensions=NEWS), Sliding(bob, lists=ALL)
    second = Sliding(tablet, lists=ALL)
    await desk.sync()
    old = await alice.send(room_id, "old")
    await second.sync()
    new = await alice.send(room_id, "new")
    for _ in range(2):
        await first.sync()
    await server.application.delivered.flush()
    await second.sync()
    await server.application.delivered.flush()
    assert await all_delivered(alice, room_id, [old, new], bob) == [2, 1]
    assert news(await desk.sync(), room_id).keys() == {new}
    await second.sync()
    await server.application.delivered.flush()
    assert news(await desk.sync(), room_id) == {}


@sqlite_only
async def test_nobody_hears_that_what_they_sent_long_ago_has_arrived(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    old = await alice.send(room_id, "old")
    server.clock.offset_ms = 31 * 24 * 3_600_000
    desk, phone = Sliding(alice, extensions=NEWS), Sliding(bob, lists=ALL)
    await desk.sync()
    for _ in range(2):
        await phone.sync()
    assert await delivered(alice, room_id, old, bob) == (1, 1)
    assert news(await desk.sync(), room_id) == {}
    new = await alice.send(room_id, "new")
    for _ in range(2):
        await phone.sync()
    await server.application.delivered.flush()
    assert news(await desk.sync(), room_id).keys() == {new}


# -- processes --------------------------------------------------------------------------------------------


async def test_an_answer_of_one_process_is_acknowledged_at_another(servers: tuple[Server, Server]) -> None:
    here, there = servers
    alice, bob = await here.register("alice"), await here.register("bob")
    room_id = await room_of(alice, bob)
    phone = Sliding(bob, lists=TWO)
    for _ in range(2):
        await phone.sync()
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    await phone.sync()
    phone.client = there.reconnect(bob)
    await phone.sync()
    await there.application.delivered.flush()
    await hear_all(alice, there.reconnect(alice))
    assert await all_delivered(alice, room_id, sent, bob) == [0, 1, 1]
    # And the page at the first again.
    await bob.messages(room_id)
    assert await all_delivered(alice, room_id, sent, bob) == [1, 1, 1]
