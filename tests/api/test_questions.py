"""What an answer costs the database: as many questions for a long page as for a short one, with nothing in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.conftest import StartServer
    from tests.server import Server

V1 = "/_matrix/client/v1"
FEW, MANY = 8, 40


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """Without other servers: what is asked for their sake in the background is not to be counted."""
    return await start_server(federation={"enabled": False})


class Counter:
    """Counts the questions to a server's database."""

    def __init__(self, server: Server) -> None:
        database = server.application.database
        ask = database.fetch_all
        self.asked = 0

        async def counting(sql: str, *arguments: Any) -> Any:
            self.asked += 1
            return await ask(sql, *arguments)

        database.fetch_all = counting  # type: ignore[method-assign]


async def full_room(alice: Client, bob: Client, count: int) -> tuple[str, str]:
    """A room in which everything happened that an answer may have to tell of; its id and that of the root of a thread."""
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    for number in range(count):
        kind = number % 6
        if kind == 0:
            await alice.set_state(room_id, "m.room.topic", {"topic": f"{number}"})
        elif kind == 1:
            await bob.leave(room_id)
            await bob.join(room_id)
        else:
            event_id = await alice.send(room_id, f"{number}")
            relation = {2: "m.thread", 3: "m.replace", 4: "m.reference"}.get(kind)
            if relation is None:
                await alice.redact(room_id, event_id)
                continue
            relates_to = {"rel_type": relation, "event_id": event_id}
            await bob.send(room_id, {"m.relates_to": relates_to, "m.new_content": {}})
            await alice.send(room_id, {"m.relates_to": relates_to, "m.new_content": {}})
    root = await alice.send(room_id, "root")
    for number in range(count):
        relates_to = {"rel_type": "m.thread", "event_id": root}
        await alice.send(room_id, {"m.relates_to": relates_to, "body": "reply"})
        for reason in ("a", "b"):
            content = {"membership": "ban", "reason": reason}
            await alice.set_state(room_id, "m.room.member", content, f"@user{number}:example.com")
    return room_id, root


async def questions(
    server: Server, client: Client, ask: Callable[[Client], Awaitable[Any]], enough: Callable[[Any], bool]
) -> int:
    """What an answer costs after a restart, when the requester's own rooms are known."""
    await server.restart()
    # What it asks in the background is not to be counted.
    await server.application.upkeep.stop()
    client = server.reconnect(client)
    await client.get("/joined_rooms")
    counter = Counter(server)
    assert enough(await ask(client))
    return counter.asked


ENDPOINTS = {
    "messages": "{room}/messages?dir=b&limit=500",
    "context": "{room}/context/{root}?limit={count}",
    "relations": V1 + "{room}/relations/{root}?limit=500",
    "threads": V1 + "{room}/threads?limit=100",
    "members": "{room}/members",
    "state": "{room}/state",
}


async def test_a_long_answer_costs_no_more_questions_than_a_short_one(
    server: Server, alice: Client, bob: Client
) -> None:
    costs: dict[tuple[str, str], list[int]] = {}
    for count in (FEW, MANY):
        room_id, root = await full_room(alice, bob, count)
        # Bob came and went, so that what he may see is to be found out.
        for client in (alice, bob):
            for endpoint, path in ENDPOINTS.items():
                url = path.format(room=f"/rooms/{room_id}", root=quote(root), count=count)
                least = {"threads": count // 6, "context": count // 2}.get(endpoint, count)

                def is_long(answer: Any, least: int = least) -> bool:
                    events = answer if isinstance(answer, list) else answer.get("chunk")
                    return len(answer["events_before"] if events is None else events) >= least

                cost = await questions(server, client, lambda c, url=url: c.get(url), is_long)
                costs.setdefault((endpoint, client.user_id), []).append(cost)
        alice, bob = server.reconnect(alice), server.reconnect(bob)
    for few, many in costs.values():
        # A chain of snapshots is read in steps, whose number grows with the logarithm of its length.
        assert many <= few + 6, costs
        assert many <= 30, costs


async def test_a_space_costs_the_same_however_many_rooms_it_has(server: Server, alice: Client) -> None:
    costs = []
    for count in (FEW, MANY):
        space = await alice.create_room(creation_content={"type": "m.space"})
        for number in range(count):
            child = await alice.create_room(name=f"room {number}")
            await alice.set_state(space, "m.space.child", {"via": ["example.org"]}, child)
        path = f"{V1}/rooms/{space}/hierarchy"
        cost = await questions(
            server,
            alice,
            lambda c, path=path: c.get(path),
            lambda answer, count=count: len(answer["rooms"]) == count + 1,
        )
        costs.append(cost)
        alice = server.reconnect(alice)
    assert costs[0] == costs[1]


async def test_a_list_of_rooms_costs_the_same_however_long(server: Server, alice: Client) -> None:
    costs: dict[str, list[int]] = {"list": [], "search": []}
    for count in (FEW, MANY):
        for number in range(count):
            await alice.create_room(visibility="public", name=f"room {number}")
        for name, body in (("list", {}), ("search", {"filter": {"generic_search_term": "room"}})):
            cost = await questions(
                server,
                alice,
                lambda c, body=body: c.post("/publicRooms", body),
                lambda answer, count=count: len(answer["chunk"]) >= count,
            )
            costs[name].append(cost)
            alice = server.reconnect(alice)
    assert costs["list"][0] == costs["list"][1]
    assert costs["search"][0] == costs["search"][1]
