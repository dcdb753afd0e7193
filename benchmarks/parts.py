"""The parts of the benchmark: each starts the servers that it measures, and stops them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import uvloop

from benchmarks.client import Accounts, Device, in_parallel
from benchmarks.connection import Address
from benchmarks.figures import Figure, Setting
from benchmarks.scenarios import (
    catching_up,
    delivering,
    federating,
    joining,
    logging_in,
    sending,
    syncing,
    to_device,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from benchmarks.figures import Load
    from benchmarks.large_room import LargeRoom
    from benchmarks.scenarios.joining import Joined
    from benchmarks.servers.bare_route import BareRoute
    from benchmarks.servers.process import Process, Spent
    from benchmarks.servers.resident import Resident

_SPEAKERS = 16
_MEBIBYTE = 1 << 20


async def measure(
    url: str, shared_secret: str | None, load: Load, database_bytes: Callable[[], int] | None = None
) -> list[Figure]:
    """All that clients of one server see, on a server that runs."""
    setting = await _setting(_accounts(url, shared_secret), load)
    figures = []
    for scenario in (
        sending.measure(setting),
        delivering.measure(setting),
        syncing.measure(setting),
        to_device.measure(setting),
        catching_up.measure(setting, database_bytes),
        logging_in.measure(setting),
    ):
        figures += told(await scenario)
    return figures


def measure_process(server: Process, load: Load) -> list[Figure]:
    """Start a server, measure all of that, and how it starts and what it holds."""
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


def measure_pair(here: Process, there: Process, load: Load) -> list[Figure]:
    """Start two servers, and measure what goes from one to the other."""
    print(f"Two of {here.name} {here.versions}", flush=True)

    async def measure() -> list[Figure]:
        accounts = [_accounts(server.url, server.shared_secret, server.trust) for server in (here, there)]
        try:
            return await federating.measure(await _setting(accounts[0], load), accounts[1])
        finally:
            for one in accounts:
                one.close()

    try:
        here.start()
        there.start()
        return told(uvloop.run(measure()))
    finally:
        here.stop()
        there.stop()


def measure_join(server: Process, resident: Resident, room: LargeRoom, what: str) -> list[Figure]:
    """Start a server and those that are in a large room, and let a user join that; `what` the figures are of."""

    async def measure() -> tuple[Joined, Spent, Spent]:
        accounts = _accounts(server.url, server.shared_secret, server.trust)
        try:
            # That takes more memory than all else so far.
            device = await accounts.register("newcomer")
            server.forget_peak()
            before = server.spent()
            joined = await joining.measure(device, room)
            spent = server.spent()
            await joining.check(device, room, partial=resident.partial)
        finally:
            accounts.close()
        return joined, before, spent

    try:
        resident.start()
        server.start()
        joined, before, spent = uvloop.run(measure())
    finally:
        server.stop()
        resident.stop()
    return told(
        [
            Figure(f"{what}, until the answer", joined.answered, "s"),
            Figure(f"{what}, until a sync has the room", joined.synced, "s"),
            Figure(f"{what}, computing", spent.seconds - before.seconds, "s"),
            Figure(f"{what}, most memory", spent.most_memory / _MEBIBYTE, "MiB"),
        ]
    )


def measure_generator(server: BareRoute, load: Load) -> float:
    """How many answers per second the generator gets from a server that does nothing."""
    server.start()
    try:
        device = Device(Address.of(server.url), access_token="nobody")
        speakers = [(device, "!room")] * _SPEAKERS
        return uvloop.run(sending.measure_speakers(load.seconds, speakers, {"!room": []})).value
    finally:
        server.stop()


def told(figures: list[Figure]) -> list[Figure]:
    """These figures, once somebody who waits for them has seen them."""
    for figure in figures:
        print(f"{figure.name}: {figure}", flush=True)
    return figures


def _accounts(url: str, shared_secret: str | None, trust: ssl.SSLContext | None = None) -> Accounts:
    return Accounts(Address.of(url, trust), shared_secret, f"bench-{secrets.token_hex(4)}")


async def _setting(accounts: Accounts, load: Load) -> Setting:
    works = [lambda number=number: accounts.register(f"speaker-{number}") for number in range(_SPEAKERS)]
    return Setting(accounts, load, await in_parallel(2, works))
