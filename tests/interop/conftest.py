"""One Synapse for all tests of this folder, with a way to it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from tests.federation.neighbours import Neighbour
from tests.interop.people import of_ours, of_synapse
from tests.interop.synapse import Synapse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.interop.people import Somebody
    from tests.interop.synapse import Link


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def running_synapse(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Synapse]:
    server = Synapse(tmp_path_factory.mktemp("interop") / "synapse", authority)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def way_to_synapse(running_synapse: Synapse) -> AsyncIterator[Link]:
    link = running_synapse.link()
    await link.join()
    yield link
    await link.cut()


@pytest.fixture
def synapse(running_synapse: Synapse, way_to_synapse: Link) -> Synapse:
    return running_synapse


@pytest.fixture
async def ours(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Neighbour]:
    """A server of ours, as it is."""
    server = Neighbour(tmp_path / "ours", f"sqlite:///{tmp_path}/ours/restante.db", authority)
    server.replaced = ()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(params=["room of ours", "room of Synapse"])
async def people(
    request: pytest.FixtureRequest, ours: Neighbour, synapse: Synapse
) -> AsyncIterator[tuple[Somebody, Somebody]]:
    """A host, who makes a room, and a guest from the other server."""
    async with httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=60) as http:
        here, there = await of_ours(ours, "here"), await of_synapse(synapse, http, "there")
        yield (here, there) if request.param == "room of ours" else (there, here)
