"""A resolver that knows what the test says, and nothing else."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING

from federation.resolver import NoSuchName, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from federation.addresses import Address


class FakeDns:
    """A resolver that knows what the test says."""

    def __init__(self) -> None:
        self.names: defaultdict[str, list[str]] = defaultdict(list)
        self.records: defaultdict[str, list[Service]] = defaultdict(list)
        self.failing: dict[str, Exception] = {}
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[Address]:
        self._ask(host)
        if not self.names.get(host):
            raise NoSuchName(f"{host} has no A record")
        return [ipaddress.ip_address(address) for address in self.names[host]]

    async def services(self, name: str) -> Sequence[Service]:
        self._ask(name)
        if not self.records.get(name):
            raise NoSuchName(f"{name} has no SRV record")
        return self.records[name]

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.failing:
            raise self.failing[name]
