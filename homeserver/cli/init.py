"""`restante init`: a configuration file that holds what differs from the defaults."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
import yaml

from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption
from homeserver.config import ConfigError
from homeserver.config_file import load

_HEADER = "# What is not here has its default; config.example.yaml explains every key.\n"
_OWNER_ONLY = 0o600


def init(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    server_name: Annotated[
        str,
        typer.Option(
            prompt="Name of the server, as it stands in user ids (@user:NAME); it cannot be changed later",
            help="The name of the server, as it stands in user ids. It cannot be changed later.",
        ),
    ],
    public_base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where clients reach the server.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8008,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the database is; SQLite in the data directory if left out."),
    ] = None,
    registration: Annotated[
        str | None, typer.Option(metavar="closed|token|open", help="Who may make an account.")
    ] = None,
) -> None:
    """Write a configuration file, with what differs from the defaults."""
    values: dict[str, Any] = {"server_name": server_name}
    if public_base_url is not None:
        values["public_base_url"] = public_base_url
    if (host, port) != ("127.0.0.1", 8008):
        values["listeners"] = [{"host": host, "port": port}]
    if database_url is not None:
        values["database"] = {"url": database_url}
    if registration not in (None, "closed"):
        values["registration"] = {"mode": registration}
    text = _HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    try:
        # It may come to hold secrets.
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        raise ConfigError(f"{config} is there already: edit it, or name another file with --config") from None
    except OSError as error:
        raise ConfigError(
            f"{config}: cannot be written ({error.strerror}): name another file with --config"
        ) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        load(config)
    except ConfigError:
        config.unlink()
        raise
    typer.echo(f"Wrote {config} for the server {server_name}.")
