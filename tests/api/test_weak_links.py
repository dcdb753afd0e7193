"""Over a weak link `/sync` tells what matters first, and the rest in the next answers: docs/offline.md.

That nothing is lost and nothing comes twice is for `tests/sync`, where such answers are mixed at random with all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.client import Client, bodies
from tests.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

ONE_ROOM = {"dev.restante.max_bytes": 1}
MISSED = "/_matrix/client/unstable/dev.restante.missed"


async def room_of(host: Client, *others: Client) -> str:
    room_id = await host.create_room(preset="public_chat")
    for other in others:
        await other.join(room_id)
    return room_id


async def since(device: Client) -> str:
    return (await device.sync())["next_batch"]


def told(answer: dict[str, Any]) -> list[str]:
    return [
        room_id
        for room_id, section in answer["rooms"]["join"].items()
        if bodies(section["timeline"]["events"])
    ]


async def test_what_matters_comes_first_and_the_rest_follows(alice: Client, bob: Client) -> None:
    rest, older, favourite, mentioning, direct = [await room_of(bob, alice) for _ in range(5)]
    await alice.put(f"/user/{alice.user_id}/account_data/m.direct", {bob.user_id: [direct]})
    await alice.put(f"/user/{alice.user_id}/rooms/{favourite}/tags/m.favourite", {})
    place = await since(alice)
    for room_id in (direct, favourite, older, rest):
        await bob.send(room_id, "hello")
    mention = {"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [alice.user_id]}}
    await bob.send(mentioning, mention)
    await bob.send(rest, "news")
    order = []
    for _ in range(5):
        answer = await alice.sync(place, **ONE_ROOM)
        place = answer["next_batch"]
        order += told(answer)
    assert order == [direct, mentioning, favourite, rest, older]
    assert "rooms" not in await alice.sync(place, **ONE_ROOM)


async def test_a_first_sync_comes_in_parts_too(alice: Client, bob: Client) -> None:
    rooms = [await room_of(bob, alice) for _ in range(4)]
    for room_id in rooms:
        await bob.send(room_id, "hello")
    answer = await alice.sync(**ONE_ROOM)
    held = told(answer)
    assert len(held) == 1
    while len(held) < 4:
        answer = await alice.sync(answer["next_batch"], **ONE_ROOM)
        held += told(answer)
        (section,) = answer["rooms"]["join"].values()
        assert any(
            event["type"] == "m.room.create"
            for event in section["state"]["events"] + section["timeline"]["events"]
        )
    assert sorted(held) == sorted(rooms)


async def test_timelines_are_short_and_say_where_the_rest_is(alice: Client, bob: Client) -> None:
    room_id = await room_of(bob, alice)
    place = await since(alice)
    for number in range(20):
        await bob.send(room_id, f"{number}")
    answer = await alice.sync(place, **{"dev.restante.network": "weak"})
    timeline = answer["rooms"]["join"][room_id]["timeline"]
    assert bodies(timeline["events"]) == ["15", "16", "17", "18", "19"]
    assert timeline["limited"]
    page = await alice.messages(room_id, limit=15, **{"from": timeline["prev_batch"]})
    assert bodies(page["chunk"]) == [f"{number}" for number in reversed(range(15))]


async def test_presence_and_typing_are_left_out(start_server: StartServer) -> None:
    server = await start_server(presence={"enabled": True})
    alice, bob = await server.register("alice"), await server.register("bob")
    room_id = await room_of(bob, alice)
    place = await since(alice)
    await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 30_000})
    await bob.put(f"/presence/{bob.user_id}/status", {"presence": "online", "status_msg": "here"})
    weak = await alice.sync(place, **{"dev.restante.network": "weak"})
    assert "presence" not in weak
    assert "m.typing" not in str(weak.get("rooms"))
    good = await alice.sync(place)
    assert "presence" in good
    assert "m.typing" in str(good["rooms"])


async def test_what_is_owed_survives_a_restart_and_a_lost_answer(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await room_of(bob, alice) for _ in range(3)]
    place = await since(alice)
    for room_id in rooms:
        await bob.send(room_id, "hello")
    first = await alice.sync(place, **ONE_ROOM)
    lost = await alice.sync(first["next_batch"], **ONE_ROOM)
    await server.restart()
    alice = server.reconnect(alice)
    second = await alice.sync(first["next_batch"], **ONE_ROOM)
    assert told(second) == told(lost)
    third = await alice.sync(second["next_batch"])
    assert sorted(told(first) + told(second) + told(third)) == sorted(rooms)


async def test_a_token_of_which_it_is_forgotten_what_it_owes_tells_all_from_there(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await room_of(bob, alice) for _ in range(3)]
    place = await since(alice)
    for room_id in rooms:
        await bob.send(room_id, "hello")
    answer = await alice.sync(place, **ONE_ROOM)
    await server.application.database.write(lambda t: t.execute("DELETE FROM owed_rooms"))
    assert sorted(told(await alice.sync(answer["next_batch"]))) == sorted(rooms)


async def test_a_client_that_begins_anew_is_told_what_it_had_by_catching_up_too(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await room_of(bob, alice) for _ in range(3)]
    for room_id in rooms:
        await bob.send(room_id, "hello")
    # Of two rooms it has nothing yet.
    answer = await alice.sync(**ONE_ROOM)
    page = await alice.call("GET", f"{MISSED}/messages", **{"from": answer["next_batch"]})
    await server.application.database.write(lambda t: t.execute("DELETE FROM owed_rooms"))
    assert sorted(told(await alice.sync(page["next_batch"]))) == sorted(rooms)


async def test_what_was_put_off_is_not_yet_delivered(alice: Client, bob: Client) -> None:
    rooms = [await room_of(bob, alice) for _ in range(2)]
    place = await since(alice)
    sent = {room_id: await bob.send(room_id, "hello") for room_id in rooms}

    async def delivered() -> set[str]:
        got = set()
        for room_id, event_id in sent.items():
            path = f"/_matrix/client/unstable/dev.restante.delivery/rooms/{room_id}/events/{event_id}"
            if (await bob.call("GET", path))["users"][alice.user_id]["delivery"]["delivered"]:
                got.add(room_id)
        return got

    first = await alice.sync(place, **ONE_ROOM)
    second = await alice.sync(first["next_batch"], **ONE_ROOM)
    assert await delivered() == set(told(first))
    await alice.sync(second["next_batch"])
    assert await delivered() == set(rooms)


async def test_what_the_acknowledged_answer_owes_is_kept_however_many_others_follow(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await room_of(bob, alice) for _ in range(3)]
    place = await since(alice)
    for room_id in rooms:
        await bob.send(room_id, "hello")
    answer = await alice.sync(place, **ONE_ROOM)
    await alice.sync(answer["next_batch"], **ONE_ROOM)
    await server.application.delivered.flush()
    # Another loop of the same device, which goes on from an older place.
    for _ in range(6):
        await alice.sync(place, **ONE_ROOM)
    database = server.application.database
    kept = await database.fetch_value(
        "SELECT count(*) FROM device_positions p JOIN owed_rooms o ON o.device_id = p.device_id"
        " AND o.number = p.owed WHERE p.user_id = $1",
        alice.user_id,
    )
    assert kept == 1


async def test_catching_up_tells_what_was_put_off(alice: Client, bob: Client) -> None:
    rooms = [await room_of(bob, alice) for _ in range(3)]
    place = await since(alice)
    for room_id in rooms:
        await bob.send(room_id, "put off")
    answer = await alice.sync(place, **ONE_ROOM)
    for room_id in rooms:
        await bob.send(room_id, "later")
    page = await alice.call("GET", f"{MISSED}/messages", **{"from": answer["next_batch"]})
    assert sorted(bodies(page["chunk"])) == ["later"] * 3 + ["put off"] * 2
    after = await alice.sync(page["next_batch"])
    assert not told(after)
    # What is no event is owed still, and counted.
    counts = {
        room_id: section["unread_notifications"]["notification_count"]
        for room_id, section in after["rooms"]["join"].items()
    }
    assert counts == dict.fromkeys(rooms, 2)


async def test_the_answer_says_that_it_was_made_for_a_weak_link(alice: Client) -> None:
    async def budget(path: str, **headers: str) -> str | None:
        answer = await alice.http.get(
            f"/_matrix/client/v3/sync{path}",
            headers={"Authorization": f"Bearer {alice.access_token}", **headers},
        )
        assert answer.status_code == 200
        return answer.headers.get("Dev-Restante-Budget")

    assert await budget("") is None
    assert await budget("", ECT="2g") == "32768"
    assert await budget("?dev.restante.max_bytes=5000") == "5000"


async def test_the_operator_can_switch_it_off(tmp_path: Path) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path}/restante.db", sync={"adaptive": False})
    await server.start()
    try:
        alice, bob = await server.register("alice"), await server.register("bob")
        rooms = [await room_of(bob, alice) for _ in range(2)]
        place = await since(alice)
        for room_id in rooms:
            await bob.send(room_id, "hello")
        assert sorted(told(await alice.sync(place, **ONE_ROOM))) == sorted(rooms)
    finally:
        await server.stop()
