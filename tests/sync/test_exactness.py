"""Whatever people do: a client that only applies what `/sync` and `/messages` give it holds the server's truth.

Nothing is lost, nothing comes twice, nothing is shown that must not be seen.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.sync.machine import SyncMachine, run_machine

if TYPE_CHECKING:
    from tests.sync.machine import World

EXAMPLES = 70
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "1500"))


def test_clients_hold_the_truth_whatever_happens(world: World) -> None:
    run_machine(SyncMachine, world, EXAMPLES, derandomize=True)


@pytest.mark.soak
def test_clients_hold_the_truth_for_long(world: World) -> None:
    run_machine(SyncMachine, world, SOAK_EXAMPLES, derandomize=False)
