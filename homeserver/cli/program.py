"""The commands, and what becomes of their errors: one line, and exit status 2 where the program cannot start."""

from __future__ import annotations

import sys

import typer

from homeserver import __version__
from homeserver.cli import federation, registration_token, user
from homeserver.cli.check_config import check_config
from homeserver.cli.init import init
from homeserver.cli.jobs import jobs
from homeserver.cli.run import run
from homeserver.errors import MatrixError, StartupError

_REFUSED = 1
_CANNOT_START = 2
_INTERRUPTED = 130

program = typer.Typer(
    help="A Matrix homeserver that keeps what was sent to you until every one of your devices has it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
program.command()(init)
program.command()(run)
program.command("check-config")(check_config)
program.command()(jobs)
program.add_typer(user.commands, name="user")
program.add_typer(federation.commands, name="federation")
program.add_typer(registration_token.commands, name="registration-token")


@program.command()
def version() -> None:
    """Say which version this is."""
    typer.echo(f"restante {__version__}")


def main() -> None:
    """Run a command. Exit status 1: it was refused; 2: the program cannot start as it is set up."""
    try:
        program(prog_name="restante")
    except StartupError as error:
        typer.echo(f"restante: {error}", err=True)
        sys.exit(_CANNOT_START)
    except MatrixError as error:
        typer.echo(f"restante: {error.message}", err=True)
        sys.exit(_REFUSED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
