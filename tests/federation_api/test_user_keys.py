"""Devices and keys of this server's users, for other servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.client import refused
from tests.keys import USUAL, Device

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server


async def test_the_devices_of_a_user_and_a_number_that_grows_with_every_change(
    server: Server, alice: Client, one: Remote
) -> None:
    empty = await one.get(f"/user/devices/{alice.user_id}")
    assert empty["devices"] == []
    device = Device(alice)
    await device.upload()
    answer = await one.get(f"/user/devices/{alice.user_id}")
    assert answer["user_id"] == alice.user_id
    assert answer["stream_id"] > empty["stream_id"]
    (told,) = answer["devices"]
    assert told["device_id"] == alice.device_id
    assert told["keys"]["keys"] == device.device_keys()["keys"]
    other = Device(await server.login(alice))
    await other.upload()
    later = await one.get(f"/user/devices/{alice.user_id}")
    assert len(later["devices"]) == 2
    assert later["stream_id"] > answer["stream_id"]
    for unknown in ("@nobody:example.org", one.user("zoe"), "nobody"):
        with refused(404, "M_NOT_FOUND"):
            await one.get(f"/user/devices/{unknown}")


async def test_keys_of_devices_are_told_without_the_names_that_their_owners_gave_them(
    alice: Client, bob: Client, one: Remote
) -> None:
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "In my pocket"})
    for client in (alice, bob):
        await Device(client).upload()
    wanted = {alice.user_id: [], bob.user_id: ["ANOTHER"], one.user("zoe"): [], "@nobody:example.org": []}
    answer = await one.post("/user/keys/query", {"device_keys": wanted})
    assert set(answer) == {"device_keys", "master_keys", "self_signing_keys"}
    assert list(answer["device_keys"]) == [alice.user_id, bob.user_id]
    assert answer["device_keys"][bob.user_id] == {}
    listed = await one.get(f"/user/devices/{alice.user_id}")
    assert [device["device_id"] for device in listed["devices"]] == [alice.device_id]
    assert "In my pocket" not in str([answer, listed])


async def test_every_key_is_given_out_once(alice: Client, one: Remote, two: Remote) -> None:
    await Device(alice).upload(one_time_keys=2)
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: USUAL}, one.user("zoe"): {"X": USUAL}}}
    answers = [await remote.post("/user/keys/claim", wanted) for remote in (one, two, one)]
    given = [answer["one_time_keys"].get(alice.user_id, {}).get(alice.device_id) for answer in answers]
    assert given[0]
    assert given[1]
    assert given[0] != given[1]
    assert answers[2] == {"one_time_keys": {}}


async def test_what_is_no_question_is_refused(one: Remote) -> None:
    for path, name in (("/user/keys/query", "device_keys"), ("/user/keys/claim", "one_time_keys")):
        with refused(400, "M_MISSING_PARAM"):
            await one.post(path, {})
        with refused(400, "M_BAD_JSON"):
            await one.post(path, {name: {"@alice:example.org": 1}})
