"""What a warm room asks of the database: memory answers the rest. One question more here is one more for every event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.federation_api.remote import V1
from tests.statements import Statements

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


async def messages(one: Remote, room: str, number: int) -> list[dict[str, Any]]:
    """Messages of Zoe's that follow one another and all that stands in the room."""
    made = await one.make("leave", room, one.user("zoe"))
    template = {**made["event"], "type": "m.room.message", "state_key": None}
    pdus = []
    for body in range(number):
        template["content"] = {"msgtype": "m.text", "body": str(body)}
        event = one.event_from({**made, "event": template})
        template.update(prev_events=[event.event_id], depth=event.depth + 1)
        pdus.append(event.pdu)
    return pdus


async def test_a_warm_room_asks_little_of_the_database(
    server: Server, alice: Client, one: Remote, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What goes on in the background is counted elsewhere, and comes when it likes.
    assert server.application.delivery is not None
    await server.application.delivery.stop()
    await server.application.delivered.stop()
    bob = await server.register("bob")
    await bob.post(f"/join/{room}", {})
    await alice.send(room, "warm")
    await one.call("PUT", f"{V1}/send/warm", transaction(one, await messages(one, room, 1)))
    since = (await bob.sync())["next_batch"]
    statements = Statements(monkeypatch)

    # Its head, its transaction id; the event, its transaction id, that it goes out; the position, the head.
    with statements.at_most(7):
        await alice.send(room, "hello")
    with statements.at_most(0):
        since = (await bob.sync(since=since))["next_batch"]

    for number in (1, 8):
        pdus = await messages(one, room, number)
        # Whether they are new, the head; the events, the position, the head: however many they are.
        with statements.at_most(5):
            answer = await one.call("PUT", f"{V1}/send/{number}", transaction(one, pdus))
        assert list(answer["pdus"].values()) == [{}] * number
        with statements.at_most(0):
            since = (await bob.sync(since=since))["next_batch"]


def transaction(one: Remote, pdus: list[dict[str, Any]]) -> dict[str, Any]:
    return {"origin": one.name, "origin_server_ts": 1, "pdus": pdus}
