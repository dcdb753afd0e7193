"""HTTP to others: pooled, bounded in size, time and number, and never to an address that is not allowed.

The one place from which connections leave. A name is resolved when a connection is made, the addresses are
checked, and the socket connects to one of those that passed: a name that changes its address in between gains
nothing. Redirects are not followed here; who follows one asks again, and is checked again.

For calls to servers, and for whatever else this server fetches from the internet (`homeserver` builds one for each
policy).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from federation.addresses import is_public, parse_address
from federation.errors import (
    AddressForbidden,
    AnswerTooLarge,
    BadAnswer,
    CertificateRefused,
    FederationError,
    NameNotFound,
    TimedOut,
    Unreachable,
)
from federation.resolver import LookupFailed, NoSuchName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from aiohttp.connector import Connection
    from multidict import CIMultiDictProxy
    from yarl import URL

    from federation.resolver import Resolver

_PER_HOST = 8
_ALTOGETHER = 2_000
# Those that wait for one of the connections to a host are among them; more than these are turned away at once.
_UNDER_WAY_PER_HOST = 300
_KEEP_ALIVE_SECONDS = 60
_CHUNK_BYTES = 1 << 16
_USER_AGENT = "Restante"
_CONNECTION_ERRORS = {
    errno.ECONNREFUSED: "refused, nothing listens there",
    errno.ECONNRESET: "it was closed at once",
    errno.EHOSTUNREACH: "there is no way to it",
    errno.ENETUNREACH: "there is no way to its network",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may cost: bytes of its body, seconds to connect, between two bytes, and altogether."""

    max_bytes: int
    seconds: float
    connect_seconds: float = 10.0
    idle_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer that was read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class StreamedAnswer:
    """An answer whose body is read bit by bit."""

    def __init__(self, response: aiohttp.ClientResponse, destination: str, limits: Limits) -> None:
        self.status = response.status
        self.headers = response.headers
        self.content = response.content
        """For readers of other forms, which must bound what they read; `chunks` does."""
        self.certificate: dict[str, Any] = getattr(response, "certificate", {})
        """What the other side showed, as `ssl` tells it; empty where that was not checked."""
        self._response = response
        self._destination = destination
        self._limits = limits

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body; raises `BadAnswer` where it has more bytes than it may."""
        most = self._limits.max_bytes
        if (self._response.content_length or 0) > most:
            raise AnswerTooLarge(self._destination, most)
        total = 0
        while True:
            try:
                chunk = await self._response.content.read(_CHUNK_BYTES)
            except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as error:
                raise _explained(self._destination, error) from error
            if not chunk:
                return
            total += len(chunk)
            if total > most:
                raise AnswerTooLarge(self._destination, most)
            yield chunk

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])


class Transport:
    """Connections to the internet."""

    def __init__(
        self,
        resolver: Resolver,
        tls: ssl.SSLContext,
        *,
        allow_private_addresses: bool,
        per_host: int = _PER_HOST,
        altogether: int = _ALTOGETHER,
        under_way_per_host: int = _UNDER_WAY_PER_HOST,
    ) -> None:
        self._guard = _Guard(resolver, allow_private_addresses=allow_private_addresses)
        self._tls = tls
        self._per_host = per_host
        self._altogether = altogether
        self._under_way_per_host = under_way_per_host
        self._under_way: Counter[tuple[str, int, str]] = Counter()
        self._session: aiohttp.ClientSession | None = None

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return self._under_way.total()

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: URL,
        limits: Limits,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls_name: str | None = None,
        destination: str | None = None,
    ) -> HttpAnswer:
        """Ask, and read the answer to its end, whatever its status; raises `Unreachable` or `BadAnswer`.

        `tls_name` is the name that the certificate must have, where it is not the host of the URL. `destination` is
        what errors call the other side.
        """
        async with self.stream(
            method, url, limits, headers=headers, body=body, tls_name=tls_name, destination=destination
        ) as answer:
            return HttpAnswer(answer.status, answer.headers, await answer.read())

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
        """Ask, and read the answer bit by bit inside the `with`; leaving it early closes the connection.

        Raises `Unreachable` or `BadAnswer`, also out of the body of the `with` while the answer is read.
        """
        # Not `host`, which fails for names that pretend to be encoded ones.
        host = url.raw_host or ""
        destination = destination or host or str(url)
        key = (host, url.port or 0, tls_name or "")
        if self._under_way[key] >= self._under_way_per_host:
            raise Unreachable(destination, "too many requests to it are waiting")
        self._under_way[key] += 1
        try:
            try:
                response = await self._open_session().request(
                    method,
                    url,
                    data=body,
                    headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "gzip", **(headers or {})},
                    timeout=aiohttp.ClientTimeout(
                        total=limits.seconds,
                        connect=min(limits.connect_seconds * 2, limits.seconds),
                        sock_connect=limits.connect_seconds,
                        sock_read=limits.idle_seconds,
                    ),
                    allow_redirects=False,
                    server_hostname=tls_name,
                )
            except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError) as error:
                # A RuntimeError comes where all is being closed, and from uvloop in place of an OSError.
                raise _explained(destination, error) from error
            try:
                yield StreamedAnswer(response, destination, limits)
            finally:
                # Where the answer was read to its end the connection is back in the pool, and stays open.
                response.close()
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._tls,
                    resolver=self._guard,
                    socket_factory=self._guard.make_socket,
                    use_dns_cache=False,
                    limit=self._altogether,
                    limit_per_host=self._per_host,
                    keepalive_timeout=_KEEP_ALIVE_SECONDS,
                ),
                response_class=_Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


class _Response(aiohttp.ClientResponse):
    """An answer that knows the certificate: once it was read its connection is another's."""

    certificate: dict[str, Any]

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        self.certificate = (transport and transport.get_extra_info("peercert")) or {}
        return await super().start(connection)


