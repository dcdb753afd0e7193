"""What many rooms have to tell is read together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.sync.questions import Questions

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

FILTER = json.dumps({"room": {"timeline": {"limit": 3}, "state": {"lazy_load_members": True}}})


async def test_the_questions_of_a_sync_do_not_grow_with_the_number_of_rooms(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    for reader, count in ((alice, 6), (bob, 24)):
        person = server.reconnect(reader)
        other = server.reconnect(bob if reader is alice else alice)
        rooms = [await other.create_room(preset="public_chat", name="A room") for _ in range(count)]
        for room_id in rooms:
            await person.join(room_id)
        since = (await person.sync(filter=FILTER))["next_batch"]
        for number, room_id in enumerate(rooms):
            for text in range(1 + number % 5):
                await other.send(room_id, f"{text}")
        cost = []
        for start in (None, since):
            await server.restart()
            client = server.reconnect(person)
            questions = Questions(server, monkeypatch)
            answer = await client.sync(filter=FILTER, since=start)
            assert len(answer["rooms"]["join"]) >= count
            cost.append(questions.taken())
        costs.append(cost)
    few, many = costs
    # What else the server does meanwhile asks a few, too.
    assert all(one <= other + 10 for one, other in zip(many, few, strict=True)), costs
