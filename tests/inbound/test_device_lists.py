"""Who shares an encrypted room of other servers, by what these tell: events, forks, and states at an arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.eventgraph.rooms import ALICE, BOB, Room, public_room
from tests.inbound.foreign_rooms import ForeignRoom

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.server import Server


CAROL = "@carol:three.example"


class Here:
    """A user of ours, who comes into a room of others."""

    def __init__(self, server: Server, client: Client, room: Room) -> None:
        self.client = client
        self.foreign = ForeignRoom(server, room)
        self.since = ""

    async def begin(self) -> None:
        self.since = (await self.client.sync())["next_batch"]

    async def hears(self) -> tuple[set[str], set[str]]:
        """Who is in `changed` and who in `left` of the next sync."""
        answer = await self.client.sync(self.since)
        query = {"from": self.since, "to": answer["next_batch"]}
        self.since = answer["next_batch"]
        assert await self.client.get("/keys/changes", **query) == answer["device_lists"]
        return set(answer["device_lists"]["changed"]), set(answer["device_lists"]["left"])


def encrypt(room: Room, sender: str = ALICE, **options: list[Event]) -> Event:
    content = {"algorithm": "m.megolm.v1.aes-sha2"}
    return room.send("m.room.encryption", sender, content, state_key="", **options)


@pytest.fixture
async def dora(server: Server) -> Client:
    return await server.register("dora")


async def test_the_members_of_an_encrypted_room_are_looked_at_at_the_arrival(
    server: Server, dora: Client
) -> None:
    room = public_room("11", BOB)
    encrypt(room)
    here = Here(server, dora, room)
    await here.begin()
    await here.foreign.arrive(room.join(dora.user_id))
    assert await here.hears() == ({ALICE, BOB}, set())
    await here.foreign.take(room.join(CAROL))
    assert await here.hears() == ({CAROL}, set())
    await here.foreign.take(room.set_member(BOB, BOB, "leave"))
    assert await here.hears() == (set(), {BOB})


async def test_encryption_that_comes_later_and_beside_others_counts_from_then_on(
    server: Server, dora: Client
) -> None:
    room = public_room("11", BOB)
    here = Here(server, dora, room)
    await here.begin()
    await here.foreign.arrive(room.join(dora.user_id))
    fork = room.newest()
    await here.foreign.take(room.send("m.room.message", BOB, {"body": "beside"}, prev=[fork]))
    assert await here.hears() == (set(), set())
    await here.foreign.take(encrypt(room, prev=[fork]))
    assert await here.hears() == ({ALICE, BOB}, set())
