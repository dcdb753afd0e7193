"""`restante registration-token`: what lets people make their own accounts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from homeserver.cli.control import perform
from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption

commands = typer.Typer(
    help="Let people in who have a token (registration.mode: token).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAY_MS = 24 * 3_600 * 1000


@commands.command()
def create(
    token: Annotated[str | None, typer.Argument(help="The token; a random one where it is left out.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    uses: Annotated[int | None, typer.Option(help="How many people may use it.", min=1)] = None,
    days: Annotated[float | None, typer.Option(help="For how many days it is good.", min=0)] = None,
) -> None:
    """Make a registration token."""
    expires_ts = None if days is None else int(time.time() * 1000 + days * _DAY_MS)
    answer = perform(config, "registration-token-create", token=token, uses=uses, expires_ts=expires_ts)
    typer.echo(answer["token"])


@commands.command("list")
def list_tokens(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show all registration tokens."""
    for token in perform(config, "registration-token-list")["tokens"]:
        typer.echo(f"{token['token']}  {_uses(token)}{_end(token)}")


@commands.command()
def revoke(token: str, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let nobody in by a token any more."""
    perform(config, "registration-token-revoke", token=token)
    typer.echo(f"Revoked {token}.")


def _uses(token: dict[str, Any]) -> str:
    allowed = "any number of" if token["uses_allowed"] is None else token["uses_allowed"]
    return f"{token['completed']} of {allowed} uses"


def _end(token: dict[str, Any]) -> str:
    if token["expires_ts"] is None:
        return ""
    return f", until {datetime.fromtimestamp(token['expires_ts'] / 1000, UTC):%Y-%m-%d %H:%M} UTC"
