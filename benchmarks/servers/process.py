"""A server in a process of its own, on some of the cores, whose memory and database can be measured."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection

    from benchmarks.servers.authority import Authority

_START_SECONDS = 120
_STOP_SECONDS = 60
_LOOK_SECONDS = 0.01


class Memory(NamedTuple):
    """What a process holds in RAM, in bytes; in `proportional` what it shares counts in parts."""

    resident: int
    proportional: int


class Spent(NamedTuple):
    """The most memory that a process held, in bytes, and the seconds of computing that it took."""

    most_memory: int
    seconds: float


class Process:
    """A program that serves on `url` once it was started; its data are in a directory that is empty at first.

    With an authority it serves by HTTPS, under a name by which other servers find it.
    """

    name: str
    versions: str

    def __init__(self, directory: Path, cores: Collection[int], authority: Authority | None = None) -> None:
        self.directory = directory
        self.shared_secret: str | None = "a secret of the benchmark"
        self.port = free_port()
        self.authority = authority
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{self.port}"
        self.server_name = f"127.0.0.1:{self.port}" if authority else "localhost"
        if authority is not None:
            authority.issue(directory, "127.0.0.1")
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        """What is run in the directory."""
        raise NotImplementedError

    def databases(self) -> list[Path]:
        """The files of SQLite that hold all there is."""
        raise NotImplementedError

    def data(self) -> list[Path]:
        """The files and folders that hold all that a server of this kind knows."""
        raise NotImplementedError

    def start(self) -> float:
        """Start it; how many seconds it took until it answered."""
        started = time.perf_counter()
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        # Whatever it starts in turn stays there, too.
        os.sched_setaffinity(self._process.pid, self._cores)
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > started + _START_SECONDS:
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{(self.directory / 'output').read_text()}")
            time.sleep(_LOOK_SECONDS)
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop it as a system does; in the end by force."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def trust(self) -> ssl.SSLContext | None:
        """Whose certificates to believe; None for plain HTTP."""
        return None if self.authority is None else self.authority.trust

    def memory(self) -> Memory:
        """How much memory the process holds."""
        assert self._process is not None
        sizes = {}
        with open(f"/proc/{self._process.pid}/smaps_rollup") as lines:  # noqa: PTH123 - no file
            for line in lines:
                name, _, value = line.partition(":")
                if value.endswith(" kB\n"):
                    sizes[name] = 1024 * int(value.split()[0])
        return Memory(sizes["Rss"], sizes["Pss"])

    def forget_peak(self) -> None:
        """Count the most memory from now on."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def spent(self) -> Spent:
        """What the process has used: memory since `forget_peak`, computing since it was started."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        # The name of the program, in brackets, may hold anything.
        numbers = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(numbers[11]) + int(numbers[12])
        return Spent(1024 * int(peak.split()[1]), ticks / os.sysconf("SC_CLK_TCK"))

    def database_bytes(self) -> int:
        """How many bytes the pages of the database are that hold something, wherever they lie at the moment."""
        return sum(_bytes_in_use(file) for file in self.databases() if file.exists())

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.url}/_matrix/client/versions", timeout=10, context=self.trust
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def _bytes_in_use(database: Path) -> int:
    # The sizes of the files do not tell: pages go round in the write-ahead log before the main file grows.
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def free_port() -> int:
    while True:
        # Below those that the system gives to outgoing connections.
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
