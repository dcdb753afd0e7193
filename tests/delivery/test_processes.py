"""Several processes on one database: one of them sends to a destination, and another goes on where it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.far_servers import CAROL, FAR, FarServers, shared_room, until
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def pair(tmp_path: Path, postgresql_url: str) -> AsyncIterator[list[Server]]:
    """Two servers as two processes are, each with a way of its own to the others."""
    servers = [Server(tmp_path, postgresql_url) for _ in range(2)]
    for server in servers:
        server.courier = FarServers()
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


def delivery(server: Server):
    assert server.application.delivery is not None
    return server.application.delivery


async def test_one_process_sends_to_a_destination_whichever_wrote(pair: list[Server]) -> None:
    alice = await pair[0].register("alice")
    room_id = await shared_room(pair[0], alice, CAROL)
    taken = [server.courier.taken for server in pair]
    for number in range(10):
        alice.http = pair[number % 2].http
        await alice.send(room_id, str(number))
    await until(lambda: sum(len(server.courier.bodies()) for server in pair) >= 10)
    # One of the two did it all.
    assert sorted(len(one) == 0 for one in taken) == [False, True]
    (sender,) = [server for server in pair if server.courier.taken]
    assert sender.courier.bodies() == [str(number) for number in range(10)]


async def test_what_a_process_leaves_behind_another_takes_on(pair: list[Server]) -> None:
    alice = await pair[0].register("alice")
    room_id = await shared_room(pair[0], alice, CAROL)
    await alice.send(room_id, "first")
    await until(lambda: any(server.courier.taken for server in pair))
    sender, other = sorted(pair, key=lambda server: not server.courier.taken)
    sender.courier.away.add(FAR)
    alice.http = other.http
    await alice.send(room_id, "second")
    await until(lambda: sender.courier.tried == 2)
    # It ends without a word.
    delivery(sender)._destinations.leave = _nothing
    await delivery(sender).stop()
    await delivery(other)._stay_alive()
    assert other.courier.tried == 0
    other.clock.offset_ms += 60_000
    await delivery(other)._stay_alive()
    await until(lambda: other.courier.bodies() == ["second"])


async def test_a_process_that_stops_leaves_its_destinations_to_others_at_once(pair: list[Server]) -> None:
    alice = await pair[0].register("alice")
    room_id = await shared_room(pair[0], alice, CAROL)
    await alice.send(room_id, "first")
    await until(lambda: any(server.courier.taken for server in pair))
    sender, other = sorted(pair, key=lambda server: not server.courier.taken)
    await delivery(sender).stop()
    alice.http = other.http
    await alice.send(room_id, "second")
    await until(lambda: other.courier.bodies() == ["second"])


async def test_a_sign_of_life_at_one_process_ends_the_back_off_at_the_other(pair: list[Server]) -> None:
    alice = await pair[0].register("alice")
    room_id = await shared_room(pair[0], alice, CAROL)
    for server in pair:
        server.courier.away.add(FAR)
    await alice.send(room_id, "hello")
    await until(lambda: any(server.courier.tried for server in pair))
    sender, other = sorted(pair, key=lambda server: not server.courier.tried)
    await until(lambda: delivery(sender)._outbox.is_away(FAR))
    # It has failed for long.
    await delivery(sender)._outbox.failed(FAR, 6, 3_600.0, "it is away")
    for server in pair:
        server.courier.away.clear()
    delivery(other).heard_from(FAR)
    await until(lambda: sender.courier.bodies() == ["hello"])


async def _nothing(*_: object) -> None:
    """What a process that is killed still does."""
