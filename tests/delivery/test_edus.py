"""What goes to other servers besides events: what must not be lost, and what tells of a moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from homeserver.storage.announcements import Topic
from tests.client import refused
from tests.delivery.far_servers import CAROL, FAR, FarServers, set_membership, shared_room, until
from tests.keys import Device, User
from tests.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.client import Client

DAVE = "@dave:other.example"


async def kept(server: Server) -> int:
    return len(await server.application.database.fetch_all("SELECT 1 FROM outgoing_to_device"))


async def until_taken(server: Server) -> None:
    """Go on once nothing is kept any more."""
    async with asyncio.timeout(60):
        while await kept(server):
            pass


# -- messages to devices -----------------------------------------------------------------------------------


async def test_messages_to_devices_elsewhere_are_kept_until_they_are_taken(
    server: Server, alice: Client, far: FarServers
) -> None:
    far.away.add(FAR)
    messages = {CAROL: {"PHONE": {"n": 1, "big": 2**53 - 1}, "*": {"n": 2}}, DAVE: {"TABLET": {"ö": ["x"]}}}
    await alice.put("/sendToDevice/m.test/1", {"messages": messages})
    # The same request again is the same message.
    await alice.put("/sendToDevice/m.test/1", {"messages": messages})
    await until(lambda: far.edus("m.direct_to_device", "other.example") and far.tried > len(far.taken))
    (content,) = far.edus("m.direct_to_device", "other.example")
    assert content["sender"] == alice.user_id
    assert content["type"] == "m.test"
    assert content["messages"] == {DAVE: messages[DAVE]}
    assert 0 < len(content["message_id"]) <= 32
    await server.restart()
    assert await kept(server) == 1
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: far.edus("m.direct_to_device"))
    (content,) = far.edus("m.direct_to_device")
    assert content["messages"] == {CAROL: messages[CAROL]}
    await until_taken(server)


async def test_a_message_from_before_the_cursor_is_sent_once_and_dropped(
    server: Server, alice: Client, far: FarServers
) -> None:
    await alice.put("/sendToDevice/m.test/1", {"messages": {CAROL: {"PHONE": {"n": 1}}}})
    await until(lambda: len(far.taken) == 1)
    await until_taken(server)
    delivery = server.application.delivery
    state = delivery._outbox._known[FAR]
    state.stored = replace(state.stored, position=state.stored.position + 1_000)
    await alice.put("/sendToDevice/m.test/2", {"messages": {CAROL: {"PHONE": {"n": 2}}}})
    await until(lambda: len(far.taken) == 2)
    await until_taken(server)
    await until(lambda: not delivery._sender._lines)
    assert len(far.taken) == 2


async def test_many_messages_go_in_order_and_in_parts_of_moderate_size(
    server: Server, alice: Client, far: FarServers
) -> None:
    far.away.add(FAR)
    for number in range(60):
        await alice.put(f"/sendToDevice/m.test/{number}", {"messages": {CAROL: {"PHONE": {"n": number}}}})
    large = {f"@user{number}:far.example": {"*": {"text": "x" * 45_000}} for number in range(8)}
    await alice.put("/sendToDevice/m.test/large", {"messages": large})
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: len(far.edus("m.direct_to_device")) == 64)
    edus = far.edus("m.direct_to_device")
    assert [edu["messages"][CAROL]["PHONE"]["n"] for edu in edus[:60]] == list(range(60))
    assert [len(edu["messages"]) for edu in edus[60:]] == [2, 2, 2, 2]
    assert len({edu["message_id"] for edu in edus}) == 64


async def test_nobody_has_us_look_for_very_many_servers(
    server: Server, alice: Client, far: FarServers
) -> None:
    messages = {f"@x:server{number}.example": {"*": {}} for number in range(11)}
    with refused(413, "M_TOO_LARGE"):
        await alice.put("/sendToDevice/m.test/1", {"messages": messages})
    assert not await kept(server)
    messages.popitem()
    messages.popitem()
    await alice.put("/sendToDevice/m.test/2", {"messages": messages})
    await until(lambda: len(far.taken) == 9)
    # Now they are known.
    await alice.put("/sendToDevice/m.test/3", {"messages": {**messages, "@x:server9.example": {"*": {}}}})
    await until(lambda: len(far.taken) == 19)


# -- devices -----------------------------------------------------------------------------------------------


async def test_changes_of_devices_are_told_to_the_servers_that_share_a_room(
    server: Server, alice: Client, bob: Client, far: FarServers
) -> None:
    await shared_room(server, alice, CAROL)
    device = Device(alice)
    await device.upload()
    await until(lambda: far.edus("m.device_list_update"))
    changed = Device(alice)
    await changed.upload()
    await until(lambda: len(far.edus("m.device_list_update")) == 2)
    second = await server.login(alice)
    await until(lambda: len(far.edus("m.device_list_update")) == 3)
    await second.post("/logout")
    await until(lambda: len(far.edus("m.device_list_update")) == 4)
    uploaded, replaced, made, gone = far.edus("m.device_list_update")
    assert {edu["user_id"] for edu in (uploaded, replaced, made, gone)} == {alice.user_id}
    assert uploaded["device_id"] == replaced["device_id"] == alice.device_id
    assert uploaded["keys"]["keys"] == device.device_keys()["keys"]
    assert uploaded["keys"]["signatures"] == device.device_keys()["signatures"]
    assert replaced["keys"]["keys"] == changed.device_keys()["keys"]
    assert made["device_id"] == gone["device_id"] == second.device_id
    assert "keys" not in made
    assert gone["deleted"] is True
    # Each follows the one before it.
    for before, after in ((uploaded, replaced), (replaced, made), (made, gone)):
        assert after["prev_id"] == [before["stream_id"]]
        assert after["stream_id"] > before["stream_id"]
    # Nobody else shares a room.
    await Device(bob).upload()
    await Device(alice).upload()
    await until(lambda: len(far.edus("m.device_list_update")) == 5)
    assert {name for name, *_ in far.taken} == {FAR}


async def test_the_names_of_devices_are_not_told_nor_when_they_change(
    server: Server, alice: Client, bob: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "In my pocket"})
    await bob.put(f"/devices/{bob.device_id}", {"display_name": "In his pocket"})
    await Device(alice).upload()
    await until(lambda: len(far.edus("m.device_list_update")) == 1)
    await alice.put(f"/devices/{alice.device_id}", {"display_name": "In the other pocket"})
    await bob.post(f"/join/{room_id}")
    await Device(bob).upload()
    await until(lambda: len(far.edus("m.device_list_update")) == 3)
    told = far.edus("m.device_list_update")
    assert [edu["user_id"] for edu in told] == [alice.user_id, bob.user_id, bob.user_id]
    assert "pocket" not in str(far.taken)


async def test_a_server_that_was_away_hears_of_every_device_as_it_is_now(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await Device(alice).upload()
    await until(lambda: far.edus("m.device_list_update"))
    (first,) = far.edus("m.device_list_update")
    far.away.add(FAR)
    for device in [Device(alice) for _ in range(20)]:
        await device.upload()
    second = await server.login(alice)
    await alice.send(room_id, "hello")
    await until(lambda: far.tried > len(far.taken))
    await server.restart()
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: len(far.edus("m.device_list_update")) == 3 and far.bodies())
    _, changed, made = far.edus("m.device_list_update")
    assert changed["keys"]["keys"] == device.device_keys()["keys"]
    assert changed["prev_id"] == [first["stream_id"]]
    assert made["device_id"] == second.device_id
    assert made["prev_id"] == [changed["stream_id"]]


async def test_whoever_comes_to_a_new_server_has_it_ask_for_all_devices(
    server: Server, alice: Client, bob: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    other_id = await shared_room(server, alice, CAROL)
    await bob.post(f"/join/{room_id}")
    await until(lambda: far.edus("m.device_list_update"))
    (edu,) = far.edus("m.device_list_update")
    assert edu["user_id"] == bob.user_id
    assert edu["device_id"] == bob.device_id
    # What came before cannot be known, so that it asks for all of them.
    assert edu["prev_id"] == [0]
    # In another room with the same server it is known already, and a change of the profile is no join.
    await bob.post(f"/join/{other_id}")
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    await alice.send(room_id, "and then")
    await until(lambda: "and then" in far.bodies())
    assert far.edus("m.device_list_update") == [edu]


async def test_cross_signing_keys_are_told_and_what_they_sign(
    server: Server, alice: Client, far: FarServers
) -> None:
    await shared_room(server, alice, CAROL)
    device, user = Device(alice), User(alice)
    await device.upload()
    await alice.post("/keys/device_signing/upload", user.keys())
    await until(lambda: far.edus("m.signing_key_update"))
    (edu,) = far.edus("m.signing_key_update")
    keys = user.keys()
    assert edu == {
        "user_id": alice.user_id,
        "master_key": {**keys["master_key"], "signatures": {}},
        "self_signing_key": keys["self_signing_key"],
    }
    signed = user.signed(device.device_keys(), user.self_signing)
    await alice.post("/keys/signatures/upload", {alice.user_id: {alice.device_id: signed}})
    await until(lambda: len(far.edus("m.device_list_update")) == 2)
    assert far.edus("m.device_list_update")[1]["keys"]["signatures"] == signed["signatures"]
    assert len(far.edus("m.signing_key_update")) == 1


# -- what tells of a moment --------------------------------------------------------------------------------


async def test_typing_is_told_while_it_lasts(server: Server, alice: Client, far: FarServers) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 120_000})
    await until(lambda: far.edus("m.typing"))
    delivery = server.application.delivery
    for server_name in await delivery._passing.renew_typing():
        delivery._sender.wake(server_name)
    await until(lambda: len(far.edus("m.typing")) == 2)
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": False})
    await until(lambda: len(far.edus("m.typing")) == 3)
    base = {"room_id": room_id, "user_id": alice.user_id}
    assert far.edus("m.typing") == [
        {**base, "typing": True},
        {**base, "typing": True},
        {**base, "typing": False},
    ]


async def test_public_receipts_are_told_and_private_ones_are_not(
    server: Server, alice: Client, bob: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await bob.post(f"/join/{room_id}")
    root = await alice.send(room_id, "root")
    reply = await alice.put(
        f"/rooms/{room_id}/send/m.room.message/thread",
        {
            "msgtype": "m.text",
            "body": "reply",
            "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        },
    )
    await bob.post(f"/rooms/{room_id}/receipt/m.read.private/{root}", {})
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{root}", {})
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{reply['event_id']}", {"thread_id": root})

    def told() -> list[Any]:
        return [edu[room_id]["m.read"][bob.user_id] for edu in far.edus("m.receipt")]

    await until(lambda: len(told()) == 2)
    assert [receipt["event_ids"] for receipt in told()] == [[root], [reply["event_id"]]]
    assert [receipt["data"].get("thread_id") for receipt in told()] == [None, root]
    assert all(receipt["data"]["ts"] > 0 for receipt in told())


async def test_a_receipt_that_comes_while_another_room_is_looked_at_is_told(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [await shared_room(server, alice, CAROL) for _ in range(2)]
    sent = {room_id: await alice.send(room_id, "hello") for room_id in (first, second)}

    async def read(room_id: str) -> None:
        await alice.post(f"/rooms/{room_id}/receipt/m.read/{sent[room_id]}", {})

    delivery = server.application.delivery
    distribute, reads = delivery._distribute, [second]

    async def distribute_meanwhile(news: Any, *arguments: Any) -> Any:
        if (Topic.RECEIPTS, first) in news and reads:
            await read(reads.pop())
        return await distribute(news, *arguments)

    monkeypatch.setattr(delivery, "_distribute", distribute_meanwhile)
    await read(first)
    await until(lambda: {room_id for edu in far.edus("m.receipt") for room_id in edu} == {first, second})


async def test_presence_is_told(tmp_path: Path, database_url: str, far: FarServers) -> None:
    server = Server(tmp_path, database_url, presence={"enabled": True})
    server.courier = far
    await server.start()
    try:
        alice = await server.register("alice")
        await shared_room(server, alice, CAROL, DAVE)
        await alice.put(f"/presence/{alice.user_id}/status", {"presence": "online", "status_msg": "Here"})
        await until(lambda: far.edus("m.presence") and far.edus("m.presence", "other.example"))
        update = far.edus("m.presence")[-1]["push"][-1]
        assert update["user_id"] == alice.user_id
        assert update["presence"] == "online"
        assert update["status_msg"] == "Here"
        assert update["currently_active"] is True
        assert update["last_active_ago"] >= 0
        # Others take for gone who is not told of for an hour: it is said again, also if there is nothing new.
        told, delivery = len(far.edus("m.presence")), server.application.delivery
        for server_name in await delivery._passing.renew_presence():
            delivery._sender.wake(server_name)
        await until(lambda: len(far.edus("m.presence")) > told)
        assert far.edus("m.presence")[-1]["push"][-1]["user_id"] == alice.user_id
    finally:
        await server.stop()


async def test_a_server_that_is_away_is_not_told_of_moments_that_are_over(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL)
    far.away.add(FAR)
    await alice.send(room_id, "hello")
    delivery = server.application.delivery
    assert delivery is not None
    await until(lambda: delivery._outbox.is_away(FAR))  # type: ignore[arg-type]
    typing = f"/rooms/{room_id}/typing/{alice.user_id}"
    await alice.put(typing, {"typing": True, "timeout": 30_000})
    await alice.put(typing, {"typing": False})
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: far.bodies() == ["hello"])
    assert far.edus("m.typing") == []


async def test_who_left_the_room_is_told_nothing_more(server: Server, alice: Client, far: FarServers) -> None:
    room_id = await shared_room(server, alice, CAROL, DAVE)
    await set_membership(server, room_id, CAROL, "leave")
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 30_000})
    await Device(alice).upload()
    await until(lambda: far.edus("m.typing", "other.example"))
    await until(lambda: far.edus("m.device_list_update", "other.example"))
    assert far.edus("m.typing") == far.edus("m.device_list_update") == []
