"""Attacks by single events: refused as the specification says, and nothing else disturbed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from structlog.testing import capture_logs

from crypto.keys import key_from_seed
from federation.request_auth import sign_request
from federation.server_keys import countersign
from tests.client import bodies, error_of
from tests.federation_api.remote import V1, Network
from tests.hostile.mallory import Mallory
from tests.hostile.mutations import nested

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer
    from tests.hostile.conftest import Judge
    from tests.server import Server

VERSIONS = ("1", "10", "12")


async def shared_room(alice: Client, *others: Mallory, version: str, **options: object) -> str:
    """A public room of Alice's that Mallory and the like are in."""
    room_id = await alice.create_room(preset="public_chat", room_version=version, **options)
    for other in others:
        await other.become("join", room_id, other.user("mallory"))
    return room_id


async def mallorys_room(server: Server, alice: Client, mallory: Mallory, version: str) -> str:
    """A room in which Mallory may do everything."""
    options = {"power_level_content_override": {"users": {alice.user_id: 100, mallory.user("mallory"): 100}}}
    if version == "12":
        options = {"power_level_content_override": {"users": {mallory.user("mallory"): 100}}}
    return await shared_room(alice, mallory, version=version, **options)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_that_follows_one_of_another_room_changes_nothing(
    server: Server, alice: Client, mallory: Mallory, judge: Judge, version: str
) -> None:
    target = await shared_room(alice, mallory, version=version)
    own = await mallorys_room(server, alice, mallory, version)
    name = await mallory.event_in(own, "m.room.name", {"name": "Mine"}, state_key="")
    assert await mallory.tell(name) == {name.event_id: {}}
    smuggled = await mallory.event_in(target, "m.room.message", {"body": "from there"}, prev=[name.event_id])
    await mallory.tell(smuggled)
    state = {event["type"] for event in await alice.get(f"/rooms/{target}/state")}
    assert "m.room.name" not in state
    await judge()
    await alice.send(target, "still here")
    assert bodies((await alice.messages(target))["chunk"])[0] == "still here"


async def test_an_event_that_is_nested_absurdly_is_refused_by_itself(
    server: Server, alice: Client, mallory: Mallory, judge: Judge
) -> None:
    """Its server sends whatever its users say; it must not be punished for that with a transaction that fails."""
    room_id = await shared_room(alice, mallory, version="11")
    good = await mallory.event_in(room_id, "m.room.message", {"body": "good"})
    deep = {**good.pdu, "content": {"body": "deep", "x": nested(600)}}
    answer = await mallory.tell(deep, good, edus=[{"edu_type": "m.typing", "content": {"x": nested(600)}}])
    assert answer == {good.event_id: {}}
    assert bodies((await alice.messages(room_id, limit=1))["chunk"]) == ["good"]
    await judge()


@pytest.mark.parametrize("depth", [900, 1_023, 30_000])
async def test_so_it_is_if_no_parser_reads_it(
    alice: Client, mallory: Mallory, judge: Judge, depth: int
) -> None:
    room_id = await shared_room(alice, mallory, version="11")
    good = await mallory.event_in(room_id, "m.room.message", {"body": "good"})
    absurd = b"[" * depth + b"]" * depth
    event = orjson.dumps({**good.pdu, "content": {"body": "deep", "x": "absurd"}})
    body = b'{"edus":[%s],"origin_server_ts":1,"pdus":[%s,%s,"",%s]}' % (
        b'{"content":%s,"edu_type":"m.typing"}' % absurd,
        event.replace(b'"absurd"', absurd),
        orjson.dumps(good.pdu),
        absurd,
    )
    assert await mallory.tell_bytes(body) == {good.event_id: {}}
    assert bodies((await alice.messages(room_id, limit=1))["chunk"]) == ["good"]
    await judge()


@pytest.mark.parametrize(
    "body", [b"[" * 2_000, b'{"pdus":[' + b"[" * 2_000, b'{"pdus":[}', b'{"pdus":[tru]}', b"5", b""]
)
async def test_what_is_no_transaction_at_all_is_refused(alice: Client, mallory: Mallory, body: bytes) -> None:
    error = await error_of(mallory.tell_bytes(body))
    assert error.status == 400
    assert error.errcode in ("M_NOT_JSON", "M_BAD_JSON")


async def test_fifty_events_may_be_as_large_as_events_may_be(
    server: Server, alice: Client, mallory: Mallory
) -> None:
    room_id = await shared_room(alice, mallory, version="11")
    large = [
        await mallory.event_in(room_id, "m.room.message", {"body": f"{number}" + "x" * 64_000})
        for number in range(50)
    ]
    assert await mallory.tell(*large) == {event.event_id: {} for event in large}


