"""Profiles: names, avatars, other fields; and how rooms hear of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, error_of, refused

if TYPE_CHECKING:
    from tests.server import Server


async def set_field(client: Client, field: str, value: Any) -> Any:
    return await client.put(f"/profile/{client.user_id}/{field}", {field: value})


async def member(client: Client, room_id: str, user_id: str) -> dict[str, Any]:
    return await client.get_state(room_id, "m.room.member", user_id)


async def test_a_new_user_has_their_name(server: Server, alice: Client) -> None:
    nobody = server.nobody()
    assert await nobody.get(f"/profile/{alice.user_id}") == {"displayname": "alice"}
    assert await nobody.get(f"/profile/{alice.user_id}/displayname") == {"displayname": "alice"}
    with refused(404, "M_NOT_FOUND"):
        await nobody.get(f"/profile/{alice.user_id}/avatar_url")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("displayname", "Alice \u0000 \U0001f600"),
        ("avatar_url", "mxc://example.org/abc"),
        ("m.tz", "Europe/London"),
        ("org.example.job", {"title": ["a", 1, 1.5, None, True]}),
        ("org.example.none", None),
        ("org.example.empty", ""),
        ("org.example.with-hyphen", 1),
    ],
)
async def test_a_field_is_kept_as_it_was_set(
    server: Server, alice: Client, bob: Client, field: str, value: Any
) -> None:
    assert await set_field(alice, field, value) == {}
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    assert await bob.get(f"/profile/{alice.user_id}/{field}") == {field: value}
    assert (await bob.get(f"/profile/{alice.user_id}"))[field] == value
    assert await alice.delete(f"/profile/{alice.user_id}/{field}") == {}
    with refused(404, "M_NOT_FOUND"):
        await bob.get(f"/profile/{alice.user_id}/{field}")
    # "The profile field was deleted or it doesn't exist."
    assert await alice.delete(f"/profile/{alice.user_id}/{field}") == {}


@pytest.mark.parametrize("field", ["displayname", "avatar_url"])
async def test_an_empty_name_or_avatar_is_none(alice: Client, field: str) -> None:
    await set_field(alice, "avatar_url", "mxc://example.org/abc")
    await set_field(alice, field, "")
    assert field not in await alice.get(f"/profile/{alice.user_id}")


@pytest.mark.parametrize(
    ("field", "value", "errcode"),
    [
        ("displayname", 5, "M_BAD_JSON"),
        ("displayname", None, "M_BAD_JSON"),
        ("displayname", "é" * 129, "M_INVALID_PARAM"),
        ("avatar_url", "https://example.org/a.png", "M_INVALID_PARAM"),
        ("avatar_url", "mxc://example.org", "M_INVALID_PARAM"),
        ("avatar_url", "mxc://example.org/" + "a" * 1000, "M_INVALID_PARAM"),
        ("avatar_url", ["mxc://example.org/a"], "M_BAD_JSON"),
        ("m.tz", 5, "M_BAD_JSON"),
        ("job", 5, "M_INVALID_PARAM"),
        ("Org.example", 5, "M_INVALID_PARAM"),
        ("org.example.é", 5, "M_INVALID_PARAM"),
        ("a." + "b" * 254, 5, "M_KEY_TOO_LARGE"),
        ("org.example.big", "x" * 65_536, "M_PROFILE_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_a_field_is_refused(alice: Client, field: str, value: Any, errcode: str) -> None:
    with refused(400, errcode):
        await set_field(alice, field, value)
    assert await alice.get(f"/profile/{alice.user_id}") == {"displayname": "alice"}


async def test_a_whole_profile_has_64_kib(alice: Client) -> None:
    await set_field(alice, "org.example.a", "x" * 40_000)
    with refused(400, "M_PROFILE_TOO_LARGE"):
        await set_field(alice, "org.example.b", "x" * 40_000)
    # {"displayname":"alice","org.example.a":"..."}
    room = 65_536 - len('{"displayname":"alice","org.example.a":""}')
    await set_field(alice, "org.example.a", "x" * room)
    with refused(400, "M_PROFILE_TOO_LARGE"):
        await set_field(alice, "org.example.a", "x" * (room + 1))


async def test_the_body_holds_the_field_of_the_path(alice: Client) -> None:
    path = f"/profile/{alice.user_id}/displayname"
    with refused(400, "M_MISSING_PARAM"):
        await alice.put(path, {"avatar_url": "mxc://example.org/a"})
    with refused(400, "M_NOT_JSON"):
        await alice.call("PUT", path, content=b"{")
    with refused(400, "M_BAD_JSON"):
        await alice.call("PUT", path, content=b"[]")


async def test_profiles_of_others_cannot_be_changed(server: Server, alice: Client, bob: Client) -> None:
    path = f"/profile/{bob.user_id}/displayname"
    with refused(403, "M_FORBIDDEN"):
        await alice.put(path, {"displayname": "Mallory"})
    with refused(403, "M_FORBIDDEN"):
        await alice.delete(path)
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().put(path, {"displayname": "Mallory"})


async def test_unknown_users_have_no_profile(server: Server) -> None:
    for path in ("/profile/@nobody:example.org", "/profile/@nobody:example.org/displayname"):
        with refused(404, "M_NOT_FOUND"):
            await server.nobody().get(path)


async def test_for_users_of_other_servers_only_users_may_ask(server: Server, alice: Client) -> None:
    for path in ("/profile/@bob:elsewhere.org", "/profile/@bob:elsewhere.org/displayname"):
        with refused(401, "M_MISSING_TOKEN"):
            await server.nobody().get(path)
        with refused(502, "M_UNKNOWN"):
            await alice.get(path)


async def test_what_is_no_user_id_is_refused(server: Server) -> None:
    for name in ("alice", "@alice", "%40a%3A", "x" * 300):
        error = await error_of(server.nobody().get(f"/profile/{name}"))
        assert (error.status, error.errcode) == (400, "M_INVALID_PARAM")


# -- in rooms ---------------------------------------------------------------------------------------------


async def test_a_new_name_reaches_every_room(alice: Client, bob: Client) -> None:
    rooms = [await alice.create_room(preset="public_chat") for _ in range(3)]
    left = await alice.create_room(preset="public_chat")
    for room_id in (*rooms, left):
        await bob.join(room_id)
    await alice.leave(left)
    since = (await bob.sync())["next_batch"]
    await set_field(alice, "displayname", "Alice")
    await set_field(alice, "avatar_url", "mxc://example.org/abc")
    answer = await bob.sync(since)
    assert answer["rooms"]["join"].keys() == set(rooms)
    for room_id in rooms:
        named, shown = answer["rooms"]["join"][room_id]["timeline"]["events"]
        assert named["type"] == shown["type"] == "m.room.member"
        assert named["content"] == {"membership": "join", "displayname": "Alice"}
        assert named["unsigned"]["prev_content"]["displayname"] == "alice"
        assert shown["content"] == {**named["content"], "avatar_url": "mxc://example.org/abc"}
    await alice.delete(f"/profile/{alice.user_id}/displayname")
    assert await member(bob, rooms[0], alice.user_id) == {
        "membership": "join",
        "avatar_url": "mxc://example.org/abc",
    }


async def test_other_fields_do_not(alice: Client) -> None:
    room_id = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    await set_field(alice, "m.tz", "Europe/London")
    await set_field(alice, "displayname", "alice")
    assert "rooms" not in await alice.sync(since)
    assert await member(alice, room_id, alice.user_id) == {"membership": "join", "displayname": "alice"}


async def test_why_one_joined_is_not_repeated(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id, reason="Tea time")
    await set_field(bob, "displayname", "Bob")
    assert await member(alice, room_id, bob.user_id) == {"membership": "join", "displayname": "Bob"}


async def test_a_room_that_is_full_of_rules_does_not_stop_the_others(alice: Client, bob: Client) -> None:
    rooms = [await alice.create_room(preset="public_chat", room_version="10") for _ in range(2)]
    for room_id in rooms:
        await bob.join(room_id)
    levels = await alice.get_state(rooms[0], "m.room.power_levels")
    levels["events"]["m.room.member"] = 50
    await alice.set_state(rooms[0], "m.room.power_levels", levels)
    await set_field(bob, "displayname", "Bob")
    assert (await member(alice, rooms[1], bob.user_id))["displayname"] == "Bob"


async def test_changes_at_once_end_with_the_same_name_everywhere(alice: Client) -> None:
    rooms = [await alice.create_room() for _ in range(5)]
    await asyncio.gather(*(set_field(alice, "displayname", f"Alice {number}") for number in range(6)))
    name = (await alice.get(f"/profile/{alice.user_id}"))["displayname"]
    names = {(await member(alice, room_id, alice.user_id))["displayname"] for room_id in rooms}
    assert names == {name}


async def test_who_joins_brings_their_profile(alice: Client, bob: Client) -> None:
    await set_field(bob, "displayname", "Bob")
    await set_field(bob, "avatar_url", "mxc://example.org/bob")
    room_id = await alice.create_room(invite=[bob.user_id])
    invited = await member(alice, room_id, bob.user_id)
    assert (invited["displayname"], invited["avatar_url"]) == ("Bob", "mxc://example.org/bob")
    await bob.join(room_id)
    assert await member(alice, room_id, bob.user_id) == {
        "membership": "join",
        "displayname": "Bob",
        "avatar_url": "mxc://example.org/bob",
    }


async def test_a_new_name_costs_the_same_whoever_is_there(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    questions = await questions_of(server, alice, "Alice 1", monkeypatch)
    for number in range(20):
        other = await server.register(f"user{number}")
        await other.join(room_id)
    assert await questions_of(server, alice, "Alice 2", monkeypatch) <= questions


async def questions_of(server: Server, client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many questions the database is asked for a change of name."""
    database = server.application.database
    fetch_all, asked = database.fetch_all, []

    async def counted(sql: str, *arguments: Any) -> Any:
        asked.append(sql)
        return await fetch_all(sql, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(database, "fetch_all", counted)
        await set_field(client, "displayname", name)
    return len(asked)
