"""Readers wait for no writer, and leave their connection as they found it."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction

COUNT = "SELECT count(*) FROM user_numbers"


async def put(transaction: Transaction) -> None:
    number = await transaction.next_position()
    await transaction.execute(
        "INSERT INTO user_numbers (user_nid, user_id) VALUES ($1, $2)", number, f"@{number}:example.org"
    )
    transaction.announce(Topic.PROFILE, "somebody")


async def test_reading_waits_for_no_writer(database: Database) -> None:
    written, read = asyncio.Event(), asyncio.Event()

    async def work(transaction: Transaction) -> None:
        await put(transaction)
        await transaction.flush()
        written.set()
        await read.wait()

    writing = asyncio.create_task(database.write(work))
    await written.wait()
    assert await database.fetch_value(COUNT) == 0
    read.set()
    await writing
    assert await database.fetch_value(COUNT) == 1


async def test_nobody_reads_what_was_true_long_ago_because_others_were_cancelled(database: Database) -> None:
    chance = random.Random(7)

    async def look() -> None:
        await database.fetch_value(COUNT)
        await database.fetch_value(COUNT)

    for _ in range(60):
        tasks = [asyncio.create_task(look()) for _ in range(8)]
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            await database.fetch_value("SELECT 1")
        for task in tasks:
            if chance.random() < 0.7:
                task.cancel()
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                    task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), (
            outcomes
        )
    await database.write(put)
    counts = await asyncio.gather(*(database.fetch_value(COUNT) for _ in range(20)))
    assert set(counts) == {1}


async def test_the_same_is_asked_for_many_arguments_at_once(database: Database) -> None:
    for _ in range(3):
        await database.write(put)
    numbers = [row[0] for row in await database.fetch_all("SELECT user_nid FROM user_numbers ORDER BY 1")]
    question = "SELECT user_nid FROM user_numbers WHERE user_nid >= $1 AND NOT (user_nid = ANY($2::bigint[])) ORDER BY 1"
    rows = [(numbers[1], []), (numbers[0], [numbers[1]]), (numbers[2] + 1, [])]
    found = [row[0] for row in await database.fetch_many(question, rows)]
    assert found == [numbers[1], numbers[2], numbers[0], numbers[2]]
    assert await database.fetch_many(question, []) == []
