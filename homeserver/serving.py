"""One server with its sockets: from its start to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING

import structlog

from homeserver import logs
from homeserver.app import Application
from homeserver.http import unix_socket
from homeserver.http.application import HttpApplication
from homeserver.http.routing import Router
from homeserver.http.server import HttpServer, allow_many_files, listen, load_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homeserver.config import Settings

_GARBAGE_THRESHOLDS = (20_000, 20, 20)

_log = structlog.get_logger(__name__)


async def serve(settings: Settings, greet: Callable[[], None]) -> None:
    """Run a server until SIGTERM or SIGINT, and `greet` once it serves; raises `StartupError`."""
    allow_many_files()
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(listen(number, listener))
            for number, listener in enumerate(settings.listeners)
        ]
        certificates = [
            load_certificate(number, listener) for number, listener in enumerate(settings.listeners)
        ]
        application = await Application.open(settings)
        try:
            await application.start()
            servers = [
                HttpServer(application.http(listener.resources), bound, certificate)
                for listener, bound, certificate in zip(
                    settings.listeners, sockets, certificates, strict=True
                )
            ]
            control_socket = unix_socket.listen(settings.control_socket_path)
            if control_socket is not None:
                control = HttpApplication(Router(application.control.routes()), application.metrics)
                servers.append(HttpServer(control, control_socket, None))
            await _run(application, servers, greet)
            if control_socket is not None:
                with contextlib.suppress(FileNotFoundError):
                    settings.control_socket_path.unlink()
        finally:
            await application.close()
    _log.info("stopped")


async def _run(application: Application, servers: Sequence[HttpServer], greet: Callable[[], None]) -> None:
    def stop() -> None:
        _log.info("stopping")
        application.rooms.notifier.stop()
        for server in servers:
            server.stop()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.unhandled)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    _look_for_garbage_less_often()
    greet()
    _log.info("serving", server_name=application.settings.server_name)
    await asyncio.gather(*(server.run_until_stopped() for server in servers))


def _look_for_garbage_less_often() -> None:
    """Python looks for cycles after every 700 new objects, which is an eighth of the work of a busy server.

    What was made until now stays for good, and is not looked at any more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
