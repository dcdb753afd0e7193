"""What has run out goes, whoever made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.ids import RoomId, UserId
from homeserver.storage.transaction_ids import PARTS
from homeserver.storage.typing import TypingStore
from tests.client import Refused, bodies

if TYPE_CHECKING:
    from homeserver.storage.database import Transaction
    from tests.client import Client
    from tests.server import Server

DAY_MS = 24 * 3_600 * 1000


async def rows(server: Server, table: str) -> int:
    return await server.application.database.fetch_value(f"SELECT count(*) FROM {table}") or 0


async def look_after_everything(server: Server) -> None:
    """As much as the upkeep does in some hours."""

    async def prune(transaction: Transaction) -> None:
        for _ in range(PARTS):
            await server.application.upkeep._prune(transaction)

    await server.application.upkeep.look_after()
    await server.application.database.write(prune)


async def test_what_fails_stops_nothing_else(server: Server, alice: Client) -> None:
    upkeep, done = server.application.upkeep, []

    async def fails() -> None:
        raise OSError("the disk is full")

    async def works() -> None:
        done.append("works")

    upkeep._chores = {"fails": fails, "works": works}
    await upkeep.look_after()
    assert done == ["works"]


async def test_transaction_ids_are_known_for_thirty_days(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    for number in range(50):
        await alice.send(room_id, f"{number}", transaction_id=f"{number}")
    server.clock.offset_ms += 29 * DAY_MS
    await look_after_everything(server)
    for number in range(50):
        await alice.send(room_id, f"{number}", transaction_id=f"{number}")
    late = await alice.send(room_id, "late", transaction_id="late")
    assert len(bodies((await alice.messages(room_id))["chunk"])) == 51
    assert await rows(server, "transaction_ids") == 51
    server.clock.offset_ms += 2 * DAY_MS
    await look_after_everything(server)
    assert await rows(server, "transaction_ids") == 1
    assert await alice.send(room_id, "late", transaction_id="late") == late


async def test_transaction_ids_of_to_device_messages_are_known_for_thirty_days(
    server: Server, alice: Client
) -> None:
    async def send(transaction_id: str) -> None:
        messages = {alice.user_id: {alice.device_id: {"text": transaction_id}}}
        await alice.put(f"/sendToDevice/m.test/{transaction_id}", {"messages": messages})

    for number in range(20):
        await send(f"{number}")
    server.clock.offset_ms += 29 * DAY_MS
    await look_after_everything(server)
    for number in range(20):
        await send(f"{number}")
    await send("late")
    assert await rows(server, "to_device_messages") == 21
    assert await rows(server, "to_device_transactions") == 21
    server.clock.offset_ms += 2 * DAY_MS
    await look_after_everything(server)
    assert await rows(server, "to_device_transactions") == 1
    # What waits is no older for that.
    assert await rows(server, "to_device_messages") == 21


async def test_typing_ends_even_where_the_process_that_noted_it_has_gone(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await alice.sync())["next_batch"]
    store = TypingStore(server.application.database)
    expires_ts = server.clock.now_ms() + 1_000
    await server.application.database.write(
        lambda t: store.set(t, RoomId(room_id), UserId(bob.user_id), expires_ts)
    )
    answer = await alice.sync(since)
    (event,) = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
    assert event["content"] == {"user_ids": [bob.user_id]}
    server.clock.offset_ms += 2_000
    await look_after_everything(server)
    answer = await alice.sync(answer["next_batch"])
    (event,) = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
    assert event["content"] == {"user_ids": []}
    assert await rows(server, "typing") == 0


async def test_sessions_that_nobody_ended_go_after_an_hour(server: Server, alice: Client) -> None:
    with pytest.raises(Refused):
        await alice.post("/account/deactivate", {})
    await look_after_everything(server)
    assert await rows(server, "user_interactive_sessions") == 1
    server.clock.offset_ms += 3_600_000 + 1
    await look_after_everything(server)
    assert await rows(server, "user_interactive_sessions") == 0


async def test_highlights_are_kept_for_members_of_ours_until_they_have_read_or_left(
    server: Server, alice: Client, bob: Client
) -> None:
    async def mention(*user_ids: str) -> str:
        content = {"msgtype": "m.text", "body": "you!", "m.mentions": {"user_ids": list(user_ids)}}
        return await alice.send(room_id, content)

    room_id = await alice.create_room(preset="public_chat")
    await mention(bob.user_id, "@nobody:example.org", "@carol:other.example", "not a user")
    assert await rows(server, "highlights") == 0
    await bob.join(room_id)
    redacted = await mention(bob.user_id, "@nobody:example.org")
    assert await rows(server, "highlights") == 1
    await alice.redact(room_id, redacted)
    assert await rows(server, "highlights") == 0
    read = await mention(bob.user_id)
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{read}")
    assert await rows(server, "highlights") == 0
    await mention(bob.user_id)
    counts = (await bob.sync())["rooms"]["join"][room_id]["unread_notifications"]
    assert counts == {"highlight_count": 1, "notification_count": 1}
    await bob.leave(room_id)
    assert await rows(server, "highlights") == 0


async def test_a_redacted_message_to_everybody_highlights_nobody(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    content = {"msgtype": "m.text", "body": "all!", "m.mentions": {"room": True}}
    event_id = await alice.send(room_id, content)
    counts = (await bob.sync())["rooms"]["join"][room_id]["unread_notifications"]
    assert counts["highlight_count"] == 1
    await alice.redact(room_id, event_id)
    counts = (await bob.sync())["rooms"]["join"][room_id]["unread_notifications"]
    assert counts["highlight_count"] == 0
    assert await rows(server, "highlights") == 0
