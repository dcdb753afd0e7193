"""`restante jobs`, with a server that waits for another, and after it has stopped."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.client import V3
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.restante import Restante


@pytest.fixture
def silent() -> Iterator[str]:
    """The name of a server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def shown(restante: Restante, server: ServerProcess, until: str) -> str:
    """What is shown, once it holds something."""
    deadline = time.monotonic() + 30
    while True:
        outcome = restante("jobs", f"--config={server.config_path}")
        assert outcome.status == 0
        if until in outcome.said or time.monotonic() > deadline:
            return outcome.said


def test_a_join_is_shown_goes_on_after_a_restart_and_waits_for_the_server(
    restante: Restante, tmp_path: Path, silent: str
) -> None:
    federation = {"allow_private_addresses": True}
    server = ServerProcess(tmp_path / "server", server_name="example.org", federation=federation)
    room = f"!room:{silent}"
    server.start()
    try:
        assert shown(restante, server, "") == ""
        alice = server.register("alice")

        def join() -> None:
            with contextlib.suppress(httpx.TransportError):
                httpx.post(f"{server.url}{V3}/join/{room}?via={silent}", headers=alice.headers, timeout=60)

        joining = threading.Thread(target=join)
        joining.start()
        line = f"join  @alice:example.org  {room}  asking; for 0:00:"
        said = shown(restante, server, line)
        assert said.startswith(line)
        assert said.endswith(f"; by way of {silent}\n")
        server.restart()
        joining.join()
        assert shown(restante, server, line).startswith(line)
        server.stop()
    finally:
        server.kill()
    said = shown(restante, server, "waiting")
    assert said.startswith(f"join  @alice:example.org  {room}  waiting; for 0:00:")
