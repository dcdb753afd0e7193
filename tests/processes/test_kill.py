"""What was answered survives `kill -9`, what was not answered can be sent again, and a reader sees each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client import bodies
from tests.processes.devices import Reader, Sender, connected, send_and_kill, timeline
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("engine", "kills"),
    [
        ("sqlite", 50),
        ("postgresql", 12),
        pytest.param("sqlite", 500, marks=pytest.mark.soak),
        pytest.param("postgresql", 500, marks=pytest.mark.soak),
    ],
    indirect=["engine"],
)
async def test_messages_survive_kills_in_the_middle_of_sending(
    kills: int, database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, server_name="example.org", database={"url": database_url}) as server:
        accounts = [server.register(name) for name in ("alice", "bob", "carol")]
        async with connected(server, *accounts) as (alice, bob, carol):
            room_id = await alice.create_room(preset="public_chat")
            await bob.join(room_id)
            await carol.join(room_id)
            reader = Reader(carol, room_id)
            await reader.sync()
            before = len(reader.events)
            senders = [
                Sender(client, room_id, f"{client.user_id} {number}")
                for client in (alice, bob)
                for number in range(3)
            ]
            await send_and_kill(server, senders, [reader], kills)
            await reader.catch_up()
            stored = [event for event in await timeline(alice, room_id) if event["type"] == "m.room.message"]

    answered = {text: event_id for sender in senders for text, event_id in sender.answered.items()}
    assert {event["content"]["body"]: event["event_id"] for event in stored} == answered
    assert len(stored) == len(answered), "a transaction id was applied twice"
    assert [event["event_id"] for event in reader.events[before:]] == [event["event_id"] for event in stored]
    for sender in senders:
        own = [text for text in bodies(stored) if text.startswith(sender.name)]
        assert own == list(sender.answered), "the messages of one sender are in the order of sending"
    # The kills fell into what was under way.
    assert sum(sender.tried_again for sender in senders) > kills // 4
    assert reader.lost_answers > kills // 4
