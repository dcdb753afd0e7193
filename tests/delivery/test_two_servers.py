"""Two real servers, over HTTPS: what one sends is at the other, though either was down in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.delivery.far_servers import until
from tests.federation.neighbours import Neighbour
from tests.keys import Device, query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.client import Client


@pytest.fixture
async def here(tmp_path: Path, empty_database_url: str) -> AsyncIterator[Neighbour]:
    """A server on the engine of the test."""
    server = Neighbour(tmp_path / "here", empty_database_url, _AUTHORITY, presence={"enabled": True})
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Neighbour]:
    """Another one."""
    url = f"sqlite:///{tmp_path}/there/restante.db"
    server = Neighbour(tmp_path / "there", url, _AUTHORITY, presence={"enabled": True})
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def yonder(tmp_path: Path) -> AsyncIterator[Neighbour]:
    """A third one."""
    server = Neighbour(tmp_path / "yonder", f"sqlite:///{tmp_path}/yonder/restante.db", _AUTHORITY)
    await server.start()
    yield server
    await server.stop()


_AUTHORITY = trustme.CA()


async def common_room(here: Neighbour, alice: Client, bob: Client) -> str:
    """A room of Alice's, here, that Bob has come into, there."""
    room_id = (await alice.post("/createRoom", {"preset": "public_chat"}))["room_id"]
    await bob.post(f"/join/{room_id}", server_name=here.name)
    return room_id


class Reader:
    """What a device has been told, by `/sync`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.since: str | None = None
        self.to_device: list[Any] = []
        self.bodies: list[str] = []
        self.ephemeral: list[Any] = []
        self.presence: list[Any] = []
        self.changed: list[str] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            await self._until(condition)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            answer = await self.client.get("/sync", since=self.since, timeout=5_000)
            self.since = answer["next_batch"]
            self.changed += answer.get("device_lists", {}).get("changed", [])
            self.to_device += answer.get("to_device", {}).get("events", [])
            self.presence += answer.get("presence", {}).get("events", [])
            for room in answer.get("rooms", {}).get("join", {}).values():
                self.ephemeral += room["ephemeral"]["events"]
                self.bodies += [
                    event["content"]["body"]
                    for event in room["timeline"]["events"]
                    if event["type"] == "m.room.message"
                ]


async def test_messages_to_devices_arrive_though_the_other_server_was_down(
    here: Neighbour, there: Neighbour
) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")

    async def send(*numbers: int) -> None:
        for number in numbers:
            messages = {bob.user_id: {bob.device_id: {"n": number}}}
            await alice.put(f"/sendToDevice/m.test/{number}", {"messages": messages})

    reader = Reader(bob)
    await send(*range(5))
    await reader.until(lambda: len(reader.to_device) == 5)
    await there.stop()
    await send(*range(5, 40))
    await here.restart()
    alice = here.reconnect(alice)
    await send(*range(40, 50))
    await there.start()
    reader.client = there.reconnect(bob)
    await here.control("federation-retry", name=there.name)
    await reader.until(lambda: len(reader.to_device) >= 50)
    assert [message["content"]["n"] for message in reader.to_device] == list(range(50))
    assert {message["sender"] for message in reader.to_device} == {alice.user_id}


async def test_events_arrive_though_the_other_server_was_down_and_it_is_tried_when_it_is_back(
    here: Neighbour, there: Neighbour
) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await common_room(here, alice, bob)
    reader, other = Reader(bob), Reader(alice)
    await alice.send(room_id, "0")
    await bob.send(room_id, "from there")
    await reader.until(lambda: "0" in reader.bodies)
    await other.until(lambda: "from there" in other.bodies)
    await there.stop()
    for number in range(1, 121):
        await alice.send(room_id, str(number))
    await there.start()
    bob = reader.client = there.reconnect(bob)
    # Whatever it asks for says that it is there again.
    await bob.send(room_id, "I am back")
    await reader.until(lambda: "120" in reader.bodies)
    assert [body for body in reader.bodies if body.isdigit()] == [str(number) for number in range(121)]
    await other.until(lambda: "I am back" in other.bodies)


async def test_whoever_joins_by_way_of_one_server_is_there_at_the_others(
    here: Neighbour, there: Neighbour, yonder: Neighbour
) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await common_room(here, alice, bob)
    carol = await yonder.register("carol")
    await carol.post(f"/join/{room_id}", server_name=here.name)
    reader = Reader(bob)
    await carol.send(room_id, "here I am")
    await reader.until(lambda: "here I am" in reader.bodies)
    members = await bob.get(f"/rooms/{room_id}/joined_members")
    assert members["joined"].keys() == {alice.user_id, bob.user_id, carol.user_id}


async def test_devices_of_both_sides_are_known_to_the_other(here: Neighbour, there: Neighbour) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")
    device = Device(alice)
    await device.upload()
    await common_room(here, alice, bob)

    async def shown() -> dict[str, Any]:
        return (await query(bob, alice.user_id))["device_keys"].get(alice.user_id, {})

    assert (await shown()).keys() == {alice.device_id}
    reader = Reader(bob)
    reader.since = (await bob.get("/sync"))["next_batch"]
    second = await here.login(alice)
    await Device(second).upload()
    while (await shown()).keys() != {alice.device_id, second.device_id}:
        reader.changed.clear()
        await reader.until(lambda: alice.user_id in reader.changed)
    await second.post("/logout")
    while (await shown()).keys() != {alice.device_id}:
        reader.changed.clear()
        await reader.until(lambda: alice.user_id in reader.changed)


async def test_typing_receipts_and_presence_arrive(here: Neighbour, there: Neighbour) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await common_room(here, alice, bob)
    reader = Reader(bob)
    event_id = await bob.send(room_id, "hello")
    seen = Reader(alice)
    await seen.until(lambda: "hello" in seen.bodies)
    await alice.post(f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 30_000})
    await alice.put(f"/presence/{alice.user_id}/status", {"presence": "unavailable", "status_msg": "Away"})

    def told() -> bool:
        receipts = [event for event in reader.ephemeral if event["type"] == "m.receipt"]
        return (
            {"type": "m.typing", "content": {"user_ids": [alice.user_id]}} in reader.ephemeral
            and any(
                alice.user_id in event["content"].get(event_id, {}).get("m.read", {}) for event in receipts
            )
            and any(event["content"].get("status_msg") == "Away" for event in reader.presence)
        )

    await reader.until(told)


async def test_nothing_is_left_waiting_at_the_end(here: Neighbour, there: Neighbour) -> None:
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await common_room(here, alice, bob)
    await alice.send(room_id, "hello")
    await alice.put("/sendToDevice/m.test/1", {"messages": {bob.user_id: {"*": {}}}})
    delivery = here.application.delivery
    assert delivery is not None
    await until(lambda: not delivery._sender._lines)
    await delivery.prune()
    for table in ("outgoing_events", "outgoing_to_device", "outgoing_device_changes"):
        assert not await here.application.database.fetch_all(f"SELECT 1 FROM {table}"), table
