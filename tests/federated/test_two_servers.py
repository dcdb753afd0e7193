"""Two servers of ours, over HTTPS: people of both in the same rooms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme

from tests.client import bodies
from tests.federation.neighbours import Neighbour

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.client import Client


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def pair(
    empty_database_url: str, tmp_path: Path, authority: trustme.CA
) -> AsyncIterator[tuple[Neighbour, Neighbour]]:
    """Two servers; the first is on the engine of the test."""
    servers = (
        Neighbour(tmp_path / "1", empty_database_url, authority, presence={"enabled": True}),
        Neighbour(tmp_path / "2", f"sqlite:///{tmp_path}/second.db", authority, presence={"enabled": True}),
    )
    for server in servers:
        # As they are.
        server.replaced = ()
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


@pytest.fixture
async def third(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Neighbour]:
    """One more."""
    server = Neighbour(tmp_path / "3", f"sqlite:///{tmp_path}/third.db", authority)
    server.replaced = ()
    await server.start()
    yield server
    await server.stop()


class Reader:
    """A device that syncs until it has what it waits for."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.since: str | None = None
        self.rooms: dict[str, list[dict[str, Any]]] = {}
        self.ephemeral: dict[str, list[dict[str, Any]]] = {}
        self.invited: dict[str, list[dict[str, Any]]] = {}
        self.left: set[str] = set()
        self.to_device: list[dict[str, Any]] = []
        self.changed: set[str] = set()

    async def sync(self, timeout: int = 10_000) -> None:
        whole = {"room": {"timeline": {"limit": 100}}}
        answer = await self.client.sync(since=self.since, timeout=timeout, filter=whole)
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for room_id, section in rooms.get("join", {}).items():
            self.rooms.setdefault(room_id, []).extend(section["timeline"]["events"])
            self.ephemeral.setdefault(room_id, []).extend(section["ephemeral"]["events"])
        for room_id, section in rooms.get("invite", {}).items():
            self.invited[room_id] = section["invite_state"]["events"]
        self.left |= rooms.get("leave", {}).keys()
        self.to_device += answer.get("to_device", {}).get("events", [])
        self.changed |= set(answer.get("device_lists", {}).get("changed", ()))

    async def until(self, has_it: Any) -> None:
        async with asyncio.timeout(30):
            while not has_it():
                await self.sync()

    def said(self, room_id: str) -> list[str]:
        return bodies(self.rooms.get(room_id, []))


