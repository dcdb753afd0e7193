"""Whatever people do: who follows by sliding sync and has looked at all rooms holds what classic sync leads to.

The deeds are those of the test of classic sync. Each device follows by both, and by both dialects; the connections look
now at these rooms, now at those, lose answers, and change their minds with an answer on its way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis.stateful import rule

from tests.sync.machine import SyncMachine, number, run_machine
from tests.sync.model_client import ModelClient
from tests.sync.sliding.model_client import SlidingModelClient

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sync.machine import World
    from tests.sync.model_client import Wishes

EXAMPLES = 6
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "400"))


class SlidingMachine(SyncMachine):
    """The same deeds, followed in every way."""

    def devices_of(self, client: Client, wished: Wishes) -> list[ModelClient]:
        seed = len(self.devices)
        sliding = SlidingModelClient(client, wished, deployed=seed % 4 < 2, seed=seed)
        return [sliding] if seed % 3 else [ModelClient(client, wished), sliding]

    def catch_up(self, which: int, order: str, limit: int) -> None:
        """Catching up is a matter of classic sync, and has its place in the test of that."""

    @rule(which=number)
    def change_ones_mind(self, which: int) -> None:
        """Ask, give up, and ask for something else."""
        device = self.device(which)
        if isinstance(device, SlidingModelClient):
            self.world.run(device.ask())
            device.draw()


def test_clients_hold_the_truth_whatever_happens(world: World) -> None:
    run_machine(SlidingMachine, world, EXAMPLES, derandomize=True)


@pytest.mark.soak
def test_clients_hold_the_truth_for_long(world: World) -> None:
    run_machine(SlidingMachine, world, SOAK_EXAMPLES, derandomize=False)
