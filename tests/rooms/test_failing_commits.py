"""The head of a room runs ahead of the database; whatever fails there, the room stays whole and nobody is misled."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import structlog.testing

from homeserver.errors import Forbidden
from homeserver.services.event_writer import NewEvent
from homeserver.storage.errors import DatabaseUnavailable
from tests.client import Refused, bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homeserver.storage.database import Database, Transaction
    from tests.client import Client
    from tests.server import Server


@pytest.fixture(autouse=True)
def quiet() -> Iterator[list[Any]]:
    """What is logged, as a list: making tracebacks readable takes longer than all the rest."""
    with structlog.testing.capture_logs() as logged:
        yield logged


@pytest.fixture
async def room_id(alice: Client, bob: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    return room_id


class _Broken(Exception):
    """The disk is full, say."""


class _Fate:
    """Decides for each commit whether it fails, and whether its answer gets lost on the way back."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.fails: Callable[[], bool] = lambda: False
        self.answer_is_lost: Callable[[], bool] = lambda: False
        self._commit = database._commit

    async def commit(self, transaction: Transaction) -> None:
        if self.fails():
            raise _Broken
        await self._commit(transaction)
        if self.answer_is_lost():
            message = "the connection was lost"
            raise DatabaseUnavailable(message)


@pytest.fixture
def fate(server: Server, alice: Client, bob: Client) -> Iterator[_Fate]:
    database = server.application.database
    decided = _Fate(database)
    with mock.patch.object(database, "_commit", decided.commit):
        yield decided


async def timeline(client: Client, room_id: str) -> list[dict[str, Any]]:
    """All events of a room, oldest first."""
    events: list[dict[str, Any]] = []
    token = None
    while True:
        page = await client.messages(room_id, **({"from": token} if token else {}))
        events += page["chunk"]
        token = page.get("end")
        if token is None:
            return events[::-1]


async def check_whole(server: Server, room_id: str) -> None:
    """Each event follows the one before it, and what is held in memory is what is stored."""
    database = server.application.database
    room = await server.application.rooms.live.get(room_id)
    rows = await database.fetch_all(
        "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = $1"
        " ORDER BY e.stream_id",
        room_id,
    )
    stored = [(await server.application.stores.events.load([event_id]))[event_id] for (event_id,) in rows]
    for previous, one in pairwise(stored):
        assert one.event.depth == previous.event.depth + 1
        assert one.event.pdu["prev_events"] == [previous.event.event_id]
    async with room.lock:
        head = await server.application.rooms.live.load_head(room)
    assert [extremity.event_id for extremity in head.extremities] == [stored[-1].event.event_id]
    assert not room.pending
    for key, event in room.state.items():
        latest = [one.event for one in stored if one.event.state_key is not None and one.event.key == key]
        assert (event and event.event_id) == (latest[-1].event_id if latest else None), key


async def test_a_message_whose_commit_fails_is_refused_and_can_be_sent_again(
    server: Server, alice: Client, room_id: str, fate: _Fate
) -> None:
    fate.fails = iter([True] + [False] * 100).__next__
    with pytest.raises(Refused) as refused:
        await alice.send(room_id, "once", transaction_id="one")
    assert refused.value.status == 500
    event_id = await alice.send(room_id, "once", transaction_id="one")
    assert await alice.send(room_id, "once", transaction_id="one") == event_id
    assert bodies(await timeline(alice, room_id)) == ["once"]
    await check_whole(server, room_id)


async def test_a_message_whose_answer_was_lost_is_found_by_its_transaction_id(
    server: Server, alice: Client, room_id: str, fate: _Fate
) -> None:
    fate.answer_is_lost = iter([True] + [False] * 100).__next__
    with pytest.raises(Refused) as refused:
        await alice.send(room_id, "once", transaction_id="one")
    assert refused.value.status == 503
    await alice.send(room_id, "once", transaction_id="one")
    assert bodies(await timeline(alice, room_id)) == ["once"]
    await check_whole(server, room_id)


