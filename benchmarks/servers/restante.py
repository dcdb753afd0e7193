"""This server, as it is configured by default."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.servers.process import Process
from homeserver import __version__

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from benchmarks.servers.authority import Authority


class Restante(Process):
    """With SQLite and without rate limits."""

    name = "Restante"
    versions = f"{__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"

    def __init__(self, directory: Path, cores: Collection[int], authority: Authority | None = None) -> None:
        super().__init__(directory, cores, authority)
        listener: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        settings = {
            "server_name": self.server_name,
            "listeners": [listener],
            "registration": {"shared_secret": self.shared_secret},
            "rate_limits": {"enabled": False},
            "logging": {"level": "warning"},
        }
        if authority is not None:
            listener["tls"] = {"certificate": "cert.pem", "private_key": "key.pem"}
            settings["federation"] = {
                "trusted_ca": [str(authority.path)],
                "allow_private_addresses": True,
            }
        (directory / "config.yaml").write_text(json.dumps(settings))

    def command(self) -> list[str | Path]:
        return [sys.executable, "-m", "homeserver", "run", "--config", self.directory / "config.yaml"]

    def data(self) -> list[Path]:
        return [self.directory / "data"]

    def databases(self) -> list[Path]:
        return list(self.directory.glob("data/*.db"))
