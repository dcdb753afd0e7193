"""One writer that commits in groups: what fails is taken back alone, what is cancelled is whole, all are in order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Transaction


@pytest.fixture
async def things(database: Database) -> Database:
    """A database with a table to write into."""
    await database.write(
        lambda t: t.execute("CREATE TABLE things (name TEXT PRIMARY KEY, place BIGINT NOT NULL)")
    )
    return database


async def put(transaction: Transaction, name: str) -> int:
    place = await transaction.next_position()
    await transaction.execute_many("INSERT INTO things (name, place) VALUES ($1, $2)", [(name, place)])
    transaction.announce(Topic.PROFILE, name)
    return place


async def names(database: Database) -> list[str]:
    return [name for (name,) in await database.fetch_all("SELECT name FROM things ORDER BY place")]


async def test_works_are_committed_in_the_order_in_which_they_came(things: Database) -> None:
    wanted = [f"thing {number:03}" for number in range(300)]
    places = await asyncio.gather(*(things.write(lambda t, name=name: put(t, name)) for name in wanted))
    assert await names(things) == wanted
    assert places == sorted(places)


async def test_a_work_that_fails_is_taken_back_alone(things: Database) -> None:
    effects: list[str] = []
    heard: list[Announcement] = []
    things.on_commit = lambda _, announcements: heard.extend(announcements)

    async def work(transaction: Transaction, name: str, fails: bool) -> str:
        await put(transaction, name)
        transaction.after_commit(lambda: effects.append(name))
        if fails:
            raise ValueError(name)
        return name

    outcomes = await asyncio.gather(
        *(things.write(lambda t, n=n: work(t, f"thing {n}", n % 3 == 1)) for n in range(10)),
        return_exceptions=True,
    )
    good = [f"thing {n}" for n in range(10) if n % 3 != 1]
    assert [outcome for outcome in outcomes if not isinstance(outcome, ValueError)] == good
    assert [str(outcome) for outcome in outcomes if isinstance(outcome, ValueError)] == [
        "thing 1",
        "thing 4",
        "thing 7",
    ]
    assert await names(things) == good
    assert effects == good
    assert [announcement.key for announcement in heard] == good


async def test_a_work_that_the_database_refuses_is_taken_back_alone(things: Database) -> None:
    outcomes = await asyncio.gather(
        *(things.write(lambda t, n=n: put(t, n)) for n in ("one", "two", "one", "three")),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, False, True, False]
    assert await names(things) == ["one", "two", "three"]


async def test_a_work_whose_statement_was_put_off_fails_itself_and_no_other(things: Database) -> None:
    async def questions(transaction: Transaction) -> int | None:
        # The question runs what was put off before it.
        return await transaction.fetch_value("SELECT count(*) FROM things")

    await things.write(lambda t: put(t, "there"))
    outcomes = await asyncio.gather(
        things.write(lambda t: put(t, "there")), things.write(questions), return_exceptions=True
    )
    assert isinstance(outcomes[0], Exception)
    assert outcomes[1] == 1


async def test_a_position_is_told_when_everything_up_to_it_can_be_read(things: Database) -> None:
    seen: list[tuple[int, int]] = []
    reading: list[asyncio.Task[None]] = []

    async def read(position: int) -> None:
        count = await things.fetch_value("SELECT count(*) FROM things WHERE place <= $1", position)
        seen.append((position, count or 0))

    def hear(position: int, announcements: Sequence[Announcement]) -> None:
        assert things.position < position, "told before it is given out"
        assert all(announcement.position == position for announcement in announcements)
        reading.append(asyncio.create_task(read(position)))

    things.on_commit = hear
    for turn in range(20):
        await asyncio.gather(*(things.write(lambda t, n=f"{turn} {n}": put(t, n)) for n in range(5)))
    await asyncio.gather(*reading)
    places = [place for (place,) in await things.fetch_all("SELECT place FROM things")]
    assert things.position >= max(places)
    for position, count in seen:
        assert count == sum(place <= position for place in places)


async def test_the_effects_of_a_commit_come_before_its_announcements_and_both_before_the_answer(
    things: Database,
) -> None:
    order: list[str] = []
    things.on_commit = lambda _position, _announcements: order.append("announced")

    async def work(transaction: Transaction) -> None:
        await put(transaction, "thing")
        transaction.after_commit(lambda: order.append("effect"))

    await things.write(work)
    order.append("answer")
    assert order == ["effect", "announced", "answer"]


async def test_a_work_without_a_position_still_announces_with_one(things: Database) -> None:
    heard: list[Announcement] = []
    things.on_commit = lambda _, announcements: heard.extend(announcements)

    async def work(transaction: Transaction) -> None:
        transaction.announce(Topic.PROFILE, "somebody")

    before = things.position
    await things.write(work)
    assert heard == [Announcement(things.position, Topic.PROFILE, "somebody", local=True)]
    assert things.position > before


async def test_a_position_that_was_taken_back_announces_nothing(things: Database) -> None:
    heard: list[Announcement] = []
    things.on_commit = lambda _, announcements: heard.extend(announcements)

    async def work(transaction: Transaction) -> None:
        await put(transaction, "thing")
        raise ValueError

    with pytest.raises(ValueError):
        await things.write(work)
    assert heard == []
    assert await names(things) == []


async def test_callers_that_are_cancelled_leave_everything_whole(things: Database) -> None:
    """Each work writes two rows; whenever its caller goes away, both are there or neither is."""
    chance = random.Random(20)
    failed = 0

    async def work(transaction: Transaction, name: str) -> None:
        await put(transaction, f"{name} first")
        if chance.random() < 0.2:
            raise ValueError
        await transaction.fetch_value("SELECT count(*) FROM things")
        await put(transaction, f"{name} second")

    async def read() -> None:
        await things.fetch_all("SELECT count(*) FROM things")

    for turn in range(120):
        tasks = [asyncio.create_task(things.write(lambda t, n=f"{turn} {n}": work(t, n))) for n in range(4)]
        tasks += [asyncio.create_task(read()) for _ in range(4)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            # Gives the threads and the sockets a moment.
            await things.fetch_value("SELECT 1")
        for task in tasks:
            if chance.random() < 0.6:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failed += sum(isinstance(outcome, ValueError) for outcome in outcomes)
        assert all(
            outcome is None or isinstance(outcome, ValueError | asyncio.CancelledError)
            for outcome in outcomes
        ), outcomes
    assert failed
    # Works whose callers have gone may still be under way; whoever comes after them waits for them.
    await things.write(lambda t: put(t, "last"))
    rows = [name.rpartition(" ") for name in await names(things)]
    assert sorted(name for name, _, part in rows if part == "first") == sorted(
        name for name, _, part in rows if part == "second"
    )
    # Nobody's reading stands still.
    assert [await things.fetch_value("SELECT count(*) FROM things") for _ in range(10)] == [len(rows)] * 10


async def test_what_was_taken_in_is_committed_before_the_database_closes(
    things: Database,
) -> None:
    writes = [asyncio.create_task(things.write(lambda t, n=n: put(t, f"{n}"))) for n in range(600)]
    await asyncio.sleep(0)
    await things.close()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(place, int) for place in outcomes)
    with pytest.raises(DatabaseClosed):
        await things.write(lambda t: put(t, "late"))
    with pytest.raises(DatabaseClosed):
        await things.fetch_all("SELECT 1")
