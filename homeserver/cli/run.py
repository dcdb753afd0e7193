"""`restante run`: the server."""

from __future__ import annotations

from pathlib import Path

import typer
import uvloop

from homeserver import __version__, logs
from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption, command_line
from homeserver.config import Settings
from homeserver.config_file import load
from homeserver.serving import serve

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not listened on


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Start the server, and serve until SIGTERM or Ctrl-C."""
    settings = load(config)
    logs.configure(settings.logging.level, settings.logging.format)
    uvloop.run(serve(settings, lambda: _greet(config, settings)))


def _greet(config: Path, settings: Settings) -> None:
    typer.echo(f"Restante {__version__}, server {settings.server_name}")
    typer.echo(f"  The address to give the client:  {client_address(settings)}")
    at = "" if config == DEFAULT_CONFIG else f" --config {config}"
    typer.echo(f"  To make an account, meanwhile:   {command_line()} user create{at} NAME")


def client_address(settings: Settings) -> str:
    """The URL by which a client reaches this server."""
    if settings.public_base_url is not None:
        return settings.public_base_url
    listener = next(
        (listener for listener in settings.listeners if "client" in listener.resources), settings.listeners[0]
    )
    scheme = "http" if listener.tls is None else "https"
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{scheme}://{_ANY_ADDRESS.get(listener.host, host)}:{listener.port}"
