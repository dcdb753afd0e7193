"""What sliding sync costs follows what it tells, not how many rooms the user has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sync.sliding.client import Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

SHOWN = 4
STATE = {"include": [{"type": "m.room.create", "state_key": ""}], "lazy_members": True}
LISTS = {"top": a_list(2, STATE, range=[0, SHOWN - 1], filters={"not_room_types": ["m.space"]})}
EXTENSIONS = {name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")}


class _Questions:
    """Counts what is asked of the database of a server."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        database = server.application.database
        ask = database.fetch_all
        self.number = 0

        async def fetch_all(sql: str, *arguments: object) -> list[tuple[object, ...]]:
            self.number += 1
            return await ask(sql, *arguments)

        monkeypatch.setattr(database, "fetch_all", fetch_all)

    def taken(self) -> int:
        number, self.number = self.number, 0
        return number


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
        questions = _Questions(server, monkeypatch)
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
        questions = _Questions(server, monkeypatch)
        await device.client.send(rooms[1], "after a restart")
        questions.taken()
        assert set((await device.sync())["rooms"]) == {rooms[1]}
        cost.append(questions.taken())
        costs.append((cost, len(str(first)) // 100))
    (few, few_bytes), (many, many_bytes) = costs
    # What other rooms have left in memory makes a small difference.
    assert all(abs(one - other) <= SHOWN for one, other in zip(few, many, strict=True)), costs
    assert abs(few_bytes - many_bytes) <= 1
