"""Receipts and read markers: what has been read, who is told, what it takes off the counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

PUBLIC, PRIVATE, MARKER = "m.read", "m.read.private", "m.fully_read"


async def room_of(alice: Client, bob: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    return room_id


async def read(client: Client, room_id: str, event_id: str, kind: str = PUBLIC, **body: Any) -> Any:
    return await client.post(f"/rooms/{room_id}/receipt/{kind}/{quote(event_id, safe='')}", body)


async def markers(client: Client, room_id: str, **body: Any) -> Any:
    fields = {"fully_read": MARKER, "read": PUBLIC, "private": PRIVATE}
    named = {fields[name]: value for name, value in body.items()}
    return await client.post(f"/rooms/{room_id}/read_markers", named)


async def send_in_thread(client: Client, room_id: str, root: str, body: str) -> str:
    relation = {"rel_type": "m.thread", "event_id": root}
    return await client.send(room_id, {"msgtype": "m.text", "body": body, "m.relates_to": relation})


def section(answer: dict[str, Any], room_id: str) -> dict[str, Any]:
    return answer.get("rooms", {}).get("join", {}).get(room_id, {})


def receipts(answer: dict[str, Any], room_id: str) -> set[tuple[str, str, str, str | None]]:
    """(event, kind, user, thread) of every receipt in an answer."""
    found = set()
    for event in section(answer, room_id).get("ephemeral", {}).get("events", []):
        if event["type"] != "m.receipt":
            continue
        for event_id, kinds in event["content"].items():
            for kind, users in kinds.items():
                for user_id, receipt in users.items():
                    assert receipt["ts"] > 0
                    found.add((event_id, kind, user_id, receipt.get("thread_id")))
    return found


def account_data(answer: dict[str, Any], room_id: str) -> dict[str, Any]:
    events = section(answer, room_id).get("account_data", {}).get("events", [])
    return {event["type"]: event["content"] for event in events}


async def test_everybody_sees_a_public_receipt(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    since = (await alice.sync())["next_batch"]
    assert await read(bob, room_id, event_id) == {}
    answer = await alice.sync(since)
    assert receipts(answer, room_id) == {(event_id, PUBLIC, bob.user_id, None)}
    assert receipts(await alice.sync(), room_id) == {(event_id, PUBLIC, bob.user_id, None)}
    assert receipts(await alice.sync(answer["next_batch"]), room_id) == set()


async def test_only_its_user_sees_a_private_receipt(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    phone = await server.login(bob)
    sinces = [(await client.sync())["next_batch"] for client in (alice, bob, phone)]
    await read(bob, room_id, event_id, PRIVATE)
    own = {(event_id, PRIVATE, bob.user_id, None)}
    assert receipts(await alice.sync(sinces[0]), room_id) == set()
    assert receipts(await alice.sync(), room_id) == set()
    assert receipts(await bob.sync(sinces[1]), room_id) == own
    assert receipts(await phone.sync(sinces[2]), room_id) == own


async def test_a_receipt_that_points_back_changes_nothing(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    first, second = [await alice.send(room_id, "hello") for _ in range(2)]
    await read(bob, room_id, second)
    since = (await alice.sync())["next_batch"]
    assert await read(bob, room_id, first) == {}
    assert await read(bob, room_id, second) == {}
    assert "rooms" not in await alice.sync(since)
    assert receipts(await alice.sync(), room_id) == {(second, PUBLIC, bob.user_id, None)}


async def test_a_public_receipt_may_lag_behind_the_private_one(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    first, second = [await alice.send(room_id, "hello") for _ in range(2)]
    await read(bob, room_id, second, PRIVATE)
    await read(bob, room_id, first, PUBLIC)
    assert receipts(await alice.sync(), room_id) == {(first, PUBLIC, bob.user_id, None)}
    counts = section(await bob.sync(), room_id)["unread_notifications"]
    assert counts == {"notification_count": 0, "highlight_count": 0}


@pytest.mark.parametrize("kind", [PUBLIC, PRIVATE])
async def test_a_receipt_takes_what_was_read_off_the_counts(alice: Client, bob: Client, kind: str) -> None:
    room_id = await room_of(alice, bob)
    sent = [
        await alice.send(room_id, {"body": "hello", "m.mentions": {"user_ids": [bob.user_id]}})
        for _ in range(3)
    ]
    answer = await bob.sync()
    assert section(answer, room_id)["unread_notifications"] == {
        "notification_count": 3,
        "highlight_count": 3,
    }
    await read(bob, room_id, sent[1], kind)
    answer = await bob.sync(answer["next_batch"])
    assert section(answer, room_id)["unread_notifications"] == {
        "notification_count": 1,
        "highlight_count": 1,
    }


async def test_threads_are_counted_apart(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    root = await alice.send(room_id, "root")
    reply = await send_in_thread(alice, room_id, root, "reply")
    by_thread = {"room": {"timeline": {"unread_thread_notifications": True}}}
    joined = section(await bob.sync(filter=by_thread), room_id)
    assert joined["unread_notifications"]["notification_count"] == 1
    assert joined["unread_thread_notifications"][root]["notification_count"] == 1
    await read(bob, room_id, reply, thread_id=root)
    joined = section(await bob.sync(filter=by_thread), room_id)
    assert joined["unread_notifications"]["notification_count"] == 1
    assert root not in joined["unread_thread_notifications"]
    await read(bob, room_id, root, thread_id="main")
    joined = section(await bob.sync(), room_id)
    assert joined["unread_notifications"]["notification_count"] == 0


async def test_an_event_must_be_in_the_thread(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    root = await alice.send(room_id, "root")
    reply = await send_in_thread(alice, room_id, root, "reply")
    other = await alice.send(room_id, "other")
    reaction = await alice.send(
        room_id, {"m.relates_to": {"rel_type": "m.annotation", "event_id": reply, "key": "+"}}, "m.reaction"
    )
    for event_id, thread_id in ((reply, "main"), (other, root), (reply, other), (reaction, "main")):
        with refused(400, "M_INVALID_PARAM"):
            await read(bob, room_id, event_id, thread_id=thread_id)
    for event_id, thread_id in (
        (root, "main"),
        (root, root),
        (reply, root),
        (reaction, root),
        (other, "main"),
    ):
        await read(bob, room_id, event_id, thread_id=thread_id)


@pytest.mark.parametrize("thread_id", ["", 5, None, ["main"], {}])
async def test_a_thread_id_is_a_string_that_is_not_empty(alice: Client, thread_id: Any) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    with refused(400, "M_INVALID_PARAM"):
        await read(alice, room_id, event_id, thread_id=thread_id)


async def test_what_cannot_be_a_receipt_is_refused(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    elsewhere = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    for kind, event, body in (
        ("m.seen", event_id, {}),
        (MARKER, event_id, {"thread_id": "main"}),
        (PUBLIC, "$unknown", {}),
        (PUBLIC, "hello", {}),
        (PUBLIC, "$" + "x" * 300, {}),
        (PUBLIC, await alice.send(elsewhere, "there"), {}),
    ):
        with refused(400, "M_INVALID_PARAM"):
            await read(alice, room_id, event, kind, **body)
    with refused(403, "M_FORBIDDEN"):
        await read(bob, elsewhere, event_id)
    with refused(403, "M_FORBIDDEN"):
        await read(bob, "!unknown:example.org", event_id)


async def test_a_receipt_needs_no_body(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    path = f"/rooms/{room_id}/receipt/{PUBLIC}/{quote(event_id, safe='')}"
    assert await bob.call("POST", path) == {}
    assert receipts(await alice.sync(), room_id) == {(event_id, PUBLIC, bob.user_id, None)}


async def test_receipts_outlive_a_restart(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    await read(bob, room_id, event_id)
    await server.restart()
    answer = await server.reconnect(alice).sync()
    assert receipts(answer, room_id) == {(event_id, PUBLIC, bob.user_id, None)}


async def test_receipts_at_once_end_with_the_furthest(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    sent = [await alice.send(room_id, "hello") for _ in range(6)]
    await asyncio.gather(*(read(bob, room_id, event_id) for event_id in sent))
    assert receipts(await alice.sync(), room_id) == {(sent[-1], PUBLIC, bob.user_id, None)}


# -- read markers -----------------------------------------------------------------------------------------


async def test_markers_and_receipts_move_together(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    first, second, third = [await alice.send(room_id, "hello") for _ in range(3)]
    phone = await server.login(bob)
    since = (await phone.sync())["next_batch"]
    assert await markers(bob, room_id, fully_read=first, read=second, private=third) == {}
    answer = await phone.sync(since)
    assert account_data(answer, room_id) == {MARKER: {"event_id": first}}
    assert receipts(answer, room_id) == {
        (second, PUBLIC, bob.user_id, None),
        (third, PRIVATE, bob.user_id, None),
    }
    path = f"/user/{bob.user_id}/rooms/{room_id}/account_data/{MARKER}"
    assert await bob.get(path) == {"event_id": first}
    assert account_data(await alice.sync(), room_id) == {}


async def test_a_marker_is_set_like_a_receipt_too(alice: Client) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    await read(alice, room_id, event_id, MARKER)
    answer = await alice.sync()
    assert account_data(answer, room_id) == {MARKER: {"event_id": event_id}}
    assert receipts(answer, room_id) == set()


async def test_a_marker_does_not_move_back(alice: Client) -> None:
    room_id = await alice.create_room()
    sent = [await alice.send(room_id, "hello") for _ in range(4)]
    await asyncio.gather(*(markers(alice, room_id, fully_read=event_id) for event_id in sent))
    since = (await alice.sync())["next_batch"]
    await markers(alice, room_id, fully_read=sent[0])
    assert account_data(await alice.sync(), room_id) == {MARKER: {"event_id": sent[-1]}}
    assert "rooms" not in await alice.sync(since)


async def test_all_markers_move_or_none(alice: Client) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    since = (await alice.sync())["next_batch"]
    for wrong in ("$unknown", "hello", "$a\x00b"):
        with refused(400, "M_INVALID_PARAM"):
            await markers(alice, room_id, fully_read=event_id, read=event_id, private=wrong)
    with refused(400, "M_BAD_JSON"):
        await markers(alice, room_id, fully_read=event_id, read=5)
    assert "rooms" not in await alice.sync(since)
    assert await markers(alice, room_id) == {}


async def test_markers_need_a_membership(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    with refused(403, "M_FORBIDDEN"):
        await markers(bob, room_id, fully_read=event_id)
    with refused(403, "M_FORBIDDEN"):
        await markers(bob, room_id)


async def test_receipts_for_one_event_in_several_threads_stand_side_by_side(
    alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    event_id = await alice.send(room_id, "hello")
    since = (await alice.sync())["next_batch"]
    for body in ({}, {"thread_id": "main"}):
        await bob.post(f"/rooms/{room_id}/receipt/m.read/{event_id}", body)
    events = (await alice.sync(since))["rooms"]["join"][room_id]["ephemeral"]["events"]
    receipts = [event["content"][event_id]["m.read"][bob.user_id] for event in events]
    assert sorted(receipt.get("thread_id", "") for receipt in receipts) == ["", "main"]
