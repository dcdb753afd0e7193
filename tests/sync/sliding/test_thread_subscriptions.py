"""Thread subscriptions in sliding sync, and their changes read backwards (MSC4308)."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import found, refused
from tests.sync.sliding.client import DEPLOYED, Sliding

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

NAME = "io.element.msc4308.thread_subscriptions"
CHANGES = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
ONLY_SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def wanted(limit: int | None = None) -> dict[str, Any]:
    return {NAME: {"enabled": True, **({} if limit is None else {"limit": limit})}}


def path(room_id: str, root: str) -> str:
    prefix = "/_matrix/client/unstable/io.element.msc4306"
    return f"{prefix}/rooms/{quote(room_id, safe='')}/thread/{quote(root, safe='')}/subscription"


async def threads_of(client: Client, number: int) -> tuple[str, list[str]]:
    """A room, and the roots of so many threads in it."""
    room_id = await client.create_room()
    return room_id, [await client.send(room_id, f"root {one}") for one in range(number)]


class Told:
    """What a client knows of its subscriptions: it takes what has the higher `bump_stamp`, and whatever order it comes in."""

    def __init__(self, client: Client, **body: Any) -> None:
        self.client = client
        self.connection = Sliding(client, **body)
        self.known: dict[str, tuple[int, bool | None]] = {}
        self.left: list[tuple[str, str | None]] = []

    def take(self, part: dict[str, Any]) -> int:
        """Take in what an answer tells; the number of its entries."""
        number = 0
        for kind in ("subscribed", "unsubscribed"):
            for threads in part.get(kind, {}).values():
                for root, change in threads.items():
                    assert change.keys() == (
                        {"automatic", "bump_stamp"} if kind == "subscribed" else {"bump_stamp"}
                    )
                    stamp = change["bump_stamp"]
                    if root not in self.known or self.known[root][0] < stamp:
                        self.known[root] = (stamp, change.get("automatic"))
                    number += 1
        return number

    async def sync(self, **body: Any) -> dict[str, Any]:
        request_pos = self.connection.pos
        part = (await self.connection.sync(**body))["extensions"].get(NAME, {})
        self.take(part)
        if "prev_batch" in part:
            self.left.append((part["prev_batch"], request_pos))
        return part

    async def catch_up(self, limit: int | None = None) -> None:
        """Read back what answers left out, as matrix-rust-sdk does: the newest first, `to` the `pos` of the request."""
        while self.left:
            start, stop = self.left.pop()
            page = await self.client.get(CHANGES, dir="b", limit=limit, **{"from": start, "to": stop})
            assert {"subscribed", "unsubscribed"} <= page.keys()
            assert self.take(page) <= (limit or 100)
            if "end" in page:
                self.left.append((page["end"], stop))

    def subscriptions(self) -> dict[str, bool]:
        return {root: automatic for root, (_, automatic) in self.known.items() if automatic is not None}


@ONLY_SQLITE
async def test_changes_are_told_once_to_every_connection(server: Server, alice: Client) -> None:
    room_id, (one, two) = await threads_of(alice, 2)
    other_room, (three,) = await threads_of(alice, 1)
    device = Sliding(alice, extensions=wanted())
    assert (await device.sync())["extensions"] == {}
    for root in (one, two):
        await alice.put(path(room_id, root), {})
    await alice.put(path(other_room, three), {})
    await alice.delete(path(other_room, three))
    lost = (await device.ask())["extensions"][NAME]
    await server.restart()
    device.client = alice = server.reconnect(alice)
    told = (await device.sync())["extensions"][NAME]
    assert told == lost
    stamps = [told["subscribed"][room_id][root].pop("bump_stamp") for root in (one, two)]
    assert stamps[0] < stamps[1] < told["unsubscribed"][other_room][three]["bump_stamp"]
    assert told["subscribed"] == {room_id: {one: {"automatic": False}, two: {"automatic": False}}}
    assert told.keys() == {"subscribed", "unsubscribed"}
    assert told["unsubscribed"].keys() == {other_room}
    assert (await device.sync())["extensions"] == {}
    # Whoever begins is told all there is, also of what was ended: it may know of that from before.
    begun = (await Sliding(alice, "another", extensions=wanted()).sync())["extensions"][NAME]
    assert begun["unsubscribed"] == told["unsubscribed"]
    assert begun["subscribed"][room_id].keys() == {one, two}
    # The other dialect has it under the same name; nobody else's are told.
    for client, number in ((alice, 2), (await server.register("bob"), 0)):
        answer = await client.post(DEPLOYED, {"extensions": wanted()})
        assert len(answer["extensions"].get(NAME, {}).get("subscribed", {}).get(room_id, {})) == number
    assert (await Sliding(alice, "quiet", extensions={NAME: {}}).sync())["extensions"] == {}


@ONLY_SQLITE
async def test_a_subscription_ends_the_wait(server: Server, alice: Client) -> None:
    room_id, (root,) = await threads_of(alice, 1)
    device, elsewhere = Sliding(alice, extensions=wanted()), await server.login(alice)
    await device.sync()
    for deed in (
        lambda: elsewhere.put(path(room_id, root), {}),
        lambda: elsewhere.delete(path(room_id, root)),
    ):
        waiting = asyncio.create_task(device.sync(timeout=30_000))
        await server.until_waiting()
        await deed()
        assert NAME in (await waiting)["extensions"]


@ONLY_SQLITE
async def test_unread_counts_follow_in_the_deployed_dialect(server: Server, alice: Client) -> None:
    bob = await server.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    root = await alice.send(room_id, "root")
    relation = {"rel_type": "m.thread", "event_id": root}
    await alice.send(room_id, {"body": "reply", "m.relates_to": relation})
    body = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}}}
    first = await bob.post(DEPLOYED, body)
    assert first["rooms"][room_id]["notification_count"] == 2
    await bob.put(path(room_id, root), {})
    await bob.delete(path(room_id, root))
    answer = await bob.post(DEPLOYED, body, pos=first["pos"])
    assert answer["rooms"][room_id]["notification_count"] == 1
    # Also where it is not known any more what happened since.
    await server.restart()
    answer = await server.reconnect(bob).post(DEPLOYED, body, pos=first["pos"])
    assert answer["rooms"][room_id]["notification_count"] == 1


@ONLY_SQLITE
async def test_what_an_answer_has_no_room_for_is_read_backwards(server: Server, alice: Client) -> None:
    room_id, roots = await threads_of(alice, 7)
    for root in roots:
        await alice.put(path(room_id, root), {})
    device = Told(alice, extensions=wanted(2))
    part = await device.sync()
    assert device.subscriptions().keys() == set(roots[5:])
    page = await alice.get(CHANGES, dir="b", limit=3, **{"from": part["prev_batch"]})
    assert page["subscribed"][room_id].keys() == set(roots[2:5])
    assert page["unsubscribed"] == {}
    await server.restart()
    device.client = alice = server.reconnect(alice)
    page = await alice.get(CHANGES, dir="b", limit=3, **{"from": page["end"]})
    assert page["subscribed"][room_id].keys() == set(roots[:2])
    assert "end" not in page
    await device.catch_up(1)
    assert device.subscriptions() == dict.fromkeys(roots, False)
    # Exactly as many as there is room for leave nothing out.
    assert (
        "prev_batch" not in (await Sliding(alice, "exact", extensions=wanted(7)).sync())["extensions"][NAME]
    )
    page = await alice.get(CHANGES, dir="b")
    assert page["subscribed"][room_id].keys() == set(roots)
    assert "end" not in page
    # Without a place to begin at, `to` says where it ends.
    pos = (await Sliding(alice, "later").sync())["pos"]
    await alice.delete(path(room_id, roots[3]))
    page = await alice.get(CHANGES, dir="b", to=pos)
    assert page == {
        "subscribed": {},
        "unsubscribed": {room_id: {roots[3]: page["unsubscribed"][room_id][roots[3]]}},
    }
    page = await alice.get(CHANGES, dir="b", limit=10**15, to=(await alice.sync())["next_batch"])
    assert page == {"subscribed": {}, "unsubscribed": {}}


@ONLY_SQLITE
async def test_whoever_wants_them_late_misses_none(server: Server, alice: Client) -> None:
    """The client gives its `pos` as `to`, and that lies behind what it was never told."""
    room_id, roots = await threads_of(alice, 6)
    for root in roots[:3]:
        await alice.put(path(room_id, root), {})
    device = Told(alice)
    await device.sync(extensions={})
    await device.sync(extensions=wanted(1))
    assert device.connection.pos is not None
    assert len(device.left) == 1
    await device.catch_up()
    assert device.subscriptions().keys() == set(roots[:3])
    # Nor does who looked away for a while.
    await device.sync(extensions={})
    for root in roots[3:]:
        await alice.put(path(room_id, root), {})
    await device.sync(extensions={})
    await device.sync(extensions=wanted(1))
    await device.catch_up(1)
    assert device.subscriptions().keys() == set(roots)


async def test_clients_hold_what_is_true_whatever_gets_lost(server: Server, alice: Client) -> None:
    chance = random.Random(5)
    room_id, roots = await threads_of(alice, 8)
    phone = await server.login(alice)
    devices = [Told(alice, extensions=wanted(2)), Told(phone, extensions=wanted(1))]
    for _ in range(12):
        for _ in range(chance.randrange(6)):
            client, root = chance.choice((alice, phone)), chance.choice(roots)
            await (
                client.put(path(room_id, root), {})
                if chance.random() < 0.7
                else client.delete(path(room_id, root))
            )
        for device in devices:
            if chance.random() < 0.3:
                # It is lost on the way.
                await device.connection.ask()
            if chance.random() < 0.6:
                await device.sync(extensions=wanted(chance.randrange(1, 4)) if chance.random() < 0.8 else {})
            if chance.random() < 0.3:
                await device.catch_up(chance.choice((1, 2, None)))
    truth = {
        root: subscription["automatic"]
        for root in roots
        if (subscription := await found(alice.get(path(room_id, root)))) is not None
    }
    for device in devices:
        await device.sync()
        await device.catch_up(1)
        assert device.subscriptions() == truth


@ONLY_SQLITE
async def test_bad_requests(server: Server, alice: Client) -> None:
    for limit in (0, -1, 1.5, "5", None, True, [], {}):
        with refused(400, "M_BAD_JSON"):
            await Sliding(alice).sync(extensions={NAME: {"enabled": True, "limit": limit}})
    for extension in (5, [], "on", {"enabled": "yes"}):
        with refused(400, "M_BAD_JSON"):
            await Sliding(alice).sync(extensions={NAME: extension})
    assert (await Sliding(alice).sync(extensions=wanted(2**63)))["extensions"] == {}
    with refused(400, "M_MISSING_PARAM"):
        await alice.get(CHANGES)
    since, pos = (await alice.sync())["next_batch"], (await Sliding(alice).sync())["pos"]
    for query in (
        {"dir": "f"},
        {"dir": ""},
        {"dir": "b", "limit": 0},
        {"dir": "b", "limit": -5},
        {"dir": "b", "limit": "many"},
        {"dir": "b", "from": "nonsense"},
        {"dir": "b", "from": since},
        {"dir": "b", "from": pos},
        {"dir": "b", "from": "h" + "A" * 40},
        {"dir": "b", "to": "nonsense"},
        {"dir": "b", "to": pos[:-1]},
        {"dir": "b", "from": "h" * 5_000},
    ):
        with refused(400, "M_INVALID_PARAM"):
            await alice.get(CHANGES, **query)
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().get(CHANGES, dir="b")
