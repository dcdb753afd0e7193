"""Backups of room keys: versions, keys, which of two keys is kept, counts and etags."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.api.client import key_backup
from homeserver.services import key_backups
from tests.client import Client, error_of, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.server import Server

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM, OTHER = "!room:example.org", "!" + "A" * 43
AUTH = {"type": "m.login.password", "password": "secret"}


def auth_data(name: str = "key") -> dict[str, Any]:
    return {"public_key": name, "signatures": {"@alice:example.org": {"ed25519:D": "s/+="}}}


def key(index: int = 0, forwarded: int = 0, *, verified: bool = False, text: str = "c") -> dict[str, Any]:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ephemeral": "e", "ciphertext": text, "mac": "m"},
    }


async def create(client: Client, name: str = "key") -> str:
    body = {"algorithm": ALGORITHM, "auth_data": auth_data(name)}
    return (await client.post("/room_keys/version", body))["version"]


def path(room_id: str | None = None, session_id: str | None = None) -> str:
    parts = [quote(part, safe="") for part in (room_id, session_id) if part is not None]
    return "/".join(["/room_keys/keys", *parts])


async def put_all(client: Client, version: str, rooms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    body = {"rooms": {room_id: {"sessions": sessions} for room_id, sessions in rooms.items()}}
    return await client.put(path(), body, version=version)


async def get_all(client: Client, version: str) -> dict[str, dict[str, Any]]:
    rooms = (await client.get(path(), version=version))["rooms"]
    return {room_id: room["sessions"] for room_id, room in rooms.items()}


async def assert_in_order(client: Client, version: str, outcome: dict[str, Any] | None = None) -> int:
    """What is said of a backup agrees with what is in it, and with the answer to the last write."""
    info = await client.get(f"/room_keys/version/{version}")
    assert info["count"] == sum(map(len, (await get_all(client, version)).values()))
    if outcome is not None:
        assert outcome == {"etag": info["etag"], "count": info["count"]}
    return info["count"]


# -- versions ---------------------------------------------------------------------------------------------


async def test_without_a_backup_there_is_none(alice: Client) -> None:
    calls: list[Awaitable[Any]] = [
        alice.get("/room_keys/version"),
        alice.get("/room_keys/version/1"),
        alice.put("/room_keys/version/1", {"algorithm": ALGORITHM, "auth_data": {}}),
        alice.delete("/room_keys/version/1"),
        put_all(alice, "1", {ROOM: {"s": key()}}),
        alice.get(path(), version="1"),
        alice.get(path(ROOM), version="1"),
        alice.get(path(ROOM, "s"), version="1"),
        alice.delete(path(), version="1"),
        alice.delete(path(ROOM), version="1"),
        alice.delete(path(ROOM, "s"), version="1"),
    ]
    for call in calls:
        with refused(404, "M_NOT_FOUND"):
            await call


async def test_the_newest_backup_is_the_current_one(alice: Client, bob: Client) -> None:
    assert [await create(alice, f"key{number}") for number in range(3)] == ["1", "2", "3"]
    newest = {
        "algorithm": ALGORITHM,
        "auth_data": auth_data("key2"),
        "count": 0,
        "etag": "0",
        "version": "3",
    }
    assert await alice.get("/room_keys/version") == newest
    assert await alice.get("/room_keys/version/3") == newest
    assert (await alice.get("/room_keys/version/1"))["auth_data"] == auth_data("key0")
    with refused(404, "M_NOT_FOUND"):
        await bob.get("/room_keys/version")
    with refused(404, "M_NOT_FOUND"):
        await bob.get("/room_keys/version/1")


async def test_the_number_of_a_deleted_backup_is_not_given_out_again(server: Server, alice: Client) -> None:
    for _ in range(2):
        await create(alice)
    assert await alice.delete("/room_keys/version/2") == {}
    assert (await alice.get("/room_keys/version"))["version"] == "1"
    await alice.delete("/room_keys/version/1")
    with refused(404, "M_NOT_FOUND"):
        await alice.get("/room_keys/version")
    await server.restart()
    alice = server.reconnect(alice)
    assert await create(alice) == "3"
    await alice.delete("/room_keys/version/3")
    assert await create(alice) == "4"
    # "If the backup was previously deleted, the call should succeed rather than returning an error."
    for version in ("1", "2", "3"):
        assert await alice.delete(f"/room_keys/version/{version}") == {}
        with refused(404, "M_NOT_FOUND"):
            await alice.get(f"/room_keys/version/{version}")
        with refused(404, "M_NOT_FOUND"):
            await alice.get(path(), version=version)
    with refused(404, "M_NOT_FOUND"):
        await alice.delete("/room_keys/version/5")


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "+1", "١", " 1", "9" * 18, "9" * 40, "one"])  # noqa: RUF001
async def test_what_is_no_version_is_that_of_no_backup(alice: Client, version: str) -> None:
    await create(alice)
    with refused(404, "M_NOT_FOUND"):
        await alice.get(f"/room_keys/version/{quote(version, safe='')}")
    with refused(404, "M_NOT_FOUND"):
        await alice.delete(f"/room_keys/version/{quote(version, safe='')}")
    with refused(404, "M_NOT_FOUND"):
        await alice.get(path(), version=version)
    with refused(403, "M_WRONG_ROOM_KEYS_VERSION"):
        await put_all(alice, version, {})


async def test_only_the_auth_data_of_a_backup_can_be_changed(alice: Client) -> None:
    version = await create(alice)
    before = await put_all(alice, version, {ROOM: {"s": key()}})
    address = f"/room_keys/version/{version}"
    for said in ({}, {"version": version}):
        changed = auth_data(f"changed {said}")
        assert await alice.put(address, {"algorithm": ALGORITHM, "auth_data": changed, **said}) == {}
        info = await alice.get(address)
        assert info["auth_data"] == changed
        assert (info["etag"], info["count"]) == (before["etag"], before["count"])
    for wrong in ({"version": "2"}, {"version": "one"}, {"algorithm": "other"}):
        with refused(400, "M_INVALID_PARAM"):
            await alice.put(address, {"algorithm": ALGORITHM, "auth_data": {}, **wrong})
    for wrong, errcode in (
        ({"auth_data": {}}, "M_MISSING_PARAM"),
        ({"algorithm": ALGORITHM}, "M_MISSING_PARAM"),
        ({"algorithm": 1, "auth_data": {}}, "M_BAD_JSON"),
        ({"algorithm": ALGORITHM, "auth_data": "a"}, "M_BAD_JSON"),
        ({"algorithm": ALGORITHM, "auth_data": {}, "version": 1}, "M_BAD_JSON"),
        ({"algorithm": "", "auth_data": {}}, "M_INVALID_PARAM"),
    ):
        with refused(400, errcode):
            await alice.put(address, wrong)
    assert await alice.get(address) == info


async def test_what_is_too_large_is_refused(alice: Client) -> None:
    large = {"algorithm": ALGORITHM, "auth_data": {"a": "x" * key_backups.MAX_AUTH_DATA_BYTES}}
    with refused(413, "M_TOO_LARGE"):
        await alice.post("/room_keys/version", large)
    with refused(400, "M_INVALID_PARAM"):
        await alice.post("/room_keys/version", {"algorithm": "x" * 256, "auth_data": {}})
    version = await create(alice)
    with refused(413, "M_TOO_LARGE"):
        await put_all(
            alice, version, {ROOM: {"a": key(), "s": key(text="x" * key_backup.MAX_SESSION_DATA_BYTES)}}
        )
    assert await assert_in_order(alice, version) == 0


async def test_a_user_has_no_more_backups_than_can_be_of_use(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_backups, "MAX_BACKUPS", 2)
    for _ in range(2):
        await create(alice)
    with refused(403, "M_FORBIDDEN"):
        await create(alice)
    await alice.delete("/room_keys/version/1")
    assert await create(alice) == "3"


async def test_the_backups_of_a_user_hold_no_more_keys_than_can_be_of_use(
    alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_backups, "MAX_KEYS", 3)
    await create(alice)
    await put_all(alice, "1", {ROOM: {"a": key(1)}})
    version = await create(alice)
    await put_all(alice, version, {ROOM: {"a": key(1), "b": key(1)}})
    with refused(413, "M_TOO_LARGE"):
        await put_all(alice, version, {ROOM: {"a": key(0), "c": key()}})
    # One in place of another is no more.
    assert await put_all(alice, version, {ROOM: {"a": key(0)}}) == {"etag": "2", "count": 2}
    assert (await get_all(alice, version))[ROOM]["a"] == key(0)
    await create(bob)
    assert (await put_all(bob, "1", {ROOM: {"a": key(1)}}))["count"] == 1
    # What is deleted makes room.
    await alice.delete("/room_keys/version/1")
    assert (await put_all(alice, version, {ROOM: {"c": key()}}))["count"] == 3
    await alice.delete(path(ROOM, "a"), version=version)
    assert (await put_all(alice, version, {ROOM: {"d": key()}}))["count"] == 3


# -- keys -------------------------------------------------------------------------------------------------


async def test_keys_come_back_as_they_were_stored_by_session_by_room_and_all_together(
    server: Server, alice: Client, bob: Client
) -> None:
    version = await create(alice)
    await create(bob)
    # Base64 has slashes; and there is nothing in a key that the server knows.
    odd = {**key(7, 2, verified=True), "session_data": {"a": [1, 1.5, None, {"é": "\u0000\ud7ff/"}], "b": ""}}
    rooms = {ROOM: {"a/b+c=": odd, "d e": key()}, OTHER: {"a/b+c=": key(3)}}
    outcome = await alice.put(path(ROOM, "a/b+c="), odd, version=version)
    assert outcome == {"etag": "1", "count": 1}
    outcome = await alice.put(path(ROOM), {"sessions": {"d e": key()}}, version=version)
    assert outcome == {"etag": "2", "count": 2}
    outcome = await put_all(alice, version, {OTHER: rooms[OTHER]})
    assert outcome == {"etag": "3", "count": 3}
    phone = await server.login(alice)
    await server.restart()
    for client in (server.reconnect(alice), server.reconnect(phone)):
        assert await get_all(client, version) == rooms
        for room_id, sessions in rooms.items():
            assert await client.get(path(room_id), version=version) == {"sessions": sessions}
            for session_id, one in sessions.items():
                assert await client.get(path(room_id, session_id), version=version) == one
        await assert_in_order(client, version, outcome)
    bob = server.reconnect(bob)
    assert await get_all(bob, "1") == {}
    assert await bob.get(path(ROOM), version="1") == {"sessions": {}}
    with refused(404, "M_NOT_FOUND"):
        await bob.get(path(ROOM, "a/b+c="), version="1")


async def test_ciphertexts_come_back_byte_for_byte(alice: Client) -> None:
    version = await create(alice)
    data = '{"ciphertext": "A\\u002fB/+=\\u00e9", "ephemeral":"x" , "mac":"y"}'
    body = f'{{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{data}}}'
    await alice.call("PUT", path(ROOM, "s"), content=body.encode(), version=version)
    stored = (await alice.get(path(ROOM, "s"), version=version))["session_data"]
    assert stored == json.loads(data)
    assert list(stored) == ["ciphertext", "ephemeral", "mac"]


async def test_a_room_whose_id_begins_as_that_of_another_is_another_one(alice: Client) -> None:
    version = await create(alice)
    longer = ROOM + "x"
    await put_all(alice, version, {ROOM: {"s": key(1), "s2": key()}, longer: {"s": key(2)}, "!a:b": {}})
    assert await alice.get(path(longer), version=version) == {"sessions": {"s": key(2)}}
    assert (await alice.delete(path(ROOM), version=version))["count"] == 1
    assert await get_all(alice, version) == {longer: {"s": key(2)}}


ORDERED = [
    key(0, 0, verified=True),
    key(0, 5, verified=True),
    key(3, 1, verified=True),
    key(0, 0),
    key(0, 1),
    key(2, 0),
]
"""From the best to the worst, by the rule of the specification."""


@pytest.mark.parametrize(("better", "worse"), list(itertools.pairwise(ORDERED)))
async def test_the_better_key_is_kept(alice: Client, better: dict[str, Any], worse: dict[str, Any]) -> None:
    version = await create(alice)
    better, worse = {**better, "session_data": {"a": 1}}, {**worse, "session_data": {"a": 2}}
    # First the better one, then the worse; and the other way round.
    kept = await put_all(alice, version, {ROOM: {"s": better}})
    assert await put_all(alice, version, {ROOM: {"s": worse}}) == kept
    assert await alice.get(path(ROOM, "s"), version=version) == better
    first = await put_all(alice, version, {ROOM: {"t": worse}})
    second = await put_all(alice, version, {ROOM: {"t": better}})
    assert second["count"] == first["count"] == 2
    assert second["etag"] != first["etag"]
    assert await alice.get(path(ROOM, "t"), version=version) == better


async def test_a_key_that_is_as_good_changes_nothing(alice: Client) -> None:
    version = await create(alice)
    first = await put_all(alice, version, {ROOM: {"s": key(text="first")}})
    assert await put_all(alice, version, {ROOM: {"s": key(text="second")}}) == first
    assert await put_all(alice, version, {}) == first
    assert await alice.get(path(ROOM, "s"), version=version) == key(text="first")


async def test_keys_go_only_into_the_newest_backup(alice: Client) -> None:
    await create(alice)
    await put_all(alice, "1", {ROOM: {"s": key()}})
    await create(alice)
    body = {"sessions": {"t": key()}}
    for call in (
        put_all(alice, "1", {ROOM: body["sessions"]}),
        alice.put(path(ROOM), body, version="1"),
        alice.put(path(ROOM, "t"), key(), version="1"),
        put_all(alice, "3", {ROOM: body["sessions"]}),
    ):
        error = await error_of(call)
        assert (error.status, error.errcode) == (403, "M_WRONG_ROOM_KEYS_VERSION")
        assert error.body["current_version"] == "2"
    # The old one can still be read, and emptied.
    assert await get_all(alice, "1") == {ROOM: {"s": key()}}
    assert await get_all(alice, "2") == {}
    assert await alice.delete(path(ROOM, "s"), version="1") == {"etag": "2", "count": 0}
    await alice.delete("/room_keys/version/2")
    assert (await put_all(alice, "1", {ROOM: {"t": key()}}))["count"] == 1


async def test_keys_are_deleted_by_session_by_room_and_all_together(alice: Client) -> None:
    version = await create(alice)
    rooms = {
        ROOM: {"a": key(), "b": key(), "c": key()},
        OTHER: {"a": key(), "d": key()},
        "!x:y": {"a": key()},
    }
    await put_all(alice, version, rooms)
    assert await alice.delete(path(ROOM, "a"), version=version) == {"etag": "2", "count": 5}
    assert await alice.delete(path(ROOM), version=version) == {"etag": "3", "count": 3}
    assert await get_all(alice, version) == {OTHER: rooms[OTHER], "!x:y": rooms["!x:y"]}
    outcome = await alice.delete(path(), version=version)
    assert outcome == {"etag": "4", "count": 0}
    assert await get_all(alice, version) == {}
    # What is not there changes nothing.
    for where in (path(), path(ROOM), path(ROOM, "a")):
        assert await alice.delete(where, version=version) == outcome
    assert await put_all(alice, version, {ROOM: {"a": key(9)}}) == {"etag": "5", "count": 1}
    await assert_in_order(alice, version)


@pytest.mark.parametrize(
    ("wrong", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"rooms": []}, "M_BAD_JSON"),
        ({"rooms": {ROOM: []}}, "M_BAD_JSON"),
        ({"rooms": {ROOM: {}}}, "M_MISSING_PARAM"),
        ({"rooms": {ROOM: {"sessions": None}}}, "M_BAD_JSON"),
        ({"rooms": {"room": {"sessions": {"s": key()}}}}, "M_INVALID_PARAM"),
        ({"rooms": {"!a b:c": {"sessions": {"s": key()}}}}, "M_INVALID_PARAM"),
        ({"rooms": {ROOM: {"sessions": {"": key()}}}}, "M_INVALID_PARAM"),
        ({"rooms": {ROOM: {"sessions": {"a\x00": key()}}}}, "M_INVALID_PARAM"),
        ({"rooms": {ROOM: {"sessions": {"s" * 256: key()}}}}, "M_INVALID_PARAM"),
        ({"rooms": {ROOM: {"sessions": {"s": 5}}}}, "M_BAD_JSON"),
        *(
            ({"rooms": {ROOM: {"sessions": {"s": {**key(), name: value}}}}}, "M_BAD_JSON")
            for name, value in (
                ("first_message_index", "0"),
                ("first_message_index", -1),
                ("first_message_index", 1.0),
                ("first_message_index", 2**53),
                ("first_message_index", True),
                ("forwarded_count", None),
                ("is_verified", 1),
                ("session_data", "text"),
                ("session_data", []),
            )
        ),
        *(
            (
                {
                    "rooms": {
                        ROOM: {"sessions": {"s": {name: it for name, it in key().items() if name != gone}}}
                    }
                },
                "M_MISSING_PARAM",
            )
            for gone in key()
        ),
    ],
)
async def test_a_bad_key_is_refused_with_all_that_came_with_it(
    alice: Client, wrong: Any, errcode: str
) -> None:
    version = await create(alice)
    before = await put_all(alice, version, {ROOM: {"there": key()}})
    if isinstance(wrong.get("rooms"), dict):
        wrong = {"rooms": {"!first:a": {"sessions": {"good": key()}}, **wrong["rooms"]}}
    error = await error_of(alice.put(path(), wrong, version=version))
    assert (error.status, error.errcode) == (400, errcode)
    # Nothing of what was sent is said.
    assert "ciphertext" not in error.body["error"]
    await assert_in_order(alice, version, before)
    assert await get_all(alice, version) == {ROOM: {"there": key()}}


async def test_a_version_must_be_said(alice: Client) -> None:
    await create(alice)
    for method, where in itertools.product(("GET", "PUT", "DELETE"), (path(), path(ROOM), path(ROOM, "s"))):
        with refused(400, "M_MISSING_PARAM"):
            await alice.call(method, where, {} if method == "PUT" else None)


async def test_guests_have_no_backup(start_server: Any) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    answer = await server.nobody().post("/register", {}, kind="guest")
    guest = Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])
    with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
        await create(guest)


# -- much, and many at once -------------------------------------------------------------------------------


async def test_writes_at_once_are_counted_exactly(server: Server, alice: Client) -> None:
    version = await create(alice)
    devices = [await server.login(alice) for _ in range(4)]
    # All upload some keys of their own, and all the same ones, of which each is there once.
    uploads = [
        put_all(device, version, {ROOM: {"same": key(), f"{number} {part}": key()}})
        for number, device in enumerate(devices)
        for part in range(10)
    ]
    outcomes = await asyncio.gather(*uploads)
    assert sorted(outcome["count"] for outcome in outcomes) == list(range(2, 42))
    assert sorted(int(outcome["etag"]) for outcome in outcomes) == list(range(1, 41))
    assert await assert_in_order(alice, version) == 41
    deletions = [
        alice.delete(path(ROOM, f"{number} {part}"), version=version)
        for number in range(4)
        for part in range(10)
    ]
    again = [alice.delete(path(ROOM, f"0 {part}"), version=version) for part in range(10)]
    outcomes = await asyncio.gather(*deletions, *again)
    assert min(outcome["count"] for outcome in outcomes) == 1
    info = await alice.get("/room_keys/version")
    assert (info["etag"], info["count"]) == ("80", 1)


async def test_versions_made_at_once_are_all_different(alice: Client) -> None:
    versions = await asyncio.gather(*(create(alice) for _ in range(20)))
    assert sorted(map(int, versions)) == list(range(1, 21))


async def test_many_keys_are_read_page_by_page(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backups, "PAGE", 7)
    monkeypatch.setattr(key_backups, "_DELETED_AT_ONCE", 10)
    version = await create(alice)
    # Pages that end within a room, and at the end of one; a number of keys that fills the last page.
    sizes = {"!a:x": 7, "!b:x": 3, "!c:x": 25, "!d:x": 1, "!e:x": 6}
    rooms = {room_id: {f"s{n}": key(n) for n in range(size)} for room_id, size in sizes.items()}
    await put_all(alice, version, rooms)
    assert await get_all(alice, version) == rooms
    for room_id, sessions in rooms.items():
        assert await alice.get(path(room_id), version=version) == {"sessions": sessions}
    assert await alice.delete(path(), version=version) == {"etag": "2", "count": 0}
    assert await get_all(alice, version) == {}


async def rows(server: Server) -> dict[str, int]:
    return {
        table: await server.application.database.fetch_value(f"SELECT count(*) FROM {table}")
        for table in ("key_backups", "backed_up_keys", "dropped_key_sets")
    }


async def test_nothing_stays_of_what_was_deleted(server: Server, alice: Client) -> None:
    for _ in range(5):
        version = await create(alice)
        await put_all(alice, version, {ROOM: {"a": key(), "b": key()}})
    await alice.delete(path(), version="5")
    assert await rows(server) == {"key_backups": 5, "backed_up_keys": 8, "dropped_key_sets": 0}
    for number in (3, 5, 1, 2, 4):
        await alice.delete(f"/room_keys/version/{number}")
    # One row, which knows the last number.
    assert await rows(server) == {"key_backups": 1, "backed_up_keys": 0, "dropped_key_sets": 0}
    for _ in range(3):
        await create(alice)
    assert await rows(server) == {"key_backups": 3, "backed_up_keys": 0, "dropped_key_sets": 0}


async def test_a_backup_goes_with_the_account(server: Server, alice: Client, bob: Client) -> None:
    for client in (alice, bob):
        await create(client)
        await put_all(client, "1", {ROOM: {"a": key(), "b": key()}})
    await alice.post("/account/deactivate", {"auth": AUTH})
    assert await rows(server) == {"key_backups": 1, "backed_up_keys": 2, "dropped_key_sets": 0}
    assert await get_all(bob, "1") == {ROOM: {"a": key(), "b": key()}}


@pytest.mark.parametrize("why", ["the program ended", "there were too many"])
async def test_what_is_left_of_a_deletion_goes_later(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    version = await create(alice)
    await put_all(alice, version, {ROOM: {name: key() for name in "abcde"}})
    left, once = (5, 5) if why == "the program ended" else (1, 2)
    monkeypatch.setattr(key_backups, "_DELETED_AT_ONCE", once)
    monkeypatch.setattr(key_backups, "_DELETIONS_IN_A_ROW", 0 if left == 5 else 2)
    assert await alice.delete(path(), version=version) == {"etag": "2", "count": 0}
    # Nobody is told of them any more.
    assert await get_all(alice, version) == {}
    assert await rows(server) == {"key_backups": 1, "backed_up_keys": left, "dropped_key_sets": 1}
    monkeypatch.setattr(key_backups, "_DELETIONS_IN_A_ROW", 2)
    await server.application.upkeep.look_after()
    assert await rows(server) == {"key_backups": 1, "backed_up_keys": 0, "dropped_key_sets": 0}


async def test_random_deeds_leave_what_a_plain_model_says(server: Server, alice: Client) -> None:
    chance = random.Random(3)
    version = await create(alice)
    model: dict[tuple[str, str], dict[str, Any]] = {}
    etag = "0"

    def worth(one: dict[str, Any]) -> tuple[bool, int, int]:
        return not one["is_verified"], one["first_message_index"], one["forwarded_count"]

    for step in range(150):
        room_id, session_id = chance.choice((ROOM, OTHER, "!x:y")), chance.choice("abcdef")
        deed = chance.randrange(12)
        before = dict(model)
        if deed < 8:
            uploaded = {
                (chance.choice((ROOM, OTHER, "!x:y")), chance.choice("abcdef")): key(
                    chance.randrange(3), chance.randrange(3), verified=chance.random() < 0.3, text=f"{step}"
                )
                for _ in range(chance.randrange(4))
            }
            rooms: dict[str, dict[str, Any]] = {}
            for (where, which), one in uploaded.items():
                rooms.setdefault(where, {})[which] = one
                old = model.get((where, which))
                if old is None or worth(one) < worth(old):
                    model[where, which] = one
            outcome = await put_all(alice, version, rooms)
        elif deed < 10:
            outcome = await alice.delete(path(room_id, session_id), version=version)
            model.pop((room_id, session_id), None)
        elif deed == 10:
            outcome = await alice.delete(path(room_id), version=version)
            model = {place: one for place, one in model.items() if place[0] != room_id}
        else:
            outcome = await alice.delete(path(), version=version)
            model = {}
        assert outcome["count"] == len(model)
        assert (outcome["etag"] != etag) == (model != before)
        etag = outcome["etag"]
        stored = await get_all(alice, version)
        assert {
            (where, which): one for where, sessions in stored.items() for which, one in sessions.items()
        } == model
