"""Events are built in memory, many at a time: each is another one, and each is sent once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest import mock

from tests.client import bodies

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server


async def test_rooms_that_are_made_alike_in_the_same_moment_are_different_rooms(
    server: Server, alice: Client
) -> None:
    """In room version 12 the id of a room is the hash of its first event."""
    with mock.patch.object(server.clock, "now_ms", return_value=1_700_000_000_000):
        rooms = await asyncio.gather(*(alice.create_room(name="twin") for _ in range(10)))
    assert len(set(rooms)) == 10


async def test_a_transaction_id_that_comes_many_times_at_once_sends_one_message(
    server: Server, alice: Client
) -> None:
    room_id = await alice.create_room()
    sent = await asyncio.gather(
        *(alice.send(room_id, f"{number % 5}", transaction_id=f"{number % 5}") for number in range(40))
    )
    assert len(set(sent)) == 5
    assert sorted(bodies((await alice.messages(room_id))["chunk"])) == ["0", "1", "2", "3", "4"]
