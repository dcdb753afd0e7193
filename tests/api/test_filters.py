"""Filters: kept, found again, and used by syncs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, bodies, refused

if TYPE_CHECKING:
    from tests.server import Server

WHOLE = {
    "room": {
        "state": {"types": ["m.room.*"], "not_rooms": ["!a:example.org"], "lazy_load_members": True},
        "timeline": {"limit": 10, "types": ["m.room.message"], "not_senders": ["@spam:example.org"]},
        "ephemeral": {"types": ["m.receipt", "m.typing"]},
        "rooms": ["!b:example.org"],
        "include_leave": True,
    },
    "presence": {"types": ["m.presence"], "not_senders": ["@alice:example.org"]},
    "account_data": {"not_types": ["*"]},
    "event_format": "client",
    "event_fields": ["type", "content", "sender"],
    "org.example.unknown": {"a": [1, None]},
}


async def upload(client: Client, definition: Any) -> str:
    return (await client.post(f"/user/{client.user_id}/filter", definition))["filter_id"]


async def download(client: Client, filter_id: str) -> Any:
    return await client.get(f"/user/{client.user_id}/filter/{filter_id}")


@pytest.mark.parametrize("definition", [{}, WHOLE])
async def test_a_filter_comes_back_as_it_was(server: Server, alice: Client, definition: Any) -> None:
    filter_id = await upload(alice, definition)
    assert not filter_id.startswith("{")
    assert await download(alice, filter_id) == definition
    await server.restart()
    assert await download(server.reconnect(alice), filter_id) == definition


async def test_the_same_filter_has_the_same_id(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(alice)
    one, other = {"room": {"rooms": []}, "presence": {}}, {"presence": {}, "room": {"rooms": []}}
    assert await upload(alice, one) == await upload(phone, other)
    assert await upload(alice, {}) != await upload(alice, one)
    ids = await asyncio.gather(*(upload(bob, WHOLE) for _ in range(4)))
    assert len(set(ids)) == 1


async def test_a_long_filter_is_kept_too(alice: Client) -> None:
    """Longer than what an index of the database can hold."""
    rooms = [f"!{hash((number, 'a')) & (2**64 - 1):020}:example.org" for number in range(1_000)]
    filter_id = await upload(alice, {"room": {"rooms": rooms}})
    assert await download(alice, filter_id) == {"room": {"rooms": rooms}}
    assert await upload(alice, {"room": {"rooms": rooms}}) == filter_id


@pytest.mark.parametrize(
    "definition",
    [
        {"room": 5},
        {"room": {"timeline": {"limit": "10"}}},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"state": {"lazy_load_members": "yes"}}},
        {"room": {"rooms": [5]}},
        {"presence": []},
        {"event_fields": {}},
        {"event_format": "xml"},
    ],
)
async def test_a_malformed_filter_is_refused(alice: Client, definition: Any) -> None:
    with refused(400, "M_BAD_JSON"):
        await upload(alice, definition)
    with refused(400, "M_BAD_JSON"):
        await alice.sync(filter=definition)


async def test_filters_have_bounds(alice: Client) -> None:
    for definition, errcode in (
        ({"org.example": "x" * 70_000}, "M_INVALID_PARAM"),
        ({"room": {"rooms": ["!a:example.org"] * 2_001}}, "M_BAD_JSON"),
    ):
        with refused(400, errcode):
            await upload(alice, definition)
    with refused(400, "M_BAD_JSON"):
        await alice.call("POST", f"/user/{alice.user_id}/filter", content=b"[]")


async def test_filters_of_others_are_theirs(alice: Client, bob: Client) -> None:
    filter_id = await upload(alice, {})
    with refused(403, "M_FORBIDDEN"):
        await bob.get(f"/user/{alice.user_id}/filter/{filter_id}")
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/user/{alice.user_id}/filter", {})
    with refused(404, "M_NOT_FOUND"):
        await download(bob, filter_id)


@pytest.mark.parametrize("filter_id", ["0", "00", "-1", "1.0", "%C2%B2", "9" * 30, "abc", "1%20"])
async def test_an_unknown_filter_is_not_found(alice: Client, filter_id: str) -> None:
    with refused(404, "M_NOT_FOUND"):
        await download(alice, filter_id)


async def test_a_sync_takes_a_filter_by_id_or_as_it_is(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    for number in range(4):
        await alice.send(room_id, f"{number}")
    definition = {"room": {"timeline": {"limit": 2, "types": ["m.room.message"]}}}
    by_id = await upload(bob, definition)
    for wanted in (by_id, json.dumps(definition)):
        timeline = (await bob.sync(filter=wanted))["rooms"]["join"][room_id]["timeline"]
        assert bodies(timeline["events"]) == ["2", "3"]
    for wrong in ("999", "abc"):
        with refused(400, "M_INVALID_PARAM"):
            await bob.sync(filter=wrong)
    with refused(400, "M_INVALID_PARAM"):
        await bob.sync(filter="{")


@pytest.mark.parametrize("part", ["ephemeral", "account_data"])
async def test_rooms_can_be_left_out_of_a_part(alice: Client, bob: Client, part: str) -> None:
    rooms = [await alice.create_room(preset="public_chat") for _ in range(2)]
    for room_id in rooms:
        await bob.join(room_id)
        event_id = await alice.send(room_id, "hello")
        await bob.post(f"/rooms/{room_id}/receipt/m.read/{event_id}")
        await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True})
        await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/account_data/org.example", {})
    for unwanted in ({"not_rooms": [rooms[0]]}, {"rooms": [rooms[1]]}):
        joined = (await alice.sync(filter={"room": {part: unwanted}}))["rooms"]["join"]
        assert joined[rooms[0]][part]["events"] == []
        assert len(joined[rooms[1]][part]["events"]) == (2 if part == "ephemeral" else 1)
