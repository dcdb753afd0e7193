"""Subscribing to threads (MSC4306): by hand, by clients on a mention, and what counts as unread because of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.storage import thread_subscriptions
from homeserver.storage.thread_subscriptions import EVERYWHERE
from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

UNSTABLE = "/_matrix/client/unstable/io.element.msc4306"
CONFLICT = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"
NOT_IN_THREAD = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"
BY_THREAD = {"room": {"timeline": {"unread_thread_notifications": True}}}


def path(room_id: str, root: str) -> str:
    return f"{UNSTABLE}/rooms/{quote(room_id, safe='')}/thread/{quote(root, safe='')}/subscription"


def reply(root: str, text: str = "in the thread", **content: Any) -> dict[str, Any]:
    relation = {"rel_type": "m.thread", "event_id": root}
    return {"msgtype": "m.text", "body": text, "m.relates_to": relation, **content}


async def common_room(alice: Client, *others: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    for other in others:
        await other.join(room_id)
    return room_id


async def test_it_is_advertised(server: Server) -> None:
    features = (await server.nobody().get("/_matrix/client/versions"))["unstable_features"]
    assert features["org.matrix.msc4306"] is features["org.matrix.msc4308"] is True


async def test_subscribing_and_ending_it(alice: Client) -> None:
    room_id = await alice.create_room()
    # A client subscribes while it sends the first message of the thread.
    thread = path(room_id, await alice.send(room_id, "root"))
    with refused(404, "M_NOT_FOUND"):
        await alice.get(thread)
    assert await alice.delete(thread) == {}
    for body in ({}, {"automatic": None}, {}):
        assert await alice.put(thread, body) == {}
        assert await alice.get(thread) == {"automatic": False}
    assert await alice.call("PUT", thread) == {}
    for _ in range(2):
        assert await alice.delete(thread) == {}
        with refused(404, "M_NOT_FOUND"):
            await alice.get(thread)
    await alice.put(thread, {})
    assert await alice.get(thread) == {"automatic": False}


async def test_each_has_their_own(alice: Client, bob: Client) -> None:
    room_id = await common_room(alice, bob)
    thread = path(room_id, await alice.send(room_id, "root"))
    await alice.put(thread, {})
    with refused(404, "M_NOT_FOUND"):
        await bob.get(thread)


async def test_a_subscription_made_by_hand_stays_one(alice: Client, bob: Client) -> None:
    room_id = await common_room(alice, bob)
    root = await alice.send(room_id, "root")
    cause = await bob.send(room_id, reply(root))
    thread = path(room_id, root)
    await alice.put(thread, {"automatic": cause})
    assert await alice.get(thread) == {"automatic": True}
    await alice.put(thread, {})
    assert await alice.get(thread) == {"automatic": False}
    await alice.put(thread, {"automatic": cause})
    assert await alice.get(thread) == {"automatic": False}


async def test_what_was_known_when_the_user_ended_it_begins_it_no_more(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await common_room(alice, bob)
    root = await alice.send(room_id, "root")
    first = await bob.send(room_id, reply(root))
    thread = path(room_id, root)
    dormant = await server.login(alice)
    await alice.put(thread, {"automatic": first})
    await alice.delete(thread)
    for _ in range(2):
        with refused(409, CONFLICT):
            await dormant.put(thread, {"automatic": first})
    await server.restart()
    alice, bob, dormant = (server.reconnect(one) for one in (alice, bob, dormant))
    with refused(409, CONFLICT):
        await dormant.put(thread, {"automatic": first})
    # A retry of the end changes nothing.
    await alice.delete(thread)
    later = await bob.send(room_id, reply(root))
    await alice.delete(thread)
    await dormant.put(thread, {"automatic": later})
    assert await alice.get(thread) == {"automatic": True}
    # By hand one can always.
    await alice.delete(thread)
    await dormant.put(thread, {})
    assert await alice.get(thread) == {"automatic": False}


async def test_the_cause_is_an_event_of_the_thread(alice: Client, bob: Client) -> None:
    room_id, elsewhere = await common_room(alice, bob), await common_room(alice, bob)
    root, other = await alice.send(room_id, "root"), await alice.send(room_id, "another")
    unseen = await bob.create_room()
    for cause in (
        root,
        other,
        await bob.send(room_id, reply(other)),
        await bob.send(elsewhere, "elsewhere"),
        await bob.send(unseen, "not to be known"),
        "$unknown",
        "no event id",
        "",
        "$" + "x" * 10_000,
    ):
        with refused(400, NOT_IN_THREAD):
            await alice.put(path(room_id, root), {"automatic": cause})
    for wrong in (True, False, 5, [], {}):
        with refused(400, "M_BAD_JSON"):
            await alice.put(path(room_id, root), {"automatic": wrong})
    with refused(404, "M_NOT_FOUND"):
        await alice.get(path(room_id, root))
    # What relates to an event of the thread belongs to it.
    within = await bob.send(room_id, reply(root))
    relation = {"rel_type": "m.reference", "event_id": within}
    cause = await bob.send(room_id, {"body": "x", "m.relates_to": relation})
    await alice.put(path(room_id, root), {"automatic": cause})


async def test_threads_that_are_none_or_not_for_the_user(server: Server, alice: Client, bob: Client) -> None:
    room_id = await common_room(alice, bob)
    root = await alice.send(room_id, "root")
    within = await bob.send(room_id, reply(root))
    private = await bob.create_room()
    hidden = await bob.send(private, "hidden")
    other = await alice.create_room()
    for thread in (
        path(room_id, within),
        path(private, hidden),
        path(room_id, hidden),
        path(other, root),
        path("!unknown:example.org", root),
        path("nonsense", root),
        path(room_id, "$unknown"),
        path(room_id, "nonsense"),
        path(room_id, "$" + "x" * 3_000),
    ):
        for method, body in (("GET", None), ("PUT", {}), ("PUT", {"automatic": within}), ("DELETE", None)):
            with refused(404, "M_NOT_FOUND"):
                await alice.call(method, thread, body)
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().put(path(room_id, root), {})
    with refused(400, "M_NOT_JSON"):
        await alice.call("PUT", path(room_id, root), content=b"{")
    with refused(400, "M_BAD_JSON"):
        await alice.call("PUT", path(room_id, root), content=b"[]")
    assert await server.application.database.fetch_all("SELECT * FROM thread_subscriptions") == []


async def test_many_at_once_are_one(alice: Client, bob: Client) -> None:
    room_id = await common_room(alice, bob)
    root = await alice.send(room_id, "root")
    cause = await bob.send(room_id, reply(root))
    thread = path(room_id, root)
    bodies = [{"automatic": cause}] * 5 + [{}] + [{"automatic": cause}] * 5
    await asyncio.gather(*(alice.put(thread, body) for body in bodies))
    assert await alice.get(thread) == {"automatic": False}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_user_has_so_many(server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_subscriptions, "MAX_OF_USER", 3)
    room_id = await alice.create_room()
    threads = [path(room_id, await alice.send(room_id, f"{number}")) for number in range(5)]
    for thread in threads[:3]:
        await alice.put(thread, {})
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(threads[3], {})
    await alice.put(threads[1], {})
    for thread in (threads[2], threads[0]):
        await alice.delete(thread)
    # The subscription that was ended first makes room.
    await alice.put(threads[3], {})
    rows = await server.application.database.fetch_all(
        "SELECT is_subscribed FROM thread_subscriptions WHERE room_id <> '' ORDER BY stream_id"
    )
    assert rows == [(1,), (0,), (1,)]
    await alice.put(threads[4], {})
    with refused(400, "M_INVALID_PARAM"):
        await alice.put(threads[2], {})


async def test_they_go_with_the_room_and_with_the_account(server: Server, alice: Client, bob: Client) -> None:
    kept, forgotten = await common_room(alice, bob), await common_room(alice, bob)
    for room_id in (kept, forgotten):
        await bob.put(path(room_id, await alice.send(room_id, "root")), {})

    async def rooms() -> set[str]:
        rows = await server.application.database.fetch_all("SELECT room_id FROM thread_subscriptions")
        return {row[0] for row in rows} - {EVERYWHERE}

    await bob.leave(forgotten)
    assert await rooms() == {kept, forgotten}
    await bob.post(f"/rooms/{forgotten}/forget")
    assert await rooms() == {kept}
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": bob.user_id},
        "password": "secret",
    }
    await bob.post("/account/deactivate", {"auth": auth})
    assert await rooms() == set()
    assert await server.application.database.fetch_all("SELECT * FROM thread_subscriptions") == []


# -- unread counts ---------------------------------------------------------------------------------------


async def unread(client: Client, room_id: str, since: str | None = None) -> dict[str, tuple[int, int]]:
    """[notifications, highlights] by thread root, without empty ones; "" is the main timeline."""
    room = (await client.sync(since, filter=BY_THREAD))["rooms"]["join"][room_id]
    counts = {"": room["unread_notifications"], **room["unread_thread_notifications"]}
    pairs = {root: (one["notification_count"], one["highlight_count"]) for root, one in counts.items()}
    return {root: pair for root, pair in pairs.items() if any(pair)}


async def test_whoever_subscribes_to_one_hears_of_the_others_by_mentions_only(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await common_room(alice, bob)
    wanted, other = [await alice.send(room_id, "root") for _ in range(2)]
    for root in (wanted, other):
        await alice.send(room_id, reply(root))
    # Clients that know nothing of subscriptions go on as before.
    both = {"": (2, 0), wanted: (1, 0), other: (1, 0)}
    assert await unread(bob, room_id) == both
    await bob.put(path(room_id, wanted), {})
    assert await unread(bob, room_id) == {"": (2, 0), wanted: (1, 0)}
    mention = {"m.mentions": {"user_ids": [bob.user_id]}}
    await alice.send(room_id, reply(other, **mention))
    await alice.send(room_id, reply(other))
    await alice.send(room_id, reply(wanted))
    await alice.send(room_id, reply(other, **{"m.mentions": {"room": True}}))
    assert await unread(bob, room_id) == {"": (2, 0), wanted: (2, 0), other: (2, 2)}
    await server.restart()
    bob = server.reconnect(bob)
    assert await unread(bob, room_id) == {"": (2, 0), wanted: (2, 0), other: (2, 2)}
    await bob.delete(path(room_id, wanted))
    assert await unread(bob, room_id) == {"": (2, 0), other: (2, 2)}
    await bob.put(path(room_id, other), {})
    assert await unread(bob, room_id) == {"": (2, 0), other: (4, 2)}
    assert (await bob.sync())["rooms"]["join"][room_id]["unread_notifications"] == {
        "notification_count": 6,
        "highlight_count": 2,
    }


async def test_a_waiting_sync_is_told_what_counts_now(server: Server, alice: Client, bob: Client) -> None:
    room_id = await common_room(alice, bob)
    root = await alice.send(room_id, "root")
    await alice.send(room_id, reply(root))
    elsewhere = await server.login(bob)
    await bob.put(path(room_id, root), {})
    since = (await bob.sync())["next_batch"]
    for deed in (elsewhere.delete, lambda thread: elsewhere.put(thread, {})):
        waiting = asyncio.create_task(bob.sync(since, timeout=30_000, filter=BY_THREAD))
        await server.until_waiting()
        await deed(path(room_id, root))
        answer = await waiting
        counts = answer["rooms"]["join"][room_id]["unread_thread_notifications"]
        expected = {} if deed == elsewhere.delete else {root: {"notification_count": 1, "highlight_count": 0}}
        assert counts == expected
        since = answer["next_batch"]
    # Nothing changes for who does not use it, and nobody else hears of it.
    assert "rooms" not in await bob.sync(since)
    since = (await alice.sync())["next_batch"]
    await bob.delete(path(room_id, root))
    assert "rooms" not in await alice.sync(since)


async def test_the_first_subscription_counts_in_all_rooms(server: Server, alice: Client, bob: Client) -> None:
    rooms = [await common_room(alice, bob) for _ in range(2)]
    roots = [await alice.send(room_id, "root") for room_id in rooms]
    for room_id, root in zip(rooms, roots, strict=True):
        await alice.send(room_id, reply(root))
    since = (await bob.sync())["next_batch"]
    await bob.put(path(rooms[0], roots[0]), {})
    # Once from memory, and once where it is not known any more what happened since.
    for _ in range(2):
        assert await unread(bob, rooms[0], since) == {"": (1, 0), roots[0]: (1, 0)}
        assert await unread(bob, rooms[1], since) == {"": (1, 0)}
        await server.restart()
        bob = server.reconnect(bob)
    # It stays so, whatever becomes of the subscription.
    await bob.leave(rooms[0])
    await bob.post(f"/rooms/{rooms[0]}/forget")
    assert await unread(bob, rooms[1]) == {"": (1, 0)}


async def test_the_rules_are_there_to_be_read(alice: Client) -> None:
    rules = (await alice.get("/pushrules/"))["global"]["postcontent"]
    assert [(rule["rule_id"], rule["conditions"], rule["actions"]) for rule in rules] == [
        (
            ".io.element.msc4306.rule.unsubscribed_thread",
            [{"kind": "io.element.msc4306.thread_subscription", "subscribed": False}],
            [],
        ),
        (
            ".io.element.msc4306.rule.subscribed_thread",
            [{"kind": "io.element.msc4306.thread_subscription", "subscribed": True}],
            ["notify", {"set_tweak": "sound", "value": "default"}],
        ),
    ]
    assert all(rule["default"] is rule["enabled"] is True for rule in rules)
    for kind in ("postcontent", "io.element.msc4306.postcontent"):
        rule = f"/pushrules/global/{kind}/.io.element.msc4306.rule.subscribed_thread"
        assert await alice.get(rule) == rules[1]
