"""One-time keys: each is given out once, in order, and the device knows how many it has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from crypto import keys
from tests.client import error_of, refused
from tests.keys import USUAL, Device, claim, claim_one, curve25519, sign

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server


ODD = {"key": "A", "signatures": {}, "x": [None, 1, {"y": "\u0000"}]}


async def counts(client: Client) -> dict[str, int]:
    return (await client.post("/keys/upload"))["one_time_key_counts"]


async def test_keys_are_given_out_in_the_order_of_their_uploads(alice: Client, bob: Client) -> None:
    device = Device(alice)
    # Ids that are in no order.
    uploads = [{f"{USUAL}:{name}": device.signed({"key": curve25519()})} for name in "cab"]
    for upload in uploads:
        await alice.post("/keys/upload", {"one_time_keys": upload})
    for upload in uploads:
        name, key = await claim_one(bob, alice)
        assert {name: key} == upload
    assert await claim_one(bob, alice) is None
    assert await counts(alice) == {USUAL: 0}


async def test_each_key_is_given_out_once_however_many_ask(alice: Client, bob: Client) -> None:
    uploaded = await Device(alice).upload(one_time_keys=20)
    answers = await asyncio.gather(*(claim_one(bob, alice) for _ in range(30)))
    given = [answer for answer in answers if answer is not None]
    assert len(given) == 20
    assert dict(given) == uploaded


async def test_one_request_claims_of_many_devices(server: Server, alice: Client, bob: Client) -> None:
    phone, tablet = await server.login(alice, "PHONE"), await server.login(alice, "TABLET")
    uploaded = {client.device_id: await Device(client).upload(1) for client in (alice, phone)}
    of_bob = await Device(bob).upload(one_time_keys=1)
    # Both users have a device of this name, only one of them was asked for.
    other = await server.login(bob, "PHONE")
    await Device(other).upload(one_time_keys=1)
    assert await claim(bob, alice, phone, tablet, bob) == {
        alice.user_id: uploaded,
        bob.user_id: {bob.device_id: of_bob},
    }
    assert await counts(other) == {USUAL: 1}


async def test_algorithms_are_counted_and_claimed_apart(alice: Client, bob: Client) -> None:
    device = Device(alice)
    new = {**device.one_time_keys(2), "org.example.text:A": "abc", "org.example.object:A": ODD}
    expected = {USUAL: 2, "org.example.text": 1, "org.example.object": 1}
    assert (await alice.post("/keys/upload", {"one_time_keys": new}))["one_time_key_counts"] == expected
    assert await claim_one(bob, alice, "org.example.text") == ("org.example.text:A", "abc")
    assert await claim_one(bob, alice, "org.example.object") == ("org.example.object:A", ODD)
    assert await claim_one(bob, alice, "org.example.none") is None
    assert await counts(alice) == {USUAL: 2}


async def test_who_is_unknown_or_elsewhere_is_left_out(alice: Client, bob: Client) -> None:
    body = {
        "one_time_keys": {
            "@nobody:example.org": {"X": USUAL},
            alice.user_id: {"UNKNOWN": USUAL, alice.device_id: "none"},
            "@a:elsewhere.org": {"X": USUAL},
            "nonsense": {"X": USUAL},
        },
        "timeout": 10_000,
    }
    answer = await bob.post("/keys/claim", body)
    assert answer["one_time_keys"] == {}
    assert answer["failures"].keys() == {"elsewhere.org"}


# -- uploaded again ----------------------------------------------------------------------------------------


async def test_the_same_upload_again_changes_nothing(alice: Client, bob: Client) -> None:
    device = Device(alice)
    first, second = device.one_time_keys(2), device.one_time_keys(1)
    for upload in (first, second, {**first, **second}):
        answer = await alice.post("/keys/upload", {"one_time_keys": upload})
    assert answer["one_time_key_counts"] == {USUAL: 3}
    given = [await claim_one(bob, alice) for _ in range(3)]
    assert dict(given[:2]) == first
    assert dict(given[2:]) == second


async def test_a_key_that_was_given_out_is_not_taken_back(alice: Client, bob: Client) -> None:
    device = Device(alice)
    uploaded = await device.upload(one_time_keys=3)
    given = [await claim_one(bob, alice) for _ in range(2)]
    # The answer to the upload was lost, so it comes again.
    answer = await alice.post("/keys/upload", {"one_time_keys": uploaded})
    assert answer["one_time_key_counts"] == {USUAL: 1}
    given.append(await claim_one(bob, alice))
    assert dict(given) == uploaded
    assert await claim_one(bob, alice) is None


@pytest.mark.parametrize("claimed", [False, True])
async def test_another_key_under_the_same_id_is_refused(alice: Client, bob: Client, claimed: bool) -> None:
    device = Device(alice)
    uploaded = await device.upload(one_time_keys=1)
    (name,) = uploaded
    if claimed:
        await claim_one(bob, alice)
    changed = {name: device.signed({"key": curve25519()})}
    body = {"one_time_keys": {**device.one_time_keys(2), **changed}}
    error = await error_of(alice.post("/keys/upload", body))
    assert (error.status, error.errcode) == (400, "M_INVALID_PARAM")
    # By these words matrix-rust-sdk knows what has happened.
    assert error.body["error"].startswith(f"One time key {name} already exists")
    # Nothing of it was stored.
    assert await counts(alice) == {USUAL: 0 if claimed else 1}
    assert await claim_one(bob, alice) == (None if claimed else (name, uploaded[name]))


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_key_is_the_same_with_another_signature(alice: Client, bob: Client, claimed: bool) -> None:
    uploaded = await Device(alice).upload(one_time_keys=1)
    ((name, key),) = uploaded.items()
    if claimed:
        await claim_one(bob, alice)
    again = sign({"key": key["key"]}, alice.user_id, keys.generate("x"), alice.device_id)
    answer = await alice.post("/keys/upload", {"one_time_keys": {name: again}})
    assert answer["one_time_key_counts"] == {USUAL: 0 if claimed else 1}


async def test_a_new_identity_has_new_keys(alice: Client, bob: Client) -> None:
    old = Device(alice)
    uploaded = await old.upload(one_time_keys=2)
    await alice.post("/keys/upload", {"fallback_keys": old.fallback_key()})
    await claim_one(bob, alice)
    new = Device(alice)
    await new.upload()
    # What the old identity has signed is of no use any more.
    assert await claim_one(bob, alice) is None
    answer = await alice.sync()
    assert answer["device_one_time_keys_count"] == {USUAL: 0}
    assert answer["device_unused_fallback_key_types"] == []
    # Ids begin anew.
    again = await new.upload(one_time_keys=2)
    assert again.keys() == uploaded.keys()
    assert dict([await claim_one(bob, alice), await claim_one(bob, alice)]) == again


# -- fallback keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["fallback_keys", "org.matrix.msc2732.fallback_keys"])
async def test_the_fallback_key_is_given_out_when_there_is_no_other(
    alice: Client, bob: Client, field: str
) -> None:
    device = Device(alice)
    uploaded = await device.upload(one_time_keys=1)
    fallback = device.fallback_key()
    await alice.post("/keys/upload", {field: fallback})
    assert dict([await claim_one(bob, alice)]) == uploaded
    assert (await alice.sync())["device_unused_fallback_key_types"] == [USUAL]
    for _ in range(2):
        assert dict([await claim_one(bob, alice)]) == fallback
        assert (await alice.sync())["device_unused_fallback_key_types"] == []
    # One that comes again is as used as it was.
    await alice.post("/keys/upload", {field: fallback})
    assert (await alice.sync())["device_unused_fallback_key_types"] == []
    newer = device.fallback_key()
    await alice.post("/keys/upload", {field: newer})
    answer = await alice.sync()
    assert answer["device_unused_fallback_key_types"] == [USUAL]
    assert answer["org.matrix.msc2732.device_unused_fallback_key_types"] == [USUAL]
    assert answer["device_one_time_keys_count"] == {USUAL: 0}
    assert dict([await claim_one(bob, alice)]) == newer


async def test_there_is_one_fallback_key_of_each_algorithm(alice: Client, bob: Client) -> None:
    device = Device(alice)
    with refused(400, "M_INVALID_PARAM"):
        await alice.post(
            "/keys/upload", {"fallback_keys": {**device.fallback_key(), **device.fallback_key()}}
        )
    both = {**device.fallback_key(), "org.example:A": "abc"}
    await alice.post("/keys/upload", {"fallback_keys": both})
    assert (await alice.sync())["device_unused_fallback_key_types"] == ["org.example", USUAL]
    assert await claim_one(bob, alice, "org.example") == ("org.example:A", "abc")
    assert (await alice.sync())["device_unused_fallback_key_types"] == [USUAL]


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["one_time_keys", "fallback_keys"])
@pytest.mark.parametrize(
    ("name", "key", "errcode"),
    [
        (USUAL, {"key": "A", "signatures": {}}, "M_INVALID_PARAM"),
        (f"{USUAL}:", {"key": "A", "signatures": {}}, "M_INVALID_PARAM"),
        (":A", "A", "M_INVALID_PARAM"),
        (f"{USUAL}:A", "A", "M_BAD_JSON"),
        (f"{USUAL}:A", {"signatures": {}}, "M_BAD_JSON"),
        (f"{USUAL}:A", {"key": 5, "signatures": {}}, "M_BAD_JSON"),
        (f"{USUAL}:A", {"key": "A"}, "M_BAD_JSON"),
        (f"{USUAL}:A", {"key": "A", "signatures": {"@alice:example.org": "x"}}, "M_BAD_JSON"),
        ("curve25519:A", {}, "M_BAD_JSON"),
        ("curve25519:A", 5, "M_BAD_JSON"),
        ("curve25519:A", None, "M_BAD_JSON"),
        ("curve25519:A", {"key": "A", "signatures": {}, "x": 1.5}, "M_BAD_JSON"),
        ("curve25519:" + "A" * 600, "A", "M_TOO_LARGE"),
        ("curve25519:A", "A" * 9_000, "M_TOO_LARGE"),
    ],
)
async def test_keys_that_are_not_well_formed_are_refused(
    alice: Client, field: str, name: str, key: Any, errcode: str
) -> None:
    device = Device(alice)
    with refused(413 if errcode == "M_TOO_LARGE" else 400, errcode):
        await alice.post(
            "/keys/upload",
            {"device_keys": device.device_keys(), field: {"other:A": "A", name: key}},
        )
    assert await counts(alice) == {USUAL: 0}


async def test_a_device_has_no_more_keys_than_it_needs(alice: Client) -> None:
    many = {f"curve25519:{number}": "A" for number in range(500)}
    answer = await alice.post("/keys/upload", {"one_time_keys": many})
    assert answer["one_time_key_counts"] == {"curve25519": 500, USUAL: 0}
    for more in ({"curve25519:one": "A"}, {**many, "curve25519:one": "A"}):
        with refused(413, "M_TOO_LARGE"):
            await alice.post("/keys/upload", {"one_time_keys": more})
    assert (await alice.post("/keys/upload", {"one_time_keys": many}))["one_time_key_counts"] == {
        "curve25519": 500,
        USUAL: 0,
    }


async def test_a_device_has_no_more_fallback_keys_than_it_needs(alice: Client) -> None:
    for number in range(10):
        await alice.post("/keys/upload", {"fallback_keys": {f"algorithm{number}:A": "A"}})
    with refused(413, "M_TOO_LARGE"):
        await alice.post("/keys/upload", {"fallback_keys": {"another:A": "A"}})
    await alice.post("/keys/upload", {"fallback_keys": {"algorithm9:B": "B"}})


@pytest.mark.parametrize(
    "devices",
    [
        {str(number): USUAL for number in range(5_001)},
        {str(number): f"algorithm{number}" for number in range(11)},
    ],
)
async def test_absurdly_many_claims_are_refused(alice: Client, devices: dict[str, str]) -> None:
    with refused(413, "M_TOO_LARGE"):
        await alice.post("/keys/claim", {"one_time_keys": {alice.user_id: devices}})


async def test_a_claim_for_thousands_of_users_gives_each_their_own(alice: Client, bob: Client) -> None:
    uploaded = await Device(alice).upload(one_time_keys=1)
    wanted = {f"@user{number}:example.org": {f"DEVICE{number}": USUAL} for number in range(4_900)}
    wanted[alice.user_id] = {alice.device_id: USUAL}
    answer = await bob.post("/keys/claim", {"one_time_keys": wanted})
    assert answer["one_time_keys"] == {alice.user_id: {alice.device_id: uploaded}}


# -- what a sync tells -------------------------------------------------------------------------------------


async def test_a_claim_wakes_the_device_and_no_other(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(alice, "PHONE")
    device = Device(alice)
    await device.upload(one_time_keys=2)
    await alice.post("/keys/upload", {"fallback_keys": device.fallback_key()})
    sinces = {client.device_id: (await client.sync())["next_batch"] for client in (alice, phone)}
    sleeping = asyncio.create_task(phone.sync(sinces["PHONE"], timeout=60_000))
    for left, unused in ((1, [USUAL]), (0, [USUAL]), (0, [])):
        waiting = asyncio.create_task(alice.sync(sinces[alice.device_id], timeout=60_000))
        await server.until_waiting(2)
        assert await claim_one(bob, alice) is not None
        answer = await asyncio.wait_for(waiting, 20)
        assert answer["device_one_time_keys_count"] == {USUAL: left}
        assert answer["device_unused_fallback_key_types"] == unused
        sinces[alice.device_id] = answer["next_batch"]
    # The fallback key was used before: nothing changes, nobody wakes.
    waiting = asyncio.create_task(alice.sync(sinces[alice.device_id], timeout=60_000))
    await server.until_waiting(2)
    assert await claim_one(bob, alice) is not None
    await alice.post("/keys/upload", {"one_time_keys": device.one_time_keys(5)})
    answer = await asyncio.wait_for(waiting, 20)
    assert answer["device_one_time_keys_count"] == {USUAL: 5}
    assert not sleeping.done()
    server.application.rooms.notifier.stop()
    answer = await sleeping
    assert answer["device_one_time_keys_count"] == {USUAL: 0}


async def test_a_claim_of_before_a_restart_is_told_at_once_and_once(
    server: Server, alice: Client, bob: Client
) -> None:
    await Device(alice).upload(one_time_keys=2)
    since = (await alice.sync())["next_batch"]
    await claim_one(bob, alice)
    await server.restart()
    alice = server.reconnect(alice)
    answer = await asyncio.wait_for(alice.sync(since, timeout=60_000), 20)
    assert answer["device_one_time_keys_count"] == {USUAL: 1}
    waiting = asyncio.create_task(alice.sync(answer["next_batch"], timeout=60_000))
    await server.until_waiting()
    server.application.rooms.notifier.stop()
    assert (await waiting)["device_one_time_keys_count"] == {USUAL: 1}


async def test_every_answer_counts_what_was_claimed_before_it(alice: Client, bob: Client) -> None:
    await Device(alice).upload(one_time_keys=30)
    since = None
    for left in range(29, -1, -1):
        await claim_one(bob, alice)
        answer = await alice.sync(since)
        assert answer["device_one_time_keys_count"] == {USUAL: left}
        since = answer["next_batch"]
