"""Several processes on one PostgreSQL, which may go away and come back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.clock import Clock
from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.errors import DatabaseUnavailable
from homeserver.storage.postgres import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from homeserver.storage.database import Transaction
    from tests.postgresql import Cluster


class Process:
    """A database as one of several processes has it, and what it hears."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.heard: list[Announcement] = []
        self._changed = asyncio.Condition()
        database.on_commit = self._hear

    def _hear(self, position: int, announcements: Sequence[Announcement]) -> None:
        assert position > self.database.position
        self.heard.extend(announcements)
        self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def hears(self, count: int) -> list[Announcement]:
        """Wait until so many announcements were heard."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.heard) >= count)
        return self.heard

    async def hears_of(self, key: str) -> None:
        """Wait until this was announced."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: any(heard.key == key for heard in self.heard))

    async def announce(self, key: str) -> int:
        return await self.database.write(lambda t: announce(t, key))


async def announce(transaction: Transaction, key: str) -> int:
    transaction.announce(Topic.PROFILE, key)
    return await transaction.next_position()


async def open_process(url: str, clock: Clock | None = None) -> Process:
    return Process(await PostgresDatabase.open(url, "example.org", clock or Clock()))


@pytest.fixture
async def processes(postgresql_url: str) -> AsyncIterator[tuple[Process, Process]]:
    one, other = await open_process(postgresql_url), await open_process(postgresql_url)
    yield one, other
    await one.database.close()
    await other.database.close()


async def test_each_process_hears_everything_once_in_the_order_of_the_commits(
    processes: tuple[Process, Process],
) -> None:
    writes = [process.announce(f"{n}") for n in range(100) for process in processes]
    positions = await asyncio.gather(*writes)
    assert len(set(positions)) == 200
    one, other = [await process.hears(200) for process in processes]
    for heard in (one, other):
        assert [announcement.position for announcement in heard] == sorted(
            announcement.position for announcement in heard
        )
        assert len(heard) == 200
    assert [(a.position, a.key, a.local) for a in one] == [(a.position, a.key, not a.local) for a in other]


async def test_what_others_committed_is_heard_before_the_own_commit(
    processes: tuple[Process, Process],
) -> None:
    """Else a token would pass what others wrote."""
    one, other = processes
    for turn in range(30):
        theirs = await other.announce(f"theirs {turn}")
        await one.announce(f"ours {turn}")
        assert one.heard[-2] == Announcement(theirs, Topic.PROFILE, f"theirs {turn}", local=False)
        assert one.heard[-1].key == f"ours {turn}"


async def test_a_process_goes_on_when_postgresql_comes_back(
    postgresql: Cluster, processes: tuple[Process, Process]
) -> None:
    one, other = processes
    await one.announce("before")
    await other.hears(1)
    postgresql.restart()
    await until_it_answers(one)
    await until_it_answers(other)
    await one.announce("after")
    await other.hears_of("after")
    keys = [announcement.key for announcement in other.heard if announcement.key != "trying"]
    assert keys == ["before", "after"]


async def until_it_answers(process: Process) -> None:
    """A few questions may fail, all of them in the same way; then all is as before."""
    async with asyncio.timeout(30):
        while True:
            try:
                await process.database.fetch_value("SELECT 1")
                await process.announce("trying")
            except DatabaseUnavailable:
                continue
            return


async def test_a_write_that_postgresql_ends_fails_and_the_next_one_does_not(
    postgresql: Cluster, processes: tuple[Process, Process]
) -> None:
    one, other = processes

    async def work(transaction: Transaction) -> None:
        await announce(transaction, "never")
        pid = await transaction.fetch_value("SELECT pg_backend_pid()")
        await postgresql.execute(f"SELECT pg_terminate_backend({pid})")
        await transaction.fetch_value("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await one.database.write(work)
    await one.announce("later")
    assert [announcement.key for announcement in await other.hears(1)] == ["later"]


async def test_readers_whose_connections_were_ended_get_new_ones(
    postgresql: Cluster, processes: tuple[Process, Process]
) -> None:
    one, _ = processes
    pids = await asyncio.gather(*(one.database.fetch_value("SELECT pg_backend_pid()") for _ in range(4)))
    for pid in set(pids):
        await postgresql.execute(f"SELECT pg_terminate_backend({pid})")
    for _ in range(8):
        try:
            assert await one.database.fetch_value("SELECT 1") == 1
        except DatabaseUnavailable:
            continue
    assert await one.database.fetch_value("SELECT 1") == 1


class _LaterClock(Clock):
    """An hour and more after the others."""

    def now_ms(self) -> int:
        return super().now_ms() + 2 * 3_600_000


async def test_announcements_are_pruned_when_everybody_had_an_hour_to_hear_them(postgresql_url: str) -> None:
    one = await open_process(postgresql_url)
    for n in range(10):
        await one.announce(f"{n}")
    # Prunes as soon as it listens.
    later = await open_process(postgresql_url, _LaterClock())
    async with asyncio.timeout(30):
        while await one.database.fetch_value("SELECT count(*) FROM announcements"):
            continue
    await one.announce("new")
    assert [announcement.key for announcement in await later.hears(1)] == ["new"]
    await one.database.close()
    await later.database.close()


async def test_a_process_that_missed_what_was_pruned_says_so_and_writes_no_more(
    postgresql: Cluster, processes: tuple[Process, Process]
) -> None:
    one, other = processes
    await one.announce("heard")
    await other.hears(1)
    name = await one.database.fetch_value("SELECT current_database()")
    await postgresql.execute("UPDATE log_position SET pruned_upto = position", str(name))
    # As if it had stood still while the announcements went away.
    other.database.position = 0
    with pytest.raises(DatabaseUnavailable, match="must be restarted"):
        await other.announce("late")
    await one.announce("good")
