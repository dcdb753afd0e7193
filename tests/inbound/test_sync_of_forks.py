"""What a client is told of a room that other servers fork: each event once, and the true state at the end."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.eventgraph.random_rooms import RandomRoom
from tests.inbound.foreign_rooms import ForeignRoom
from tests.inbound.test_forks import some_order
from tests.server import Server
from tests.sync.sliding.client import ACCEPTED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.client import Client

FILTER = json.dumps({"room": {"timeline": {"limit": 5}}})


class StateClient:
    """A client that believes `state_after`."""

    def __init__(self, client: Client, room_id: str) -> None:
        self.client = client
        self.room_id = room_id
        self.since: str | None = None
        self.state: dict[tuple[str, str], str] = {}
        self.seen: list[str] = []
        self.is_in = False

    async def sync(self) -> None:
        answer: dict[str, Any] = await self.client.sync(since=self.since, filter=FILTER, use_state_after=True)
        rooms = answer.get("rooms", {})
        section = rooms.get("join", {}).get(self.room_id)
        if section is not None:
            if not self.is_in:
                self.state.clear()
            self.is_in = True
            for event in section["state_after"]["events"]:
                self.state[event["type"], event["state_key"]] = event["event_id"]
            self.seen += [event["event_id"] for event in section["timeline"]["events"]]
        if self.room_id in rooms.get("leave", {}):
            self.is_in = False
        self.since = answer["next_batch"]


class SlidingStateClient(StateClient):
    """The same by sliding sync, which can say that an entry of the state is gone."""

    async def sync(self) -> None:
        wanted = {"timeline_limit": 5, "required_state": {"include": [{}]}}
        body = {"lists": {"all": wanted}, **({"pos": self.since} if self.since else {})}
        answer = await self.client.post(ACCEPTED, body)
        room = answer["rooms"].get(self.room_id, {})
        if room.get("initial"):
            self.state.clear()
            self.seen.clear()
        self.is_in = room.get("membership", "join" if self.is_in else "leave") == "join"
        for event in room.get("required_state", ()):
            key = (event["type"], event["state_key"])
            if "content" in event:
                self.state[key] = event["event_id"]
            else:
                del self.state[key]
        self.seen += [event["event_id"] for event in room.get("timeline", ())]
        self.since = answer["pos"]


@pytest.fixture
async def server(empty_database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with the name of one of those in the rooms."""
    started = Server(tmp_path, empty_database_url, server_name="one.example")
    await started.start()
    yield started
    await started.stop()


@pytest.mark.parametrize("version", ["2", "11", "12"])
@pytest.mark.parametrize("follow", [StateClient, SlidingStateClient])
async def test_a_client_ends_with_the_resolved_state(
    follow: type[StateClient], version: str, server: Server
) -> None:
    alice = await server.register("alice")
    for seed in range(3):
        room = RandomRoom(version, seed, 40, without_effect=True).room
        first = list(room.events.values())[1]
        foreign = ForeignRoom(server, room)
        await foreign.arrive(first)
        client = follow(alice, room.room_id)
        random = Random(seed)
        for event in some_order(room, random, {room.create.event_id, first.event_id}):
            event.rejected = False
            await foreign.take(event)
            if random.random() < 0.4:
                await client.sync()
                assert len(client.seen) == len(set(client.seen))
                current = await foreign.current_state()
                member = current.get(("m.room.member", alice.user_id))
                is_in = member is not None and room.events[member].membership == "join"
                assert client.is_in == is_in
                if is_in:
                    gone = client.state.keys() - current.keys()
                    assert not gone or follow is StateClient
                    assert {
                        key: event_id for key, event_id in client.state.items() if key not in gone
                    } == current