class _Forbidden(OSError):
    """An address to which this server must not connect."""


class _Guard(AbstractResolver):
    """Lets only allowed addresses through: of names here, and once more, of whatever a socket is made for."""

    def __init__(self, resolver: Resolver, *, allow_private_addresses: bool) -> None:
        self._resolver = resolver
        self._allow_private = allow_private_addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The allowed addresses of a name."""
        found = await self._resolver.addresses(host)
        allowed = [address for address in found if self._allow_private or is_public(address)]
        if not allowed:
            raise _Forbidden(f"{host} leads to {found[0]}, which is not an address of the public internet")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in allowed
            if family in (socket.AF_UNSPEC, socket.AF_INET if address.version == 4 else socket.AF_INET6)
        ]

    def make_socket(self, info: tuple[int, int, int, str, tuple[str | int, ...]]) -> socket.socket:
        """A socket that is about to connect to just this address: nothing comes around this door."""
        family, kind, protocol, _, where = info
        address = parse_address(str(where[0]))
        if address is None or not (self._allow_private or is_public(address)):
            raise _Forbidden(f"{where[0]} is not an address of the public internet")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing is held."""


def client_tls(*, verify: bool, trusted_ca: Sequence[Path] = ()) -> ssl.SSLContext:
    """How others prove who they are: by the system's authorities and those of the PEM files.

    Raises `OSError` (`ssl.SSLError` is one) where a file cannot be used.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for path in trusted_ca:
        context.load_verify_locations(cafile=path)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _explained(destination: str, error: Exception) -> FederationError:
    """The error in our words."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, _Forbidden):
        return AddressForbidden(destination, str(cause))
    if isinstance(cause, NoSuchName):
        return NameNotFound(destination, str(cause))
    if isinstance(cause, LookupFailed):
        return Unreachable(destination, str(cause))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return CertificateRefused(destination, f"its certificate is refused: {_certificate_error(error)}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable(destination, f"no connection: {_connection_error(cause)}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TimedOut(destination, "no connection within the time")
    if isinstance(error, TimeoutError):
        return TimedOut(destination, "no answer within the time", connected=True)
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return BadAnswer(destination, f"not HTTP: {type(error).__name__}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unreachable(destination, "the answer broke off", connected=True)
    if isinstance(error, UnicodeError | aiohttp.InvalidURL):
        return NameNotFound(destination, "not a name that can be called")
    return Unreachable(destination, f"{type(error).__name__}: {error}", connected=True)


def _certificate_error(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    return (getattr(cause, "verify_message", "") or str(cause)).rstrip(".")


def _connection_error(error: Exception) -> str:
    """For people: a number of the operating system, or the place in a source file, tells them nothing."""
    if isinstance(error, ssl.SSLError):
        return (
            f"it does not speak TLS as it should ({(error.reason or 'TLS error').lower().replace('_', ' ')})"
        )
    number = error.errno if isinstance(error, OSError) else None
    return _CONNECTION_ERRORS.get(number or 0, str(error))
