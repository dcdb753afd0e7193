"""A server inside the test's own process: everything but the sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from homeserver.app import Application
from homeserver.clock import Clock
from homeserver.config import Settings
from tests.client import Client
from tests.fake_dns import FakeDns

if TYPE_CHECKING:
    from pathlib import Path

RESOURCES = ("client", "federation", "admin", "metrics")


class SettableClock(Clock):
    """The time of this machine, moved as the test likes."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms

    def monotonic(self) -> float:
        return super().monotonic() + self.offset_ms / 1000


class Server:
    """A server that tests start, use, and start again on the same database."""

    def __init__(self, directory: Path, database_url: str, **settings: Any) -> None:
        values: dict[str, Any] = {
            "server_name": "example.org",
            "data_dir": directory,
            "database": {"url": database_url},
            "registration": {"mode": "open"},
            "passwords": {"hash_cost": "minimum"},
            "rate_limits": {"enabled": False},
            "presence": {"enabled": False},
        }
        self.settings = Settings(**{**values, **settings})
        self.clock = SettableClock()
        self.dns = FakeDns()
        self.courier: Any = None
        """Takes transactions for other servers in the place of HTTP."""
        self.application: Application
        self.http: httpx.AsyncClient

    async def start(self) -> None:
        # Tests ask no name servers.
        self.application = await Application.open(self.settings, self.clock, self.dns, self.courier)
        await self.application.start()
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.application.http(RESOURCES)), base_url="http://example.org"
        )

    async def stop(self) -> None:
        await self.http.aclose()
        await self.application.close()

    async def restart(self) -> None:
        """Stop and start; clients go on with `reconnect`."""
        await self.stop()
        await self.start()

    async def until_waiting(self, number: int = 1) -> None:
        """Go on once so many long polls wait."""
        while self.application.rooms.notifier.waiting < number:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.001)

    async def control(self, deed: str, **arguments: Any) -> dict[str, Any]:
        """What the command line asks of a running server."""
        return await self.application.control.perform(deed, arguments)

    def nobody(self) -> Client:
        """A client without an account."""
        return Client(self.http)

    async def register(self, name: str, device_id: str | None = None) -> Client:
        """A new user with one device."""
        answer = await self.nobody().post(
            "/register",
            {
                "username": name,
                "password": "secret",
                "device_id": device_id,
                "auth": {"type": "m.login.dummy"},
            },
        )
        return Client(self.http, answer["user_id"], answer["device_id"], answer["access_token"])

    async def login(self, client: Client, device_id: str | None = None) -> Client:
        """Another device of a user."""
        answer = await self.nobody().post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": client.user_id},
                "password": "secret",
                "device_id": device_id,
            },
        )
        return Client(self.http, answer["user_id"], answer["device_id"], answer["access_token"])

    def reconnect(self, client: Client) -> Client:
        """The same device, after a restart."""
        return Client(self.http, client.user_id, client.device_id, client.access_token)
