"""A network inside of the test: servers reach each other by name, and what goes by can be seen, changed and counted.

It stands in the place of connections: what a server makes of an answer's bytes, and within which bounds, is its own.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from federation.discovery import Discovered, Place
from federation.errors import Unreachable
from federation.transport import HttpAnswer, StreamedAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from yarl import URL

    from federation.transport import Limits
    from tests.server import Server

    Site = Callable[["Asked"], Awaitable["Answered"]]


@dataclass(slots=True)
class Asked:
    """A request on its way."""

    origin: str
    destination: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def content(self) -> Any:
        return None if self.body is None else orjson.loads(self.body)


@dataclass(slots=True)
class Answered:
    """An answer on its way: its body whole, or in parts without an end."""

    status: int = 200
    body: bytes | Iterable[bytes] = b"{}"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Answered:
        return cls(status, orjson.dumps(value))


class _Content:
    """The bytes of an answer, as aiohttp gives them out."""

    def __init__(self, body: bytes | Iterable[bytes]) -> None:
        self._parts = iter((body,) if isinstance(body, bytes) else body)
        self.read_bytes = 0

    async def read(self, _: int = -1) -> bytes:
        part = next(self._parts, b"")
        while part == b"":
            part = next(self._parts, None)
            if part is None:
                return b""
        self.read_bytes += len(part)
        return part


class _Response:
    """As much of an answer as `StreamedAnswer` looks at."""

    def __init__(self, answered: Answered) -> None:
        self.status = answered.status
        self.headers = CIMultiDictProxy(CIMultiDict(answered.headers))
        self.content = _Content(answered.body)
        self.content_length = len(answered.body) if isinstance(answered.body, bytes) else None


class Wire:
    """Names, and who answers to them."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """How often who asked whom for what: the path up to its third part after the prefix."""
        self.taps: list[Callable[[Asked, Site], Awaitable[Answered]]] = []
        """Whoever stands in between, the first nearest to who asks."""

    def plug_in(self, server: Server) -> None:
        """Let a server call others by this wire, and be called."""
        end = _End(self, server.settings.server_name)
        requests = server.application.remote.client._requests
        requests._discovery, requests._transport = end, end
        self.sites[server.settings.server_name] = lambda asked: answer_of(server, asked)

    async def carry(self, asked: Asked) -> Answered:
        """Bring a request to whom it is for."""
        self.asked[asked.origin, asked.destination, endpoint_of(asked.path)] += 1
        site = self.sites.get(asked.destination)
        if site is None:
            raise Unreachable(asked.destination, "nobody is there")
        return await self._through(0, site, asked)

    async def _through(self, number: int, site: Site, asked: Asked) -> Answered:
        if number == len(self.taps):
            return await site(asked)

        async def on(further: Asked) -> Answered:
            return await self._through(number + 1, site, further)

        return await self.taps[number](asked, on)

    def count(self, *, of: str) -> int:
        """How many requests a server has made."""
        return sum(number for (origin, _, _), number in self.asked.items() if origin == of)


class _End:
    """Discovery and transport of one server."""

    def __init__(self, wire: Wire, server_name: str) -> None:
        self._wire = wire
        self._server_name = server_name

    async def find(self, server_name: str) -> Discovered:
        return Discovered((Place(server_name.partition(":")[0], 8448, server_name, server_name),))

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: URL,
        limits: Limits,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls_name: str | None = None,
        destination: str | None = None,
    ) -> AsyncIterator[StreamedAnswer]:
        asked = Asked(
            self._server_name,
            destination or tls_name or "",
            method,
            url.raw_path_qs,
            dict(headers or {}),
            body,
        )
        answered = await self._wire.carry(asked)
        yield StreamedAnswer(_Response(answered), asked.destination, limits)  # type: ignore[arg-type]

    async def request(self, method: str, url: URL, limits: Limits, **options: Any) -> HttpAnswer:
        async with self.stream(method, url, limits, **options) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())

    async def close(self) -> None:
        """Nothing is held."""


async def answer_of(server: Server, asked: Asked) -> Answered:
    """What a server answers."""
    if server.http.is_closed:
        raise Unreachable(asked.destination, "it has stopped")
    headers = {name: value for name, value in asked.headers.items() if name != "Host"}
    response = await server.http.request(asked.method, asked.target, content=asked.body, headers=headers)
    return Answered(response.status_code, response.content, dict(response.headers))


def endpoint_of(path: str) -> str:
    """The name of an endpoint: its path without what stands in for parameters."""
    return "/".join(path.split("/")[4:5])
