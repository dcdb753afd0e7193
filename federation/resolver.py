"""Names to addresses and services, by DNS and the machine's hosts file."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from federation.addresses import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from federation.addresses import Address

_HOSTS = Path("/etc/hosts")
_CACHED = 20_000
_LIFETIME_SECONDS = 8.0
_MAX_RECORDS = 16


class NoSuchName(OSError):
    """DNS says that there is no such name, or that it has no record of the kind."""


class LookupFailed(OSError):
    """DNS gave no answer; it may know one later."""


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record; `host` is `.` where the service is decidedly not there."""

    priority: int
    weight: int
    host: str
    port: int


class Resolver(Protocol):
    """Looks names up."""

    async def addresses(self, host: str) -> Sequence[Address]:
        """The addresses of a name, at least one; raises `NoSuchName` or `LookupFailed`."""

    async def services(self, name: str) -> Sequence[Service]:
        """The SRV records of a name, at least one; raises `NoSuchName` or `LookupFailed`."""


class DnsResolver:
    """The machine's name servers; answers are kept as long as they say."""

    def __init__(self, hosts: Path = _HOSTS) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.cache = dns.resolver.LRUCache(_CACHED)
        self._resolver.lifetime = _LIFETIME_SECONDS
        self._hosts = _read_hosts(hosts)

    async def addresses(self, host: str) -> Sequence[Address]:
        """The addresses of a name, those of IPv6 first."""
        listed = self._hosts.get(host.lower().rstrip("."))
        if listed:
            return listed
        found = await asyncio.gather(
            *(self._records(host, kind) for kind in ("AAAA", "A")), return_exceptions=True
        )
        addresses: list[Address] = []
        failures: list[BaseException] = []
        for records in found:
            if isinstance(records, BaseException):
                failures.append(records)
            else:
                addresses += [ipaddress.ip_address(record.address) for record in records]
        if addresses:
            return addresses
        failed = next((error for error in failures if not isinstance(error, NoSuchName)), None)
        raise failed or NoSuchName(f"{host} has no address")

    async def services(self, name: str) -> Sequence[Service]:
        """The SRV records of a name, in no order."""
        return [
            Service(
                record.priority, record.weight, record.target.to_text(omit_final_dot=True) or ".", record.port
            )
            for record in await self._records(name, "SRV")
        ]

    async def _records(self, name: str, kind: str) -> list[Any]:
        try:
            absolute = dns.name.from_text(name)
            answer = await self._resolver.resolve(absolute, kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise NoSuchName(f"{name} has no {kind} record") from None
        except (dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong, dns.resolver.YXDOMAIN):
            raise NoSuchName(f"{name} is not a name of DNS") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupFailed(f"looking up {name} failed ({type(error).__name__})") from error
        return list(answer)[:_MAX_RECORDS]


def _read_hosts(path: Path) -> Mapping[str, list[Address]]:
    """The addresses that the machine's owner gave to names."""
    hosts: defaultdict[str, list[Address]] = defaultdict(list)
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        address_text, *names = line.partition("#")[0].split() or [""]
        address = parse_address(address_text)
        if address is not None:
            for name in names:
                hosts[name.lower()].append(address)
    return dict(hosts)
