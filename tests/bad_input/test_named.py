"""Bad input of each kind that people think of first: the specified error, and nothing has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, Refused, bodies
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PUBLIC = {"preset": "public_chat"}


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    running = Server(tmp_path, database_url)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def alice(server: Server) -> Client:
    return await server.register("alice")


@pytest.fixture
async def mallory(server: Server) -> Client:
    return await server.register("mallory")


async def refusal(call: Any) -> tuple[int, str | None]:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.status, refused.value.errcode


async def news(client: Client, since: str) -> dict[str, Any]:
    """What has happened since; nothing where the answer holds no room and no account data."""
    answer = await client.sync(since)
    return {name: answer[name] for name in ("rooms", "account_data", "presence") if answer.get(name)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (400, "M_NOT_JSON")),
        (b'{"body": ', (400, "M_NOT_JSON")),
        (b'{"body": "\xff"}', (400, "M_NOT_JSON")),
        (b'{"body": NaN}', (400, "M_NOT_JSON")),
        (b'["body"]', (400, "M_BAD_JSON")),
        (b'{"body": ' + b"[" * 500 + b"]" * 500 + b"}", (400, "M_BAD_JSON")),
        (b'{"body": 1.5}', (400, "M_BAD_JSON")),
        (b'{"body": 9007199254740992}', (400, "M_BAD_JSON")),
        (b'{"body": 1e3}', (400, "M_BAD_JSON")),
        (b'{"body": "' + b"x" * 66_000 + b'"}', (413, "M_TOO_LARGE")),
        (b'{"body": "' + b"x" * 2_000_000 + b'"}', (413, "M_TOO_LARGE")),
    ],
)
async def test_content_that_cannot_be_an_event(
    alice: Client, content: bytes, expected: tuple[int, str]
) -> None:
    room = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    call = alice.call("PUT", f"/rooms/{room}/send/m.room.message/t1", content=content)
    assert await refusal(call) == expected
    assert await news(alice, since) == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"room_version": "13"}, (400, "M_UNSUPPORTED_ROOM_VERSION")),
        ({"room_version": "org.example.unknown"}, (400, "M_UNSUPPORTED_ROOM_VERSION")),
        ({"room_version": 12}, (400, "M_BAD_JSON")),
        ({"preset": "secret_chat"}, (400, "M_BAD_JSON")),
        ({"visibility": "hidden"}, (400, "M_BAD_JSON")),
        ({"invite": "@bob:example.org"}, (400, "M_BAD_JSON")),
        ({"invite": ["bob"]}, (400, "M_INVALID_PARAM")),
        ({"room_alias_name": "a:b"}, (400, "M_INVALID_PARAM")),
        ({"initial_state": [{"type": "m.room.topic"}]}, (400, "M_MISSING_PARAM")),
        ({"initial_state": [{"type": "x" * 300, "content": {}}]}, (413, "M_TOO_LARGE")),
        ({"topic": "x" * 70_000}, (413, "M_TOO_LARGE")),
    ],
)
async def test_a_room_that_cannot_be(alice: Client, body: Any, expected: tuple[int, str]) -> None:
    since = (await alice.sync())["next_batch"]
    assert await refusal(alice.post("/createRoom", body)) == expected
    assert await news(alice, since) == {}
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == []


async def test_an_upgrade_to_an_unknown_version(alice: Client) -> None:
    room = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    call = alice.post(f"/rooms/{room}/upgrade", {"new_version": "13"})
    assert await refusal(call) == (400, "M_UNSUPPORTED_ROOM_VERSION")
    assert await news(alice, since) == {}


@pytest.mark.parametrize(
    ("event_type", "state_key", "content"),
    [
        ("m.room.power_levels", "", {"users": {"@mallory:example.org": 100}}),
        ("m.room.name", "", {"name": "Mallory's"}),
        ("m.room.join_rules", "", {"join_rule": "invite"}),
        ("m.room.history_visibility", "", {"history_visibility": "world_readable"}),
        ("m.room.member", "@alice:example.org", {"membership": "ban"}),
        ("m.room.member", "@alice:example.org", {"membership": "leave"}),
        ("m.room.member", "@alice:example.org", {"membership": "join", "displayname": "x"}),
        ("m.room.create", "", {"room_version": "1"}),
        ("m.room.tombstone", "", {"replacement_room": "!x:example.org"}),
        ("org.example.other", "@alice:example.org", {}),
    ],
)
async def test_state_that_one_may_not_set(
    alice: Client, mallory: Client, event_type: str, state_key: str, content: Any
) -> None:
    room = await alice.create_room(**PUBLIC)
    await mallory.join(room)
    before = await alice.get(f"/rooms/{room}/state")
    since = (await alice.sync())["next_batch"]
    assert await refusal(mallory.set_state(room, event_type, content, state_key)) == (403, "M_FORBIDDEN")
    assert await news(alice, since) == {}
    after = await alice.get(f"/rooms/{room}/state")
    assert [event["event_id"] for event in after] == [event["event_id"] for event in before]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, (401, "M_MISSING_TOKEN")),
        ("", (401, "M_MISSING_TOKEN")),
        ("x", (401, "M_UNKNOWN_TOKEN")),
        ("rsa_" + "A" * 43, (401, "M_UNKNOWN_TOKEN")),
        ("A" * 10_000, (401, "M_UNKNOWN_TOKEN")),
        ("MDAxOGxvY2F0aW9uIG1hdHJpeC5vcmcK", (401, "M_UNKNOWN_TOKEN")),
    ],
)
async def test_tokens_that_nobody_gave_out(
    server: Server, token: str | None, expected: tuple[int, str]
) -> None:
    nobody = Client(server.http, access_token=token)
    for method, path in (
        ("GET", "/sync"),
        ("POST", "/createRoom"),
        ("PUT", "/rooms/!a:b/send/m.room.message/t"),
    ):
        assert await refusal(nobody.call(method, path, {} if method != "GET" else None)) == expected
    if token:
        assert await refusal(server.nobody().get("/sync", access_token=token)) == expected


async def test_a_token_that_was_taken_back(server: Server, alice: Client) -> None:
    other = await server.login(alice)
    await other.post("/logout")
    assert await refusal(other.get("/sync")) == (401, "M_UNKNOWN_TOKEN")
    assert await refusal(other.post("/logout")) == (401, "M_UNKNOWN_TOKEN")
    await alice.get("/account/whoami")


async def test_since_tokens_that_nobody_gave_out(alice: Client) -> None:
    good = (await alice.sync())["next_batch"]
    changed = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    forged = [changed, "s" + good[5:], good + "A", good[:-4], "s0", "0", "p"]
    forged += ["x" * 5000, "\x00", "s\u00e9", good.upper()]
    for since in forged:
        assert await refusal(alice.sync(since)) == (400, "M_INVALID_PARAM"), since
    room = await alice.create_room()
    for token in forged:
        assert await refusal(alice.messages(room, **{"from": token})) == (400, "M_INVALID_PARAM"), token
    assert room in (await alice.sync(good))["rooms"]["join"]


async def test_the_token_of_another_is_a_position_only(alice: Client, mallory: Client) -> None:
    since = (await mallory.sync())["next_batch"]
    room = await alice.create_room()
    assert room in (await alice.sync(since))["rooms"]["join"]
    assert room not in (await mallory.sync(since)).get("rooms", {}).get("join", {})


@pytest.mark.parametrize(
    "room", ["!", "room", "!a b:example.org", "@alice:example.org", "!" + "a" * 300, "%00", "!é"]
)
async def test_ids_of_rooms_of_wrong_form(alice: Client, room: str) -> None:
    since = (await alice.sync())["next_batch"]
    for method, path in (
        ("PUT", f"/rooms/{room}/send/m.room.message/t1"),
        ("PUT", f"/rooms/{room}/state/m.room.name/"),
        ("GET", f"/rooms/{room}/messages?dir=b"),
        ("GET", f"/rooms/{room}/members"),
        ("POST", f"/rooms/{room}/leave"),
        ("POST", f"/rooms/{room}/join"),
    ):
        status, errcode = await refusal(alice.call(method, path, {} if method != "GET" else None))
        assert status in (400, 403, 404), (method, path, status)
        assert errcode in ("M_INVALID_PARAM", "M_FORBIDDEN", "M_NOT_FOUND")
    assert await news(alice, since) == {}


async def test_a_transaction_id_that_comes_again_with_other_content(alice: Client) -> None:
    """CS "Transaction identifiers": the request is the same one, whatever its body says."""
    room = await alice.create_room()
    event_id = await alice.send(room, "first", transaction_id="t1")
    since = (await alice.sync())["next_batch"]
    assert await alice.send(room, "second", transaction_id="t1") == event_id
    assert await news(alice, since) == {}
    assert bodies((await alice.messages(room))["chunk"]) == ["first"]


async def test_a_key_that_stands_twice_counts_once(alice: Client) -> None:
    room = await alice.create_room()
    answer = await alice.call(
        "PUT",
        f"/rooms/{room}/send/m.room.message/t1",
        content=b'{"body": "a", "msgtype": "m.text", "body": "b"}',
    )
    assert (await alice.event(room, answer["event_id"]))["content"] == {"body": "b", "msgtype": "m.text"}
