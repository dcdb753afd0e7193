"""Signed events with something else in them here or there: refused, nothing stored, never a 5xx."""

from __future__ import annotations

import copy
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from crypto.errors import CanonicalJsonError
from tests.client import Refused
from tests.federation_api.remote import V1, V2
from tests.federation_api.test_invites import FarRoom

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

GARBAGE: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1.5,
        2**53,
        "",
        "x",
        "\u0000",
        "x" * 300,
        "@zoe:one.example",
        "$x",
        [],
        {},
        [[]],
        [None],
    ),
    *(
        {"a": {}},
        {"one.example": {}},
        {"one.example": {"ed25519:1": 1}},
        {"sha256": 1},
        [["$x", {}]],
        ["$x"] * 30,
    ),
)
ROUNDS = 150


def spoilt(chance: Random, value: dict[str, Any]) -> dict[str, Any]:
    """The same with something else at one place, or without it."""
    value = copy.deepcopy(value)
    inside = value
    while True:
        name = chance.choice(sorted(inside)) if inside else "new"
        below = inside.get(name)
        if isinstance(below, dict) and chance.random() < 0.5:
            inside = below
            continue
        if chance.random() < 0.2 and inside:
            inside.pop(name)
        else:
            inside[name] = copy.deepcopy(chance.choice(GARBAGE))
        return value


async def count(server: Server) -> dict[str, int]:
    database = server.application.database
    tables = ("events", "rooms", "memberships", "membership_log", "stripped_state", "outgoing_events")
    return {name: await database.fetch_value(f"SELECT count(*) FROM {name}") for name in tables}


async def status_of(one: Remote, target: str, body: dict[str, Any]) -> int:
    try:
        await one.call("PUT", target, body)
    except Refused as error:
        return error.status
    except CanonicalJsonError:
        # Not even a request can be signed with that in it.
        return 0
    return 200


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_a_spoilt_event_is_refused_and_changes_nothing(
    server: Server, alice: Client, one: Remote, version: str
) -> None:
    chance = Random(version)
    room = await alice.create_room(preset="public_chat", room_version=version)
    await one.become("join", room, one.user("yan"))
    join = one.event_from(await one.make("join", room, one.user("zoe")))
    leave = one.event_from(await one.make("leave", room, one.user("yan")))
    far = FarRoom(one, version)
    invite = far.invite(alice.user_id)
    invitation = {
        "room_version": version,
        "event": invite.pdu,
        "invite_room_state": [far.create.pdu, far.name.pdu],
    }
    requests = [
        (f"{V2}/send_join", room, join.event_id, join.pdu),
        (f"{V1}/send_join", room, join.event_id, join.pdu),
        (f"{V2}/send_leave", room, leave.event_id, leave.pdu),
        (f"{V1}/send_knock", room, join.event_id, join.pdu),
        (f"{V2}/invite", far.room_id or "", invite.event_id, invitation),
        (f"{V1}/invite", far.room_id or "", invite.event_id, invite.pdu),
    ]
    before = await count(server)
    refused = 0
    for _ in range(ROUNDS):
        path, room_id, event_id, body = chance.choice(requests)
        target = f"{path}/{quote(room_id, safe='')}/{quote(event_id, safe='')}"
        status = await status_of(one, target, spoilt(chance, body))
        assert status < 500, target
        now = await count(server)
        if status >= 400:
            refused += 1
            assert now == before, target
        before = now
    assert refused > ROUNDS / 2
    # What was right all the time is taken.
    await one.call("PUT", f"{V2}/send_join/{quote(room, safe='')}/{quote(join.event_id, safe='')}", join.pdu)
