"""What sliding sync costs follows what it tells, not how many rooms the user has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sync.questions import Questions
from tests.sync.sliding.client import DEPLOYED, Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

SHOWN = 4
STATE = {"include": [{"type": "m.room.create", "state_key": ""}], "lazy_members": True}
LISTS = {"top": a_list(2, STATE, range=[0, SHOWN - 1], filters={"not_room_types": ["m.space"]})}
EXTENSIONS = {name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")}


async def test_questions_and_bytes_do_not_grow_with_the_number_of_rooms(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    for person, count in ((alice, SHOWN + 2), (bob, 10 * SHOWN)):
        client = server.reconnect(person)
        rooms = [await client.create_room(name="A room") for _ in range(count)]
        for room_id in rooms[-SHOWN:]:
            await client.send(room_id, "hello")
        await server.restart()
        device = Sliding(server.reconnect(person), lists=LISTS, extensions=EXTENSIONS)
        questions = Questions(server, monkeypatch)
        first = await device.sync()
        assert len(first["rooms"]) == SHOWN
        cost = [questions.taken()]
        await device.client.send(rooms[-1], "news")
        await device.client.send(rooms[0], "news of a room that was not shown")
        questions.taken()
        news = await device.sync()
        assert set(news["rooms"]) == {rooms[0], rooms[-1]}
        cost.append(questions.taken())
        # Long ago, as memory sees it: what was announced is not known any more.
        await server.restart()
        device.client = server.reconnect(person)
        questions = Questions(server, monkeypatch)
        await device.client.send(rooms[1], "after a restart")
        questions.taken()
        assert set((await device.sync())["rooms"]) == {rooms[1]}
        cost.append(questions.taken())
        costs.append((cost, len(str(first)) // 100))
    (few, few_bytes), (many, many_bytes) = costs
    # What other rooms have left in memory makes a small difference.
    assert all(abs(one - other) <= SHOWN for one, other in zip(few, many, strict=True)), costs
    assert abs(few_bytes - many_bytes) <= 1


async def test_the_rooms_of_a_first_answer_are_read_together(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = [["m.room.name", ""], ["m.room.avatar", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]
    costs = []
    for reader, count in ((alice, 6), (bob, 24)):
        person = server.reconnect(reader)
        other = server.reconnect(bob if reader is alice else alice)
        for number in range(count):
            name = {"name": "A room"} if number % 2 else {}
            room_id = await other.create_room(preset="public_chat", **name)
            if number % 3 == 0:
                await other.set_state(room_id, "m.room.topic", {"topic": "one"})
                await other.set_state(room_id, "m.room.topic", {"topic": "two"})
            await person.join(room_id)
            if number % 3:
                await other.send(room_id, "hello")
        await server.restart()
        client = server.reconnect(person)
        window = {"ranges": [[0, 99]], "timeline_limit": 2, "required_state": state}
        extensions = {name: {"enabled": True} for name in ("account_data", "receipts", "typing")}
        questions = Questions(server, monkeypatch)
        answer = await client.post(DEPLOYED, {"lists": {"all": window}, "extensions": extensions})
        assert len(answer["rooms"]) >= count
        costs.append(questions.taken())
    # What else the server does meanwhile asks a few, too.
    assert costs[1] <= costs[0] + 10, costs
