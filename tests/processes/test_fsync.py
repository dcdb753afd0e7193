"""A kill does not empty the memory of the machine, a power cut does: what was answered is on the disk by then."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.processes.devices import connected
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = 50


@pytest.fixture
def strace() -> str:
    """The program that tells of system calls."""
    program = shutil.which("strace")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed")
    return program


def synced(trace: Path) -> int:
    """How often something was brought to the disk."""
    return sum(
        ("fsync(" in line or "fdatasync(" in line) and "resumed" not in line
        for line in trace.read_text().splitlines()
    )


async def test_every_message_is_on_the_disk_before_it_is_answered(strace: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    # -D: the server is our own child, and strace looks on from the side.
    under = [strace, "-D", "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
    with ServerProcess(tmp_path, under=under) as server:
        async with connected(server, server.register("alice")) as (alice,):
            room_id = await alice.create_room()
            for number in range(MESSAGES):
                before = synced(trace)
                await alice.send(room_id, f"message {number}")
                assert synced(trace) > before, f"message {number} was answered before it was written"


async def test_every_file_is_on_the_disk_before_its_upload_is_answered(strace: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    under = [strace, "-D", "-f", "-y", "-e", "trace=fsync", "-o", str(trace)]
    with ServerProcess(tmp_path, under=under) as server:
        headers = server.register("alice").headers
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http:
            for number in range(3):
                before = trace.read_text()
                answer = await http.post("/_matrix/media/v3/upload", content=b"%d" % number)
                assert answer.status_code == 200
                since = trace.read_text().removeprefix(before)
                # The file, and the directory in which it has its name.
                assert "/media/incoming/" in since
                assert re.search(r"/media/[a-z]{2}>\)", since)
