"""Floods: of ends of a room, of events, of transactions at once; bounded, and other rooms go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.ids import RoomId
from homeserver.services.inbound import room_ends
from tests.client import bodies
from tests.hostile.test_named_events import shared_room

if TYPE_CHECKING:
    from tests.client import Client
    from tests.hostile.conftest import Judge
    from tests.hostile.mallory import Mallory
    from tests.server import Server


async def ends(server: Server, room_id: str) -> list[str]:
    row = await server.application.stores.rooms.get(RoomId(room_id))
    assert row is not None
    return [one.event_id for one in row.forward_extremities]


async def flood(server: Server, mallory: Mallory, room_id: str, number: int) -> None:
    """So many state events that all follow the same event, and no one another."""
    base = await ends(server, room_id)
    for start in range(0, number, 50):
        told = [
            await mallory.event_in(room_id, "m.x", {"n": n}, state_key=str(n), prev=base, depth=20)
            for n in range(start, start + 50)
        ]
        assert set(map(str, (await mallory.tell(*told)).values())) == {"{}"}


async def quiet_room(alice: Client, mallory: Mallory) -> str:
    """A room in which only Mallory may say anything."""
    room_id = await shared_room(alice, mallory, version="11")
    users = {alice.user_id: 0, mallory.user("mallory"): 100}
    levels = {"users": users, "events_default": 50}
    await alice.set_state(room_id, "m.room.power_levels", {"users": {**users, alice.user_id: 100}})
    await alice.set_state(room_id, "m.room.power_levels", levels)
    return room_id


async def test_the_ends_of_a_room_are_tied_together_or_bounded(
    server: Server, alice: Client, mallory: Mallory, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 20
    monkeypatch.setattr(room_ends, "MAX_EXTREMITIES", most)
    room_id = await quiet_room(alice, mallory)
    await flood(server, mallory, room_id, 50)
    assert len(await ends(server, room_id)) == most
    await judge()
    # Who goes on from what stands there is heard.
    name = await mallory.event_in(room_id, "m.room.name", {"name": "Through"}, state_key="")
    await mallory.tell(name)
    assert await alice.get_state(room_id, "m.room.name") == {"name": "Through"}
    assert len(await ends(server, room_id)) < most
    await judge()


@pytest.mark.soak
async def test_ten_thousand_ends_are_offered(
    server: Server, alice: Client, mallory: Mallory, honest: Mallory, judge: Judge
) -> None:
    room_id, other = await quiet_room(alice, mallory), await shared_room(alice, honest, version="11")
    flooding = asyncio.create_task(flood(server, mallory, room_id, 10_000))
    said = 0
    while not flooding.done():
        await honest.tell(await honest.event_in(other, "m.room.message", {"body": str(said)}))
        said += 1
    await flooding
    assert len(await ends(server, room_id)) <= room_ends.MAX_EXTREMITIES
    assert said > 20
    assert bodies((await alice.messages(other, limit=1))["chunk"]) == [str(said - 1)]
    await judge()


async def test_many_transactions_at_once_change_nothing_for_others(
    server: Server, alice: Client, mallory: Mallory, honest: Mallory, judge: Judge
) -> None:
    room_id = await shared_room(alice, mallory, version="11")
    other = await shared_room(alice, honest, version="11")
    told = [await mallory.event_in(room_id, "m.room.message", {"body": str(n)}) for n in range(40)]
    said = await honest.event_in(other, "m.room.message", {"body": "hello"})
    many = [mallory.tell(*told[n % 21 : n % 21 + 20]) for n in range(60)]
    *outcomes, mine = await asyncio.gather(*many, honest.tell(said))
    assert mine == {said.event_id: {}}
    assert all(outcome == {} for answer in outcomes for outcome in answer.values())
    assert bodies((await alice.messages(other, limit=1))["chunk"]) == ["hello"]
    assert sorted(bodies((await alice.messages(room_id))["chunk"]), key=int) == [str(n) for n in range(40)]
    await judge()


async def test_the_same_event_told_in_a_thousand_ways_is_there_once(
    server: Server, alice: Client, mallory: Mallory, judge: Judge
) -> None:
    """By transactions, as an event beside itself, with other signatures, and under its id with another content."""
    for version in ("1", "11"):
        room_id = await shared_room(alice, mallory, version=version)
        event = await mallory.event_in(room_id, "m.room.message", {"body": "once"})
        signatures = {**event.pdu["signatures"], "example.org": {"ed25519:1": "x"}}
        other = mallory.signed(event.version, {**event.pdu, "content": {"body": "twice"}})
        same = [event, event, {**event.pdu, "signatures": signatures}, {**event.pdu, "unsigned": {"age": 5}}]
        for _ in range(3):
            await asyncio.gather(*(mallory.tell(*same) for _ in range(5)))
        if version == "1":
            await mallory.tell(other)
        assert bodies((await alice.messages(room_id))["chunk"]) == ["once"]
    await judge()
