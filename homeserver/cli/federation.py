"""`restante federation`: other servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from federation.check import Finding, check_server
from federation.discovery import Discovery
from federation.resolver import DnsResolver
from federation.transport import Transport
from federation.well_known import WellKnownLookup
from homeserver.cli.control import is_served, perform
from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption
from homeserver.clock import Clock
from homeserver.config_file import load
from homeserver.errors import MatrixError
from homeserver.http.trust import federation_tls
from homeserver.storage import key_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from federation.resolver import Resolver
    from homeserver.config import FederationSettings

commands = typer.Typer(help="Look after other servers.", no_args_is_help=True, rich_markup_mode=None)

_UNREACHABLE = 1
_MARKS = {True: "good", False: "BAD", None: "note"}


@commands.callback()
def group() -> None:
    """Look after other servers."""


@commands.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The server name, as it stands in user ids.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say whether a server (this one too) can be reached by others: name, certificate, keys, version.

    Exit status 1 where it cannot.
    """
    settings = load(config)
    own_keys: list[SigningKey] = []
    if name == settings.server_name and settings.signing_key_path.exists():
        own_keys = key_file.load_or_make(settings.signing_key_path)
    findings = asyncio.run(_check(name, settings.federation, DnsResolver(), own_keys))
    if any(finding.is_good is False for finding in findings):
        typer.echo(f"{name} cannot be reached as it should.")
        raise typer.Exit(_UNREACHABLE)
    typer.echo(f"{name} can be reached.")


@commands.command()
def destinations(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    troubled: Annotated[
        bool, typer.Option("--troubled", help="Only those that fail, or did not take something.")
    ] = False,
) -> None:
    """Show the servers that this one sends to, whether something waits for them, and why."""
    for destination in perform(config, "federation-destinations")["destinations"]:
        if not troubled or destination["failures"] or destination["set_aside"]:
            typer.echo(f"{destination['server_name']}  {_state(destination)}")


@commands.command()
def retry(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The server name.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Try a server at once that failed, and for which something waits."""
    perform(config, "federation-retry", name=name)
    typer.echo(f"{name} is tried again.")


@commands.command("replace-key")
def replace_key(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Sign with a new key from now on; what the old one signed so far holds. For a server that is stopped."""
    settings = load(config)
    if is_served(settings):
        raise MatrixError(
            "The server runs: stop it first, since others would not believe what it signs with the old key"
        )
    new = key_file.replace(settings.signing_key_path, Clock().now_ms())
    typer.echo(f"From now on this server signs with {new.key_id}.")


def _state(destination: dict[str, Any]) -> str:
    parts = ["something waits" if destination["waits"] else "has everything"]
    if destination["failures"]:
        parts.append(f"fails since {_time(destination['failing_since_ts'])} ({destination['why']})")
        if destination["retry_ts"] is not None:
            parts.append(f"next try at {_time(destination['retry_ts'])}")
    elif destination["alive_ts"] is not None:
        parts.append(f"alive at {_time(destination['alive_ts'])}")
    if destination["set_aside"]:
        parts.append(f"{destination['set_aside']} not taken, the last {destination['last_set_aside']}")
    return "; ".join(parts)


def _time(ts: int) -> str:
    return f"{datetime.fromtimestamp(ts / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


async def _check(
    name: str, settings: FederationSettings, resolver: Resolver, own_keys: Sequence[SigningKey]
) -> list[Finding]:
    clock = Clock()
    transport = Transport(
        resolver, federation_tls(settings), allow_private_addresses=settings.allow_private_addresses
    )
    well_known = WellKnownLookup(transport, clock.monotonic)
    findings = []
    try:
        discovery = Discovery(well_known, resolver)
        async for finding in check_server(name, discovery, resolver, transport, clock.now_ms(), own_keys):
            findings.append(finding)
            typer.echo(f"{_MARKS[finding.is_good]:5} {finding.subject:12} {finding.text}")
    finally:
        await well_known.close()
        await transport.close()
    return findings
