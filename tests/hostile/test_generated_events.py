"""Whatever Mallory's server tells of rooms: no 5xx, nothing accepted that the room core refuses, nobody disturbed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.federation_api.remote import Network
from tests.hostile.attack import Attacker, look_around, still_works
from tests.hostile.conftest import keys_of
from tests.hostile.mallory import Mallory
from tests.hostile.oracle import check_database

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

VERSIONS = ("1", "3", "6", "9", "11", "12")


async def besieged(server: Server, alice: Client, chance: Random, rounds: int, versions: Any) -> None:
    """Rooms in which Mallory is a member, or the master, and one that she does not know of."""
    network = Network(server)
    evil, one = network.remote("evil.example"), network.remote("honest.example")
    mallory, honest = Mallory(server, evil.name, evil.key), Mallory(server, one.name, one.key)
    rooms = []
    for version in versions:
        for level in (0, 100):
            users = {mallory.user("mallory"): level, **({} if version == "12" else {alice.user_id: 100})}
            room_id = await alice.create_room(
                preset="public_chat", room_version=version, power_level_content_override={"users": users}
            )
            rooms.append(room_id)
            await mallory.become("join", room_id, mallory.user("mallory"))
            await honest.become("join", room_id, honest.user("helen"))
    quiet = await alice.create_room(preset="public_chat")
    await honest.become("join", quiet, honest.user("helen"))
    attacker = Attacker(server, mallory, chance, rooms, alice.user_id)
    for number in range(rounds):
        await attacker.attack()
        if number % 10 == 9:
            await look_around(alice, rooms)
        if number % 25 == 24:
            await still_works(alice, honest, quiet)
            await check_database(server, keys_of(server, mallory, honest))
    await look_around(alice, rooms)
    await still_works(alice, honest, quiet)
    await asyncio.gather(server.application.inbound.queues.stop())
    await check_database(server, keys_of(server, mallory, honest))


@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_is_accepted_that_the_room_core_refuses(
    server: Server, alice: Client, version: str
) -> None:
    with capture_logs() as logs:
        await besieged(server, alice, Random(f"events-{version}"), 50, (version,))
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_accepted_that_the_room_core_refuses_in_the_long_run(
    server: Server, alice: Client, seed: int
) -> None:
    await besieged(server, alice, Random(seed), 500, VERSIONS)
