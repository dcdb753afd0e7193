"""Cross-signing: keys that users have for all their devices, and what is signed with them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import error_of, refused
from tests.keys import Device, User, curve25519, query

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}
UPLOAD = "/keys/device_signing/upload"
SIGNATURES = "/keys/signatures/upload"


async def sign(client: Client, *signed: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """Upload signed objects: (user, name of the key, object); the answer is the failures."""
    body: dict[str, dict[str, Any]] = {}
    for user_id, key_id, value in signed:
        body.setdefault(user_id, {})[key_id] = value
    return (await client.post(SIGNATURES, body))["failures"]


def changes(server: Server, user_id: str, since: int) -> int:
    log = server.application.rooms.notifier.changes_since(since) or []
    return log.count(("device_lists", user_id))


# -- keys --------------------------------------------------------------------------------------------------


async def test_the_first_keys_need_no_proof_and_others_see_all_but_the_user_signing_key(
    alice: Client, bob: Client
) -> None:
    keys = User(alice).keys()
    assert await alice.post(UPLOAD, keys) == {}
    for reader in (alice, bob):
        answer = await query(reader, alice.user_id)
        assert answer["master_keys"] == {alice.user_id: {**keys["master_key"], "signatures": {}}}
        assert answer["self_signing_keys"] == {alice.user_id: keys["self_signing_key"]}
    assert answer["user_signing_keys"] == {}
    answer = await query(alice, alice.user_id)
    assert answer["user_signing_keys"] == {alice.user_id: keys["user_signing_key"]}


async def test_the_same_keys_again_need_no_proof(server: Server, alice: Client) -> None:
    keys = User(alice).keys()
    await alice.post(UPLOAD, keys)
    before = server.application.rooms.notifier.position
    assert await alice.post(UPLOAD, keys) == {}
    assert await alice.post(UPLOAD, {"master_key": keys["master_key"]}) == {}
    assert changes(server, alice.user_id, before) == 0


@pytest.mark.parametrize("which", ["all", "master_key", "self_signing_key", "user_signing_key"])
async def test_other_keys_need_a_proof(server: Server, alice: Client, bob: Client, which: str) -> None:
    old = User(alice)
    new = User(alice)
    if which not in ("all", "master_key"):
        new.master = old.master
    await alice.post(UPLOAD, old.keys())
    body = new.keys() if which == "all" else {which: new.keys()[which]}
    before = server.application.rooms.notifier.position
    challenge = await error_of(alice.post(UPLOAD, body))
    assert (challenge.status, challenge.errcode) == (401, None)
    assert (await query(alice, alice.user_id))["master_keys"][alice.user_id]["keys"] == old.keys()[
        "master_key"
    ]["keys"]
    assert changes(server, alice.user_id, before) == 0
    # The last request may hold nothing but the proof.
    auth = {**AUTH, "session": challenge.body["session"]}
    assert await alice.post(UPLOAD, {"auth": auth}) == {}
    answer = await query(alice, alice.user_id)
    for name in ("master", "self_signing", "user_signing"):
        shown = answer[f"{name}_keys"].get(alice.user_id, {}).get("keys")
        if which in ("all", f"{name}_key"):
            assert shown == new.keys()[f"{name}_key"]["keys"]
        elif which == "master_key":
            # They are signed by a key that is gone.
            assert shown is None
        else:
            assert shown == old.keys()[f"{name}_key"]["keys"]
    assert changes(server, alice.user_id, before) == 1


async def test_a_part_of_the_keys_that_are_there_needs_a_proof_without_the_master_key(alice: Client) -> None:
    keys = User(alice).keys()
    await alice.post(UPLOAD, keys)
    for body in ({"self_signing_key": keys["self_signing_key"]}, {}):
        assert (await error_of(alice.post(UPLOAD, body))).status == 401


async def test_of_two_first_uploads_one_needs_a_proof(alice: Client) -> None:
    users = [User(alice) for _ in range(4)]
    answers = await asyncio.gather(
        *(alice.post(UPLOAD, user.keys()) for user in users), return_exceptions=True
    )
    assert answers.count({}) == 1
    first = users[answers.index({})]
    shown = (await query(alice, alice.user_id))["master_keys"][alice.user_id]
    assert shown["keys"] == first.keys()["master_key"]["keys"]


@pytest.mark.parametrize("name", ["self_signing_key", "user_signing_key"])
@pytest.mark.parametrize("spoilt", ["none", "of another master key", "changed"])
async def test_keys_that_the_master_key_has_not_signed_are_refused(
    alice: Client, name: str, spoilt: str
) -> None:
    user = User(alice)
    keys = user.keys()
    if spoilt == "none":
        del keys[name]["signatures"]
    elif spoilt == "changed":
        keys[name]["org.example.extra"] = True
    else:
        keys[name] = User(alice).keys()[name]
    with refused(400, "M_INVALID_SIGNATURE"):
        await alice.post(UPLOAD, keys)
    answer = await query(alice, alice.user_id)
    assert answer["master_keys"] == answer["self_signing_keys"] == answer["user_signing_keys"] == {}


async def test_keys_without_a_master_key_are_refused_where_there_is_none(alice: Client) -> None:
    keys = User(alice).keys()
    del keys["master_key"]
    for body in (keys, {}):
        with refused(400, "M_MISSING_PARAM"):
            await alice.post(UPLOAD, body)


@pytest.mark.parametrize("name", ["master", "self_signing", "user_signing"])
@pytest.mark.parametrize(
    ("changed", "errcode"),
    [
        ({"user_id": "@bob:example.org"}, "M_INVALID_PARAM"),
        ({"user_id": None}, "M_INVALID_PARAM"),
        ({"usage": []}, "M_INVALID_PARAM"),
        ({"usage": "master"}, "M_INVALID_PARAM"),
        ({"usage": ["other"]}, "M_INVALID_PARAM"),
        ({"usage": ["master", "self_signing", "user_signing"]}, "M_INVALID_PARAM"),
        ({"keys": {}}, "M_INVALID_PARAM"),
        ({"keys": []}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:A": "A"}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 43: "B" * 43}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 43 + "=": "A" * 43 + "="}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:A": 5}}, "M_INVALID_PARAM"),
        ({"keys": {"curve25519:" + "A" * 43: "A" * 43}}, "M_INVALID_PARAM"),
        ({"signatures": []}, "M_BAD_JSON"),
        ({"signatures": {"@alice:example.org": {"ed25519:A": 5}}}, "M_BAD_JSON"),
        ({"extra": 1.5}, "M_BAD_JSON"),
        ({"extra": "x" * 9_000}, "M_TOO_LARGE"),
    ],
)
async def test_keys_that_are_not_well_formed_are_refused(
    alice: Client, name: str, changed: dict[str, Any], errcode: str
) -> None:
    keys = User(alice).keys()
    keys[f"{name}_key"] |= changed
    with refused(413 if errcode == "M_TOO_LARGE" else 400, errcode):
        await alice.post(UPLOAD, keys)
    assert (await query(alice, alice.user_id))["master_keys"] == {}


async def test_two_keys_in_one_object_and_one_key_for_two_usages_are_refused(alice: Client) -> None:
    user, other = User(alice), User(alice)
    keys = user.keys()
    keys["master_key"]["keys"] |= other.keys()["master_key"]["keys"]
    with refused(400, "M_INVALID_PARAM"):
        await alice.post(UPLOAD, keys)
    user.self_signing = user.master
    with refused(400, "M_INVALID_PARAM"):
        await alice.post(UPLOAD, user.keys())


async def test_no_key_has_the_name_of_a_device(server: Server, alice: Client) -> None:
    user = User(alice)
    body = {"type": "m.login.password", "user": "alice", "password": "secret"}
    name = user.self_signing.public_base64
    await server.nobody().post("/login", {**body, "device_id": name})
    with refused(403, "M_FORBIDDEN"):
        await alice.post(UPLOAD, user.keys())
    await alice.delete(f"/devices/{name.replace('/', '%2F')}", {"auth": AUTH})
    await alice.post(UPLOAD, user.keys())
    with refused(403, "M_FORBIDDEN"):
        await server.nobody().post("/login", {**body, "device_id": name})


# -- signatures --------------------------------------------------------------------------------------------


async def test_a_device_is_signed_for_everybody_to_see(server: Server, alice: Client, bob: Client) -> None:
    device, user = Device(alice), User(alice)
    await device.upload()
    await alice.post(UPLOAD, user.keys())
    signed = user.signed(device.device_keys(), user.self_signing)
    before = server.application.rooms.notifier.position
    # What the server shows goes back to it: with its `unsigned`.
    shown = (await query(alice, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
    assert await sign(alice, (alice.user_id, alice.device_id, user.signed(shown, user.self_signing))) == {}
    assert changes(server, alice.user_id, before) == 1
    answer = await query(bob, alice.user_id)
    assert answer["device_keys"][alice.user_id] == {alice.device_id: {**signed, "unsigned": {}}}
    # Once more is no news.
    assert await sign(alice, (alice.user_id, alice.device_id, signed)) == {}
    assert changes(server, alice.user_id, before) == 1
    # Nor do the same keys lose it that the device uploads again, as some do at every start.
    await device.upload()
    answer = await query(bob, alice.user_id)
    assert answer["device_keys"][alice.user_id] == {alice.device_id: {**signed, "unsigned": {}}}


async def test_a_device_may_bring_the_signature_of_its_user_along(alice: Client, bob: Client) -> None:
    device, user = Device(alice), User(alice)
    await alice.post(UPLOAD, user.keys())
    signed = user.signed(device.device_keys(), user.self_signing)
    await alice.post("/keys/upload", {"device_keys": signed})
    answer = await query(bob, alice.user_id)
    assert answer["device_keys"][alice.user_id][alice.device_id]["signatures"] == signed["signatures"]
    # A wrong one is not shown.
    phone = Device(alice)
    phone.curve25519 = curve25519()
    signed = user.signed(phone.device_keys(), user.master, name=user.self_signing.public_base64)
    await alice.post("/keys/upload", {"device_keys": signed})
    answer = await query(bob, alice.user_id)
    shown = answer["device_keys"][alice.user_id][alice.device_id]
    assert shown["signatures"] == phone.device_keys()["signatures"]


async def test_a_device_signs_the_master_key(alice: Client, bob: Client) -> None:
    device, user = Device(alice), User(alice)
    await device.upload()
    await alice.post(UPLOAD, user.keys())
    master = user.master.public_base64
    signed = device.signed(user.keys()["master_key"])
    assert await sign(alice, (alice.user_id, master, signed)) == {}
    assert (await query(bob, alice.user_id))["master_keys"][alice.user_id] == signed


async def test_the_master_key_may_come_with_signatures(alice: Client, bob: Client) -> None:
    device, user = Device(alice), User(alice)
    await device.upload()
    keys = user.keys()
    signed = user.signed(device.signed(keys["master_key"]), user.master)
    strange = {**signed["signatures"][alice.user_id], "ed25519:UNKNOWN": "x"}
    keys["master_key"] = {**signed, "signatures": {alice.user_id: strange, bob.user_id: {"ed25519:X": "y"}}}
    await alice.post(UPLOAD, keys)
    assert (await query(bob, alice.user_id))["master_keys"][alice.user_id] == signed


async def test_a_wrong_signature_by_a_device_keeps_the_master_key_out(alice: Client) -> None:
    device, user = Device(alice), User(alice)
    await device.upload()
    keys = user.keys()
    keys["master_key"]["signatures"] = {alice.user_id: {device.key_id: "A" * 86}}
    with refused(400, "M_INVALID_SIGNATURE"):
        await alice.post(UPLOAD, keys)


async def test_who_has_signed_another_is_the_only_one_to_see_and_to_hear_of_it(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await server.login(alice, "PHONE")
    of_alice, of_bob = User(alice), User(bob)
    for client, user in ((alice, of_alice), (bob, of_bob)):
        await client.post(UPLOAD, user.keys())
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    sinces = [(await client.sync())["next_batch"] for client in (phone, bob)]
    waiting = asyncio.create_task(phone.sync(sinces[0], timeout=60_000))
    await server.until_waiting()
    master = of_bob.keys()["master_key"]
    signed = of_alice.signed(master, of_alice.user_signing)
    assert await sign(alice, (bob.user_id, of_bob.master.public_base64, signed)) == {}
    for reader in (alice, phone):
        assert (await query(reader, bob.user_id))["master_keys"][bob.user_id] == signed
    for reader in (bob, await server.register("carol")):
        assert (await query(reader, bob.user_id))["master_keys"][bob.user_id]["signatures"] == {}
    answer = await asyncio.wait_for(waiting, 20)
    assert answer["device_lists"] == {"changed": [bob.user_id], "left": []}
    assert (await bob.sync(sinces[1]))["device_lists"] == {"changed": [], "left": []}
    changed = await phone.get("/keys/changes", **{"from": sinces[0], "to": answer["next_batch"]})
    assert changed == answer["device_lists"]
    await server.restart()
    phone = server.reconnect(phone)
    assert (await phone.sync(sinces[0]))["device_lists"] == {"changed": [bob.user_id], "left": []}


async def test_each_object_is_judged_alone(server: Server, alice: Client, bob: Client) -> None:
    device, phone = Device(alice), Device(await server.login(alice, "PHONE"))
    user, of_bob = User(alice), User(bob)
    for one in (device, phone):
        await one.upload()
    await alice.post(UPLOAD, user.keys())
    await bob.post(UPLOAD, of_bob.keys())
    await Device(bob).upload()
    good = user.signed(device.device_keys(), user.self_signing)
    wrong = user.signed(phone.device_keys(), user.self_signing)
    wrong["signatures"][alice.user_id][f"ed25519:{user.self_signing.public_base64}"] = "A" * 86
    bobs = of_bob.keys()
    me, him = alice.user_id, bob.user_id
    failures = await sign(
        alice,
        (me, alice.device_id, good),
        (me, "PHONE", wrong),
        (me, "UNKNOWN", good),
        (me, user.master.public_base64, user.keys()["master_key"]),
        (me, user.self_signing.public_base64, user.signed(user.keys()["self_signing_key"], user.master)),
        (him, of_bob.master.public_base64, user.signed(bobs["master_key"], user.self_signing)),
        (him, of_bob.self_signing.public_base64, user.signed(bobs["self_signing_key"], user.user_signing)),
        (him, bob.device_id, user.signed(Device(bob).device_keys(), user.user_signing)),
        ("@nobody:example.org", "X", good),
        ("@a:elsewhere.org", "X", good),
        ("nonsense", "X", 5),
    )
    codes = {
        (user_id, key_id): error["errcode"]
        for user_id, by in failures.items()
        for key_id, error in by.items()
    }
    assert codes == {
        (me, "PHONE"): "M_INVALID_SIGNATURE",
        (me, "UNKNOWN"): "M_NOT_FOUND",
        (me, user.master.public_base64): "M_INVALID_SIGNATURE",
        (me, user.self_signing.public_base64): "M_NOT_FOUND",
        (him, of_bob.master.public_base64): "M_INVALID_SIGNATURE",
        (him, of_bob.self_signing.public_base64): "M_NOT_FOUND",
        (him, bob.device_id): "M_NOT_FOUND",
        ("@nobody:example.org", "X"): "M_NOT_FOUND",
        ("@a:elsewhere.org", "X"): "M_NOT_FOUND",
        ("nonsense", "X"): "M_BAD_JSON",
    }
    shown = (await query(bob, me))["device_keys"][me]
    assert shown[alice.device_id]["signatures"] == good["signatures"]
    assert shown["PHONE"]["signatures"] == phone.device_keys()["signatures"]


async def test_what_is_signed_must_be_what_was_uploaded(alice: Client) -> None:
    device, user = Device(alice), User(alice)
    await device.upload()
    await alice.post(UPLOAD, user.keys())
    other = user.signed(device.device_keys(algorithms=[]), user.self_signing)
    failures = await sign(alice, (alice.user_id, alice.device_id, other))
    assert failures[alice.user_id][alice.device_id]["errcode"] == "M_INVALID_PARAM"


@pytest.mark.parametrize("body", [{"@alice:example.org": []}, {"@alice:example.org": None}])
async def test_signatures_in_another_form_are_refused(alice: Client, body: dict[str, Any]) -> None:
    with refused(400, "M_BAD_JSON"):
        await alice.post(SIGNATURES, body)


async def test_absurdly_many_signatures_are_refused(alice: Client) -> None:
    with refused(413, "M_TOO_LARGE"):
        await alice.post(SIGNATURES, {alice.user_id: {str(number): {} for number in range(1_001)}})


# -- replaced, deleted -------------------------------------------------------------------------------------


@pytest.fixture
async def signed_everywhere(server: Server, alice: Client, bob: Client) -> tuple[Device, User, User]:
    """Alice and Bob have signed all that they can sign."""
    device, user, of_bob = Device(alice), User(alice), User(bob)
    await device.upload()
    await alice.post(UPLOAD, user.keys())
    await bob.post(UPLOAD, of_bob.keys())
    master, bobs = user.keys()["master_key"], of_bob.keys()["master_key"]
    signed = (
        (alice.user_id, alice.device_id, user.signed(device.device_keys(), user.self_signing)),
        (alice.user_id, user.master.public_base64, device.signed(master)),
        (bob.user_id, of_bob.master.public_base64, user.signed(bobs, user.user_signing)),
    )
    assert await sign(alice, *signed) == {}
    of_alice = of_bob.signed(master, of_bob.user_signing)
    assert await sign(bob, (alice.user_id, user.master.public_base64, of_alice)) == {}
    return device, user, of_bob


async def signatures(reader: Client, alice: Client, bob: Client) -> set[str]:
    """Which of the signatures of `signed_everywhere` a reader sees, besides those that keys were uploaded with."""
    answer = await query(reader, alice.user_id, bob.user_id)
    device = answer["device_keys"][alice.user_id].get(alice.device_id, {}).get("signatures", {})
    master = answer["master_keys"].get(alice.user_id, {}).get("signatures", {})
    bobs = answer["master_keys"].get(bob.user_id, {}).get("signatures", {})
    found = {
        "device": len(device.get(alice.user_id, {})) > 1,
        "master by device": bool(master.get(alice.user_id)),
        "master by bob": bool(master.get(bob.user_id)),
        "bob": bool(bobs.get(alice.user_id)),
    }
    return {name for name, is_there in found.items() if is_there}


@pytest.mark.parametrize(
    ("replaced", "left_to_alice", "left_to_bob"),
    [
        ("master_key", set(), set()),
        ("self_signing_key", {"master by device", "bob"}, {"master by device", "master by bob"}),
        ("user_signing_key", {"device", "master by device"}, {"device", "master by device", "master by bob"}),
    ],
)
async def test_signatures_go_with_the_key_that_made_them_or_that_they_are_of(
    alice: Client,
    bob: Client,
    signed_everywhere: tuple[Device, User, User],
    replaced: str,
    left_to_alice: set[str],
    left_to_bob: set[str],
) -> None:
    assert await signatures(alice, alice, bob) == {"device", "master by device", "bob"}
    assert await signatures(bob, alice, bob) == {"device", "master by device", "master by bob"}
    _, user, _ = signed_everywhere
    new = User(alice)
    if replaced != "master_key":
        new.master = user.master
    await alice.post(UPLOAD, {replaced: new.keys()[replaced], "auth": AUTH})
    assert await signatures(alice, alice, bob) == left_to_alice
    assert await signatures(bob, alice, bob) == left_to_bob


async def test_signatures_go_with_the_identity_of_a_device(
    alice: Client, bob: Client, signed_everywhere: tuple[Device, User, User]
) -> None:
    device, _, _ = signed_everywhere
    # The device can do more than before: what was signed of it is another thing, but what it signed stands.
    await alice.post("/keys/upload", {"device_keys": device.device_keys(algorithms=["new"])})
    assert await signatures(bob, alice, bob) == {"master by device", "master by bob"}
    await Device(alice).upload()
    assert await signatures(bob, alice, bob) == {"master by bob"}


async def test_signatures_go_with_a_device(
    server: Server, alice: Client, bob: Client, signed_everywhere: tuple[Device, User, User]
) -> None:
    assert signed_everywhere
    await alice.delete(f"/devices/{alice.device_id}", {"auth": AUTH})
    assert await signatures(bob, alice, bob) == {"master by bob"}
    alice = await server.login(alice, alice.device_id)
    await Device(alice).upload()
    assert await signatures(bob, alice, bob) == {"master by bob"}


async def test_keys_and_signatures_go_with_the_account(
    server: Server, alice: Client, bob: Client, signed_everywhere: tuple[Device, User, User]
) -> None:
    assert signed_everywhere
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    await alice.post("/account/deactivate", {"auth": AUTH})
    assert alice.user_id in str(await bob.sync(since))
    answer = await query(bob, alice.user_id, bob.user_id)
    assert answer["device_keys"] == {alice.user_id: {}, bob.user_id: {}}
    assert answer["master_keys"].keys() == {bob.user_id}
    counted = await server.application.database.fetch_all(
        "SELECT (SELECT COUNT(*) FROM device_keys), (SELECT COUNT(*) FROM user_signatures),"
        " (SELECT COUNT(*) FROM cross_signing_keys WHERE user_id = $1),"
        " (SELECT COUNT(*) FROM key_signatures WHERE user_id = $1)",
        alice.user_id,
    )
    assert counted == [(0, 0, 0, 0)]
