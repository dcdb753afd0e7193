"""What was left out, kept as stretches, is the same as a set of positions."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.clock import Clock
from homeserver.ids import DeviceId, ServerName, UserId
from homeserver.storage.engines import open_database
from homeserver.storage.left_out import LeftOutStore
from homeserver.storage.room_stretch import RoomStretch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from homeserver.storage.database import Database, Transaction

    Run = Callable[[Awaitable[Any]], Any]

ALICE, PHONE, GONE = UserId("@alice:example.org"), DeviceId("PHONE"), DeviceId("GONE")
END = 24
_rooms = itertools.count(1, 2)

stretches = st.tuples(st.integers(0, 1), st.integers(-2, END), st.integers(1, 8))
deeds = st.lists(st.tuples(st.booleans(), st.lists(stretches, min_size=1, max_size=3)), max_size=12)


@pytest.fixture
def opened(database_url: str, tmp_path: Path) -> Iterator[tuple[Run, Database]]:
    async def begin() -> Database:
        database = await open_database(database_url, ServerName("example.org"), Clock(), directory=tmp_path)
        await database.write(
            lambda t: t.execute(
                "INSERT INTO devices (user_id, device_id, created_ts) VALUES ($1, $2, 0)", ALICE, PHONE
            )
        )
        return database

    with asyncio.Runner() as runner:
        database = runner.run(begin())
        yield runner.run, database  # type: ignore[misc]
        runner.run(database.close())


def test_stretches_are_a_set_of_positions(opened: tuple[Run, Database]) -> None:
    run, database = opened
    store = LeftOutStore(database)

    async def check(wanted: list[tuple[bool, list[tuple[int, int, int]]]]) -> None:
        first = next(_rooms)
        true: dict[int, set[int]] = {first: set(), first + 1: set()}

        async def work(transaction: Transaction) -> None:
            for is_added, places in wanted:
                parts = [RoomStretch(first + room, after, after + length) for room, after, length in places]
                if is_added:
                    await store.add(transaction, ALICE, PHONE, parts)
                    for one in parts:
                        true[one.room_nid] |= set(range(one.after + 1, one.upto + 1))
                else:
                    await store.subtract(transaction, ALICE, PHONE, parts[0])
                    true[parts[0].room_nid] -= set(range(parts[0].after + 1, parts[0].upto + 1))

        await database.write(work)
        ends = await store.load_ends(ALICE, PHONE)
        for room_nid, positions in true.items():
            kept = await store.load_of_device(ALICE, PHONE, [room_nid])
            held = [position for one in kept for position in range(one.after + 1, one.upto + 1)]
            assert sorted(held) == sorted(positions)
            # As few as can be: none touches another.
            assert not {one.after for one in kept} & {one.upto for one in kept}
            assert ends.get(room_nid) == max(positions, default=None)
        around = [p for p in range(-2, END + 9) if await store.load_around(first, [ALICE], p)]
        assert around == sorted(true[first])

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(wanted=deeds)
    def whatever_is_left_out_and_brought(wanted: list[tuple[bool, list[tuple[int, int, int]]]]) -> None:
        run(check(wanted))

    whatever_is_left_out_and_brought()


async def test_of_a_device_that_is_gone_nothing_is_kept(database: Database) -> None:
    store = LeftOutStore(database)
    await database.write(lambda t: store.add(t, ALICE, GONE, [RoomStretch(1, 0, 5)]))
    assert await store.load_ends(ALICE, GONE) == {}
