"""The servers that are in a large room, all played by one program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.large_room import addresses, in_groups
from benchmarks.servers.process import Process

if TYPE_CHECKING:
    from collections.abc import Collection

    from benchmarks.large_room import LargeRoom
    from benchmarks.servers.authority import Authority

_REPOSITORY = Path(__file__).resolve().parent.parent.parent


class Resident(Process):
    """Lets others into the room; `partial` leaves its members out of what it tells them."""

    name = "Resident"
    versions = ""

    def __init__(
        self,
        directory: Path,
        cores: Collection[int],
        authority: Authority,
        room: LargeRoom,
        place: Path,
        *,
        partial: bool = False,
    ) -> None:
        super().__init__(directory, cores, authority)
        self.server_name = room.server_names[0]
        self.url = f"https://{self.server_name}"
        for number, group in enumerate(in_groups(addresses(len(room.server_names)))):
            certificates = directory / str(number)
            certificates.mkdir()
            authority.issue(certificates, *group)
        self._place = place
        self.partial = partial

    def command(self) -> list[str | Path]:
        return [
            "env",
            f"PYTHONPATH={_REPOSITORY}",
            sys.executable,
            "-m",
            "benchmarks.resident_server",
            self._place,
            self.directory,
            "partial" if self.partial else "whole",
        ]

    def databases(self) -> list[Path]:
        return []
