"""`python -m benchmarks`: measure this server and Synapse, or any homeserver by its address."""

from __future__ import annotations

import argparse
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks import absence, large_room, parts, results
from benchmarks.figures import SMALL, Figure, Load
from benchmarks.results import Section
from benchmarks.scenarios import coming_back
from benchmarks.servers.authority import Authority
from benchmarks.servers.bare_route import BareRoute
from benchmarks.servers.resident import Resident
from benchmarks.servers.restante import Restante
from benchmarks.servers.synapse import Synapse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from benchmarks.servers.process import Process

_PLACE = Path(__file__).resolve().parent.parent / ".interop"


class Bench:
    """Puts servers into a directory, measures them and gathers what comes out."""

    def __init__(
        self, directory: Path, load: Load, kinds: Sequence[type[Process]], cores: Collection[int]
    ) -> None:
        """The generator is to run on the first of the cores."""
        self.versions = {kind.name: "" for kind in kinds}
        self.limit = 0.0
        self._directory = directory
        self._load = load
        self._kinds = kinds
        self._cores = cores
        self._own_core, self._core = {min(cores)}, {max(cores)}

    def clients(self) -> Section:
        """One server and its clients."""
        self.limit = parts.measure_generator(BareRoute(self._place(), self._core), self._load)
        print(f"Bare route: {self.limit:,.0f} answers/s")
        columns = [(kind.name, parts.measure_process(self._server(kind), self._load)) for kind in self._kinds]
        return Section(*results.CLIENTS, columns)

    def federation(self) -> Section:
        """Two servers that call each other."""
        authority = Authority(self._directory)
        columns = []
        for kind in self._kinds:
            here, there = self._server(kind, authority), self._server(kind, authority)
            columns.append((kind.name, parts.measure_pair(here, there, self._load)))
        return Section(*results.FEDERATION, columns)

    def joining(self) -> Section:
        """A server that joins a large room."""
        authority = Authority(self._directory)
        room = large_room.make(self._directory, self._load.room)
        print(f"A room with {room.joined_members:,} members and {room.events:,} events", flush=True)
        figures = []
        for partial, what in ((False, "Join"), (True, "Join without members")):
            resident = Resident(
                self._place(), self._own_core, authority, room, self._directory, partial=partial
            )
            server = self._server(Restante, authority, self._cores)
            figures += parts.measure_join(server, resident, room, what)
        return Section(*results.JOINING, [(Restante.name, figures)])

    def absence(self) -> Section:
        """A device that was away, by the ways that every server has."""
        ways = (coming_back.classic, coming_back.sliding)
        return Section(
            *results.ABSENCE, [(kind.name, self._coming_back(kind, *ways)) for kind in self._kinds]
        )

    def catching_up(self) -> Section:
        """The same by the ways of this server alone."""
        ways = (coming_back.catching_up, coming_back.compressed)
        return Section(*results.CATCHING_UP, [(Restante.name, self._coming_back(Restante, *ways))])

    def links(self) -> Section:
        """The same over a slow link: this waits for minutes, and computes little."""
        return Section(*results.LINKS, [(Restante.name, self._coming_back(Restante, coming_back.slow_link))])

    def _coming_back(self, kind: type[Process], *ways: coming_back.Scenario) -> list[Figure]:
        return absence.measure(lambda: self._server(kind), _PLACE, self._load.absence, ways)

    def _server(
        self,
        kind: type[Process],
        authority: Authority | None = None,
        cores: Collection[int] | None = None,
    ) -> Process:
        server = kind(self._place(), cores or self._core, authority)
        self.versions[server.name] = server.versions
        return server

    def _place(self) -> Path:
        place = self._directory / secrets.token_hex(4)
        place.mkdir()
        return place


PARTS: dict[str, Callable[[Bench], Section]] = {
    "clients": Bench.clients,
    "federation": Bench.federation,
    "joining": Bench.joining,
    "absence": Bench.absence,
    "catching-up": Bench.catching_up,
    "links": Bench.links,
}
"""In the order of the page."""


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
    parser.add_argument("--part", choices=list(PARTS), help="measure only this, and write nothing")
    parser.add_argument("--small", action="store_true", help="do little, to see that all of it works")
    arguments = parser.parse_args()
    load = SMALL if arguments.small else Load()
    if arguments.url:
        uvloop.run(parts.measure(arguments.url, arguments.shared_secret, load))
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    kinds = [kind for kind in (Restante, Synapse) if arguments.only in (None, kind.name.lower())]
    # Beside the programs: what the system has for temporary files may be no disk.
    _PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=_PLACE) as directory:
        bench = Bench(Path(directory), load, kinds, cores)
        sections = [PARTS[part](bench) for part in ([arguments.part] if arguments.part else PARTS)]
    for section in sections:
        print(f"\n{section}")
    if not (arguments.only or arguments.part or arguments.small):
        results.write(sections, bench.versions, bench.limit)


if __name__ == "__main__":
    main()
