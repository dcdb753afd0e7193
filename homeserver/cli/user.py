"""`restante user`: accounts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from homeserver.cli.control import perform
from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption

commands = typer.Typer(help="Make accounts and look after them.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The user name: alice, or @alice:example.org.")
]


def _ask_password(given: str | None) -> str:
    if given is not None:
        return given
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--password",
        envvar="RESTANTE_PASSWORD",
        help="The password; asked for where it is left out.",
        show_default=False,
    ),
]


@commands.command()
def create(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    password: PasswordOption = None,
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an administrator.")] = False,
) -> None:
    """Make an account."""
    answer = perform(config, "user-create", name=name, password=_ask_password(password), admin=admin)
    typer.echo(f"Made the account {answer['user_id']}.")


@commands.command("list")
def list_users(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show all accounts."""
    for user in perform(config, "user-list")["users"]:
        made = datetime.fromtimestamp(user["created_ts"] / 1000, UTC).date()
        marks = [mark for mark in ("admin", "guest", "deactivated") if user[mark]]
        typer.echo(f"{user['user_id']}  {made}  {', '.join(marks)}".rstrip())


@commands.command("reset-password")
def reset_password(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    password: PasswordOption = None,
    logout: Annotated[bool, typer.Option(help="Log out all devices of the user.")] = True,
) -> None:
    """Give a user a new password."""
    answer = perform(
        config, "user-reset-password", name=name, password=_ask_password(password), logout=logout
    )
    typer.echo(f"{answer['user_id']} has a new password.")


@commands.command()
def deactivate(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
) -> None:
    """Close an account for good."""
    if not yes:
        typer.confirm(f"Close the account {name}? This cannot be undone", abort=True)
    answer = perform(config, "user-deactivate", name=name)
    typer.echo(f"Closed the account {answer['user_id']}.")


@commands.command("make-admin")
def make_admin(
    name: NameArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it back.")] = False,
) -> None:
    """Make a user an administrator."""
    answer = perform(config, "user-make-admin", name=name, admin=not revoke)
    typer.echo(f"{answer['user_id']} is {'no longer ' if revoke else ''}an administrator.")
