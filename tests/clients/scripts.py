"""Scripts that drive a foreign client against a running server, and fail by their exit status."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server_process import ServerProcess

_SECONDS = 600


def run_script(program: Path, script: Path, server: ServerProcess) -> None:
    """Run a script with the address of the server; it must end with status 0."""
    started = subprocess.Popen(
        [program, script, server.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = started.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        started.kill()
        output, _ = started.communicate()
        output += f"\nstopped after {_SECONDS} s"
    if started.returncode != 0:
        errors = "\n".join(server.logged_errors())
        raise AssertionError(
            f"{script.name} ended with status {started.returncode}:\n{output}\nErrors of the server:\n{errors}"
        )
