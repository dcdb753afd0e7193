"""Real servers that call each other over HTTPS on this machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

from homeserver.clock import Clock
from homeserver.http.application import HttpApplication
from homeserver.http.federation_authentication import FederationAuthenticator
from homeserver.http.rate_limits import RateLimits
from homeserver.http.response import json_response
from homeserver.http.routing import Route, Router
from homeserver.http.server import HttpServer
from homeserver.ids import ServerName
from homeserver.metrics import Metrics
from tests.server import RESOURCES, Server

if TYPE_CHECKING:
    from pathlib import Path

    import trustme
    from starlette.responses import Response

    from homeserver.http.request import Request


_REPLACED = ("/_matrix/federation/v1/query/profile",)


class StoppedClock(Clock):
    """So that no rate limit recovers however long a test takes."""

    def monotonic(self) -> float:
        return 0.0


class Neighbour(Server):
    """A server that is called `127.0.0.1:PORT` and listens there, with a certificate of the authority.

    Beside its endpoints it has one that tells who asked, and wants that to be signed.
    """

    def __init__(
        self,
        directory: Path,
        database_url: str,
        authority: trustme.CA,
        *,
        limited: bool = False,
        **settings: Any,
    ) -> None:
        directory.mkdir(exist_ok=True)
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.name = f"127.0.0.1:{self._port}"
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        federation = {
            "allow_private_addresses": True,
            "trusted_ca": [directory / "ca.pem"],
            **settings.pop("federation", {}),
        }
        self.replaced = _REPLACED
        self.answers: dict[str, Any] = {}
        """What it answers to signed requests at the `replaced` paths."""
        self.believed: list[str] = []
        """Who sent these."""
        self.rate_limits = RateLimits(StoppedClock(), Metrics(), enabled=limited)
        super().__init__(directory, database_url, server_name=self.name, federation=federation, **settings)

    async def start(self) -> None:
        await super().start()
        await self.plug_in()

    async def plug_in(self) -> None:
        """Let other servers reach it."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self._port))
        self._socket.listen()
        authenticator = FederationAuthenticator(
            ServerName(self.name),
            self.application.remote.servers.keyring,
            self.rate_limits,
            self.application.heard_from,
        )

        async def echo(request: Request) -> Response:
            origin = await authenticator.origin(request)
            return json_response({"origin": origin, "parameters": request.path_parameters})

        async def answer(request: Request) -> Response:
            self.believed.append(await authenticator.origin(request))
            return json_response(self.answers[request.path])

        routes = [
            *(route for route in self.application.api.routes(RESOURCES) if route.path not in self.replaced),
            *(Route("GET", path, answer) for path in self.replaced),
            *(
                Route(method, "/_matrix/federation/v1/echo/{value}", echo)
                for method in ("GET", "PUT", "POST")
            ),
        ]
        application = HttpApplication(Router(routes), self.application.metrics)
        self._server = HttpServer(application, self._socket, self._tls)
        self._serving = asyncio.create_task(self._server.run_until_stopped())

    async def unplug(self) -> None:
        """Be out of reach of other servers, and go on for the people here."""
        self._server.stop()
        await self._serving
        self._socket.close()

    async def stop(self) -> None:
        await self.unplug()
        await super().stop()
