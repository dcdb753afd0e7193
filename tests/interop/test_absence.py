"""Synapse, or a server of ours, is killed while the other talks: what was said arrives, without anybody's help."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.federated.absence import Absence, Witness
from tests.interop.people import of_synapse
from tests.interop.synapse import Synapse
from tests.processes.devices import connected
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import trustme

    from tests.interop.people import Somebody

pytestmark = pytest.mark.interop
MESSAGES = 1_000


@pytest.fixture(scope="module")
def lasting_synapse(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Synapse]:
    """One that leaves servers that do not answer in peace for ten minutes and longer, as it does by default."""
    server = Synapse(tmp_path_factory.mktemp("absence") / "synapse", authority, least_pause="10m")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def synapse(lasting_synapse: Synapse) -> AsyncIterator[Synapse]:
    link = lasting_synapse.link()
    await link.join()
    yield lasting_synapse
    await link.cut()


@pytest.fixture
def ours(tmp_path: Path, authority: trustme.CA) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, authority=authority) as server:
        yield server


@pytest.fixture
async def here(ours: ServerProcess) -> AsyncIterator[Witness]:
    async with connected(ours, ours.register("here")) as (client,):
        yield Witness(client, ours.server_name)


@pytest.fixture
async def there(synapse: Synapse) -> AsyncIterator[Witness]:
    async with httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=60) as http:
        somebody = await of_synapse(synapse, http, "there")
        yield Witness(somebody.client, somebody.server_name)


def delivered_events(server: ServerProcess) -> int:
    """How many events other servers have acknowledged since the server was started."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(r'^restante_federation_delivered_total\{kind="event"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def received_events(log: str, origin: str) -> int:
    """How many events Synapse says that it received from a server."""
    found = re.findall(rf"Received txn (\S+) from {re.escape(origin)}\. \(PDUs: (\d+)", log)
    return sum(int(number) for number in dict(found).values())


def dropped_events(log: str, room_id: str) -> int:
    """How many events of a room Synapse says that it dropped, since more waited for it than it keeps."""
    found = re.findall(rf"Pruning (\d+) events in room {re.escape(room_id)} from federation queue", log)
    return sum(map(int, found))


async def until_shown(reader: Witness, room_id: str, said: list[str]) -> None:
    """Page through a room until exactly these messages are in it, in order."""

    async def holds() -> bool:
        return await reader.said(room_id) == said

    await reader.until(holds, f"all messages of {room_id}")


async def test_synapse_is_killed(
    here: Somebody, there: Witness, ours: ServerProcess, synapse: Synapse
) -> None:
    """It has all, and shows all to who pages back; what it drops on the way into its rooms is not told in `/sync`."""
    absence = await Absence.begin(here, there, MESSAGES)
    before = delivered_events(ours)
    synapse.kill()
    length = len(synapse.whole_log())
    try:
        await absence.live()
    finally:
        await asyncio.to_thread(synapse.start)
    await absence.until_known()
    log = synapse.whole_log()[length:]
    assert delivered_events(ours) - before == received_events(log, ours.server_name) == MESSAGES
    for room_id, said in absence.said.items():
        told = list(dict.fromkeys(there.told(room_id)))
        # In order, and but for what it says that it dropped.
        assert told == [text for text in said if text in set(told)]
        assert len(said) - len(told) <= dropped_events(log, room_id)
        # It fetches what it dropped while somebody pages back, and may answer before all is there.
        await until_shown(there, room_id, said)


async def test_a_server_of_ours_is_killed(
    here: Witness, there: Somebody, ours: ServerProcess, synapse: Synapse
) -> None:
    absence = await Absence.begin(there, here, MESSAGES)
    ours.kill()
    try:
        await absence.live()
    finally:
        await asyncio.to_thread(ours.start)
    await absence.until_known()
    assert absence.told() == absence.said
