"""Listening: sockets, certificates, and the server that hands requests to an application."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import ssl
from typing import TYPE_CHECKING

import uvicorn

from homeserver.errors import StartupError
from homeserver.http.connections import LOOK_SECONDS, Connection, look_at

if TYPE_CHECKING:
    from homeserver.config import ListenerSettings
    from homeserver.http.application import HttpApplication

_BACKLOG = 2048
_MAX_FILES = 65_536
_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 3
"""How long a request may go on once the server is told to stop."""


class HttpServer(uvicorn.Server):
    """A server on one socket, started and stopped by us: signals are not its business."""

    def __init__(
        self, application: HttpApplication, listener: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        config = uvicorn.Config(
            application,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            backlog=_BACKLOG,
        )
        config.load()
        if tls is not None:
            config.ssl = tls
        super().__init__(config)
        self._listener = listener

    async def run_until_stopped(self) -> None:
        """Serve until `stop`, then answer what is under way, for a few seconds."""
        await self._serve([self._listener])

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % (10 * LOOK_SECONDS) == 0:
            look_at(self.server_state.connections)
        return await super().on_tick(counter)

    def stop(self) -> None:
        """Take no more connections, and end `run_until_stopped`."""
        self.should_exit = True


def allow_many_files() -> None:
    """Each connection is an open file: allow this process as many as the system lets it have."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if most == resource.RLIM_INFINITY else min(most, _MAX_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def listen(number: int, settings: ListenerSettings) -> socket.socket:
    """A socket that listens as the settings say; `StartupError` names the key and the cure."""
    key = f"listeners[{number}]"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise StartupError(
            f"{key}.host: {settings.host} is not an address of this machine: use 127.0.0.1 or 0.0.0.0"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As people expect of `::`: everybody, whichever protocol.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_why_not(key, settings, error)) from None
    listener.setblocking(False)
    return listener


def _why_not(key: str, settings: ListenerSettings, error: OSError) -> str:
    where = f"{settings.host} port {settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{key}.port: {where} is in use by another program: stop it, or choose another port"
    if error.errno == errno.EACCES:
        return f"{key}.port: this user may not listen on {where}: choose a port from 1024 on, behind a reverse proxy"
    return f"{key}: cannot listen on {where} ({error.strerror}): choose an address of this machine"


def load_certificate(number: int, settings: ListenerSettings) -> ssl.SSLContext | None:
    """The certificate of a listener, if it has one; `StartupError` where its files cannot be used."""
    if settings.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.private_key)
    except (OSError, ssl.SSLError) as error:
        raise StartupError(
            f"listeners[{number}].tls: the certificate and private key cannot be used ({error}): "
            "name PEM files that belong together and that this user may read"
        ) from None
    return context
