"""What clients keep at the server: account data, tags, ignored users."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, bodies, refused

if TYPE_CHECKING:
    from tests.server import Server

TYPE = "org.example.kept"


def path_of(client: Client, kind: str = TYPE, room_id: str | None = None) -> str:
    room = "" if room_id is None else f"/rooms/{quote(room_id, safe='')}"
    return f"/user/{client.user_id}{room}/account_data/{quote(kind, safe='')}"


def tag_path(client: Client, room_id: str, tag: str = "") -> str:
    return f"/user/{client.user_id}/rooms/{room_id}/tags" + (f"/{quote(tag, safe='')}" if tag else "")


def in_room(answer: dict[str, Any], room_id: str) -> list[dict[str, Any]]:
    return answer["rooms"]["join"][room_id]["account_data"]["events"]


def own(answer: dict[str, Any]) -> list[dict[str, Any]]:
    events = answer.get("account_data", {}).get("events", [])
    return [event for event in events if event["type"] != "m.push_rules"]


# -- account data -----------------------------------------------------------------------------------------


async def test_what_is_kept_comes_back_on_every_device(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(alice)
    sinces = [(await client.sync())["next_batch"] for client in (alice, phone, bob)]
    content = {"a": [1, 1.5, None, {"é": "\u0000"}]}
    assert await alice.put(path_of(alice), content) == {}
    assert await phone.get(path_of(alice)) == content
    event = {"type": TYPE, "content": content}
    for client, since in zip((alice, phone), sinces, strict=False):
        assert own(await client.sync(since)) == [event]
        assert own(await client.sync()) == [event]
    assert own(await bob.sync(sinces[2])) == []
    await server.restart()
    assert await server.reconnect(alice).get(path_of(alice)) == content


async def test_what_is_kept_for_a_room_comes_with_the_room(alice: Client) -> None:
    room_id = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    await alice.put(path_of(alice, room_id=room_id), {"a": 1})
    answer = await alice.sync(since)
    assert in_room(answer, room_id) == [{"type": TYPE, "content": {"a": 1}}]
    assert own(answer) == []
    assert await alice.get(path_of(alice, room_id=room_id)) == {"a": 1}
    # "a given type of data missing from a room's account data does not fall back to the global account data"
    with refused(404, "M_NOT_FOUND"):
        await alice.get(path_of(alice))


async def test_only_the_newest_of_a_type_is_told(alice: Client) -> None:
    since = (await alice.sync())["next_batch"]
    for number in range(3):
        await alice.put(path_of(alice), {"number": number})
    await alice.put(path_of(alice, "org.example.other"), {})
    assert own(await alice.sync(since)) == [
        {"type": TYPE, "content": {"number": 2}},
        {"type": "org.example.other", "content": {}},
    ]


async def test_what_was_never_set_is_not_found(alice: Client) -> None:
    room_id = await alice.create_room()
    for room in (None, room_id):
        with refused(404, "M_NOT_FOUND"):
            await alice.get(path_of(alice, room_id=room))


async def test_account_data_of_others_is_theirs(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    for room in (None, room_id):
        await alice.put(path_of(alice, room_id=room), {"a": 1})
        with refused(403, "M_FORBIDDEN"):
            await bob.get(path_of(alice, room_id=room))
        with refused(403, "M_FORBIDDEN"):
            await bob.put(path_of(alice, room_id=room), {"a": 2})


@pytest.mark.parametrize("kind", ["m.fully_read", "m.push_rules"])
async def test_what_the_server_manages_is_not_set_here(alice: Client, kind: str) -> None:
    room_id = await alice.create_room()
    for room in (None, room_id):
        with refused(405, "M_BAD_JSON"):
            await alice.put(path_of(alice, kind, room), {})


async def test_push_rules_are_read_as_account_data_too(alice: Client) -> None:
    assert await alice.get(path_of(alice, "m.push_rules")) == await alice.get("/pushrules/")
    event = (await alice.sync())["account_data"]["events"][-1]
    assert event == {"type": "m.push_rules", "content": await alice.get("/pushrules/")}


async def test_what_is_no_object_is_refused(alice: Client) -> None:
    for content, errcode in (
        (b"[]", "M_BAD_JSON"),
        (b"5", "M_BAD_JSON"),
        (b"{", "M_NOT_JSON"),
        (b"", "M_NOT_JSON"),
    ):
        with refused(400, errcode):
            await alice.call("PUT", path_of(alice), content=content)


async def test_bounds_of_account_data(alice: Client) -> None:
    await alice.put(path_of(alice), {"a": "x" * (65_536 - len('{"a":""}'))})
    with refused(413, "M_TOO_LARGE"):
        await alice.put(path_of(alice), {"a": "x" * 65_536})
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(path_of(alice, "x" * 256), {})


@pytest.mark.parametrize("room_id", ["@notaroomid:example.org", "room", "!", "#alias:example.org"])
async def test_what_is_no_room_id_is_refused(alice: Client, room_id: str) -> None:
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(path_of(alice, room_id=room_id), {})
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(path_of(alice, room_id=room_id))
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(tag_path(alice, quote(room_id, safe="")))


async def test_nothing_is_kept_for_unknown_rooms(alice: Client) -> None:
    with refused(404, "M_NOT_FOUND"):
        await alice.put(path_of(alice, room_id="!unknown:example.org"), {})
    with refused(404, "M_NOT_FOUND"):
        await alice.put(tag_path(alice, "!unknown:example.org", "u.a"), {})


# -- tags -------------------------------------------------------------------------------------------------


async def test_tags_are_put_on_and_taken_off(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    phone = await server.login(alice)
    since = (await phone.sync())["next_batch"]
    assert await alice.get(tag_path(alice, room_id)) == {"tags": {}}
    assert await alice.put(tag_path(alice, room_id, "m.favourite"), {"order": 0.25}) == {}
    await alice.put(tag_path(alice, room_id, "u.Work / é"), {})
    tags = {"m.favourite": {"order": 0.25}, "u.Work / é": {}}
    assert await alice.get(tag_path(alice, room_id)) == {"tags": tags}
    answer = await phone.sync(since)
    assert in_room(answer, room_id) == [{"type": "m.tag", "content": {"tags": tags}}]
    assert await alice.delete(tag_path(alice, room_id, "m.favourite")) == {}
    answer = await phone.sync(answer["next_batch"])
    assert in_room(answer, room_id) == [{"type": "m.tag", "content": {"tags": {"u.Work / é": {}}}}]
    # Nothing changes, and nobody is woken.
    await alice.delete(tag_path(alice, room_id, "m.favourite"))
    await alice.put(tag_path(alice, room_id, "u.Work / é"), {})
    assert "rooms" not in await phone.sync(answer["next_batch"])


async def test_tags_put_on_at_once_are_all_there(alice: Client) -> None:
    room_id = await alice.create_room()
    names = [f"u.{number}" for number in range(6)]
    await asyncio.gather(*(alice.put(tag_path(alice, room_id, name), {}) for name in names))
    assert (await alice.get(tag_path(alice, room_id)))["tags"].keys() == set(names)


async def test_what_cannot_be_a_tag_is_refused(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    for order in ("0.5", True, []):
        with refused(400, "M_BAD_JSON"):
            await alice.put(tag_path(alice, room_id, "u.a"), {"order": order})
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(tag_path(alice, room_id, "é" * 128), {})
    await alice.put(tag_path(alice, room_id, "é" * 127), {})
    for call in (
        bob.get(tag_path(alice, room_id)),
        bob.put(tag_path(alice, room_id, "u.a"), {}),
        bob.delete(tag_path(alice, room_id, "u.a")),
    ):
        with refused(403, "M_FORBIDDEN"):
            await call


async def test_tags_set_as_account_data_are_tags(alice: Client) -> None:
    room_id = await alice.create_room()
    await alice.put(path_of(alice, "m.tag", room_id), {"tags": {"u.a": {"order": 1}}})
    assert await alice.get(tag_path(alice, room_id)) == {"tags": {"u.a": {"order": 1}}}
    # Clients can write anything there.
    for content in ({"tags": []}, {"tags": None}, {}):
        await alice.put(path_of(alice, "m.tag", room_id), content)
        assert await alice.get(tag_path(alice, room_id)) == {"tags": {}}
        await alice.put(tag_path(alice, room_id, "u.b"), {})
    tags = {"u.a": {"order": 1}, "u.b": {"order": "x"}, "u.c": {"order": True}, "u.d": 5, "u.e": {}}
    await alice.put(path_of(alice, "m.tag", room_id), {"tags": tags})
    assert await alice.get(tag_path(alice, room_id)) == {"tags": {"u.a": {"order": 1}, "u.e": {}}}


# -- ignored users ----------------------------------------------------------------------------------------


async def ignore(client: Client, *user_ids: str) -> None:
    users: dict[str, Any] = {user_id: {} for user_id in user_ids}
    await client.put(path_of(client, "m.ignored_user_list"), {"ignored_users": users})


async def test_an_ignored_user_is_not_heard(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    event_id = await alice.send(room_id, "seen by bob")
    await ignore(alice, bob.user_id)
    since = (await alice.sync())["next_batch"]
    await bob.send(room_id, "hello")
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{quote(event_id, safe='')}")
    await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True})
    await bob.create_room(invite=[alice.user_id])
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    answer = await alice.sync(since)
    assert "invite" not in answer["rooms"]
    joined = answer["rooms"]["join"][room_id]
    # "State events will still be sent to the client, even if the user is ignored."
    assert [event["type"] for event in joined["timeline"]["events"]] == ["m.room.member"]
    ephemeral = joined["ephemeral"]["events"]
    assert [event for event in ephemeral if bob.user_id in str(event)] == []
    assert joined["unread_notifications"]["notification_count"] == 0


async def test_who_is_heard_again_is_heard_from_then_on(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    await ignore(alice, bob.user_id)
    since = (await alice.sync())["next_batch"]
    await bob.send(room_id, "missed")
    since = (await alice.sync(since))["next_batch"]
    await ignore(alice)
    await bob.send(room_id, "hello")
    answer = await alice.sync(since)
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["hello"]
    # "To receive the events that were sent while the user was ignored the client should perform a fresh sync."
    answer = await alice.sync()
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["missed", "hello"]


async def test_nobody_can_ignore_themselves(alice: Client) -> None:
    room_id = await alice.create_room()
    await ignore(alice, alice.user_id)
    since = (await alice.sync())["next_batch"]
    await alice.send(room_id, "hello")
    answer = await alice.sync(since)
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["hello"]


@pytest.mark.parametrize("content", [{}, {"ignored_users": []}, {"ignored_users": {"": 5, "nobody": None}}])
async def test_a_malformed_list_ignores_nobody(alice: Client, bob: Client, content: Any) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    await alice.put(path_of(alice, "m.ignored_user_list"), content)
    since = (await alice.sync())["next_batch"]
    await bob.send(room_id, "hello")
    assert bodies((await alice.sync(since))["rooms"]["join"][room_id]["timeline"]["events"]) == ["hello"]
