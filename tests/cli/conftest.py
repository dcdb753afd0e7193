"""A configuration, and the command line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.cli.restante import Restante

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def restante(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Restante]:
    """The command line, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield Restante(capsys)
    # `run` sets up the logs of the whole process.
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file `config.yaml` in the current directory."""
    path = tmp_path / "config.yaml"
    path.write_text("server_name: example.org\npasswords: {hash_cost: minimum}\n")
    return path
