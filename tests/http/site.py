"""A server on a port of its own in the test's process, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from homeserver.config import ListenerSettings
from homeserver.http.application import HttpApplication
from homeserver.http.body_budget import BodyBudget
from homeserver.http.connections import PATIENCE, Connection, look_at
from homeserver.http.link import RATE
from homeserver.http.response import StreamedJson, json_response
from homeserver.http.routing import Route, Router
from homeserver.http.server import HttpServer, listen
from homeserver.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.responses import Response

    from homeserver.http.request import Request

BIG = 8_000_000
PART = 100_000
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server on a port of its own, and the handlers of its routes."""

    def __init__(self, budget: BodyBudget | None = None) -> None:
        self.budget = budget or BodyBudget()
        self.may_answer = asyncio.Event()
        self.left = asyncio.Event()
        self.made = 0
        self._writers: list[asyncio.StreamWriter] = []
        routes = [
            Route("GET", "/big", self.big),
            Route("GET", "/wait", self.wait),
            Route("GET", "/rate", self.rate),
            Route("GET", "/torn", self.torn),
            Route("GET", "/parts", self.parts),
            Route("GET", "/poll", self.poll),
            Route("PUT", "/read", self.read, max_body_bytes=BIG),
            Route("PUT", "/hold", self.hold, max_body_bytes=BIG),
            Route("PUT", "/refuse", self.read, max_body_bytes=10),
        ]
        socket = listen(0, ListenerSettings(port=0))
        self.port = socket.getsockname()[1]
        self.server = HttpServer(HttpApplication(Router(routes), Metrics(), budget=self.budget), socket, None)

    async def big(self, request: Request) -> Response:
        return json_response({"text": "x" * BIG})

    async def rate(self, request: Request) -> Response:
        return json_response({"rate": request.scope.get(RATE)})

    async def poll(self, request: Request) -> Response:
        await request.body()
        await request.disconnected()
        self.left.set()
        return json_response({})

    async def torn(self, request: Request) -> Response:
        return json_response({}, headers={"Location": "/a\r\nSet-Cookie: b"})

    async def parts(self, request: Request) -> Response:
        return StreamedJson(self._parts(request.query.get_int("many", 3), request.query.get_int("fails", -1)))

    async def _parts(self, many: int, fails: int) -> AsyncIterator[bytes]:
        try:
            for number in range(many):
                if number == fails:
                    raise OSError
                self.made += 1
                yield b"%d" % (number % 10) * PART
        finally:
            self.left.set()

    async def wait(self, request: Request) -> Response:
        await self.may_answer.wait()
        return json_response({})

    async def hold(self, request: Request) -> Response:
        length = len(await request.body())
        await self.may_answer.wait()
        return json_response({"bytes": length})

    async def read(self, request: Request) -> Response:
        return json_response({"bytes": len(await request.body())})

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def connections(self) -> list[Connection]:
        return list(self.server.server_state.connections)

    def look(self, times: int = PATIENCE + 1) -> None:
        for _ in range(times):
            look_at(self.connections)


@asynccontextmanager
async def running(budget: BodyBudget | None = None) -> AsyncIterator[Site]:
    site = Site(budget)
    serving = asyncio.create_task(site.server.run_until_stopped())
    await until(lambda: site.server.started)
    try:
        yield site
    finally:
        site.may_answer.set()
        await site.hang_up()
        site.server.stop()
        await serving


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - of what happens in the server nobody tells us
            await asyncio.sleep(0.001)


async def received(site: Site, count: int) -> None:
    await until(lambda: site.connections and site.connections[0]._received >= count)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(20):
        status = int((await reader.readline()).split()[1])
        headers = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def end(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(20):
        assert await reader.read() == b""