async def test_a_public_room_is_joined_and_both_sides_talk(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(preset="public_chat", room_alias_name="tea", name="Tea")
    await alice.send(room_id, "before")
    alias = quote(f"#tea:{one.name}", safe="")
    answer = await bob.post(f"/join/{alias}")
    assert answer["room_id"] == room_id
    here, there = Reader(alice), Reader(bob)
    for index in range(5):
        await alice.send(room_id, f"a{index}")
        await bob.send(room_id, f"b{index}")
    await here.until(lambda: "b4" in here.said(room_id))
    await there.until(lambda: "a4" in there.said(room_id))
    for reader in (here, there):
        said = reader.said(room_id)
        assert [one for one in said if one[0] == "a" and one != "before"] == [f"a{i}" for i in range(5)]
        assert [one for one in said if one[0] == "b" and one != "before"] == [f"b{i}" for i in range(5)]
    state = {event["type"]: event["content"] for event in await bob.get(f"/rooms/{room_id}/state")}
    assert state["m.room.name"] == {"name": "Tea"}
    page = await bob.messages(room_id, limit=100)
    assert "before" in bodies(page["chunk"])


async def test_an_invite_is_told_and_accepted(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(name="Secret", invite=[bob.user_id])
    there = Reader(bob)
    await there.until(lambda: room_id in there.invited)
    assert {"name": "Secret"} in [event["content"] for event in there.invited[room_id]]
    await bob.join(room_id)
    await alice.send(room_id, "welcome")
    await there.until(lambda: "welcome" in there.said(room_id))


async def test_an_invite_is_rejected(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(invite=[bob.user_id])
    there, here = Reader(bob), Reader(alice)
    await there.until(lambda: room_id in there.invited)
    await bob.post(f"/rooms/{room_id}/leave")
    await there.until(lambda: room_id in there.left)
    await here.until(
        lambda: any(
            event.get("state_key") == bob.user_id and event["content"]["membership"] == "leave"
            for event in here.rooms.get(room_id, [])
        )
    )


async def test_who_is_kicked_hears_of_it(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.post(f"/join/{quote(room_id, safe='')}?via={one.name}")
    there = Reader(bob)
    await there.sync()
    await alice.post(f"/rooms/{room_id}/kick", {"user_id": bob.user_id, "reason": "noise"})
    await there.until(lambda: room_id in there.left)


async def test_typing_receipts_and_messages_to_devices(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.post(f"/join/{quote(room_id, safe='')}?via={one.name}")
    here, there = Reader(alice), Reader(bob)
    event_id = await alice.send(room_id, "hello")
    await there.until(lambda: "hello" in there.said(room_id))
    await bob.put(f"/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 20_000})
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{quote(event_id, safe='')}", {})
    await bob.put("/sendToDevice/m.test/1", {"messages": {alice.user_id: {"*": {"text": "psst"}}}})
    await here.until(
        lambda: (
            here.to_device
            and {"m.typing", "m.receipt"} <= {event["type"] for event in here.ephemeral.get(room_id, [])}
        )
    )
    assert here.to_device == [{"type": "m.test", "sender": bob.user_id, "content": {"text": "psst"}}]


async def test_a_server_that_was_away_gets_everything(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.post(f"/join/{quote(room_id, safe='')}?via={one.name}")
    there = Reader(bob)
    await there.sync()
    await two.stop()
    for index in range(60):
        await alice.send(room_id, str(index))
    await two.start()
    there.client = two.reconnect(bob)
    await there.until(lambda: "59" in there.said(room_id))
    assert there.said(room_id) == [str(index) for index in range(60)]


async def test_a_knock_is_heard_and_answered(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = await alice.create_room(initial_state=[rules], name="Door")
    there = Reader(bob)
    await there.sync()
    await bob.post(f"/knock/{quote(room_id, safe='')}?via={one.name}", {"reason": "please"})
    answer = await bob.sync(since=there.since)
    shown = answer["rooms"]["knock"][room_id]["knock_state"]["events"]
    assert {"name": "Door"} in [event["content"] for event in shown]
    here = Reader(alice)
    await here.until(lambda: bob.user_id in [event.get("state_key") for event in here.rooms.get(room_id, [])])
    await alice.invite(room_id, bob.user_id)
    await there.until(lambda: room_id in there.invited)
    await bob.join(room_id)
    await alice.send(room_id, "come in")
    await there.until(lambda: "come in" in there.said(room_id))


async def test_an_invite_of_a_server_that_is_gone_can_be_rejected(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(invite=[bob.user_id])
    there = Reader(bob)
    await there.until(lambda: room_id in there.invited)
    await one.stop()
    await bob.post(f"/rooms/{room_id}/leave")
    await there.until(lambda: room_id in there.left)
    await one.start()


async def test_profiles_and_public_rooms_of_the_other_server(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    await alice.create_room(preset="public_chat", visibility="public", name="Tea")
    assert (await bob.get(f"/profile/{alice.user_id}/displayname")) == {"displayname": "Alice"}
    assert [room["name"] for room in (await bob.get("/publicRooms", server=one.name))["chunk"]] == ["Tea"]
    found = await bob.post("/publicRooms", {"filter": {"generic_search_term": "coffee"}}, server=one.name)
    assert found["chunk"] == []


async def test_that_an_event_was_decrypted_is_told_to_the_server_of_its_sender_alone(
    pair: tuple[Neighbour, Neighbour], third: Neighbour
) -> None:
    one, two = pair
    alice, bob, carol = [
        await server.register(name) for server, name in ((one, "alice"), (two, "bob"), (third, "carol"))
    ]
    room_id = await alice.create_room(preset="public_chat")
    for other in (bob, carol):
        await other.post(f"/join/{quote(room_id)}?via={one.name}")
    event_id = await alice.send(room_id, "secret")
    here, there, beside = Reader(alice), Reader(bob), Reader(carol)
    await there.until(lambda: "secret" in there.said(room_id))
    kind = "org.matrix.msc4089.delivery"
    await here.sync(timeout=0)
    await bob.post(f"/rooms/{room_id}/receipt/{kind}/{quote(event_id, safe='')}")
    # What goes after it shows that it would have come.
    await bob.send(room_id, "later")

    def receipts(reader: Reader) -> list[Any]:
        events = [event for event in reader.ephemeral.get(room_id, []) if event["type"] == "m.receipt"]
        return [
            event["content"][event_id][kind] for event in events if kind in event["content"].get(event_id, {})
        ]

    await here.until(lambda: receipts(here))
    (told,) = receipts(here)
    assert told[bob.user_id]["ts"] > 0
    await beside.until(lambda: "later" in beside.said(room_id))
    assert receipts(beside) == receipts(there) == []
    assert await third.application.database.fetch_value("SELECT count(*) FROM delivery_news") == 0
    path = f"/_matrix/client/unstable/dev.restante.delivery/rooms/{room_id}/events/{quote(event_id, safe='')}"
    assert "decrypted" in (await alice.call("GET", path))["users"][bob.user_id]
