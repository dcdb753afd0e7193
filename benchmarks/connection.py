"""A connection to a server that costs as little as Python allows, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence


class Answer(NamedTuple):
    """A status and a body."""

    status: int
    body: bytes


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    """How the server proves who it is; None for plain HTTP."""

    @classmethod
    def of(cls, url: str, trust: ssl.SSLContext | None = None) -> Address:
        """That of a base URL; `trust` in place of the system's authorities."""
        parts = urlsplit(url)
        tls = (trust or ssl.create_default_context()) if parts.scheme == "https" else None
        return cls(parts.hostname or "localhost", parts.port or (80 if tls is None else 443), tls)


def encode_request(
    address: Address,
    method: str,
    path: str,
    access_token: str | None = None,
    body: Any = None,
    headers: Sequence[str] = (),
) -> bytes:
    """A request as it goes over the wire; made before the clock runs, where it can be."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address.host}:{address.port}", "Accept: application/json"]
    lines += headers
    if access_token is not None:
        lines.append(f"Authorization: Bearer {access_token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Connection(asyncio.Protocol):
    """One connection, one request at a time; opened when it is first needed, and again where it was closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request that is encoded already, and wait for the answer."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(
                lambda: self, self._address.host, self._address.port, ssl=self._address.tls
            )
        assert self._transport is not None
        self._answer = loop.create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Let the connection go, at once: nobody waits for the end of TLS."""
        if self._transport is not None:
            self._transport.abort()

    # -- called by the transport and the parser --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), body))
