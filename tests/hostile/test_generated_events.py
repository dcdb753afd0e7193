"""Whatever Mallory's server tells of rooms: no 5xx, nothing accepted that the room core refuses, nobody disturbed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from tests.federation_api.remote import Network
from tests.hostile.attack import Attacker, look_around, still_works
from tests.hostile.conftest import examples, keys_of
from tests.hostile.mallory import Mallory
from tests.hostile.oracle import check_database
from tests.server import Server

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

VERSIONS = ("1", "3", "6", "9", "11", "12")
TRANSACTIONS = 50
SOAK_TRANSACTIONS = 400
_BETWEEN_LOOKS = 10
_BETWEEN_JUDGEMENTS = 25


class Siege:
    """Rooms in which Mallory is a member, or the master, and one that she does not know of."""

    async def begin(self, directory: Path, database_url: str, versions: Sequence[str]) -> None:
        self.server = Server(directory, database_url, presence={"enabled": True})
        await self.server.start()
        self.alice = await self.server.register("alice")
        network = Network(self.server)
        evil, one = network.remote("evil.example"), network.remote("honest.example")
        self.mallory = Mallory(self.server, evil.name, evil.key)
        self.honest = Mallory(self.server, one.name, one.key)
        self.rooms = [await self._room(version, level) for version in versions for level in (0, 100)]
        self.quiet = await self.alice.create_room(preset="public_chat")
        await self.honest.become("join", self.quiet, self.honest.user("helen"))
        self.attacker = Attacker(self.server, self.mallory, self.rooms, self.alice.user_id)
        self._transactions = 0

    async def _room(self, version: str, level: int) -> str:
        mallory = self.mallory.user("mallory")
        users = {mallory: level, **({} if version == "12" else {self.alice.user_id: 100})}
        room_id = await self.alice.create_room(
            preset="public_chat", room_version=version, power_level_content_override={"users": users}
        )
        await self.mallory.become("join", room_id, mallory)
        await self.honest.become("join", room_id, self.honest.user("helen"))
        return room_id

    async def attack(self, chance: random.Random) -> None:
        """One transaction, and from time to time a look at what came of it."""
        await self.attacker.attack(chance)
        self._transactions += 1
        if self._transactions % _BETWEEN_LOOKS == 0:
            await look_around(self.alice, self.rooms)
        if self._transactions % _BETWEEN_JUDGEMENTS == 0:
            await self.judge()

    async def judge(self) -> None:
        await still_works(self.alice, self.honest, self.quiet)
        await check_database(self.server, keys_of(self.server, self.mallory, self.honest))

    async def end(self) -> None:
        await look_around(self.alice, self.rooms)
        await self.server.application.inbound.queues.stop()
        await self.judge()
        await self.server.stop()


def besiege(
    directory: Path, database_url: str, versions: Sequence[str], number: int, *, derandomize: bool
) -> None:
    siege = Siege()
    with asyncio.Runner() as runner, capture_logs() as logs:
        runner.run(siege.begin(directory, database_url, versions))
        examples(lambda chance: runner.run(siege.attack(chance)), number, derandomize=derandomize)
        runner.run(siege.end())
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_accepted_that_the_room_core_refuses(
    tmp_path: Path, database_url: str, version: str
) -> None:
    besiege(tmp_path, database_url, (version,), TRANSACTIONS, derandomize=True)


@pytest.mark.soak
@pytest.mark.parametrize("version", ["1", "2", "5", "8", "10", "11", "12"])
def test_nothing_is_accepted_that_the_room_core_refuses_in_the_long_run(
    tmp_path: Path, database_url: str, version: str
) -> None:
    besiege(tmp_path, database_url, (version,), SOAK_TRANSACTIONS, derandomize=False)
