"""Rooms of versions 1 to 5 take numbers of any length, and they are signed as they stand there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crypto import exact_json
from tests.federation_api.remote import V1

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote

LONG = 2**70 + 1


@pytest.fixture
def engine() -> str:
    """No SQL of its own: one engine says it all."""
    return "sqlite"


async def bring(remote: Remote, *events: Any, edus: Any = ()) -> dict[str, Any]:
    body = {"origin": remote.name, "origin_server_ts": 1, "pdus": [one.pdu for one in events], "edus": edus}
    return (await remote.call("PUT", f"{V1}/send/{events[0].depth}", body))["pdus"]


@pytest.mark.parametrize("version", ["1", "2", "4", "5"])
async def test_events_with_long_numbers_are_what_their_server_has_signed(
    alice: Client, one: Remote, version: str
) -> None:
    room_id = await alice.create_room(preset="public_chat", room_version=version)
    zoe = one.user("zoe")
    await one.become("join", room_id, zoe)
    levels = await alice.get_state(room_id, "m.room.power_levels")
    levels["users"][zoe] = 100
    await alice.set_state(room_id, "m.room.power_levels", levels)
    made = await one.make("leave", room_id, zoe)
    power = next(
        event
        for event in await alice.get(f"/rooms/{room_id}/state")
        if event["type"] == "m.room.power_levels"
    )
    levels["events"]["m.odd"] = -LONG
    made["event"] |= {"type": "m.room.power_levels", "state_key": "", "content": levels}
    assert power["event_id"] in str(made["event"]["auth_events"])
    changed = one.event_from(made)
    made = await one.make("leave", room_id, zoe)
    template = {name: value for name, value in made["event"].items() if name != "state_key"}
    template |= {
        "type": "m.room.message",
        "content": {"msgtype": "m.text", "body": "odd", "number": LONG, "float": 1.5},
    }
    message = one.event_from({**made, "event": template})
    # What is no event may hold none, and is passed over.
    typing = {
        "edu_type": "m.receipt",
        "content": {room_id: {"m.read": {zoe: {"event_ids": ["$a"], "data": {"ts": LONG}}}}},
    }
    assert await bring(one, changed, message, edus=[typing]) == {changed.event_id: {}, message.event_id: {}}
    for event in (changed, message):
        assert (await one.event(event.event_id))["content"] == event.content
    page = await alice.messages(room_id)
    assert page["chunk"][0]["content"]["body"] == "odd"
    assert await alice.sync(timeout=0)
    # Others may leave by it.
    await one.become("leave", room_id, zoe)


def test_json_is_read_exactly() -> None:
    text = b'{"a":1180591620717411303425,"b":"1180591620717411303425","c":18446744073709551615,"d":1.5}'
    assert exact_json.loads(text) == {
        "a": LONG,
        "b": str(LONG),
        "c": 2**64 - 1,
        "d": 1.5,
    }
    assert exact_json.loads(b'{"a":5}') == {"a": 5}
    assert exact_json.loads(b"[" * 1_000 + b"1" * 20 + b"]" * 1_000)
    for garbage in (
        b"",
        b"{",
        b"NaN",
        b"1" * 10_000,
        b"[1111111111111111111,]",
        b'"\\ud800 1111111111111111111"',
    ):
        with pytest.raises(ValueError):
            exact_json.loads(garbage)
