"""A connection goes on where its client stands: lost answers, repeated ones, restarts (MSC4186 "Connections")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.storage.sliding_sync import MAX_CONNECTIONS, UNUSED_MS
from tests.client import hear_all, refused
from tests.sync.sliding.client import DEPLOYED, EVERYTHING, Sliding, a_list, texts

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

ALL = {"all": a_list(5, EVERYTHING)}


async def test_a_repeated_pos_is_answered_with_the_same_or_more(alice: Client) -> None:
    room_id = await alice.create_room()
    device = Sliding(alice, lists=ALL)
    await device.sync()
    await alice.send(room_id, "one")
    other = await alice.create_room()
    lost = await device.ask()
    await alice.send(room_id, "two")
    answer = await device.sync()
    assert texts(lost["rooms"][room_id]) == ["one"]
    assert texts(answer["rooms"][room_id]) == ["one", "two"]
    assert answer["rooms"][other]["initial"]
    assert (await device.sync())["rooms"] == {}


async def test_the_first_answer_may_be_lost(alice: Client) -> None:
    room_id = await alice.create_room()
    device = Sliding(alice, lists=ALL)
    await device.ask()
    assert (await device.sync())["rooms"][room_id]["initial"]


async def test_a_pos_survives_a_restart(server: Server, alice: Client) -> None:
    rooms = [await alice.create_room() for _ in range(3)]
    device = Sliding(alice, lists=ALL)
    await device.sync(lists={"all": a_list(5, EVERYTHING, range=[0, 1])})
    await alice.send(rooms[2], "one")
    lost = await device.ask()
    await server.restart()
    device.client = alice = server.reconnect(alice)
    await alice.send(rooms[2], "two")
    answer = await device.sync()
    assert texts(answer["rooms"][rooms[2]]) == ["one", "two"]
    assert set(answer["rooms"]) == {rooms[2], rooms[0]}
    # The client may have had the answer that seemed to be lost.
    again = await device.ask(pos=lost["pos"])
    assert texts(again["rooms"][rooms[2]]) == ["two"]


async def test_a_pos_that_is_not_the_clients_own_is_unknown(
    server: Server, alice: Client, bob: Client
) -> None:
    await alice.create_room()
    device = Sliding(alice, lists=ALL)
    pos = (await device.sync())["pos"]
    phone = await server.login(alice)
    strange = [
        "s1",
        "nonsense",
        "",
        "n" + "A" * 90,
        pos[:-1],
        pos[:9] + ("A" if pos[9] != "A" else "B") + pos[10:],
        "n" * 5_000,
    ]
    strange += ["\u2603", (await alice.sync())["next_batch"]]
    for path in ("/_matrix/client/v4/sync", DEPLOYED):
        for one in strange:
            if one:
                with refused(400, "M_UNKNOWN_POS"):
                    await alice.post(path, {"pos": one})
        for other in (phone, bob):
            with refused(400, "M_UNKNOWN_POS"):
                await other.post(path, {"pos": pos})
        with refused(400, "M_UNKNOWN_POS"):
            await alice.post(path, {"pos": pos, "conn_id": "another"})


async def test_a_pos_that_the_client_has_gone_past_is_unknown(alice: Client) -> None:
    device = Sliding(alice, lists=ALL)
    await alice.create_room()
    old = (await device.sync())["pos"]
    for _ in range(3):
        await alice.create_room()
        await device.sync()
    with refused(400, "M_UNKNOWN_POS"):
        await device.ask(pos=old)


async def test_a_pos_of_the_future_is_unknown(server: Server, alice: Client) -> None:
    tokens = server.application.views.tokens
    future = tokens.pos(alice.user_id, alice.device_id, "", 10**9, 5)
    with refused(400, "M_UNKNOWN_POS"):
        await alice.post("/_matrix/client/v4/sync", {"pos": future})
    never = tokens.pos(alice.user_id, alice.device_id, "", 1, 10**9)
    with refused(400, "M_UNKNOWN_POS"):
        await alice.post("/_matrix/client/v4/sync", {"pos": never})


async def test_connections_stand_apart(alice: Client) -> None:
    room_id = await alice.create_room()
    one, other = Sliding(alice, "one", lists=ALL), Sliding(alice, "other", lists=ALL)
    await one.sync()
    await alice.send(room_id, "hello")
    assert texts((await other.sync())["rooms"][room_id]) == ["hello"]
    assert texts((await one.sync())["rooms"][room_id]) == ["hello"]
    # Without a pos it begins anew, and what was before is gone.
    before = one.pos
    assert (await Sliding(alice, "one", lists=ALL).sync())["rooms"][room_id]["initial"]
    with refused(400, "M_UNKNOWN_POS"):
        await one.ask(pos=before)


async def test_a_device_has_so_many_connections(server: Server, alice: Client) -> None:
    devices = [Sliding(alice, f"{number}", lists=ALL) for number in range(MAX_CONNECTIONS + 1)]
    for device in devices:
        server.clock.offset_ms += 1_000
        await device.sync()
    await alice.create_room()
    with refused(400, "M_UNKNOWN_POS"):
        await devices[0].sync()
    for device in devices[1:]:
        assert (await device.sync())["lists"]["all"]["count"] == 1


async def test_what_is_kept_of_a_connection_is_bounded_and_goes(server: Server, alice: Client) -> None:
    database = server.application.database

    async def rows() -> int:
        return await database.fetch_value("SELECT count(*) FROM sliding_answers") or 0

    rooms = [await alice.create_room() for _ in range(3)]
    device = Sliding(alice, lists=ALL)
    await device.sync()
    assert await rows() == 1
    for number in range(10):
        await alice.send(rooms[number % 3], "x")
        assert (await device.sync())["rooms"]
        await device.ask()
    # Rooms in sight go on without anything being stored.
    assert await rows() == 1
    for number in range(150):
        limit = (
            {"all": a_list(2 + number % 2, EVERYTHING)}
            if number % 2
            else {"all": a_list(range=[0, number % 3])}
        )
        await alice.send(rooms[number % 3], "x")
        await device.sync(lists=limit)
    assert await rows() < 70
    server.clock.offset_ms += UNUSED_MS + 1
    await server.application.upkeep.look_after()
    assert await rows() == 0


async def test_connections_go_with_their_device(server: Server, alice: Client) -> None:
    phone = await server.login(alice)
    await Sliding(phone, lists=ALL).sync()
    await Sliding(alice, lists=ALL).sync()
    await phone.post("/logout")
    database = server.application.database
    devices = await database.fetch_all("SELECT device_id FROM sliding_connections")
    assert devices == [(alice.device_id,)]
    assert await database.fetch_all("SELECT DISTINCT device_id FROM sliding_answers") == devices


async def test_a_wait_ends_with_what_concerns_the_request(server: Server, alice: Client, bob: Client) -> None:
    shown = await alice.create_room(preset="public_chat")
    unseen = await alice.create_room(preset="public_chat")
    await bob.join(unseen)
    await bob.join(shown)
    only = {shown: {"timeline_limit": 1, "required_state": {}}}
    device = Sliding(bob, room_subscriptions=only)
    await device.sync()
    waiting = asyncio.create_task(device.sync(timeout=30_000))
    await server.until_waiting()
    await alice.send(unseen, "not asked for")
    await server.until_waiting()
    assert not waiting.done()
    await alice.send(shown, "asked for")
    assert texts((await waiting)["rooms"][shown]) == ["asked for"]


async def test_without_news_the_wait_ends_in_time(alice: Client) -> None:
    device = Sliding(alice, lists=ALL)
    await device.sync()
    assert (await device.sync(timeout=1))["rooms"] == {}


async def test_a_wait_without_news_asks_nothing_of_the_database(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alice.create_room()
    extensions = {
        name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
    }
    device = Sliding(alice, lists=ALL, extensions=extensions)
    await device.sync()
    await device.sync()
    database = server.application.database
    asked: list[str] = []

    async def fetch_all(sql: str, *_: object) -> list[tuple[object, ...]]:
        asked.append(sql)
        return []

    async def write(*_: object) -> None:
        asked.append("a write")

    monkeypatch.setattr(database, "fetch_all", fetch_all)
    monkeypatch.setattr(database, "write", write)
    for _ in range(5):
        asked.clear()
        await device.sync(timeout=5)
        if asked == []:
            return
        # What the server looks after now and then may have asked.
    pytest.fail(f"each wait asked: {asked}")


async def test_messages_and_relations_take_a_pos(alice: Client) -> None:
    room_id = await alice.create_room()
    root = await alice.send(room_id, "before")
    pos = (await Sliding(alice, lists=ALL).sync())["pos"]
    await alice.send(room_id, "after")
    page = await alice.messages(room_id, **{"from": pos})
    assert [e["content"]["body"] for e in page["chunk"] if e["type"] == "m.room.message"] == ["before"]
    assert (await alice.get(f"/_matrix/client/v1/rooms/{room_id}/relations/{root}", **{"from": pos}))[
        "chunk"
    ] == []


async def test_a_connection_goes_on_at_another_process(servers: tuple[Server, Server]) -> None:
    one, other = servers
    alice = await one.register("alice")
    elsewhere = other.reconnect(alice)
    rooms = [await alice.create_room() for _ in range(2)]
    device = Sliding(alice, lists=ALL)
    await device.sync(lists={"all": a_list(5, EVERYTHING, range=[0, 0])})
    await alice.send(rooms[0], "one")
    await hear_all(elsewhere, alice)
    device.client = elsewhere
    answer = await device.sync()
    assert answer["rooms"].keys() == {rooms[0]}
    assert texts(answer["rooms"][rooms[0]]) == ["one"]
    lost = await device.ask()
    device.client = alice
    await elsewhere.send(rooms[1], "two")
    await hear_all(alice, elsewhere)
    answer = await device.sync()
    assert texts(answer["rooms"][rooms[1]]) == ["two"]
    assert answer["rooms"].keys() == {rooms[1]}
    # What was given here before was gone past there.
    old = answer["pos"]
    device.client = elsewhere
    for _ in range(3):
        await elsewhere.create_room()
        await device.sync()
    with refused(400, "M_UNKNOWN_POS"):
        await other.reconnect(alice).post("/_matrix/client/v4/sync", {"pos": old})
    assert lost["rooms"] == {}
