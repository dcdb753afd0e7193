"""Options that several commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="RESTANTE_CONFIG", metavar="FILE", help="The configuration file."),
]
DEFAULT_CONFIG = Path("config.yaml")


def command_line() -> str:
    """How this program was called, to be shown in front of a command that people may type next."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_from_here(Path(sys.executable))} -m homeserver"
    return _from_here(called)


def _from_here(path: Path) -> str:
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)
