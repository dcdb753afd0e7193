"""An internet inside of the test: names, public addresses, real servers with real certificates behind them.

The one thing that is not real is where a connection to an address goes to: each address and port that a site was given
leads to that site's socket on this machine, and every other is refused. All that was tried is written down.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import trustme
from aiohttp import web

from federation.client import FederationClient
from federation.discovery import Discovery
from federation.signed_requests import SignedRequests
from federation.transport import Transport, client_tls
from federation.well_known import WellKnownLookup
from homeserver.clock import Clock
from tests.fake_dns import FakeDns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    import pytest

    from crypto.keys import SigningKey

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HTTPS = 443
FEDERATION = 8448


class SettableClock(Clock):
    """The time of this machine, moved as the test likes."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + int(self.offset * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.offset


class Internet:
    """Names, addresses, sites, and what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dns = FakeDns()
        self.clock = SettableClock()
        self.authority = trustme.CA()
        self.tried: list[tuple[str, int]] = []
        """Every address and port that a connection was made to."""
        self.asked_for: list[str | None] = []
        """The name that each connection asked for a certificate of (SNI)."""
        self._places: dict[tuple[str, int], int] = {}
        self._closing: list[Callable[[], Awaitable[object]]] = []
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect

        async def connect_here(made: socket.socket, address: Any) -> None:
            where = (address[0], address[1])
            self.tried.append(where)
            if where not in self._places:
                raise ConnectionRefusedError(111, "nobody is there")
            host = "127.0.0.1" if made.family == socket.AF_INET else "::ffff:127.0.0.1"
            await connect(made, (host, self._places[where]))

        monkeypatch.setattr(loop, "sock_connect", connect_here)

    async def site(
        self,
        address: str,
        port: int,
        handler: Handler | web.Application,
        *certified_for: str,
        authority: trustme.CA | None = None,
        until: datetime | None = None,
    ) -> None:
        """A site at an address and port, with a certificate for these names that holds until some day."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued = (authority or self.authority).issue_cert(*(certified_for or (address,)), not_after=until)
        issued.configure_cert(context)
        context.sni_callback = lambda _, name, __: self.asked_for.append(name)
        if isinstance(handler, web.Application):
            runner: web.BaseRunner[Any] = web.AppRunner(handler, shutdown_timeout=0.01)
        else:
            runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.01)
        await runner.setup()
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        await web.SockSite(runner, bound, ssl_context=context).start()
        self.lead(address, port, bound.getsockname()[1])
        self._closing.append(runner.cleanup)

    async def raw_site(
        self,
        address: str,
        port: int,
        talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        *certified_for: str,
    ) -> None:
        """A site that sends what it likes once it is connected to."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(*certified_for).configure_cert(context)
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        self.lead(address, port, server.sockets[0].getsockname()[1])

        async def close() -> None:
            server.close()

        self._closing.append(close)

    def lead(self, address: str, port: int, local_port: int) -> None:
        """Let an address lead to a port of this machine."""
        self._places[address, port] = local_port

    def transport(self, *, allow_private_addresses: bool = False, **options: Any) -> Transport:
        """How a server under test reaches the internet; its system trusts the test's authority."""
        tls = client_tls(verify=True)
        self.authority.configure_trust(tls)
        made = Transport(self.dns, tls, allow_private_addresses=allow_private_addresses, **options)
        self._closing.insert(0, made.close)
        return made

    def well_known(self, transport: Transport | None = None) -> WellKnownLookup:
        """What looks delegations up."""
        made = WellKnownLookup(transport or self.transport(), self.clock.monotonic)
        self._closing.insert(0, made.close)
        return made

    def client(
        self, server_name: str, key: SigningKey, transport: Transport | None = None
    ) -> FederationClient:
        """The client of a server on this internet."""
        return FederationClient(self.requests(server_name, key, transport))

    def requests(
        self, server_name: str, key: SigningKey, transport: Transport | None = None
    ) -> SignedRequests:
        """The signed requests of a server on this internet."""
        transport = transport or self.transport()
        discovery = Discovery(self.well_known(transport), self.dns)
        return SignedRequests(server_name, key, discovery, transport)

    async def close(self) -> None:
        for close in self._closing:
            await close()


def answering(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """A site that answers everything with this JSON."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(value, status=status, headers=headers)

    return handle


def redirecting(location: str) -> Handler:
    """A site that sends everybody elsewhere."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    return handle
