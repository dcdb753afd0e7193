"""Random comings and goings, absences and restarts: every server gets what it should, in order, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.delivery.far_servers import FarServers, set_membership, until

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

SERVERS = ("one.example", "two.example", "three.example")
USERS = [f"@{name}:{server}" for server in SERVERS for name in ("carol", "dave")]


class World:
    """What was done, and what should have come of it."""

    def __init__(self, server: Server, far: FarServers, alice: Client, rooms: list[str], seed: int) -> None:
        self.server = server
        self.far = far
        self.alice = alice
        self.members: dict[str, set[str]] = {room_id: set() for room_id in rooms}
        self.due: dict[str, list[str]] = {name: [] for name in SERVERS}
        self.messages: dict[str, list[int]] = {name: [] for name in SERVERS}
        self.random = random.Random(seed)
        self.number = 0

    async def say(self) -> None:
        room_id = self.random.choice(list(self.members))
        for _ in range(self.random.randint(1, 5)):
            self.number += 1
            await self.alice.send(room_id, str(self.number))
            for name in {user_id.partition(":")[2] for user_id in self.members[room_id]}:
                self.due[name].append(str(self.number))

    async def move(self) -> None:
        room_id, user_id = self.random.choice(list(self.members)), self.random.choice(USERS)
        if user_id in self.members[room_id]:
            if self.random.random() < 0.5:
                await set_membership(self.server, room_id, user_id, "leave")
            else:
                await self.alice.post(f"/rooms/{room_id}/kick", {"user_id": user_id})
            self.members[room_id].remove(user_id)
        else:
            await set_membership(self.server, room_id, user_id)
            self.members[room_id].add(user_id)

    async def to_device(self) -> None:
        self.number += 1
        user_id = self.random.choice(USERS)
        messages = {user_id: {"*": {"n": self.number}}}
        await self.alice.put(f"/sendToDevice/m.test/{self.number}", {"messages": messages})
        self.messages[user_id.partition(":")[2]].append(self.number)

    async def go_away(self) -> None:
        self.far.away.add(self.random.choice(SERVERS))

    async def come_back(self) -> None:
        name = self.random.choice(SERVERS)
        self.far.away.discard(name)
        self.server.application.heard_from(name)  # type: ignore[arg-type]

    async def restart(self) -> None:
        await self.server.restart()
        self.alice = self.server.reconnect(self.alice)

    async def prune(self) -> None:
        assert self.server.application.delivery is not None
        await self.server.application.delivery.prune()

    def arrived(self, name: str) -> tuple[list[str], list[int]]:
        """What a server has, each once: what is broken off is sent again."""
        contents = self.far.edus("m.direct_to_device", name)
        numbers = [of["*"]["n"] for content in contents for of in content["messages"].values()]
        return list(dict.fromkeys(self.far.bodies(name))), list(dict.fromkeys(numbers))

    def is_complete(self) -> bool:
        return all(self.arrived(name) == (self.due[name], self.messages[name]) for name in SERVERS)


@pytest.mark.parametrize("seed", range(4))
async def test_every_server_gets_what_it_should(
    server: Server, alice: Client, far: FarServers, seed: int
) -> None:
    rooms = [(await alice.post("/createRoom", {"preset": "public_chat"}))["room_id"] for _ in range(3)]
    world = World(server, far, alice, rooms, seed)
    deeds = (
        world.say,
        world.move,
        world.to_device,
        world.go_away,
        world.come_back,
        world.prune,
        world.restart,
    )
    for deed in world.random.choices(deeds, weights=(8, 8, 4, 2, 2, 1, 1), k=100):
        await deed()
    far.away.clear()
    for name in SERVERS:
        if world.due[name] or world.messages[name]:
            await server.control("federation-retry", name=name)
    try:
        await until(world.is_complete)
    finally:
        for name in SERVERS:
            assert world.arrived(name) == (world.due[name], world.messages[name])
