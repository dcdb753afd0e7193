"""This server, as it is configured by default."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
from typing import TYPE_CHECKING

from benchmarks.servers.process import Process
from homeserver import __version__

if TYPE_CHECKING:
    from pathlib import Path


class Restante(Process):
    """With SQLite and without rate limits."""

    name = "Restante"
    versions = f"{__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"

    def __init__(self, directory: Path, core: int) -> None:
        super().__init__(directory, core)
        settings = {
            "server_name": "localhost",
            "listeners": [{"host": "127.0.0.1", "port": self.port}],
            "registration": {"shared_secret": self.shared_secret},
            "rate_limits": {"enabled": False},
            "logging": {"level": "warning"},
        }
        (directory / "config.yaml").write_text(json.dumps(settings))

    def command(self) -> list[str | Path]:
        return [sys.executable, "-m", "homeserver", "run", "--config", self.directory / "config.yaml"]

    def databases(self) -> list[Path]:
        return list(self.directory.glob("data/*.db"))
