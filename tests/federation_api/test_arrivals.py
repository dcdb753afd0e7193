"""What was said of a room by those who invited counts until this server comes into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import ServerName, UserId
from tests.eventgraph.rooms import ALICE, KEY, Room
from tests.inbound.foreign_rooms import ForeignRoom

if TYPE_CHECKING:
    from typing import Any

    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.server import Server

TOLD = [{"type": "m.room.name", "state_key": "", "sender": ALICE, "content": {"name": "As it was told"}}]


def invite(room: Room, version: str, user_id: str) -> Event:
    """An invite as a server might bring it, of whatever version it says the room is."""
    after = [EventReference(room.create.event_id)]
    return build(
        ROOM_VERSIONS[version],
        room_id=room.room_id,
        sender=UserId(ALICE),
        type="m.room.member",
        state_key=user_id,
        content={"membership": "invite"},
        origin_server_ts=1,
        depth=3,
        prev_events=after,
        auth_events=after,
        server_name=ServerName("one.example"),
        key=KEY,
    )


async def invites(client: Client) -> dict[str, Any]:
    return (await client.sync(timeout=0)).get("rooms", {}).get("invite", {})


@pytest.mark.parametrize("told", ["11", "10"])
async def test_a_room_is_what_it_turns_out_to_be(
    server: Server, alice: Client, bob: Client, told: str
) -> None:
    room = Room("11")
    room.join(ALICE)
    room.set_join_rule(ALICE, "public")
    for client in (alice, bob):
        await server.application.inbound.elsewhere.note(
            ROOM_VERSIONS[told], invite(room, told, client.user_id), TOLD
        )
    assert list(await invites(alice)) == [room.room_id]
    room.set_member(ALICE, alice.user_id, "invite")
    room.send("m.room.name", ALICE, {"name": "As it is"}, state_key="")
    join = room.join(bob.user_id)
    await ForeignRoom(server, room).arrive(join)
    joined = (await bob.sync(timeout=0))["rooms"]["join"]
    assert list(joined) == [room.room_id]
    assert await bob.get_state(room.room_id, "m.room.create") == room.create.content
    # From now on the state of the room itself says who is invited, and into what.
    state = (await invites(alice))[room.room_id]["invite_state"]["events"]
    names = [event["content"]["name"] for event in state if event["type"] == "m.room.name"]
    assert names == ["As it is"]


async def test_an_invite_that_the_room_knows_nothing_of_is_at_its_end(
    server: Server, alice: Client, bob: Client
) -> None:
    room = Room("11")
    room.join(ALICE)
    room.set_join_rule(ALICE, "public")
    taken_back = invite(room, "11", alice.user_id)
    await server.application.inbound.elsewhere.note(room.version, taken_back, TOLD)
    since = (await alice.sync(timeout=0))["next_batch"]
    await ForeignRoom(server, room).arrive(room.join(bob.user_id))
    assert await invites(alice) == {}
    assert list((await alice.sync(since, timeout=0))["rooms"]["leave"]) == [room.room_id]
    # She comes in by the front door, as everybody may.
    await alice.join(room.room_id)
