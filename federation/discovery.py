"""From a server name to where it is called (Server-Server API, "Resolving server names"); numbers are those of its steps."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from federation.errors import NameNotFound
from federation.resolver import LookupFailed, NoSuchName
from federation.server_names import parse_server_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from federation.resolver import Resolver, Service
    from federation.server_names import ParsedServerName
    from federation.well_known import WellKnownLookup

DEFAULT_PORT = 8448
_MAX_PLACES = 4
_NOT_THERE = "."


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect, and as what: `host` is a name or an IP address, `tls_name` what the certificate must be for."""

    host: str
    port: int
    host_header: str
    tls_name: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Discovered:
    """The places to try, in order, and how they were found."""

    places: tuple[Place, ...]
    delegated: str | None = None
    """The server name in the well-known file."""
    well_known_error: str | None = None
    service: str | None = None
    """The name of the SRV record that there was."""


class Discovery:
    """Finds servers."""

    def __init__(self, well_known: WellKnownLookup, resolver: Resolver) -> None:
        self._well_known = well_known
        self._resolver = resolver

    async def find(self, server_name: str) -> Discovered:
        """Where to call a server; raises `NameNotFound`. Whether the places answer is seen by calling them."""
        name = parse_server_name(server_name)
        if name is None:
            raise NameNotFound(server_name, "not a server name")
        if name.is_ip_literal or name.port is not None:
            return Discovered((place_of(name),))  # 1, 2
        well_known = await self._well_known.find(name.host)  # 3
        if well_known.delegated is None:
            places, service = await self._by_service(server_name, name.host)  # 4, 5, 6
            return Discovered(places, None, well_known.error, service)
        delegated = parse_server_name(well_known.delegated)
        if delegated is None:
            raise NameNotFound(server_name, "delegated to what is not a server name")
        if delegated.is_ip_literal or delegated.port is not None:
            return Discovered((place_of(delegated),), well_known.delegated)  # 3.1, 3.2
        places, service = await self._by_service(server_name, delegated.host)  # 3.3, 3.4, 3.5
        return Discovered(places, well_known.delegated, None, service)

    async def _by_service(self, server_name: str, host: str) -> tuple[tuple[Place, ...], str | None]:
        """By SRV records, the registered kind before the old one, or else on the usual port.

        The certificate is always for the host, never for what an SRV record says: DNS can be forged.
        """
        for kind in ("_matrix-fed._tcp", "_matrix._tcp"):
            service = f"{kind}.{host}"
            try:
                records = await self._resolver.services(service)
            except (NoSuchName, LookupFailed):
                # Name servers that fail on such records are common; the usual port is safe to try.
                continue
            if all(record.host == _NOT_THERE for record in records):
                # RFC 2782: a target of "." means that the service is decidedly not available at this domain.
                raise NameNotFound(server_name, f"{service} says that there is no such server")
            # A name of DNS may hold anything, such as what would be another place in a URL.
            ordered = in_order([record for record in records if _is_usable(record)])[:_MAX_PLACES]
            if not ordered:
                continue
            return tuple(Place(record.host, record.port, host, host) for record in ordered), service
        return (Place(host, DEFAULT_PORT, host, host),), None


def _is_usable(record: Service) -> bool:
    name = parse_server_name(record.host)
    return name is not None and name.port is None and not name.is_ip_literal and record.port > 0


def place_of(name: ParsedServerName) -> Place:
    """Where a name says by itself that it is: at its port, or the usual one (steps 1, 2, 3.1 and 3.2)."""
    bracketed = f"[{name.host}]" if ":" in name.host else name.host
    header = bracketed if name.port is None else f"{bracketed}:{name.port}"
    return Place(name.host, DEFAULT_PORT if name.port is None else name.port, header, name.host)


def in_order(records: Sequence[Service]) -> list[Service]:
    """SRV records in the order in which to try them (RFC 2782): by priority, and by chance as the weights say."""
    by_priority: defaultdict[int, list[Service]] = defaultdict(list)
    for record in records:
        by_priority[record.priority].append(record)
    ordered: list[Service] = []
    for _, waiting in sorted(by_priority.items()):
        while waiting:
            weights = [record.weight + 0.01 for record in waiting]
            (chosen,) = random.choices(waiting, weights)  # noqa: S311 - to share the load
            waiting.remove(chosen)
            ordered.append(chosen)
    return ordered
