"""People and two servers on one PostgreSQL: what is told to one holds at the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, error_of, refused
from tests.keys import USUAL, Device, User, claim_one, query

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}


async def within(call: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(call, 20)


async def sync_until(client: Client, since: str, path: tuple[str, ...]) -> dict[str, Any]:
    """Sync on until an answer has something at this place."""
    while True:
        answer: Any = await within(client.sync(since, timeout=10_000, set_presence="offline"))
        since = answer["next_batch"]
        found = answer
        for name in path:
            found = found.get(name, {})
        if found:
            return answer


@pytest.mark.parametrize("deed", ["logout", "logout all", "password", "deactivated", "refresh"])
async def test_a_session_that_ends_at_one_ends_at_the_other(
    servers: tuple[Server, Server], deed: str
) -> None:
    first, second = servers
    alice = await first.register("alice")
    body = {"type": "m.login.password", "user": "alice", "password": "secret", "refresh_token": True}
    session = await first.nobody().post("/login", body)
    here = Client(first.http, alice.user_id, session["device_id"], session["access_token"])
    there = second.reconnect(here)
    since = (await there.sync())["next_batch"]
    waiting = asyncio.create_task(error_of(there.sync(since, timeout=60_000)))
    await second.until_waiting()
    if deed == "logout":
        await here.post("/logout")
    elif deed == "logout all":
        await alice.post("/logout/all")
    elif deed == "password":
        await alice.post("/account/password", {"new_password": "other", "auth": AUTH})
    elif deed == "deactivated":
        await alice.post("/account/deactivate", {"auth": AUTH})
    else:
        new = await first.nobody().post("/refresh", {"refresh_token": session["refresh_token"]})
        await Client(first.http, access_token=new["access_token"]).get("/account/whoami")
    error = await within(waiting)
    assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
    with refused(401, "M_UNKNOWN_TOKEN"):
        await there.get("/account/whoami")


async def test_typing_and_presence_are_told_at_both(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), second.reconnect(await first.register("bob"))
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await bob.sync(set_presence="offline"))["next_batch"]
    place = ("rooms", "join", room_id, "ephemeral", "events")
    for is_typing, expected in ((True, [alice.user_id]), (False, [])):
        await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": is_typing, "timeout": 60_000})
        answer = await sync_until(bob, since, place)
        since = answer["next_batch"]
        (event,) = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
        assert event["content"] == {"user_ids": expected}
    for state in ("unavailable", "online"):
        await alice.put(f"/presence/{alice.user_id}/status", {"presence": state})
        answer = await sync_until(bob, since, ("presence",))
        since = answer["next_batch"]
        assert [event["content"]["presence"] for event in answer["presence"]["events"]] == [state]


async def test_who_is_ignored_at_one_is_ignored_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), await first.register("bob")
    there = second.reconnect(alice)
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await there.sync())["next_batch"]
    ignored = {"ignored_users": {bob.user_id: {}}}
    await alice.put(f"/user/{alice.user_id}/account_data/m.ignored_user_list", ignored)
    since = (await sync_until(there, since, ("account_data",)))["next_batch"]
    await bob.send(room_id, "unheard")
    await alice.send(room_id, "heard")
    answer = await sync_until(there, since, ("rooms", "join", room_id, "timeline", "events"))
    events = answer["rooms"]["join"][room_id]["timeline"]["events"]
    assert [event["content"]["body"] for event in events] == ["heard"]


async def test_who_is_erased_at_one_is_erased_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), second.reconnect(await first.register("bob"))
    room_id = await alice.create_room(preset="public_chat")
    event_id = await alice.send(room_id, "secret")
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    await alice.post("/account/deactivate", {"erase": True, "auth": AUTH})
    await sync_until(bob, since, ("rooms", "join", room_id, "timeline", "events"))
    carol = await second.register("carol")
    await carol.join(room_id)
    assert (await carol.event(room_id, event_id))["content"] == {}
    assert (await bob.event(room_id, event_id))["content"]["body"] == "secret"


async def test_one_name_asked_for_at_both_is_given_once(servers: tuple[Server, Server]) -> None:
    answers = await asyncio.gather(
        *(server.register("alice") for server in servers for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(answer, Client) for answer in answers) == 1


async def test_a_stage_shown_at_one_counts_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice = await first.register("alice")
    there = second.reconnect(alice)
    session = (await error_of(alice.delete("/devices/PHONE", {}))).body["session"]
    await there.delete("/devices/PHONE", {"auth": {**AUTH, "session": session}})
    with refused(400, "M_INVALID_PARAM"):
        await alice.delete("/devices/PHONE", {"auth": {**AUTH, "session": session}})


async def test_a_one_time_key_is_given_out_once_by_both(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), await first.register("bob")
    uploaded = await Device(alice).upload(one_time_keys=40)
    claimers = [bob, second.reconnect(bob)]
    answers = await asyncio.gather(*(claim_one(claimers[number % 2], alice) for number in range(60)))
    given = [answer for answer in answers if answer is not None]
    assert len(given) == 40
    assert dict(given) == uploaded


async def test_a_device_at_one_hears_of_the_claims_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), second.reconnect(await first.register("bob"))
    device = Device(alice)
    await device.upload(one_time_keys=2)
    await alice.post("/keys/upload", {"fallback_keys": device.fallback_key()})
    since = (await alice.sync(set_presence="offline"))["next_batch"]
    for left, unused in ((1, [USUAL]), (0, [USUAL]), (0, [])):
        waiting = asyncio.create_task(alice.sync(since, timeout=60_000, set_presence="offline"))
        await first.until_waiting()
        await claim_one(bob, alice)
        answer = await within(waiting)
        assert answer["device_one_time_keys_count"] == {USUAL: left}
        assert answer["device_unused_fallback_key_types"] == unused
        since = answer["next_batch"]
    # And of its own uploads at the other.
    there = second.reconnect(alice)
    await there.post("/keys/upload", {"one_time_keys": device.one_time_keys(3)})
    # The token of the other is from after the upload.
    since = (await there.sync(set_presence="offline"))["next_batch"]
    answer = await alice.sync(since, set_presence="offline")
    assert answer["device_one_time_keys_count"] == {USUAL: 3}


async def test_first_keys_that_come_to_both_at_once_are_one_user_s(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice = await first.register("alice")
    users = [User(alice) for _ in range(4)]
    clients = [alice, second.reconnect(alice)] * 2
    answers = await asyncio.gather(
        *(
            client.post("/keys/device_signing/upload", user.keys())
            for client, user in zip(clients, users, strict=True)
        ),
        return_exceptions=True,
    )
    assert answers.count({}) == 1
    expected = users[answers.index({})].keys()
    answer = await query(alice, alice.user_id)
    assert answer["self_signing_keys"][alice.user_id] == expected["self_signing_key"]
    assert answer["user_signing_keys"][alice.user_id] == expected["user_signing_key"]


async def test_a_message_to_a_device_wakes_it_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice = await first.register("alice")
    there = second.reconnect(alice)
    since = (await there.sync())["next_batch"]
    for number in range(3):
        waiting = asyncio.create_task(there.sync(since, timeout=60_000))
        await second.until_waiting()
        messages = {alice.user_id: {"*": {"number": number}}}
        await alice.put(f"/sendToDevice/m.test/{number}", {"messages": messages})
        answer = await within(waiting)
        assert [event["content"]["number"] for event in answer["to_device"]["events"]] == [number]
        since = answer["next_batch"]
    # What is acknowledged at one is gone at the other.
    await alice.sync(since)
    assert "to_device" not in await there.sync()
    assert "to_device" not in await alice.sync()
