"""Presence: who is about, who is told, what makes one idle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import UserId
from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.conftest import StartServer
    from tests.server import Server

MINUTE_MS = 60_000


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(presence={"enabled": True})


async def room_of(alice: Client, bob: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    return room_id


async def set_presence(client: Client, presence: Any, **body: Any) -> Any:
    return await client.put(f"/presence/{client.user_id}/status", {"presence": presence, **body})


async def presence_of(client: Client, user_id: str) -> dict[str, Any]:
    return await client.get(f"/presence/{user_id}/status")


async def quiet_sync(client: Client, since: str | None = None, **query: Any) -> dict[str, Any]:
    """A sync that says nothing of its user's own presence."""
    return await client.sync(since, set_presence="offline", **query)


def told(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    events = answer.get("presence", {}).get("events", [])
    assert all(event["type"] == "m.presence" for event in events)
    return {event["sender"]: event["content"] for event in events}


async def test_who_shares_a_room_is_told(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    carol = await server.register("carol")
    sinces = [(await quiet_sync(client))["next_batch"] for client in (alice, bob, carol)]
    assert await set_presence(alice, "online", status_msg="At tea") == {}
    for client, since in zip((alice, bob), sinces, strict=False):
        content = told(await quiet_sync(client, since))[alice.user_id]
        assert content["presence"] == "online"
        assert content["status_msg"] == "At tea"
        assert content["currently_active"] is True
        assert 0 <= content["last_active_ago"] < MINUTE_MS
        assert content["displayname"] == "alice"
    assert told(await quiet_sync(carol, sinces[2])) == {}
    assert alice.user_id in told(await quiet_sync(bob))


async def test_a_status_message_goes_with_the_next_status(alice: Client) -> None:
    await set_presence(alice, "online", status_msg="At tea")
    assert (await presence_of(alice, alice.user_id))["status_msg"] == "At tea"
    await set_presence(alice, "unavailable")
    own = await presence_of(alice, alice.user_id)
    assert own["presence"] == "unavailable"
    assert "status_msg" not in own
    assert "currently_active" not in own


async def test_presence_is_for_those_who_share_a_room(alice: Client, bob: Client) -> None:
    await set_presence(alice, "online")
    with refused(403, "M_FORBIDDEN"):
        await presence_of(bob, alice.user_id)
    with refused(403, "M_FORBIDDEN"):
        await presence_of(bob, "@nobody:example.org")
    with refused(400, "M_INVALID_PARAM"):
        await presence_of(bob, "nobody")
    with refused(404, "M_NOT_FOUND"):
        await presence_of(bob, bob.user_id)
    await room_of(alice, bob)
    assert (await presence_of(bob, alice.user_id))["presence"] == "online"


async def test_presence_of_others_cannot_be_set(alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    with refused(403, "M_FORBIDDEN"):
        await bob.put(f"/presence/{alice.user_id}/status", {"presence": "offline"})


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"presence": "busy"}, "M_BAD_JSON"),
        ({"presence": "online", "status_msg": 5}, "M_BAD_JSON"),
        ({"presence": "online", "status_msg": "x" * 1001}, "M_INVALID_PARAM"),
        ({"presence": "online", "status_msg": "a\x00b"}, "M_INVALID_PARAM"),
    ],
)
async def test_a_malformed_status_is_refused(alice: Client, body: Any, errcode: str) -> None:
    with refused(400, errcode):
        await alice.put(f"/presence/{alice.user_id}/status", body)


