"""Keys of devices and messages to them, between Synapse and a server of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.people import another_device
from tests.keys import Device, User

if TYPE_CHECKING:
    from tests.interop.people import Somebody

pytestmark = pytest.mark.interop


async def shared_room(host: Somebody, guest: Somebody) -> str:
    room_id = await host.client.create_room(preset="public_chat")
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    return room_id


async def test_devices_that_are_added_and_removed_are_seen(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    await shared_room(host, guest)
    for one, other in ((host, guest), (guest, host)):
        await one.sync()
        one.changed.clear()
        device = Device(other.client)
        await device.upload()
        await one.until_changed(other.user_id)

        async def sees(wanted: set[str], one: Somebody = one, other: Somebody = other) -> bool:
            return (await one.devices_of(other.user_id)).keys() == wanted

        seen = await one.devices_of(other.user_id)
        assert seen.keys() == {other.client.device_id}
        expected = device.device_keys()
        assert seen[other.client.device_id]["keys"] == expected["keys"]
        assert seen[other.client.device_id]["signatures"] == expected["signatures"]
        second = await another_device(other.client)
        await Device(second).upload()
        await one.until(lambda: sees({other.client.device_id, second.device_id}), "a second device")  # noqa: B023
        await second.post("/logout")
        await one.until(lambda: sees({other.client.device_id}), "the end of the second device")  # noqa: B023


async def test_neither_server_tells_what_devices_are_called(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    await shared_room(host, guest)
    for one, other in ((host, guest), (guest, host)):
        await other.client.put(f"/devices/{other.client.device_id}", {"display_name": "in a pocket"})
        await one.sync()
        await Device(other.client).upload()

        async def sees_keys(one: Somebody = one, other: Somebody = other) -> bool:
            return other.client.device_id in await one.devices_of(other.user_id)

        await one.until(sees_keys, "the keys of a device")
        assert "pocket" in str(await other.devices_of(other.user_id))
        assert "pocket" not in str(await one.devices_of(other.user_id))


async def test_a_one_time_key_is_claimed_once(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    await shared_room(host, guest)
    for one, other in ((host, guest), (guest, host)):
        given = await Device(other.client).upload(2)
        wanted = {"one_time_keys": {other.user_id: {other.client.device_id: "signed_curve25519"}}}
        claimed: dict[str, Any] = {}
        for _ in range(2):
            answer = await one.client.post("/keys/claim", wanted)
            claimed |= answer["one_time_keys"][other.user_id][other.client.device_id]
        assert claimed == given
        answer = await one.client.post("/keys/claim", wanted)
        assert not answer["one_time_keys"].get(other.user_id, {}).get(other.client.device_id)


async def test_messages_to_devices_arrive_once_and_in_order(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    await shared_room(host, guest)
    for one, other in ((host, guest), (guest, host)):
        for number in range(30):
            messages = {other.user_id: {other.client.device_id: {"number": number}}}
            await one.client.put(f"/sendToDevice/org.example.test/{number}", {"messages": messages})

        async def has_all(other: Somebody = other) -> bool:
            return len(other.to_device) >= 30

        await other.until(has_all, "messages to the device")
        assert [message["content"]["number"] for message in other.to_device] == list(range(30))
        assert {message["sender"] for message in other.to_device} == {one.user_id}


async def test_keys_for_cross_signing_are_seen(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    await shared_room(host, guest)
    for one, other in ((host, guest), (guest, host)):
        await Device(other.client).upload()
        user = User(other.client)
        uploaded = user.keys()
        await other.client.post("/keys/device_signing/upload", uploaded)

        async def sees_keys(
            one: Somebody = one, other: Somebody = other, uploaded: dict[str, Any] = uploaded
        ) -> bool:
            answer = await one.client.post("/keys/query", {"device_keys": {other.user_id: []}})
            seen = [answer.get(name, {}).get(other.user_id) for name in ("master_keys", "self_signing_keys")]
            wanted = [uploaded[name]["keys"] for name in ("master_key", "self_signing_key")]
            return [key and key["keys"] for key in seen] == wanted

        await one.until(sees_keys, "the keys for cross-signing")
