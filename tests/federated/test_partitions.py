"""Servers of ours in one room, cut off from each other at random: once healed, all agree.

The same as `tests/interop/test_partitions.py` without Synapse and without sockets; here answers are lost as well.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from federation.errors import Unreachable
from tests.hostile.wire import Answered, Asked, Wire
from tests.interop.gathering import come_apart_and_heal, seeds
from tests.interop.network import Fate, events_in, fates_in
from tests.interop.people import Somebody
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.hostile.wire import Site
    from tests.interop.network import Pdu

_STEPS = 40
_STEPS_OF_SOAK = 150
_numbers = itertools.count()


class WiredPeer:
    """A server inside of the test's process."""

    def __init__(self, label: str, directory: Path, wire: Wire) -> None:
        directory.mkdir()
        self.label = label
        self.name = f"{label}.example"
        self.is_up = False
        self._file = directory / "restante.db"
        self._wire = wire
        self._people: list[Somebody] = []
        self.server = Server(directory, f"sqlite:///{self._file}", server_name=self.name)

    async def start(self) -> None:
        await self.server.start()
        self._wire.plug_in(self.server)
        for somebody in self._people:
            somebody.client = self.server.reconnect(somebody.client)
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False
        del self._wire.sites[self.name]
        await self.server.stop()

    async def kill(self) -> None:
        """As far as that can be done to a part of a process."""
        await self.stop()

    async def somebody(self, name: str) -> Somebody:
        made = Somebody(await self.server.register(f"{name}{next(_numbers)}"), self.name)
        self._people.append(made)
        return made

    async def hurry(self) -> None:
        for destination in await self.server.application.stores.destinations.load_waiting():
            await self.server.control("federation-retry", name=destination)

    def fates(self, room_id: str) -> dict[str, Fate]:
        return fates_in(self._file, room_id)

    def dropped(self, room_id: str, events: Mapping[str, Pdu]) -> set[str]:
        """Servers of ours drop nothing."""
        return set()

    def events(self, room_id: str) -> dict[str, Pdu]:
        return events_in(self._file, room_id)


class WiredNetwork:
    """Servers of ours on a wire that is cut between some of them."""

    def __init__(self, directory: Path, number: int, chance: random.Random) -> None:
        self._wire = Wire()
        self._wire.taps.append(self._carry)
        self._chance = chance
        self.peers = self.ours = [
            WiredPeer(f"ours{index}", directory / f"ours{index}", self._wire) for index in range(number)
        ]
        labels = [peer.label for peer in self.peers]
        self.pairs = [frozenset(pair) for pair in itertools.combinations(labels, 2)]
        self.cut_pairs: set[frozenset[str]] = set()

    async def _carry(self, asked: Asked, on: Site) -> Answered:
        pair = frozenset(name.partition(".")[0] for name in (asked.origin, asked.destination))
        if pair in self.cut_pairs:
            # Whoever asks does not know whether it came there.
            if self._chance.random() < 0.1:
                await on(asked)
            raise Unreachable(asked.destination, "cut off", connected=True)
        await asyncio.sleep(self._chance.random() / 100)
        return await on(asked)

    async def cut(self, pair: frozenset[str], *, silently: bool = False) -> None:
        self.cut_pairs.add(pair)

    async def heal(self, pair: frozenset[str]) -> None:
        self.cut_pairs.discard(pair)

    async def heal_all(self) -> None:
        self.cut_pairs.clear()

    def peer(self, label: str) -> WiredPeer:
        return next(peer for peer in self.peers if peer.label == label)

    async def calls(self) -> Counter[str]:
        return Counter({" ".join(asked): number for asked, number in self._wire.asked.items()})


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[WiredNetwork]:
    made = WiredNetwork(tmp_path, 4, random.Random(0))
    for peer in made.peers:
        await peer.start()
    yield made
    for peer in made.peers:
        if peer.is_up:
            await peer.stop()


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("version", ["11"])
async def test_all_agree_once_they_hear_of_each_other_again(
    network: WiredNetwork, version: str, seed: int
) -> None:
    await come_apart_and_heal(network, version, seed, _STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(*range(2, 22)))
@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_all_agree_after_long_troubles(network: WiredNetwork, version: str, seed: int) -> None:
    await come_apart_and_heal(network, version, seed, _STEPS_OF_SOAK, roughly=True)