@pytest.mark.parametrize("number", [True, -1, 2**53, 2**63, 2**64 - 1, 1e300, "5", None])
async def test_numbers_in_edus_may_be_anything(start_server: StartServer, number: object) -> None:
    server = await start_server(presence={"enabled": True})
    alice = await server.register("alice")
    evil = Network(server).remote("evil.example")
    mallory = Mallory(server, evil.name, evil.key)
    room_id = await shared_room(alice, mallory, version="11")
    event_id = await alice.send(room_id, "read this")
    user_id = mallory.user("mallory")
    receipt = {"event_ids": [event_id], "data": {"ts": number}}
    presence = {"user_id": user_id, "presence": "online", "last_active_ago": number}
    with capture_logs() as logs:
        await mallory.tell(
            edus=[
                {"edu_type": "m.receipt", "content": {room_id: {"m.read": {user_id: receipt}}}},
                {"edu_type": "m.presence", "content": {"push": [presence]}},
                {"edu_type": "m.device_list_update", "content": {"user_id": user_id, "stream_id": number}},
            ]
        )
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    section = (await alice.sync())["rooms"]["join"][room_id]
    assert user_id in section["ephemeral"]["events"][0]["content"][event_id]["m.read"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"pdus":[],"x":' + b"9" * 5_000 + b"}",
        b'{"pdus":[],"x":-' + b"9" * 500_000 + b"}",
        b'{"pdus":[],"x":1' + b"0" * 20 + b"e1" + b"0" * 20 + b"}",
        b'{"pdus":' + b"[" * 900 + b"9" * 20 + b"]" * 900 + b"}",
        b"[" * 100_000,
        b'{"pdus":NaN}',
        b'{"pdus":"\\ud800"}',
        b"\xff",
    ],
    ids=lambda body: str(body[:24]),
)
async def test_what_nobody_could_have_signed_is_refused(
    server: Server, alice: Client, mallory: Mallory, body: bytes
) -> None:
    await shared_room(alice, mallory, version="11")
    header = sign_request(mallory.key, mallory.name, "example.org", "PUT", f"{V1}/send/x", {"pdus": []})
    response = await server.http.put(f"{V1}/send/x", content=body, headers={"Authorization": header})
    assert response.status_code in (400, 401)


async def test_of_users_who_are_in_no_room_nothing_is_kept(start_server: StartServer) -> None:
    server = await start_server(presence={"enabled": True})
    alice = await server.register("alice")
    evil = Network(server).remote("evil.example")
    mallory = Mallory(server, evil.name, evil.key)
    room_id = await shared_room(alice, mallory, version="11")
    users = [mallory.user(f"nobody{number}") for number in range(100)]
    push = [{"user_id": one, "presence": "online", "last_active_ago": 1} for one in users]
    await mallory.tell(
        edus=[
            {"edu_type": "m.presence", "content": {"push": push}},
            *(
                {"edu_type": "m.device_list_update", "content": {"user_id": one, "stream_id": 1}}
                for one in users[:30]
            ),
            *(
                {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": one, "typing": True}}
                for one in users[:30]
            ),
            *({"edu_type": "m.signing_key_update", "content": {"user_id": one}} for one in users[:30]),
        ]
    )
    database = server.application.database
    for table in ("presence", "typing", "remote_device_lists"):
        found = await database.fetch_all(f"SELECT user_id FROM {table} WHERE user_id LIKE '@nobody%'")
        assert list(found) == [], table


@pytest.mark.parametrize("version", ["4", "11"])
async def test_a_retired_key_signs_what_is_older_than_its_end(
    server: Server, alice: Client, network: Network, version: str
) -> None:
    """Room versions before 5 do not ask when a key was valid; a key that was exchanged signs nowhere."""
    new, retired, stolen = (key_from_seed(name, name.encode() * 8) for name in ("new_", "old_", "evil"))
    now_ms = server.clock.now_ms()
    ended_ts = now_ms - 1_000_000
    document = {
        "server_name": "evil.example",
        "valid_until_ts": now_ms + 86_400_000,
        "verify_keys": {new.key_id: {"key": new.public_base64}},
        "old_verify_keys": {retired.key_id: {"key": retired.public_base64, "expired_ts": ended_ts}},
    }
    network.documents["evil.example"] = countersign(document, "evil.example", [new])
    mallory = Mallory(server, "evil.example", new)
    room_id = await shared_room(alice, mallory, version=version)
    before, after = [
        await mallory.event_in(room_id, "m.room.message", {"body": name}, key=retired, ts=ts)
        for name, ts in (("before", ended_ts - 1), ("after", ended_ts + 1))
    ]
    swapped = await mallory.event_in(
        room_id, "m.room.message", {"body": "x"}, key=replace(stolen, version=new.version)
    )
    outcome = await mallory.tell(before, after, swapped)
    assert outcome[before.event_id] == {}
    assert ("error" in outcome[after.event_id]) == (version == "11")
    assert "error" in outcome[swapped.event_id]
