"""A PostgreSQL of the tests' own: made in a temporary folder, without durability, gone when they end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

_USER = "restante"
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    # Text is to be ordered alike on both engines whatever this says.
    "lc_messages": "C",
}


def find_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest where there are several; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    in_path = shutil.which("initdb")
    return Path(in_path).resolve().parent if in_path else None


class Cluster:
    """A running PostgreSQL, reached through a Unix socket."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="restante-"))
        # PostgreSQL refuses to be run by root.
        self._account = _unprivileged_account() if os.geteuid() == 0 else None
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)

    def start(self) -> None:
        """Make the cluster, and come back when it takes connections."""
        self._run(
            "initdb",
            "--no-sync",
            "--auth=trust",
            f"--username={_USER}",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        )
        options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in _SETTINGS.items())
        log = f"--log={self._folder / 'log'}"
        self._run("pg_ctl", log, "--silent", "--wait", f"--options=-k {self._folder} {options}", "start")

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        self._run("pg_ctl", "--silent", "--mode=immediate", "stop")
        shutil.rmtree(self._folder)

    def restart(self) -> None:
        """End it as a crash does, and start it again."""
        self._run(
            "pg_ctl", "--silent", "--wait", "--mode=immediate", f"--log={self._folder / 'log'}", "restart"
        )

    @property
    def folder(self) -> Path:
        """Where all of it is, the log too."""
        return self._folder

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://{_USER}@/{name}?host={self._folder}"

    async def create_database(self, template: str | None = None) -> str:
        """A new database, empty or like another one; the answer is its name."""
        name = f"test_{secrets.token_hex(8)}"
        sql = f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}"
        try:
            # Without durability four times as fast as by way of the log.
            await self.execute(f"{sql} STRATEGY FILE_COPY")
        except asyncpg.PostgresSyntaxError:
            # Older than version 15.
            await self.execute(sql)
        return name

    async def drop_database(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def execute(self, sql: str, name: str = "postgres") -> None:
        """Run a statement, on the side."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.url(name))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def _run(self, program: str, *arguments: str) -> None:
        as_account: dict[str, Any] = {}
        if self._account is not None:
            as_account = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        subprocess.run(
            [self._programs / program, "--pgdata", self._folder / "data", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            **as_account,
        )


def _unprivileged_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    message = "neither the user postgres nor nobody exists, and PostgreSQL refuses to be run by root"
    raise RuntimeError(message)
