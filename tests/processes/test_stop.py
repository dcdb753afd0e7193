"""A server that is told to stop answers those who wait, finishes what was begun, and ends in good order."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.client import V3, Refused, bodies
from tests.processes.devices import connected
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAITING = 100
STOP_SECONDS = 5.0
POLL_MS = 600_000


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, server_name="example.org", database={"url": database_url}) as running:
        yield running


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server, where the database makes no difference."""
    with ServerProcess(tmp_path) as running:
        yield running


async def waiting_syncs(client: Any, count: int) -> None:
    """Come back when so many long polls wait."""
    name = "restante_waiting_syncs"
    async with asyncio.timeout(60):
        while True:
            metrics = await client.http.get("/metrics")
            assert metrics.status_code == 200
            values = [line.split()[-1] for line in metrics.text.splitlines() if line.startswith(f"{name} ")]
            if values and float(values[0]) == count:
                return


async def stopped(server: ServerProcess) -> None:
    """Stop it; five seconds are enough, whatever goes on."""
    began = time.monotonic()
    await asyncio.to_thread(server.stop)
    assert time.monotonic() - began < STOP_SECONDS
    server.start()


async def test_waiting_syncs_are_answered_when_the_server_stops(server: ServerProcess) -> None:
    async with connected(server, server.register("alice")) as (alice,):
        since = (await alice.sync())["next_batch"]
        polls = [asyncio.create_task(alice.sync(since, timeout=POLL_MS)) for _ in range(WAITING)]
        await waiting_syncs(alice, WAITING)
        await stopped(server)
        answers = await asyncio.gather(*polls)
        # Each can go on from where it was.
        for answer in answers[:3]:
            assert await alice.sync(answer["next_batch"])


async def test_what_was_begun_is_finished_when_the_server_stops(server: ServerProcess) -> None:
    """Every message is either answered, and there after the restart, or refused, and sent again once."""
    async with connected(server, server.register("alice")) as (alice,):
        room_id = await alice.create_room()
        sending = [
            asyncio.create_task(alice.send(room_id, f"{number}", transaction_id=f"{number}"))
            for number in range(80)
        ]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        await stopped(server)
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            again = await alice.send(room_id, f"{number}", transaction_id=f"{number}")
            if isinstance(outcome, str):
                assert again == outcome
            else:
                assert isinstance(outcome, httpx.TransportError | Refused)
        sent = bodies((await alice.messages(room_id))["chunk"])
        assert sorted(sent) == sorted(f"{number}" for number in range(80))


async def test_a_client_that_sends_slowly_holds_nothing_up(on_sqlite: ServerProcess) -> None:
    account = on_sqlite.register("alice")
    _, writer = await asyncio.open_connection("127.0.0.1", on_sqlite.port)
    head = (
        f"PUT {V3}/user/{account.user_id}/account_data/org.example HTTP/1.1\r\n"
        f"Host: localhost\r\nAuthorization: Bearer {account.access_token}\r\nContent-Length: 1000\r\n\r\n{{"
    )
    writer.write(head.encode())
    await writer.drain()
    # The server has the request in its hands by the time it answers another one.
    async with connected(on_sqlite, account) as (alice,):
        await alice.sync()
        await stopped(on_sqlite)
    writer.close()


async def test_a_client_that_goes_away_ends_its_long_poll(on_sqlite: ServerProcess) -> None:
    async with connected(on_sqlite, on_sqlite.register("alice")) as (alice,):
        since = (await alice.sync())["next_batch"]
        for _ in range(3):
            polls = [asyncio.create_task(alice.sync(since, timeout=POLL_MS)) for _ in range(20)]
            await waiting_syncs(alice, 20)
            for poll in polls:
                poll.cancel()
            await waiting_syncs(alice, 0)
