"""Deeds on live state: by the running server through its socket, or directly where no server runs."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import aiohttp

from homeserver.app import Application
from homeserver.config_file import load
from homeserver.errors import MatrixError, StartupError
from homeserver.http import unix_socket

if TYPE_CHECKING:
    from pathlib import Path

    from homeserver.config import Settings

_PATIENCE = aiohttp.ClientTimeout(total=300)


def perform(config: Path, deed: str, **arguments: Any) -> dict[str, Any]:
    """Do something, wherever it has to be done; raises `MatrixError` where it is refused."""
    return asyncio.run(_perform(load(config), deed, arguments))


def is_served(settings: Settings) -> bool:
    """Whether a server runs with this `data_dir`; it is taken for one where the socket is another user's."""
    try:
        with (
            unix_socket.connectable(settings.control_socket_path) as address,
            socket.socket(socket.AF_UNIX) as one,
        ):
            one.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except PermissionError:
        return True
    return True


async def _perform(settings: Settings, deed: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return await _ask(settings.control_socket_path, deed, arguments)
    except (FileNotFoundError, ConnectionRefusedError):
        return await _act(settings, deed, arguments)


async def _ask(path: Path, deed: str, arguments: dict[str, Any]) -> dict[str, Any]:
    with unix_socket.connectable(path) as address:
        connector = aiohttp.UnixConnector(path=address)
        async with aiohttp.ClientSession(connector=connector, timeout=_PATIENCE) as session:
            try:
                async with session.post(f"http://localhost/{deed}", json=arguments) as response:
                    answer: dict[str, Any] = await response.json()
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, PermissionError):
                    raise StartupError(
                        f"data_dir: the server's socket {path} is another user's: run this as the user of the server"
                    ) from None
                raise error.os_error from None
            except (aiohttp.ClientError, TimeoutError) as error:
                raise StartupError(
                    f"the server went away meanwhile ({error or type(error).__name__}): "
                    "look whether it was done, and try again"
                ) from None
    if response.status != 200:
        raise MatrixError(answer["error"], errcode=answer["errcode"], status=response.status)
    return answer


async def _act(settings: Settings, deed: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the database and do it here; another process that uses a SQLite file keeps it."""
    application = await Application.open(settings)
    try:
        return await application.control.perform(deed, arguments)
    finally:
        await application.close()
