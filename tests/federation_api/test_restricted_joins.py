"""Restricted rooms: a server that is in them lets in who is in one of the rooms that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crypto.signatures import verify_json
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import refused

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

AUTHORISER = "join_authorised_via_users_server"


async def restricted(alice: Client, *allowed: str, rule: str = "restricted", **options: Any) -> str:
    """A room that members of other rooms may join."""
    allow = [{"type": "m.room_membership", "room_id": room} for room in allowed]
    content = {"join_rule": rule, "allow": allow}
    state = [{"type": "m.room.join_rules", "state_key": "", "content": content}]
    return await alice.create_room(preset="private_chat", initial_state=state, **options)


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
async def test_a_member_of_the_other_room_is_let_in_and_this_server_signs_for_it(
    server: Server, alice: Client, one: Remote, room: str, rule: str
) -> None:
    inner = await restricted(alice, room, rule=rule)
    made = await one.make("join", inner, one.user("zoe"))
    assert made["event"]["content"][AUTHORISER] == alice.user_id
    event = one.event_from(made)
    answer = await one.send("join", event)
    key = server.application.remote.servers.keyring._own_keys[0]
    signed = redact(ROOM_VERSIONS["12"], answer["event"])
    verify_json(signed, "example.org", key.key_id, key.private.verify_key)
    verify_json(signed, one.name, one.key.key_id, one.key.private.verify_key)
    assert (await alice.get_state(inner, "m.room.member", one.user("zoe")))["membership"] == "join"
    assert (await one.event(event.event_id))["signatures"] == answer["event"]["signatures"]


async def test_who_is_in_none_of_the_rooms_is_not_let_in(
    alice: Client, one: Remote, two: Remote, room: str
) -> None:
    inner = await restricted(alice, room)
    with refused(403, "M_FORBIDDEN"):
        await two.make("join", inner, two.user("yan"))
    empty = await restricted(alice)
    with refused(403, "M_FORBIDDEN"):
        await one.make("join", empty, one.user("zoe"))


async def test_who_has_left_the_other_room_meanwhile_is_not_let_in(
    alice: Client, one: Remote, room: str
) -> None:
    inner = await restricted(alice, room)
    event = one.event_from(await one.make("join", inner, one.user("zoe")))
    await one.become("leave", room, one.user("zoe"))
    with refused(403, "M_FORBIDDEN"):
        await one.send("join", event)


async def test_nobody_authorises_but_who_may(alice: Client, bob: Client, one: Remote, room: str) -> None:
    inner = await restricted(alice, room)
    made = await one.make("join", inner, one.user("zoe"))
    for authoriser, status, errcode in (
        # Not in the room; of a server that has not signed.
        (bob.user_id, 403, "M_FORBIDDEN"),
        ("@yan:two.example", 400, "M_INVALID_PARAM"),
    ):
        with refused(status, errcode):
            content = {"membership": "join", AUTHORISER: authoriser}
            await one.send("join", one.event_from(made, content=content))
    with refused(403, "M_FORBIDDEN"):
        await one.send("join", one.event_from(made, content={"membership": "join"}))


async def test_who_is_invited_needs_nobody_else(alice: Client, two: Remote, room: str) -> None:
    inner = await restricted(alice, room)
    await two.invited_by(alice, inner, two.user("yan"))
    made = await two.make("join", inner, two.user("yan"))
    assert AUTHORISER not in made["event"]["content"]
    await two.send("join", two.event_from(made))


async def test_this_server_cannot_say_who_is_in_rooms_that_it_is_not_in(
    alice: Client, bob: Client, one: Remote, room: str
) -> None:
    inner = await restricted(alice, "!elsewhere:two.example")
    with refused(400, "M_UNABLE_TO_AUTHORISE_JOIN"):
        await one.make("join", inner, one.user("zoe"))
    # Also of a room that everybody here has left it only knows how it was.
    other = await bob.create_room(preset="public_chat")
    await one.become("join", other, one.user("zoe"))
    inner = await restricted(alice, other)
    await bob.leave(other)
    with refused(400, "M_UNABLE_TO_AUTHORISE_JOIN"):
        await one.make("join", inner, one.user("zoe"))


async def test_another_server_is_to_be_asked_where_nobody_here_may_invite(
    alice: Client, one: Remote, room: str
) -> None:
    inner = await restricted(alice, room, room_version="11")
    levels = await alice.get_state(inner, "m.room.power_levels")
    levels |= {"invite": 50, "users": {alice.user_id: 10}, "state_default": 0}
    await alice.set_state(inner, "m.room.power_levels", levels)
    with refused(400, "M_UNABLE_TO_GRANT_JOIN"):
        await one.make("join", inner, one.user("zoe"))
