"""The keys of devices: uploaded, asked for, gone with the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crypto import keys
from tests.client import Client, refused
from tests.keys import Device, curve25519, query, sign

if TYPE_CHECKING:
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}


async def keys_of(client: Client, user_id: str) -> dict[str, Any]:
    return (await query(client, user_id))["device_keys"][user_id]


async def test_others_see_the_keys_of_a_device_as_they_were_uploaded(alice: Client, bob: Client) -> None:
    uploaded = Device(alice).device_keys(**{"org.example.extra": {"a": [1, None, True]}})
    answer = await alice.post("/keys/upload", {"device_keys": uploaded})
    assert answer == {"one_time_key_counts": {"signed_curve25519": 0}}
    assert await keys_of(bob, alice.user_id) == {alice.device_id: {**uploaded, "unsigned": {}}}
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "Desk"})
    shown = (await keys_of(bob, alice.user_id))[alice.device_id]
    assert shown["unsigned"] == {"device_display_name": "Desk"}


async def test_a_query_names_devices_or_asks_for_all(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(alice, "PHONE")
    for client in (alice, phone):
        await Device(client).upload()
    assert (await keys_of(bob, alice.user_id)).keys() == {alice.device_id, "PHONE"}
    body = {"device_keys": {alice.user_id: ["PHONE", "UNKNOWN"]}, "timeout": 10_000}
    answer = await bob.post("/keys/query", body)
    assert answer["device_keys"][alice.user_id].keys() == {"PHONE"}


async def test_unknown_users_are_left_out_and_users_without_keys_are_there(
    alice: Client, bob: Client
) -> None:
    answer = await query(alice, "@nobody:example.org", bob.user_id, "nonsense", "@x:" + "y" * 300)
    assert answer["device_keys"] == {bob.user_id: {}}
    assert answer["failures"] == {}
    assert answer["master_keys"] == answer["self_signing_keys"] == answer["user_signing_keys"] == {}


async def test_servers_that_cannot_be_asked_are_named(alice: Client) -> None:
    answer = await query(alice, "@a:elsewhere.org", "@b:elsewhere.org", "@c:other.org:8448")
    assert answer["failures"].keys() == {"elsewhere.org", "other.org:8448"}
    assert answer["device_keys"] == {}


@pytest.mark.parametrize(
    ("changed", "errcode"),
    [
        ({"user_id": "@bob:example.org"}, "M_INVALID_PARAM"),
        ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
        ({"device_id": None}, "M_INVALID_PARAM"),
        ({"algorithms": "m.olm"}, "M_BAD_JSON"),
        ({"algorithms": [1]}, "M_BAD_JSON"),
        ({"keys": []}, "M_BAD_JSON"),
        ({"keys": {"ed25519:LAPTOP": 5}}, "M_BAD_JSON"),
        ({"keys": {}}, "M_INVALID_PARAM"),
        ({"keys": {"curve25519:LAPTOP": "A" * 43}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:OTHER": "A" * 43}}, "M_INVALID_PARAM"),
        ({"keys": {":LAPTOP": "A" * 43}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:LAPTOP": "too short"}}, "M_INVALID_SIGNATURE"),
        ({"org.example.extra": 1.5}, "M_BAD_JSON"),
        ({"org.example.extra": 2**60}, "M_BAD_JSON"),
    ],
)
async def test_keys_that_are_not_well_formed_are_refused(
    server: Server, changed: dict[str, Any], errcode: str
) -> None:
    alice = await server.register("alice", "LAPTOP")
    device_keys = Device(alice).device_keys()
    with refused(400, errcode):
        await alice.post("/keys/upload", {"device_keys": {**device_keys, **changed}})
    assert await keys_of(alice, alice.user_id) == {}


@pytest.mark.parametrize("spoilt", ["none", "of another", "changed", "not text", "not Base64"])
async def test_keys_that_the_device_has_not_signed_are_refused(alice: Client, spoilt: str) -> None:
    device = Device(alice)
    device_keys = device.device_keys()
    of_alice = device_keys["signatures"][alice.user_id]
    errcode = "M_INVALID_SIGNATURE"
    if spoilt == "none":
        device_keys["signatures"] = {}
    elif spoilt == "of another":
        del device_keys["signatures"]
        device_keys = sign(device_keys, alice.user_id, keys.generate("other"), alice.device_id)
    elif spoilt == "changed":
        device_keys["algorithms"] = []
    elif spoilt == "not text":
        of_alice[device.key_id] = 5
        errcode = "M_BAD_JSON"
    else:
        of_alice[device.key_id] = "?"
    body = {"device_keys": device_keys, "one_time_keys": device.one_time_keys(1)}
    with refused(400, errcode):
        await alice.post("/keys/upload", body)
    assert await keys_of(alice, alice.user_id) == {}
    assert (await alice.post("/keys/upload"))["one_time_key_counts"] == {"signed_curve25519": 0}


async def test_too_big_keys_are_refused(alice: Client) -> None:
    with refused(413, "M_TOO_LARGE"):
        await alice.post("/keys/upload", {"device_keys": Device(alice).device_keys(extra="x" * 9_000)})
    with refused(413, "M_TOO_LARGE"):
        await alice.post("/keys/upload", {"device_keys": {"x": "y" * (1 << 20)}})


async def test_a_device_is_told_of_when_its_keys_change_and_only_then(
    server: Server, alice: Client, bob: Client
) -> None:
    def changes() -> int:
        log = server.application.rooms.notifier.changes_since(before) or []
        return log.count(("device_lists", alice.user_id))

    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Device(alice)
    before = server.application.rooms.notifier.position
    await device.upload()
    assert changes() == 1
    again = device.device_keys()
    # JSON says nothing about the order of names.
    again["keys"] = dict(reversed(again["keys"].items()))
    await alice.post("/keys/upload", {"device_keys": again, "one_time_keys": device.one_time_keys(3)})
    assert changes() == 1
    await alice.post("/keys/upload", {"device_keys": device.device_keys(algorithms=[])})
    assert changes() == 2
    shown = await keys_of(bob, alice.user_id)
    assert shown == {alice.device_id: {**device.device_keys(algorithms=[]), "unsigned": {}}}


async def test_signatures_of_others_on_the_own_keys_are_not_shown(alice: Client, bob: Client) -> None:
    device = Device(alice)
    device_keys = device.device_keys()
    device_keys["signatures"]["@mallory:example.org"] = {"ed25519:X": "Y"}
    device_keys["signatures"][alice.user_id]["ed25519:unknown"] = "Z"
    await alice.post("/keys/upload", {"device_keys": device_keys})
    shown = (await keys_of(bob, alice.user_id))[alice.device_id]
    assert shown["signatures"] == device.device_keys()["signatures"]


@pytest.mark.parametrize("deed", ["logout", "logout all", "deleted", "password", "deactivated"])
async def test_the_keys_of_a_device_go_with_it(server: Server, alice: Client, bob: Client, deed: str) -> None:
    phone = await server.login(alice, "PHONE")
    device = Device(phone)
    await device.upload(one_time_keys=2)
    await phone.post("/keys/upload", {"fallback_keys": device.fallback_key()})
    if deed == "logout":
        await phone.post("/logout")
    elif deed == "logout all":
        await alice.post("/logout/all")
    elif deed == "deleted":
        await alice.delete("/devices/PHONE", {"auth": AUTH})
    elif deed == "password":
        await alice.post("/account/password", {"new_password": "other", "auth": AUTH})
    else:
        await alice.post("/account/deactivate", {"auth": AUTH})
    assert await keys_of(bob, alice.user_id) == {}
    wanted = {"one_time_keys": {alice.user_id: {"PHONE": "signed_curve25519"}}}
    assert (await bob.post("/keys/claim", wanted))["one_time_keys"] == {}
    if deed == "deleted":
        # What comes back under the same name begins anew.
        phone = await server.login(alice, "PHONE")
        assert (await phone.sync())["device_one_time_keys_count"] == {"signed_curve25519": 0}
        assert (await phone.sync())["device_unused_fallback_key_types"] == []


async def test_a_guest_has_keys_as_well(start_server: Any) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    answer = await server.nobody().post("/register", {}, kind="guest")
    guest = Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])
    await Device(guest).upload(one_time_keys=1)
    assert (await query(guest, guest.user_id))["device_keys"][guest.user_id].keys() == {guest.device_id}


@pytest.mark.parametrize(
    ("path", "body", "errcode"),
    [
        ("query", {}, "M_MISSING_PARAM"),
        ("query", {"device_keys": []}, "M_BAD_JSON"),
        ("query", {"device_keys": {"@alice:example.org": {}}}, "M_BAD_JSON"),
        ("query", {"device_keys": {"@alice:example.org": [5]}}, "M_BAD_JSON"),
        ("claim", {}, "M_MISSING_PARAM"),
        ("claim", {"one_time_keys": {"@alice:example.org": ["X"]}}, "M_BAD_JSON"),
        ("claim", {"one_time_keys": {"@alice:example.org": {"X": 5}}}, "M_BAD_JSON"),
        ("upload", {"device_keys": []}, "M_BAD_JSON"),
        ("upload", {"one_time_keys": []}, "M_BAD_JSON"),
    ],
)
async def test_bodies_of_other_forms_are_refused(
    alice: Client, path: str, body: dict[str, Any], errcode: str
) -> None:
    with refused(400, errcode):
        await alice.post(f"/keys/{path}", body)


async def test_absurdly_long_questions_are_refused(alice: Client) -> None:
    with refused(413, "M_TOO_LARGE"):
        await query(alice, *(f"@u{number}:example.org" for number in range(5_001)))


async def test_a_new_identity_key_is_a_new_device(alice: Client, bob: Client) -> None:
    first, second = Device(alice), Device(alice)
    await first.upload(one_time_keys=2)
    await second.upload()
    shown = await keys_of(bob, alice.user_id)
    assert shown == {alice.device_id: {**second.device_keys(), "unsigned": {}}}
    second.curve25519 = curve25519()
    await second.upload()
    shown = await keys_of(bob, alice.user_id)
    assert shown == {alice.device_id: {**second.device_keys(), "unsigned": {}}}
