"""Whatever becomes of the updates: clients that ask anew only for whom they are told of end with the truth.

Zoe's server changes her devices and keys at random; its updates are lost, repeated and come in any order; it is away,
Zoe leaves and comes back, the server under test is restarted. After one more update that arrives, everybody holds
what Zoe's server says.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.delivery.far_servers import set_membership, shared_room
from tests.keys import query
from tests.remote_keys.far_server import FarServer, Network
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from tests.client import Client

EXAMPLES = 120
DEVICES = ("A", "B", "C")
_names = itertools.count()

deeds = st.one_of(
    st.tuples(st.sampled_from(["new keys", "delete"]), st.sampled_from(DEVICES)),
    st.tuples(st.sampled_from(["deliver", "deliver", "repeat", "lose"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["look"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["cross-sign", "away", "back", "leave", "join", "restart"]), st.none()),
)


class Follower:
    """A client that asks for Zoe's keys when it is told that they changed."""

    def __init__(self, client: Client, zoe: str, *, insists: bool) -> None:
        self.client = client
        self.zoe = zoe
        self.insists = insists
        """Whether it asks again after a failure, without being told."""
        self.since = ""
        self.must_ask = True
        self.holds: Any = None

    async def look(self) -> None:
        answer = await self.client.sync(since=self.since or None)
        self.since = answer["next_batch"]
        lists = answer.get("device_lists", {})
        if self.zoe in lists.get("left", ()):
            self.must_ask, self.holds = True, None
        if self.zoe in lists.get("changed", ()):
            self.must_ask = True
        if not self.must_ask:
            return
        answer = await query(self.client, self.zoe)
        self.must_ask = bool(answer["failures"]) and self.insists
        devices = answer["device_keys"].get(self.zoe, {}).values()
        self.holds = (
            {one["device_id"]: one["keys"] for one in devices},
            answer["master_keys"].get(self.zoe, {}).get("keys"),
            answer["self_signing_keys"].get(self.zoe, {}).get("keys"),
        )


class Story:
    """One example: Zoe, those who follow her, and the updates that are on their way."""

    def __init__(self, server: Server, network: Network) -> None:
        self.server = server
        self.network = network
        self.far = FarServer(network, f"far{next(_names)}.example")
        self.zoe = self.far.user("zoe")
        self.on_the_way: list[dict[str, Any]] = []
        self.is_joined = True

    async def begin(self) -> None:
        alice, bob = [await self.server.register(f"user{next(_names)}") for _ in range(2)]
        self.room_id = await shared_room(self.server, alice, self.zoe)
        await bob.join(self.room_id)
        await alice.put(
            f"/rooms/{self.room_id}/state/m.room.encryption/", {"algorithm": "m.megolm.v1.aes-sha2"}
        )
        self.followers = [Follower(alice, self.zoe, insists=True), Follower(bob, self.zoe, insists=False)]

    async def perform(self, deed: str, what: Any) -> None:
        far, zoe = self.far, self.zoe
        if deed == "new keys":
            far.device(zoe, what)
            self.send(far.update(zoe, what))
        elif deed == "delete":
            far.devices[zoe].pop(what, None)
            self.send(far.update(zoe, what))
        elif deed == "cross-sign":
            far.sign_across(zoe)
            self.send(far.signing_update(zoe))
        elif deed == "look":
            await self.followers[what].look()
        elif deed in ("away", "back"):
            far.is_away = deed == "away"
            if not far.is_away:
                self.server.application.heard_from(far.name)  # type: ignore[arg-type]
        elif deed == "restart":
            await self.server.restart()
            self.network.plug_in()
            for follower in self.followers:
                follower.client = self.server.reconnect(follower.client)
        elif deed in ("leave", "join"):
            await self.move(deed)
        elif what < len(self.on_the_way):
            if deed != "lose":
                await far.tell(self.on_the_way[what])
            if deed != "repeat":
                del self.on_the_way[what]

    def send(self, edu: dict[str, Any]) -> None:
        """Updates are for servers that share a room with the user."""
        if self.is_joined:
            self.on_the_way.append(edu)

    async def move(self, membership: str) -> None:
        if self.is_joined != (membership == "join"):
            await set_membership(self.server, self.room_id, self.zoe, membership)
            self.is_joined = membership == "join"

    async def end(self) -> None:
        await self.perform("back", None)
        await self.move("join")
        self.on_the_way = []
        await self.perform("new keys", "A")
        await self.perform("deliver", 0)
        alice, bob = self.followers
        for follower in (alice, bob, alice):
            await follower.look()
        keys = self.far.cross_signing.get(self.zoe, {})
        truth = (
            {name: device["keys"] for name, device in self.far.devices[self.zoe].items()},
            keys.get("master", {}).get("keys"),
            keys.get("self_signing", {}).get("keys"),
        )
        assert alice.holds == truth
        assert bob.holds == truth
        # And nothing more is told, or asked.
        self.far.asked.clear()
        assert not alice.must_ask
        await query(alice.client, self.zoe)
        assert self.far.asked == []


class World:
    """A server with an event loop of its own, which outlives the examples."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.runner = asyncio.Runner()
        self.run(server.start())
        self.network = Network(server)

    def run(self, deed: Awaitable[Any]) -> Any:
        async def to_end() -> Any:
            return await deed

        return self.runner.run(to_end())

    async def tell(self, deeds: list[tuple[str, Any]]) -> None:
        story = Story(self.server, self.network)
        await story.begin()
        for deed, what in deeds:
            await story.perform(deed, what)
        await story.end()


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    world = World(Server(tmp_path, database_url, federation={"enabled": False}))
    yield world
    world.run(world.server.stop())
    world.runner.close()


def test_everybody_ends_with_what_their_server_says(world: World) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(deeds, min_size=3, max_size=25))
    def check(deeds: list[tuple[str, Any]]) -> None:
        world.run(world.tell(deeds))

    check()
