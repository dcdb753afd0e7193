"""Synapse, from the Python Package Index, in one process."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from benchmarks.servers.process import Process
from tests.clients.environment import synapse_python

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from benchmarks.servers.authority import Authority

_UNLIMITED = {"per_second": 1_000_000, "burst_count": 1_000_000}
_VERSIONS = (
    "import importlib.metadata, platform, sqlite3;"
    "print(importlib.metadata.version('matrix-synapse') + ', Python', platform.python_version() + ', SQLite',"
    " sqlite3.sqlite_version)"
)


class Synapse(Process):
    """With SQLite, without rate limits and workers; all else as it is by default."""

    name = "Synapse"

    def __init__(self, directory: Path, cores: Collection[int], authority: Authority | None = None) -> None:
        super().__init__(directory, cores, authority)
        self._python = synapse_python()
        self.versions = self._run("-c", _VERSIONS).strip()
        self._config = directory / "homeserver.yaml"
        logging = directory / "logging.json"
        logging.write_text(
            json.dumps(
                {
                    "version": 1,
                    "handlers": {"console": {"class": "logging.StreamHandler"}},
                    "root": {"level": "WARNING", "handlers": ["console"]},
                    "disable_existing_loggers": False,
                }
            )
        )
        resource = {"names": ["client", "federation"] if authority else ["client"], "compress": False}
        settings = {
            "server_name": self.server_name,
            "listeners": [
                {
                    "port": self.port,
                    "bind_addresses": ["127.0.0.1"],
                    "type": "http",
                    "tls": authority is not None,
                    "resources": [resource],
                }
            ],
            "database": {"name": "sqlite3", "args": {"database": str(self._database)}},
            "log_config": str(logging),
            "pid_file": str(directory / "homeserver.pid"),
            "media_store_path": str(directory / "media"),
            "signing_key_path": str(directory / "signing.key"),
            "registration_shared_secret": self.shared_secret,
            "report_stats": False,
            "trusted_key_servers": [],
            "rc_message": _UNLIMITED,
            "rc_registration": _UNLIMITED,
            "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _UNLIMITED),
            "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
            "rc_joins_per_room": _UNLIMITED,
            "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _UNLIMITED),
            "rc_room_creation": _UNLIMITED,
            "rc_presence": {"per_user": _UNLIMITED},
            "rc_federation": {"sleep_limit": 1_000_000, "reject_limit": 1_000_000, "concurrent": 1_000_000},
        }
        if authority is not None:
            settings |= {
                "tls_certificate_path": str(directory / "cert.pem"),
                "tls_private_key_path": str(directory / "key.pem"),
                "federation_custom_ca_list": [str(authority.path)],
                "ip_range_blacklist": [],
                "federation_ip_range_blacklist": [],
            }
        self._config.write_text(json.dumps(settings))
        self._run("-m", "synapse.app.homeserver", "--config-path", self._config, "--generate-keys")

    @property
    def _database(self) -> Path:
        return self.directory / "homeserver.db"

    def command(self) -> list[str | Path]:
        return [self._python, "-m", "synapse.app.homeserver", "--config-path", self._config]

    def data(self) -> list[Path]:
        return [self._database, self.directory / "signing.key"]

    def databases(self) -> list[Path]:
        return [self._database]

    def _run(self, *arguments: str | Path) -> str:
        return subprocess.run(
            [self._python, *arguments], check=True, cwd=self.directory, capture_output=True, text=True
        ).stdout
