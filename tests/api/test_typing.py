"""Typing: who is told, and when it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server


async def room_of(alice: Client, *others: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    for other in others:
        await other.join(room_id)
    return room_id


async def type_in(client: Client, room_id: str, **body: Any) -> Any:
    return await client.put(f"/rooms/{room_id}/typing/{client.user_id}", {"typing": True, **body})


def typing(answer: dict[str, Any], room_id: str) -> list[str] | None:
    """Who is typing by an answer; None where it does not say."""
    joined = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    events = [event for event in joined.get("ephemeral", {}).get("events", []) if event["type"] == "m.typing"]
    assert len(events) <= 1
    return events[0]["content"]["user_ids"] if events else None


async def test_those_who_type_are_told_together(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    since = (await carol.sync())["next_batch"]
    assert await type_in(alice, room_id, timeout=30_000) == {}
    await type_in(bob, room_id)
    answer = await carol.sync(since)
    assert typing(answer, room_id) == [alice.user_id, bob.user_id]
    # It replaces what the client knew: whoever is not in it types no more.
    assert await type_in(alice, room_id, typing=False) == {}
    answer = await carol.sync(answer["next_batch"])
    assert typing(answer, room_id) == [bob.user_id]
    await type_in(alice, room_id, typing=False)
    assert "rooms" not in await carol.sync(answer["next_batch"])
    assert typing(await carol.sync(), room_id) == [bob.user_id]


async def test_to_go_on_typing_is_no_news(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    await type_in(alice, room_id, timeout=1_000)
    since = (await bob.sync())["next_batch"]
    await type_in(alice, room_id, timeout=60_000)
    assert "rooms" not in await bob.sync(since)
    server.clock.offset_ms = 2_000
    assert typing(await bob.sync(), room_id) == [alice.user_id]


async def test_typing_ends_for_those_who_were_away(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    await type_in(alice, room_id, timeout=30_000)
    since = (await bob.sync())["next_batch"]
    await server.stop()
    server.clock.offset_ms = 60_000
    await server.start()
    bob = server.reconnect(bob)
    assert typing(await bob.sync(since), room_id) == []
    assert typing(await bob.sync(), room_id) is None


async def test_typing_does_not_last_for_ever(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    await type_in(alice, room_id, timeout=2**53 - 1)
    await server.stop()
    server.clock.offset_ms = 121_000
    await server.start()
    assert typing(await server.reconnect(bob).sync(), room_id) is None


@pytest.mark.parametrize("deed", ["leave", "kick", "ban"])
async def test_who_is_out_of_the_room_types_no_more(alice: Client, bob: Client, deed: str) -> None:
    room_id = await room_of(alice, bob)
    await type_in(bob, room_id)
    since = (await alice.sync())["next_batch"]
    if deed == "leave":
        await bob.leave(room_id)
    elif deed == "kick":
        await alice.kick(room_id, bob.user_id)
    else:
        await alice.ban(room_id, bob.user_id)
    assert typing(await alice.sync(since), room_id) == []


async def test_nobody_types_for_somebody_else(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    with refused(403, "M_FORBIDDEN"):
        await bob.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True})


async def test_nobody_types_where_they_are_not(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    for typing_now in (True, False):
        with refused(403, "M_FORBIDDEN"):
            await type_in(bob, room_id, typing=typing_now)
        with refused(403, "M_FORBIDDEN"):
            await type_in(bob, "!unknown:example.org", typing=typing_now)


@pytest.mark.parametrize(
    "body", [{}, {"typing": "yes"}, {"typing": True, "timeout": "soon"}, {"typing": True, "timeout": -1}]
)
async def test_a_malformed_body_is_refused(alice: Client, body: Any) -> None:
    room_id = await alice.create_room()
    errcode = "M_BAD_JSON" if body else "M_MISSING_PARAM"
    with refused(400, errcode):
        await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", body)


async def test_many_who_wait_ask_the_database_once(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await room_of(alice, bob)
    devices = [bob, *[await server.login(bob) for _ in range(4)]]
    sinces = [(await device.sync())["next_batch"] for device in devices]
    database = server.application.database
    asked = []
    fetch_all = database.fetch_all

    async def counted(sql: str, *arguments: Any) -> Any:
        asked.append(sql)
        return await fetch_all(sql, *arguments)

    waiting = [
        asyncio.create_task(device.sync(since, timeout=30_000))
        for device, since in zip(devices, sinces, strict=True)
    ]
    await server.until_waiting(5)
    monkeypatch.setattr(database, "fetch_all", counted)
    await type_in(alice, room_id)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert [typing(answer, room_id) for answer in answers] == [[alice.user_id]] * 5
    assert len([sql for sql in asked if "FROM typing" in sql]) <= 1