async def test_what_was_built_on_a_message_that_failed_is_built_anew(
    server: Server, alice: Client, bob: Client, room_id: str, fate: _Fate
) -> None:
    """Only the first commit fails, together with all that was in it; each is then tried on its own."""
    fate.fails = iter([True, True] + [False] * 100).__next__
    outcomes = await asyncio.gather(
        *((alice if n % 2 else bob).send(room_id, f"{n}") for n in range(20)), return_exceptions=True
    )
    answered = {str(n) for n, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    assert len(answered) >= 19
    assert set(bodies(await timeline(alice, room_id))) == answered
    await check_whole(server, room_id)


async def test_a_membership_whose_commit_fails_does_not_count(
    server: Server, alice: Client, bob: Client, room_id: str, fate: _Fate
) -> None:
    fate.fails = lambda: True
    with pytest.raises(Refused):
        await alice.ban(room_id, bob.user_id)
    fate.fails = lambda: False
    await bob.send(room_id, "still here")
    members = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
    assert set(members) == {alice.user_id, bob.user_id}
    await check_whole(server, room_id)


@pytest.mark.parametrize("seed", range(4))
async def test_senders_who_try_until_they_are_answered_have_each_message_sent_once(
    server: Server, alice: Client, bob: Client, room_id: str, fate: _Fate, seed: int
) -> None:
    """Commits fail, answers get lost, senders go away and come back: nothing is lost, nothing is there twice."""
    chance = random.Random(seed)
    fate.fails = lambda: chance.random() < 0.1
    fate.answer_is_lost = lambda: chance.random() < 0.1
    started = asyncio.Event()

    async def send_until_answered(sender: Client, text: str) -> str:
        await started.wait()
        while True:
            sending = asyncio.create_task(sender.send(room_id, text, transaction_id=text))
            if chance.random() < 0.3:
                for _ in range(chance.randrange(30)):
                    await asyncio.sleep(0)
                sending.cancel()
            try:
                return await sending
            except asyncio.CancelledError:
                continue
            except Refused as refused:
                if refused.status not in {500, 503}:
                    raise

    async def set_topic_until_answered(topic: str) -> None:
        await started.wait()
        while True:
            try:
                await alice.set_state(room_id, "m.room.topic", {"topic": topic})
            except Refused as refused:
                if refused.status not in {500, 503}:
                    raise
            else:
                return

    sending = [
        asyncio.create_task(send_until_answered(sender, f"{number} of {sender.user_id}"))
        for number in range(30)
        for sender in (alice, bob)
    ]
    setting = [asyncio.create_task(set_topic_until_answered(f"topic {number}")) for number in range(8)]
    started.set()
    answered = await asyncio.gather(*sending)
    await asyncio.gather(*setting)
    fate.fails = fate.answer_is_lost = lambda: False
    messages = [event for event in await timeline(alice, room_id) if event["type"] == "m.room.message"]
    assert sorted(bodies(messages)) == sorted(
        f"{n} of {user.user_id}" for n in range(30) for user in (alice, bob)
    )
    assert {event["event_id"] for event in messages} == set(answered)
    await check_whole(server, room_id)


async def test_state_that_was_prepared_and_then_refused_is_not_built_on(
    server: Server, alice: Client, bob: Client, room_id: str
) -> None:
    """Another process writes into the room while an event is prepared, and the second attempt is refused."""
    live_rooms = server.application.rooms.live
    room = await live_rooms.get(room_id)
    load = live_rooms.state_to_build_on
    attempts = []

    async def interrupted(*arguments: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) > 2:
            message = "You may not do this any more"
            raise Forbidden(message)
        loaded = await load(*arguments)
        room.invalidate()
        return loaded

    kick = NewEvent("m.room.member", {"membership": "leave"}, alice.user_id, state_key=bob.user_id)
    with mock.patch.object(live_rooms, "state_to_build_on", interrupted), pytest.raises(Forbidden):
        await server.application.writing.events.write(room_id, kick)
    assert len(attempts) == 3
    await bob.send(room_id, "I was never kicked")
    await check_whole(server, room_id)


async def test_a_room_that_went_out_of_memory_meanwhile_is_not_remembered_as_it_was(
    server: Server, alice: Client, room_id: str
) -> None:
    live_rooms = server.application.rooms.live
    await alice.set_state(room_id, "m.room.topic", {"topic": "old"})
    room = await live_rooms.get(room_id)
    async with room.lock:
        setting = asyncio.create_task(alice.set_state(room_id, "m.room.topic", {"topic": "new"}))
        while not room.lock._waiters:
            await server.application.database.fetch_value("SELECT 1")
        del live_rooms._live[room_id]
        assert (await server.application.rooms.reader.state_event(room_id, "m.room.topic")).content[
            "topic"
        ] == "old"
    await setting
    assert (await server.application.rooms.reader.state_event(room_id, "m.room.topic")).content[
        "topic"
    ] == "new"


async def test_of_two_rooms_that_want_one_alias_one_is_made_and_no_error_is_logged(
    alice: Client, bob: Client, quiet: list[Any]
) -> None:
    outcomes = await asyncio.gather(
        *(client.create_room(room_alias_name="lobby") for client in (alice, bob, alice, bob)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert {outcome.errcode for outcome in outcomes if isinstance(outcome, Refused)} == {"M_ROOM_IN_USE"}
    assert [entry for entry in quiet if entry["log_level"] == "error"] == []