async def test_a_sync_makes_one_online(alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    await quiet_sync(alice)
    with refused(404, "M_NOT_FOUND"):
        await presence_of(bob, alice.user_id)
    await alice.sync(set_presence="unavailable")
    assert (await presence_of(bob, alice.user_id))["presence"] == "unavailable"
    await alice.sync()
    assert (await presence_of(bob, alice.user_id))["presence"] == "online"
    with refused(400, "M_INVALID_PARAM"):
        await alice.sync(set_presence="busy")


async def test_a_long_poll_wakes_for_the_presence_of_neighbours_only(
    server: Server, alice: Client, bob: Client
) -> None:
    await room_of(alice, bob)
    carol = await server.register("carol")
    since = (await quiet_sync(bob))["next_batch"]
    waiting = asyncio.create_task(quiet_sync(bob, since, timeout=30_000))
    await server.until_waiting()
    await set_presence(carol, "online")
    await set_presence(alice, "online")
    answer = await asyncio.wait_for(waiting, 10)
    assert told(answer).keys() == {alice.user_id}


async def test_who_is_not_heard_of_goes_offline(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    await alice.sync()
    since = (await quiet_sync(bob))["next_batch"]
    server.clock.offset_ms = 91_000
    await server.application.people.presence.sweep()
    content = told(await quiet_sync(bob, since))[alice.user_id]
    assert content["presence"] == "offline"
    assert content["last_active_ago"] >= 91_000
    await alice.sync()
    assert (await presence_of(bob, alice.user_id))["presence"] == "online"


async def test_who_only_syncs_becomes_idle_and_stays_so(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    states = []
    for minute in range(9):
        server.clock.offset_ms = minute * MINUTE_MS
        await alice.sync()
        await server.application.people.presence.sweep()
        states.append((await presence_of(bob, alice.user_id))["presence"])
    assert states == ["online"] * 5 + ["unavailable"] * 4
    # "Any activity that bumps the last active time on any of the user's clients will cause the server to
    # automatically set their presence to online."
    await alice.send(room_id, "back")
    own = await presence_of(bob, alice.user_id)
    assert (own["presence"], own["currently_active"]) == ("online", True)


async def test_a_waiting_sync_keeps_one_online(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    since = (await alice.sync())["next_batch"]
    waiting = asyncio.create_task(alice.sync(since, timeout=60_000))
    await server.until_waiting()
    server.clock.offset_ms = 2 * MINUTE_MS
    await server.application.people.presence.sweep()
    assert (await presence_of(bob, alice.user_id))["presence"] == "online"
    server.application.rooms.notifier.stop()
    await waiting


async def test_one_idle_device_does_not_hide_another(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    phone = await server.login(alice)
    since = (await alice.sync())["next_batch"]
    waiting = asyncio.create_task(alice.sync(since, timeout=60_000))
    await server.until_waiting()
    await phone.sync(set_presence="unavailable")
    assert (await presence_of(bob, alice.user_id))["presence"] == "online"
    server.application.rooms.notifier.stop()
    await waiting


async def test_presence_outlives_a_restart(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    since = (await quiet_sync(bob))["next_batch"]
    await set_presence(alice, "online", status_msg="At tea")
    await server.restart()
    bob = server.reconnect(bob)
    assert (await presence_of(bob, alice.user_id))["status_msg"] == "At tea"
    assert told(await quiet_sync(bob, since))[alice.user_id]["presence"] == "online"
    server.clock.offset_ms = 91_000
    await server.application.people.presence.sweep()
    assert (await presence_of(bob, alice.user_id))["presence"] == "offline"


async def test_a_new_name_comes_with_the_presence(alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    await set_presence(alice, "online")
    since = (await quiet_sync(bob))["next_batch"]
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    await alice.put(f"/profile/{alice.user_id}/avatar_url", {"avatar_url": "mxc://example.org/a"})
    content = told(await quiet_sync(bob, since))[alice.user_id]
    assert (content["displayname"], content["avatar_url"]) == ("Alice", "mxc://example.org/a")


async def test_a_request_that_comes_to_its_end_after_the_deactivation_leaves_no_presence(
    server: Server, alice: Client
) -> None:
    await server.control("user-deactivate", name="alice")
    # It was believed before, and writes now.
    presence = server.application.people.presence
    await presence.set(UserId(alice.user_id), "online", "still here?")
    await presence.sync_begins(UserId(alice.user_id), "unavailable")
    assert await server.application.stores.presence.get(UserId(alice.user_id)) is None


async def test_a_deactivated_user_has_no_presence(server: Server, alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    await alice.sync()
    await server.control("user-deactivate", name="alice")
    server.clock.offset_ms = 91_000
    await server.application.people.presence.sweep()
    assert await server.application.database.fetch_all("SELECT 1 FROM presence") == []


async def test_presence_can_be_filtered(alice: Client, bob: Client) -> None:
    await room_of(alice, bob)
    await set_presence(alice, "online")
    for unwanted in (
        {"not_senders": [alice.user_id]},
        {"senders": []},
        {"types": []},
        {"not_types": ["m.*"]},
    ):
        assert told(await quiet_sync(bob, filter={"presence": unwanted})) == {}
    wanted = {"senders": [alice.user_id], "types": ["m.presence"]}
    assert told(await quiet_sync(bob, filter={"presence": wanted})).keys() == {alice.user_id}


async def test_many_who_wait_ask_the_database_once(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room_of(alice, bob)
    devices = [bob, *[await server.login(bob) for _ in range(4)]]
    sinces = [(await quiet_sync(device))["next_batch"] for device in devices]
    database = server.application.database
    asked = []
    fetch_all = database.fetch_all

    async def counted(sql: str, *arguments: Any) -> Any:
        asked.append(sql)
        return await fetch_all(sql, *arguments)

    waiting = [
        asyncio.create_task(quiet_sync(device, since, timeout=30_000))
        for device, since in zip(devices, sinces, strict=True)
    ]
    await server.until_waiting(5)
    monkeypatch.setattr(database, "fetch_all", counted)
    await set_presence(alice, "online")
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert all(alice.user_id in told(answer) for answer in answers)
    # One row was read for the write, and one for all who waited.
    assert len([sql for sql in asked if "FROM presence" in sql]) <= 2


async def test_a_server_without_presence_tells_nothing(start_server: StartServer) -> None:
    server = await start_server(presence={"enabled": False})
    alice = await server.register("alice")
    assert await set_presence(alice, "online") == {}
    assert told(await alice.sync()) == {}
    with refused(404, "M_NOT_FOUND"):
        await presence_of(alice, alice.user_id)
