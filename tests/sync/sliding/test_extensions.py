"""What sliding sync tells besides rooms: MSC3885, MSC3884, MSC3959, MSC3960, MSC3961."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import refused
from tests.keys import Device
from tests.sync.sliding.client import DEPLOYED, NOTHING, Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

# The queries are run on both engines by the test of exactness and those of classic sync.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

ALL = {"all": a_list()}
TOP = {"all": a_list(range=[0, 0])}


def enabled(**extensions: Any) -> dict[str, Any]:
    return {name: {"enabled": True, **options} for name, options in extensions.items()}


async def whisper(sender: Client, receiver: Client, text: str) -> None:
    messages = {receiver.user_id: {receiver.device_id: {"text": text}}}
    await sender.put(f"/sendToDevice/org.example.whisper/{text}", {"messages": messages})


def heard(answer: dict[str, Any]) -> list[str]:
    return [event["content"]["text"] for event in answer["extensions"]["to_device"].get("events", ())]


# -- to-device -------------------------------------------------------------------------------------------


async def test_messages_come_again_until_they_are_acknowledged(alice: Client, bob: Client) -> None:
    for text in ("one", "two", "three"):
        await whisper(alice, bob, text)
    device = Sliding(bob)
    first = await device.sync(extensions=enabled(to_device={"limit": 2}))
    assert heard(first) == ["one", "two"]
    # Its own token counts, not `pos`.
    again = await device.sync(extensions=enabled(to_device={"limit": 2}))
    assert heard(again) == ["one", "two"]
    since = again["extensions"]["to_device"]["next_batch"]
    rest = await device.sync(extensions=enabled(to_device={"since": since}))
    assert heard(rest) == ["three"]
    assert heard(await Sliding(bob, "another").sync(extensions=enabled(to_device={}))) == ["three"]
    # What was acknowledged is gone, also for who returns with an older token or with none.
    since = rest["extensions"]["to_device"]["next_batch"]
    quiet = await device.sync(extensions=enabled(to_device={"since": since}))
    assert quiet["extensions"]["to_device"] == {"next_batch": since}
    assert heard(await device.sync(extensions=enabled(to_device={}))) == []


async def test_a_message_ends_the_wait_of_its_device(server: Server, alice: Client, bob: Client) -> None:
    device = Sliding(bob, extensions=enabled(to_device={}))
    await device.sync()
    waiting = asyncio.create_task(device.sync(timeout=30_000))
    await server.until_waiting()
    await whisper(alice, bob, "psst")
    assert heard(await waiting) == ["psst"]


async def test_a_since_of_another_device_acknowledges_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await server.login(bob)
    for receiver in (bob, phone):
        await whisper(alice, receiver, receiver.device_id)
    answer = await Sliding(bob).sync(extensions=enabled(to_device={}))
    since = answer["extensions"]["to_device"]["next_batch"]
    assert heard(await Sliding(phone).sync(extensions=enabled(to_device={"since": since}))) == [
        phone.device_id
    ]
    assert heard(await Sliding(bob).sync(extensions=enabled(to_device={}))) == [bob.device_id]
    with refused(400, "M_INVALID_PARAM"):
        await Sliding(bob).sync(extensions=enabled(to_device={"since": "nonsense"}))


# -- keys ------------------------------------------------------------------------------------------------


async def test_keys_left_and_changed_devices(server: Server, alice: Client, bob: Client) -> None:
    encryption = {"algorithm": "m.megolm.v1.aes-sha2"}
    room_id = await alice.create_room(
        preset="public_chat",
        initial_state=[{"type": "m.room.encryption", "state_key": "", "content": encryption}],
    )
    await bob.join(room_id)
    device = Sliding(alice, extensions=enabled(e2ee={}))
    first = (await device.sync())["extensions"]["e2ee"]
    assert first == {
        "device_one_time_keys_count": {"signed_curve25519": 0},
        "device_unused_fallback_key_types": [],
    }
    assert (await device.sync())["extensions"] == {}
    waiting = asyncio.create_task(device.sync(timeout=30_000))
    await server.until_waiting()
    await bob.post("/keys/upload", {"device_keys": Device(bob).device_keys()})
    assert (await waiting)["extensions"]["e2ee"] == {"device_lists": {"changed": [bob.user_id], "left": []}}
    own = Device(alice)
    await alice.post(
        "/keys/upload", {"device_keys": own.device_keys(), "one_time_keys": own.one_time_keys(3)}
    )
    told = (await device.sync())["extensions"]["e2ee"]
    assert told["device_one_time_keys_count"] == {"signed_curve25519": 3}
    # What comes while nobody wants to know comes once somebody does.
    assert (await device.sync(extensions={}))["extensions"] == {}
    await bob.leave(room_id)
    await device.sync(extensions={})
    assert (await device.sync())["extensions"]["e2ee"] == {
        "device_lists": {"changed": [], "left": [bob.user_id]}
    }


# -- account data ----------------------------------------------------------------------------------------


async def test_account_data_comes_whole_and_then_what_changed(alice: Client) -> None:
    rooms = [await alice.create_room() for _ in range(2)]

    async def note(number: int, room_id: str | None = None) -> None:
        where = f"rooms/{room_id}/" if room_id else ""
        await alice.put(f"/user/{alice.user_id}/{where}account_data/org.example.note", {"n": number})

    def notes(answer: dict[str, Any]) -> dict[str, int]:
        told = answer["extensions"].get("account_data", {})
        by_room = {"": told.get("global", []), **told.get("rooms", {})}
        return {
            room_id: event["content"]["n"]
            for room_id, events in by_room.items()
            for event in events
            if event["type"] == "org.example.note"
        }

    await note(1)
    for room_id in rooms:
        await note(2, room_id)
    device = Sliding(alice, lists=TOP, extensions=enabled(account_data={}))
    first = await device.sync()
    # Nothing of a room that the client does not hold.
    assert notes(first) == {"": 1, rooms[1]: 2}
    assert "m.push_rules" in str(first["extensions"])
    assert notes(await device.sync(lists=ALL)) == {rooms[0]: 2}
    await note(3, rooms[0])
    await note(4, rooms[1])
    await note(5)
    assert notes(await device.sync(lists=TOP)) == {"": 5, rooms[1]: 4}
    assert notes(await device.sync(lists=ALL)) == {rooms[0]: 3}
    await note(6)
    await note(7, rooms[0])
    assert (await device.sync(lists=ALL, extensions={}))["extensions"] == {}
    assert notes(await device.sync(lists=ALL)) == {"": 6, rooms[0]: 7}
    assert notes(await device.sync(lists=ALL)) == {}


# -- receipts --------------------------------------------------------------------------------------------


def read_up_to(answer: dict[str, Any], room_id: str) -> dict[str, str]:
    """Who has read up to where."""
    event = answer["extensions"].get("receipts", {}).get("rooms", {}).get(room_id)
    if event is None:
        return {}
    assert event["type"] == "m.receipt"
    return {
        user_id: event_id
        for event_id, by_type in event["content"].items()
        for by_user in by_type.values()
        for user_id in by_user
    }


async def test_receipts_at_the_events_that_are_told_and_ones_own(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(preset="public_chat")
    for person in (bob, carol):
        await person.join(room_id)
    sent = [await alice.send(room_id, f"{number}") for number in range(4)]

    async def read(person: Client, number: int, kind: str = "m.read") -> None:
        await person.post(f"/rooms/{room_id}/receipt/{kind}/{sent[number]}")

    await read(bob, 0)
    await read(carol, 3)
    await read(alice, 1, "m.read.private")
    device = Sliding(alice, lists={"all": a_list(2)}, extensions=enabled(receipts={}))
    assert read_up_to(await device.sync(), room_id) == {alice.user_id: sent[1], carol.user_id: sent[3]}
    await read(bob, 2)
    await read(bob, 3, "m.read.private")
    assert read_up_to(await device.sync(), room_id) == {bob.user_id: sent[2]}
    assert (await device.sync())["extensions"] == {}


async def test_a_receipt_that_moved_before_a_room_began_anew_is_not_left_where_it_was(
    alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    first = await alice.send(room_id, "first")
    await alice.post(f"/rooms/{room_id}/receipt/m.read/{first}")
    device = Sliding(bob, lists={"all": a_list(1)}, extensions={"receipts": {"enabled": True}})
    receipts = (await device.sync())["extensions"]["receipts"]["rooms"]
    assert receipts[room_id]["content"].keys() == {first}
    await bob.leave(room_id)
    assert (await device.sync())["rooms"][room_id]["membership"] == "leave"
    second = await alice.send(room_id, "second")
    await alice.post(f"/rooms/{room_id}/receipt/m.read/{second}")
    await alice.send(room_id, "third")
    await bob.join(room_id)
    answer = await device.sync()
    assert answer["rooms"][room_id]["initial"]
    assert second not in str(answer["rooms"][room_id]["timeline"])
    assert answer["extensions"]["receipts"]["rooms"][room_id]["content"].keys() == {second}


async def test_two_receipts_at_one_event_come_one_after_the_other(alice: Client, bob: Client) -> None:
    """One event cannot say that somebody has read up to the same place in two threads."""
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(alice, lists=ALL, extensions=enabled(receipts={}))
    await device.sync()
    sent = await alice.send(room_id, "hello")
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{sent}", {"thread_id": "main"})
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{sent}")
    threads = []
    for _ in range(2):
        event = (await device.sync(timeout=10_000))["extensions"]["receipts"]["rooms"][room_id]
        threads.append(event["content"][sent]["m.read"][bob.user_id].get("thread_id"))
    assert threads == ["main", None]
    assert (await device.sync())["extensions"] == {}


# -- typing ----------------------------------------------------------------------------------------------


async def test_typing_is_told_where_it_is_seen(server: Server, alice: Client, bob: Client) -> None:
    rooms = [await alice.create_room(preset="public_chat") for _ in range(2)]
    for room_id in rooms:
        await bob.join(room_id)

    async def typing(room_id: str, is_typing: bool) -> None:
        await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": is_typing, "timeout": 60_000})

    def told(answer: dict[str, Any]) -> dict[str, list[str]]:
        events = answer["extensions"].get("typing", {}).get("rooms", {})
        return {room_id: event["content"]["user_ids"] for room_id, event in events.items()}

    await typing(rooms[1], True)
    device = Sliding(alice, lists=ALL, extensions=enabled(typing={}))
    assert told(await device.sync()) == {rooms[1]: [bob.user_id]}
    waiting = asyncio.create_task(device.sync(timeout=30_000))
    await server.until_waiting()
    await typing(rooms[0], True)
    assert told(await waiting) == {rooms[0]: [bob.user_id]}
    # It ends out of sight; the client hears of it when it sees the room again.
    await typing(rooms[0], False)
    assert told(await device.sync(lists=TOP)) == {}
    assert told(await device.sync(lists=ALL)) == {rooms[0]: []}


async def test_extensions_have_a_scope(alice: Client, bob: Client) -> None:
    listed, subscribed = [await alice.create_room(preset="public_chat") for _ in range(2)]
    for room_id in (listed, subscribed):
        await bob.join(room_id)
    await alice.send(listed, "on top")
    body = {
        "lists": {"top": a_list(range=[0, 0])},
        "room_subscriptions": {subscribed: {"timeline_limit": 1, "required_state": NOTHING}},
    }
    for room_id in (listed, subscribed):
        await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 60_000})
    both, neither = {listed, subscribed}, set[str]()
    for scope, seen in (
        ({}, both),
        ({"lists": ["*"], "rooms": ["*"]}, both),
        ({"lists": ["top"], "rooms": []}, {listed}),
        ({"lists": [], "rooms": [subscribed]}, {subscribed}),
        ({"lists": ["unknown"], "rooms": ["!unknown:example.org"]}, neither),
    ):
        answer = await Sliding(alice).sync(**body, extensions=enabled(typing=scope))
        assert answer["extensions"].get("typing", {}).get("rooms", {}).keys() == seen, scope


async def test_who_is_out_of_a_room_hears_nothing_more_of_it(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL, extensions=enabled(receipts={}, typing={}))
    await device.sync()
    await alice.kick(room_id, bob.user_id)
    await device.sync()
    sent = await alice.send(room_id, "unseen")
    await alice.post(f"/rooms/{room_id}/receipt/m.read/{sent}")
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 60_000})
    answer = await device.sync()
    assert (answer["rooms"], answer["extensions"]) == ({}, {})


async def test_unknown_extensions_are_passed_over(alice: Client) -> None:
    for path in ("/_matrix/client/v4/sync", DEPLOYED):
        answer = await alice.post(path, {"extensions": {"org.example.none": {"enabled": True}, "e2ee": {}}})
        assert answer["extensions"] == {}
