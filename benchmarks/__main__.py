"""`python -m benchmarks`: measure this server and Synapse, or any homeserver by its address."""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks import results
from benchmarks.client import Accounts, Device, in_parallel
from benchmarks.connection import Address
from benchmarks.figures import SMALL, Figure, Load, Setting
from benchmarks.scenarios import catching_up, delivering, logging_in, sending, syncing, to_device
from benchmarks.servers.bare_route import BareRoute
from benchmarks.servers.restante import Restante
from benchmarks.servers.synapse import Synapse

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.servers.process import Process

_SPEAKERS = 16
_MEBIBYTE = 1 << 20
_PLACE = Path(__file__).resolve().parent.parent / ".interop"


async def measure(
    url: str, shared_secret: str | None, load: Load, database_bytes: Callable[[], int] | None = None
) -> list[Figure]:
    """All scenarios, on a server that runs."""
    accounts = Accounts(Address.of(url), shared_secret, f"bench-{secrets.token_hex(4)}")
    works = [lambda number=number: accounts.register(f"speaker-{number}") for number in range(_SPEAKERS)]
    setting = Setting(accounts, load, await in_parallel(2, works))
    figures = []
    for scenario in (
        sending.measure(setting),
        delivering.measure(setting),
        syncing.measure(setting),
        to_device.measure(setting),
        catching_up.measure(setting, database_bytes),
        logging_in.measure(setting),
    ):
        for figure in await scenario:
            print(f"{figure.name}: {figure}", flush=True)
            figures.append(figure)
    return figures


def measure_process(server: Process, load: Load) -> list[Figure]:
    """Start a server, measure all of it, and stop it."""
    print(f"{server.name} {server.versions}", flush=True)
    try:
        # The first start makes the database.
        server.start()
        server.stop()
        seconds = server.start()
        at_rest = server.memory()
        figures = uvloop.run(measure(server.url, server.shared_secret, load, server.database_bytes))
        after = server.memory()
        figures.append(Figure("Start", 1000 * seconds, "ms"))
        for when, memory in (("at rest", at_rest), ("after the load", after)):
            figures.append(Figure(f"Memory {when}, resident", memory.resident / _MEBIBYTE, "MiB"))
            figures.append(Figure(f"Memory {when}, proportional", memory.proportional / _MEBIBYTE, "MiB"))
    finally:
        server.stop()
    return figures


def measure_generator(server: BareRoute, load: Load) -> float:
    """How many answers per second the generator gets from a server that does nothing."""
    server.start()
    try:
        device = Device(Address.of(server.url), access_token="nobody")
        speakers = [(device, "!room")] * _SPEAKERS
        return uvloop.run(sending.measure_speakers(load.seconds, speakers, {"!room": []})).value
    finally:
        server.stop()


def main() -> None:
    """Measure what the arguments say, and write the results where both servers were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--url", help="measure the server that runs there")
    parser.add_argument(
        "--shared-secret", help="its secret for registration; without, registration must be open"
    )
    parser.add_argument(
        "--only", choices=["restante", "synapse"], help="measure one server, and write nothing"
    )
    parser.add_argument("--small", action="store_true", help="do little, to see that all of it works")
    arguments = parser.parse_args()
    load = SMALL if arguments.small else Load()
    if arguments.url:
        uvloop.run(measure(arguments.url, arguments.shared_secret, load))
        return
    mine, theirs = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine})
    kinds = [kind for kind in (Restante, Synapse) if arguments.only in (None, kind.name.lower())]
    # Beside the programs: what the system has for temporary files may be no disk.
    _PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=_PLACE) as directory:
        servers = []
        for kind in (BareRoute, *kinds):
            place = Path(directory) / kind.name.replace(" ", "-")
            place.mkdir()
            servers.append(kind(place, theirs))
        bare_route, *measured = servers
        limit = measure_generator(bare_route, load)
        print(f"Bare route: {limit:,.0f} answers/s")
        columns = [(server.name, measure_process(server, load)) for server in measured]
    print(results.table(columns))
    if arguments.only is None and not arguments.small:
        results.write(columns, [server.versions for server in measured], limit)


if __name__ == "__main__":
    main()
