"""Dehydrated devices (MSC3814): a sealed device that takes keys' claims and messages until its user wakes it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.storage.to_device import MAX_MESSAGES
from tests.client import Client, error_of, refused
from tests.keys import Device, claim_one, query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.server import Server

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
AUTH = {"type": "m.login.password", "password": "secret"}
_numbers = itertools.count()


class Dehydrated:
    """The encryption of a dehydrated device, which has the name that its key gives it."""

    def __init__(self, owner: Client) -> None:
        self.device = Device(Client(owner.http, owner.user_id))
        self.name = self.device.client
        # "The client *must* use the public Curve25519 identity key of the device, encoded as unpadded Base64."
        self.name.device_id = self.device.curve25519[:-1] + "/"

    @property
    def device_id(self) -> str:
        return self.name.device_id

    def upload(self, one_time_keys: int = 2, **changed: Any) -> dict[str, Any]:
        """The body of its upload."""
        return {
            "device_id": self.device_id,
            "device_data": {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "sealed", "nonce": "n"},
            "initial_device_display_name": "Dehydrated device",
            "device_keys": self.device.device_keys(dehydrated=True),
            "one_time_keys": self.device.one_time_keys(one_time_keys),
            "fallback_keys": self.device.fallback_key(),
            **changed,
        }


async def upload(owner: Client, **changed: Any) -> Dehydrated:
    """A new dehydrated device of a user."""
    dehydrated = Dehydrated(owner)
    answer = await owner.put(PATH, dehydrated.upload(**changed))
    assert answer == {"device_id": dehydrated.device_id}
    return dehydrated


async def send(sender: Client, recipient: Client | Dehydrated, text: str | None = None) -> str:
    text = text or f"text {next(_numbers)}"
    name = recipient.name if isinstance(recipient, Dehydrated) else recipient
    body = {"messages": {name.user_id: {name.device_id: {"text": text}}}}
    await sender.put(f"/sendToDevice/m.test/d{next(_numbers)}", body)
    return text


def events_path(dehydrated: Dehydrated) -> str:
    return f"{PATH}/{quote(dehydrated.device_id, safe='')}/events"


def texts(events: Iterable[dict[str, Any]]) -> list[str]:
    return [event["content"]["text"] for event in events]


async def read_all(owner: Client, dehydrated: Dehydrated) -> list[list[str]]:
    """Its messages, page by page, as the MSC says."""
    pages: list[list[str]] = []
    token = None
    while True:
        answer = await owner.get(events_path(dehydrated), **({"from": token} if token else {}))
        pages.append(texts(answer["events"]))
        token = answer.get("next_batch")
        if token is None:
            return pages


async def read_all_as_before(owner: Client, dehydrated: Dehydrated) -> list[list[str]]:
    """Its messages, page by page, as clients did at first: until nothing comes."""
    pages: list[list[str]] = []
    body: dict[str, Any] = {}
    while not pages or pages[-1]:
        answer = await owner.post(events_path(dehydrated), body)
        pages.append(texts(answer["events"]))
        body = {"next_batch": answer["next_batch"]}
    return pages


async def test_a_client_finds_out_that_it_can_have_one(alice: Client) -> None:
    assert (await alice.get("/_matrix/client/versions"))["unstable_features"]["org.matrix.msc3814"] is True
    # matrix-js-sdk takes M_UNRECOGNIZED for a server that has no such thing.
    with refused(404, "M_NOT_FOUND"):
        await alice.get(PATH)
    with refused(404, "M_NOT_FOUND"):
        await alice.delete(PATH)


async def test_what_is_uploaded_is_given_back_byte_for_byte_and_to_nobody_else(
    server: Server, alice: Client, bob: Client
) -> None:
    data = b'{ "algorithm":"x",\t"device_pickle" : "\\u00e4/\\/", "n": 1.0 }'
    body = Dehydrated(alice).upload(device_data={})
    raw = json.dumps(body).encode().replace(b'"device_data": {}', b'"device_data": ' + data)
    assert await alice.call("PUT", PATH, content=raw) == {"device_id": body["device_id"]}
    headers = {"Authorization": f"Bearer {alice.access_token}"}
    answer = await server.http.get(PATH, headers=headers)
    assert b'"device_data":' + data in answer.content
    assert answer.json()["device_id"] == body["device_id"]
    with refused(404, "M_NOT_FOUND"):
        await bob.get(PATH)


async def test_to_others_it_is_a_device_like_any_other(alice: Client, bob: Client) -> None:
    await Device(alice).upload()
    dehydrated = await upload(alice)
    devices = {device["device_id"]: device for device in (await alice.get("/devices"))["devices"]}
    assert devices.keys() == {alice.device_id, dehydrated.device_id}
    assert devices[dehydrated.device_id]["display_name"] == "Dehydrated device"
    keys = (await query(bob, alice.user_id))["device_keys"][alice.user_id]
    assert keys.keys() == devices.keys()
    assert keys[dehydrated.device_id]["dehydrated"] is True
    claimed = [await claim_one(bob, dehydrated.name) for _ in range(3)]
    names = [name for name, _ in claimed if name is not None]
    assert len(set(names)) == 3
    # The last one is the fallback key, and stays.
    assert await claim_one(bob, dehydrated.name) == claimed[2]
    await bob.put("/sendToDevice/m.test/all", {"messages": {alice.user_id: {"*": {"text": "all"}}}})
    assert await read_all(alice, dehydrated) == [["all"]]
    assert len((await alice.sync())["to_device"]["events"]) == 1


async def test_its_messages_come_in_order_and_stay_however_often_they_are_read(
    server: Server, alice: Client, bob: Client
) -> None:
    dehydrated = await upload(alice)
    assert await read_all(alice, dehydrated) == [[]]
    assert await read_all_as_before(alice, dehydrated) == [[]]
    sent = [await send(bob, dehydrated) for _ in range(2 * MAX_MESSAGES + 5)]
    pages = [sent[:MAX_MESSAGES], sent[MAX_MESSAGES : 2 * MAX_MESSAGES], sent[2 * MAX_MESSAGES :]]
    phone = await server.login(alice)
    for reader in (alice, phone):
        for _ in range(2):
            assert await read_all(reader, dehydrated) == pages
            assert await read_all_as_before(reader, dehydrated) == [*pages, []]
    answer = await alice.get(events_path(dehydrated), limit=7)
    assert texts(answer["events"]) == sent[:7]
    # What fills the last page to the brim is followed by nothing.
    await upload(alice)
    dehydrated = await upload(alice)
    sent = [await send(bob, dehydrated) for _ in range(MAX_MESSAGES)]
    assert await read_all(alice, dehydrated) == [sent]
    # A sync of the user's other devices acknowledges nothing of it.
    await alice.sync((await alice.sync())["next_batch"])
    assert await read_all(alice, dehydrated) == [sent]


async def test_events_of_another_device_cannot_be_read(alice: Client, bob: Client) -> None:
    dehydrated = await upload(alice)
    other = await upload(bob)
    await send(bob, dehydrated)
    for method in ("GET", "POST"):
        body = {} if method == "POST" else None
        for path in (
            events_path(other),
            f"{PATH}/{alice.device_id}/events",
            f"{PATH}/UNKNOWN/events",
        ):
            with refused(403, "M_FORBIDDEN"):
                await alice.call(method, path, body)
        with refused(403, "M_FORBIDDEN"):
            await bob.call(method, events_path(dehydrated), body)
    token = (await alice.post(events_path(dehydrated)))["next_batch"]
    sync_token = (await bob.sync())["next_batch"]
    for wrong in (token, sync_token, "x", ""):
        with refused(400, "M_INVALID_PARAM"):
            await bob.get(events_path(other), **{"from": wrong})
        with refused(400, "M_INVALID_PARAM"):
            await bob.post(events_path(other), {"next_batch": wrong})


async def test_a_new_one_takes_the_place_of_the_old_with_its_keys_and_messages(
    server: Server, alice: Client, bob: Client
) -> None:
    old = await upload(alice)
    await send(bob, old)
    new = await upload(alice)
    assert (await alice.get(PATH))["device_id"] == new.device_id
    assert await read_all(alice, new) == [[]]
    with refused(403, "M_FORBIDDEN"):
        await read_all(alice, old)
    assert (await query(bob, alice.user_id))["device_keys"][alice.user_id].keys() == {new.device_id}
    assert await claim_one(bob, old.name) is None
    with refused(404, "M_NOT_FOUND"):
        await alice.get(f"/devices/{quote(old.device_id, safe='')}")
    assert await rows_of(server, old) == 0


async def rows_of(server: Server, dehydrated: Dehydrated) -> int:
    """How many rows of any table are about the device."""
    count = 0
    for table in (
        "devices",
        "device_keys",
        "one_time_keys",
        "fallback_keys",
        "to_device_messages",
        "dehydrated_devices",
    ):
        count += await server.application.database.fetch_value(
            f"SELECT count(*) FROM {table} WHERE device_id = $1", dehydrated.device_id
        )
    return count


async def test_an_upload_whose_answer_was_lost_can_be_repeated(alice: Client, bob: Client) -> None:
    dehydrated = Dehydrated(alice)
    body = dehydrated.upload()
    await alice.put(PATH, body)
    text = await send(bob, dehydrated)
    claimed = [await claim_one(bob, dehydrated.name) for _ in range(2)]
    await alice.put(PATH, body)
    assert await read_all(alice, dehydrated) == [[text]]
    # Both one-time keys are gone; only the fallback key is left.
    name, _ = await claim_one(bob, dehydrated.name) or ("", None)
    assert name in body["fallback_keys"]
    assert name not in [one[0] for one in claimed if one is not None]


async def test_another_device_of_the_same_name_begins_anew(alice: Client, bob: Client) -> None:
    dehydrated = await upload(alice)
    await send(bob, dehydrated)
    other = Dehydrated(alice)
    other.name.device_id = dehydrated.device_id
    body = other.upload(one_time_keys=1)
    await alice.put(PATH, body)
    assert await read_all(alice, other) == [[]]
    name, _ = await claim_one(bob, other.name) or ("", None)
    assert name in body["one_time_keys"]


@pytest.mark.parametrize("deed", ["delete", "device", "logout all", "password", "deactivate"])
async def test_it_goes_whole(server: Server, alice: Client, bob: Client, deed: str) -> None:
    dehydrated = await upload(alice)
    await send(bob, dehydrated)
    if deed == "delete":
        assert await alice.delete(PATH) == {"device_id": dehydrated.device_id}
    elif deed == "device":
        await alice.delete(f"/devices/{quote(dehydrated.device_id, safe='')}", {"auth": AUTH})
    elif deed == "logout all":
        await alice.post("/logout/all")
    elif deed == "password":
        await alice.post("/account/password", {"new_password": "secret", "auth": AUTH})
    else:
        await alice.post("/account/deactivate", {"auth": AUTH})
    assert await rows_of(server, dehydrated) == 0
    if deed != "deactivate":
        with refused(404, "M_NOT_FOUND"):
            await (await server.login(alice)).get(PATH)


async def test_it_waits_for_a_user_who_has_no_other_device(
    server: Server, alice: Client, bob: Client
) -> None:
    dehydrated = await upload(alice)
    await alice.post("/logout")
    text = await send(bob, dehydrated)
    alice = await server.login(alice)
    assert (await alice.get(PATH))["device_id"] == dehydrated.device_id
    assert await read_all(alice, dehydrated) == [[text]]


async def test_nobody_logs_in_as_it(server: Server, alice: Client, bob: Client) -> None:
    dehydrated = await upload(alice)
    text = await send(bob, dehydrated)
    with refused(400, "M_INVALID_PARAM"):
        await server.login(alice, dehydrated.device_id)
    assert await read_all(alice, dehydrated) == [[text]]


async def test_a_device_that_is_in_use_cannot_become_one(server: Server, alice: Client) -> None:
    phone = await server.login(alice, "PHONE")
    old = await upload(alice)
    new = Dehydrated(alice)
    new.name.device_id = "PHONE"
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(PATH, new.upload())
    await phone.sync()
    assert (await alice.get(PATH))["device_id"] == old.device_id


async def test_what_is_refused_changes_nothing(server: Server, alice: Client, bob: Client) -> None:
    old = await upload(alice)
    text = await send(bob, old)
    other = Dehydrated(alice)
    bad_signature = other.device.device_keys()
    bad_signature["algorithms"] = ["other"]
    good = other.upload()
    for changed, errcode in (
        ({"device_id": None}, "M_BAD_JSON"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"device_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
        ({"device_data": "text"}, "M_BAD_JSON"),
        ({"device_data": None}, "M_BAD_JSON"),
        ({"device_keys": None}, "M_BAD_JSON"),
        ({"device_keys": bad_signature}, "M_INVALID_SIGNATURE"),
        ({"device_keys": old.device.device_keys()}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"signed_curve25519:x": "text"}}, "M_BAD_JSON"),
        ({"one_time_keys": []}, "M_BAD_JSON"),
        ({"fallback_keys": {"x": {}}}, "M_INVALID_PARAM"),
        ({"initial_device_display_name": 5}, "M_BAD_JSON"),
    ):
        error = await error_of(alice.put(PATH, {**good, **changed}))
        assert (error.status, error.errcode) == (400, errcode), changed
    for name in ("device_id", "device_data", "device_keys"):
        with refused(400, "M_MISSING_PARAM"):
            await alice.put(PATH, {key: value for key, value in good.items() if key != name})
    with refused(413, "M_TOO_LARGE"):
        await alice.put(PATH, {**good, "device_data": {"device_pickle": "x" * 70_000}})
    # This is seen only after the old device was deleted, in the same transaction.
    with refused(413, "M_TOO_LARGE"):
        await alice.put(PATH, {**good, "one_time_keys": {f"x:{number}": "x" for number in range(501)}})
    assert (await alice.get(PATH))["device_id"] == old.device_id
    assert await read_all(alice, old) == [[text]]
    assert await rows_of(server, other) == 0
    for method, path in (
        ("GET", PATH),
        ("PUT", PATH),
        ("DELETE", PATH),
        ("GET", events_path(old)),
        ("POST", events_path(old)),
    ):
        with refused(401, "M_MISSING_TOKEN"):
            await server.nobody().call(method, path, content=b"x")


async def test_of_several_uploads_at_once_one_is_left_whole(server: Server, alice: Client) -> None:
    many = [Dehydrated(alice) for _ in range(5)]
    await asyncio.gather(*(alice.put(PATH, one.upload()) for one in many))
    left = (await alice.get(PATH))["device_id"]
    for one in many:
        assert bool(await rows_of(server, one)) == (one.device_id == left)


async def test_it_outlives_a_restart(server: Server, alice: Client, bob: Client) -> None:
    dehydrated = await upload(alice)
    text = await send(bob, dehydrated)
    await server.restart()
    assert await read_all(server.reconnect(alice), dehydrated) == [[text]]
