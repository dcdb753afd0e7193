"""However a device ends: its sessions, its waiting syncs, its keys and its messages end at once, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.storage.outgoing_devices import OutgoingDeviceStore
from tests import keys
from tests.client import Client, Refused, error_of, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}
BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "k"}}
KEY = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": {"a": "b"}}
_numbers = itertools.count()


def auth_of(client: Client) -> dict[str, Any]:
    return {"auth": {**AUTH, "identifier": {"type": "m.id.user", "user": client.user_id}}}


DEEDS: dict[str, Callable[[Server, Client, Client], Awaitable[Any]]] = {
    "logout": lambda _, __, phone: phone.post("/logout"),
    "logout of all": lambda _, laptop, __: laptop.post("/logout/all"),
    "deletion": lambda _, laptop, phone: laptop.delete(f"/devices/{phone.device_id}", auth_of(laptop)),
    "deletion of several": lambda _, laptop, phone: laptop.post(
        "/delete_devices", {"devices": [phone.device_id, "UNKNOWN"], **auth_of(laptop)}
    ),
    "new password": lambda _, laptop, __: laptop.post(
        "/account/password", {"new_password": "other", **auth_of(laptop)}
    ),
    "password from the command line": lambda server, laptop, __: server.control(
        "user-reset-password", name=laptop.user_id, password="other"
    ),
    "deactivation": lambda _, laptop, __: laptop.post("/account/deactivate", auth_of(laptop)),
    "deactivation from the command line": lambda server, laptop, __: server.control(
        "user-deactivate", name=laptop.user_id
    ),
}
SPARE_THE_LAPTOP = {"logout", "deletion", "deletion of several", "new password"}
"""These end the phone alone."""


@dataclass
class Phone:
    """A device with everything that a device can have."""

    client: Client
    refresh_token: str
    encryption: keys.Device
    since: str


async def equip(server: Server, alice: Client, bob: Client) -> Phone:
    """A second device of Alice, with keys, of which Bob has claimed one, and with messages from Bob."""
    device_id = f"PHONE{next(_numbers):04}"
    login = await server.nobody().post(
        "/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": alice.user_id},
            "password": "secret",
            "device_id": device_id,
            "initial_device_display_name": "phone",
            "refresh_token": True,
        },
    )
    client = Client(server.http, alice.user_id, device_id, login["access_token"])
    device = keys.Device(client)
    await device.upload(3)
    await client.post("/keys/upload", {"fallback_keys": device.fallback_key()})
    assert await keys.claim_one(bob, client) is not None
    for number in range(2):
        messages = {alice.user_id: {device_id: {"number": number}}}
        await bob.put(f"/sendToDevice/m.test/t{next(_numbers)}", {"messages": messages})
    since = (await client.sync())["next_batch"]
    return Phone(client, login["refresh_token"], device, since)


async def tables_naming(server: Server, text: str) -> set[str]:
    """The tables in which a text stands."""
    database = server.application.database
    # What was announced names keys of the log, until every process has heard of it.
    tables = await database.table_names() - {"announcements"}
    return {
        table
        for table in tables
        for row in await database.fetch_all(f"SELECT * FROM {table}")
        if any(
            text in (str(value) if not isinstance(value, bytes) else value.decode("latin-1")) for value in row
        )
    }


async def within(call: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(call, 20)


async def assert_ended(server: Server, phone: Phone, bob: Client) -> None:
    """Nothing of a device is left."""
    for call in (
        phone.client.sync(phone.since),
        phone.client.get("/account/whoami"),
        phone.client.post("/keys/upload", {"one_time_keys": phone.encryption.one_time_keys(1)}),
        server.nobody().post("/refresh", {"refresh_token": phone.refresh_token}),
    ):
        error = await error_of(call)
        assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
        # "soft_logout: true" would say that the session is still there.
        assert not error.body.get("soft_logout")
    # That it is gone is noted until every other server that has to hear of it has: here there is none.
    database = server.application.database
    await database.write(OutgoingDeviceStore(database).prune)
    assert await tables_naming(server, phone.client.device_id) == set()
    devices = (await keys.query(bob, phone.client.user_id))["device_keys"].get(phone.client.user_id, {})
    assert phone.client.device_id not in devices
    assert await keys.claim_one(bob, phone.client) is None


@pytest.fixture
async def room_id(alice: Client, bob: Client) -> str:
    """An encrypted room of both."""
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await bob.join(room_id)
    return room_id


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("deed", DEEDS)
async def test_a_device_ends_with_all_that_it_had(
    server: Server, alice: Client, bob: Client, room_id: str, deed: str, waits: bool
) -> None:
    phone = await equip(server, alice, bob)
    version = (await alice.post("/room_keys/version", BACKUP))["version"]
    await phone.client.put(f"/room_keys/keys/{room_id}/s", KEY, version=version)
    laptops = (await alice.sync())["next_batch"]
    bobs = (await bob.sync())["next_batch"]
    waiting: list[asyncio.Task[Refused]] = []
    if waits:
        # Whoever waits has taken the messages.
        read = (await phone.client.sync(phone.since))["next_batch"]
        waiting = [asyncio.create_task(error_of(phone.client.sync(read, timeout=60_000))) for _ in range(2)]
        await server.until_waiting(2)
    named = await tables_naming(server, phone.client.device_id)
    assert ("to_device_messages" in named) is not waits
    assert named >= {
        *("devices", "access_tokens", "refresh_tokens", "device_keys", "key_signatures"),
        *("one_time_keys", "fallback_keys", "claimed_one_time_keys"),
    }

    await DEEDS[deed](server, alice, phone.client)

    for error in await within(asyncio.gather(*waiting)):
        assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
    await assert_ended(server, phone, bob)
    if deed in SPARE_THE_LAPTOP:
        assert alice.user_id in (await alice.sync(laptops))["device_lists"]["changed"]
    else:
        with refused(401, "M_UNKNOWN_TOKEN"):
            await alice.sync(laptops)
    if not deed.startswith("deactivation"):
        assert alice.user_id in (await bob.sync(bobs))["device_lists"]["changed"]
        # The backup is the user's, and stays.
        password = "other" if "password" in deed else "secret"
        again = await login(server, alice, password, phone.client.device_id)
        assert await again.get(f"/room_keys/keys/{room_id}/s", version=version) == KEY
        # A device of the same name is another one.
        answer = await again.sync()
        assert answer["device_one_time_keys_count"] == {"signed_curve25519": 0}
        assert answer["device_unused_fallback_key_types"] == []
        assert answer.get("to_device", {"events": []})["events"] == []
        assert (await again.get(f"/devices/{again.device_id}")).get("display_name") is None


async def login(server: Server, client: Client, password: str, device_id: str | None) -> Client:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": client.user_id},
        "password": password,
        "device_id": device_id,
    }
    answer = await server.nobody().post("/login", body)
    return Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])


async def test_another_password_can_leave_the_devices_as_they_are(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await equip(server, alice, bob)
    body = {"new_password": "other", "logout_devices": False, **auth_of(alice)}
    await alice.post("/account/password", body)
    answer = await phone.client.sync()
    assert [event["content"] for event in answer["to_device"]["events"]] == [{"number": 0}, {"number": 1}]
    assert answer["device_one_time_keys_count"] == {"signed_curve25519": 2}


async def test_a_login_on_a_device_that_is_there_ends_its_sessions_and_keeps_what_it_has(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await equip(server, alice, bob)
    read = (await phone.client.sync())["next_batch"]
    await bob.put("/sendToDevice/m.test/last", {"messages": {alice.user_id: {"*": {"number": 2}}}})
    read = (await phone.client.sync(read))["next_batch"]
    waiting = asyncio.create_task(error_of(phone.client.sync(read, timeout=60_000)))
    await server.until_waiting()
    again = await login(server, alice, "secret", phone.client.device_id)
    error = await within(waiting)
    assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().post("/refresh", {"refresh_token": phone.refresh_token})
    answer = await again.sync(read)
    assert answer.get("to_device", {"events": []})["events"] == []
    await bob.put("/sendToDevice/m.test/more", {"messages": {alice.user_id: {"*": {"number": 3}}}})
    answer = await again.sync(answer["next_batch"])
    assert [event["content"] for event in answer["to_device"]["events"]] == [{"number": 3}]
    assert answer["device_one_time_keys_count"] == {"signed_curve25519": 2}
    devices = (await keys.query(bob, alice.user_id))["device_keys"][alice.user_id]
    assert devices[again.device_id]["keys"] == phone.encryption.device_keys()["keys"]
    assert await keys.claim_one(bob, again) is not None
    assert (await again.get(f"/devices/{again.device_id}"))["display_name"] == "phone"


@pytest.mark.parametrize("turn", range(8))
async def test_what_is_under_way_when_a_device_ends_leaves_nothing_of_it(
    server: Server, alice: Client, bob: Client, turn: int
) -> None:
    phone = await equip(server, alice, bob)
    device_id, client = phone.client.device_id, phone.client
    messages = {"messages": {alice.user_id: {device_id: {"text": "late"}}}}
    under_way: list[Callable[[], Awaitable[Any]]] = [
        phone.encryption.upload,
        lambda: client.post(
            "/keys/upload",
            {
                "one_time_keys": phone.encryption.one_time_keys(2),
                "fallback_keys": phone.encryption.fallback_key(),
            },
        ),
        lambda: client.sync(phone.since),
        lambda: client.put(f"/devices/{device_id}", {"display_name": "late"}),
        lambda: server.nobody().post("/refresh", {"refresh_token": phone.refresh_token}),
        lambda: bob.put(f"/sendToDevice/m.test/t{next(_numbers)}", messages),
        lambda: keys.claim_one(bob, client),
        # It needs no password, whose verification would let all others go first.
        lambda: client.post("/logout"),
    ]
    # Each in its turn comes first, and all are under way before the first has ended.
    calls = under_way[turn:] + under_way[:turn]
    for outcome in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
        assert not isinstance(outcome, BaseException) or isinstance(outcome, Refused), outcome
        assert not isinstance(outcome, Refused) or outcome.status in (401, 404), outcome
    await server.application.upkeep.look_after()
    await assert_ended(server, phone, bob)


async def test_a_new_device_reads_everything_that_was_said_before(
    server: Server, alice: Client, bob: Client, room_id: str
) -> None:
    encrypted = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "c/+=", "session_id": "s"}
    said = [
        await (alice, bob)[number % 2].send(room_id, {**encrypted, "n": number}, "m.room.encrypted")
        for number in range(30)
    ]
    for client in (alice, bob):
        device = await server.login(client)
        room = (await device.sync())["rooms"]["join"][room_id]
        events, token = room["timeline"]["events"], room["timeline"]["prev_batch"]
        while token is not None:
            page = await device.messages(room_id, limit=7, **{"from": token})
            events, token = page["chunk"][::-1] + events, page.get("end")
        assert [event["event_id"] for event in events if event["type"] == "m.room.encrypted"] == said
        assert events[0]["type"] == "m.room.create"


async def test_a_device_that_ends_at_one_server_is_another_one_at_both(
    servers: tuple[Server, Server],
) -> None:
    first, second = servers
    alice, bob = await first.register("alice"), await first.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await bob.join(room_id)
    phone = await equip(first, alice, bob)
    there = second.reconnect(phone.client)
    read = (await there.sync())["next_batch"]
    read = (await there.sync(read))["next_batch"]
    waiting = asyncio.create_task(error_of(there.sync(read, timeout=60_000)))
    await second.until_waiting()
    await phone.client.post("/logout")
    error = await within(waiting)
    assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
    again = await login(first, alice, "secret", phone.client.device_id)
    for client in (second.reconnect(again), again):
        answer = await client.sync()
        assert answer["device_one_time_keys_count"] == {"signed_curve25519": 0}
        assert answer["device_unused_fallback_key_types"] == []
        assert answer.get("to_device", {"events": []})["events"] == []
    assert await keys.claim_one(second.reconnect(bob), again) is None


@pytest.mark.parametrize("turn", range(5))
async def test_what_is_under_way_when_an_account_ends_leaves_nothing_of_it(
    server: Server, alice: Client, turn: int
) -> None:
    user = f"/user/{alice.user_id}"
    under_way: list[Callable[[], Awaitable[Any]]] = [
        lambda: alice.post("/room_keys/version", BACKUP),
        lambda: alice.put(f"{user}/account_data/m.cross_signing.master", {"encrypted": {}}),
        lambda: alice.post(f"{user}/filter", {"room": {"rooms": []}}),
        lambda: alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "late"}),
        lambda: server.control("user-deactivate", name=alice.user_id),
    ]
    calls = under_way[turn:] + under_way[:turn]
    for outcome in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
        assert not isinstance(outcome, BaseException) or isinstance(outcome, Refused), outcome
        assert not isinstance(outcome, Refused) or outcome.status == 401, outcome
    kept = await tables_naming(server, alice.user_id)
    assert not kept & {"account_data", "filters", "key_backups", "profiles"}
