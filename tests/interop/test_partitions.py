"""Three servers of ours and Synapse in one room, cut off from each other at random: once healed, all four agree.

What is done is the same for the same seed (`RESTANTE_PARTITION_SEED`); what the servers make of it hangs on time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.gathering import come_apart_and_heal, seeds
from tests.interop.network import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trustme

    from tests.interop.synapse import Synapse

pytestmark = pytest.mark.interop

_STEPS = 40
_STEPS_OF_SOAK = 150


@pytest.fixture
async def network(tmp_path: Path, authority: trustme.CA, running_synapse: Synapse) -> AsyncIterator[Network]:
    made = Network(tmp_path, authority, running_synapse)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("version", ["10", "12"])
async def test_all_agree_once_they_hear_of_each_other_again(
    network: Network, version: str, seed: int
) -> None:
    await come_apart_and_heal(network, version, seed, _STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(*range(2, 12)))
@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
async def test_all_agree_after_long_troubles(network: Network, version: str, seed: int) -> None:
    await come_apart_and_heal(network, version, seed, _STEPS_OF_SOAK, roughly=True)
