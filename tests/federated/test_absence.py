"""Two servers of ours, as people run them: one is killed, or both, and all that was said meanwhile arrives."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.federated.absence import Absence, Witness
from tests.processes.devices import connected
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MESSAGES = 1_000


@pytest.fixture
def servers(tmp_path: Path, empty_database_url: str) -> list[ServerProcess]:
    """Two servers, the first on the engine of the test."""
    authority = trustme.CA()
    return [
        ServerProcess(tmp_path / "1", authority=authority, database={"url": empty_database_url}),
        ServerProcess(tmp_path / "2", authority=authority),
    ]


@pytest.fixture
async def people(servers: list[ServerProcess]) -> AsyncIterator[list[Witness]]:
    """Somebody at each."""
    with servers[0], servers[1]:
        async with AsyncExitStack() as stack:
            people = []
            for server in servers:
                (client,) = await stack.enter_async_context(connected(server, server.register("somebody")))
                people.append(Witness(client, server.server_name))
            yield people


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
@pytest.mark.parametrize("killed", ["the receiver", "both"])
async def test_all_that_was_said_meanwhile_arrives_once_and_in_order(
    servers: list[ServerProcess], people: list[Witness], killed: str
) -> None:
    absence = await Absence.begin(people[1], people[0], MESSAGES)
    servers[0].kill()
    await absence.live()
    if killed == "both":
        servers[1].kill()
        await asyncio.to_thread(servers[1].start)
    await asyncio.to_thread(servers[0].start)
    await absence.until_known()
    assert absence.told() == absence.said
    assert absence.away.gaps > 0


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["sqlite"])
async def test_who_missed_more_than_is_sent_walks_back_and_pages_in_the_rest(
    servers: list[ServerProcess], people: list[Witness]
) -> None:
    """6,500 events in two rooms: the newest of each are sent, 2,000 before each are walked back to, 1,250 paged in."""
    absence = await Absence.begin(people[1], people[0], 6_500)
    servers[0].kill()
    await absence.live()
    await asyncio.to_thread(servers[0].start)
    await absence.until_known()
    assert absence.told() == absence.said
