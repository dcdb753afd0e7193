"""The shell of state resolution: the same answers from a database as from memory, and no more work than needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.storage.state import GONE
from tests.eventgraph.random_rooms import RandomRoom
from tests.eventgraph.rooms import ALICE, BOB, POWER_LEVELS, member, public_room
from tests.eventgraph.stored_rooms import store_room

if TYPE_CHECKING:
    from homeserver.storage.database import Database

TOPIC = ("m.room.topic", "")


@pytest.mark.parametrize("version", ["1", "2", "11", "12"])
async def test_a_stored_room_is_resolved_as_one_in_memory(version: str, database: Database) -> None:
    for seed in range(5):
        made = RandomRoom(version, seed, 40)
        stored = await store_room(database, made.room)
        for states in made.resolutions:
            assert await stored.resolve(states) == made.room.resolve(states)


async def test_states_that_agree_change_nothing(database: Database) -> None:
    room = public_room("12", BOB)
    stored = await store_room(database, room)
    state = room.state_after[room.newest().event_id]
    points = await stored.store_states([state, state])
    assert await stored.resolver.resolve(room.version, points) == points[0]


async def test_the_answer_is_what_differs_from_the_first_state(database: Database) -> None:
    room = public_room("11", BOB, users={BOB: 50})
    fork = room.newest()
    ban = room.set_member(ALICE, BOB, "ban", prev=[fork])
    room.set_topic(BOB, "a topic of a banned user", prev=[fork])
    with_topic = room.newest()
    stored = await store_room(database, room)
    ends = [room.state_after[event.event_id] for event in (with_topic, ban)]
    points = await stored.store_states(ends)
    changes = (await stored.resolver.resolve(room.version, points)).changes
    assert changes.keys() == {member(BOB), TOPIC}
    assert changes[TOPIC] == GONE


async def test_other_work_goes_on_while_a_conflict_is_resolved(database: Database) -> None:
    made = RandomRoom("11", 7, 40)
    stored = await store_room(database, made.room)
    points = await stored.store_states(made.resolutions[0])
    await stored.resolver.resolve(made.room.version, points)
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other_work())
    # All that it needs is in memory by now.
    await stored.resolver.resolve(made.room.version, points)
    task.cancel()
    assert turns >= 5


async def test_an_event_that_is_not_stored_is_an_error(database: Database) -> None:
    room = public_room("11", BOB, users={BOB: 50})
    fork = room.newest()
    tips = [room.set_topic(ALICE, "one", prev=[fork]), room.set_topic(BOB, "two", prev=[fork])]
    stored = await store_room(database, room)
    points = await stored.store_states([room.state_after[tip.event_id] for tip in tips])
    levels = room.state_after[fork.event_id][POWER_LEVELS]

    async def lose(transaction) -> None:
        await transaction.execute("DELETE FROM events WHERE event_id = $1", levels)

    await database.write(lose)
    with pytest.raises(LookupError, match="not stored"):
        await stored.resolver.resolve(room.version, points)
