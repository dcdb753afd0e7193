"""The command line, called inside the test's own process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

from homeserver.cli.program import main

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    status: int
    said: str
    complained: str


class Restante:
    """Runs commands."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self._capsys.readouterr()
        status: object = 0
        with mock.patch.object(sys, "argv", ["restante", *arguments]):
            try:
                main()
            except SystemExit as exit_:
                status = exit_.code or 0
        assert isinstance(status, int)
        said, complained = self._capsys.readouterr()
        assert "Traceback" not in complained
        return Outcome(status, said, complained)

    def refuses(self, *arguments: str, status: int) -> str:
        """The one line that a command is refused with."""
        outcome = self(*arguments)
        assert (outcome.status, outcome.said) == (status, "")
        assert outcome.complained.startswith("restante: ")
        (line,) = outcome.complained.splitlines()
        return line
