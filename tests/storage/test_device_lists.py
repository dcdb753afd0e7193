"""When devices changed is kept exactly for the newest changes, and for older ones so that none is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.device_lists import KEPT_CHANGES, DeviceListStore

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction

ALICE, BOB = UserId("@alice:example.org"), UserId("@bob:example.org")


async def change(database: Database, user_id: UserId, times: int = 1) -> list[int]:
    """Note changes, each in a commit of its own; the positions after them."""
    store = DeviceListStore(database)
    positions = []
    for _ in range(times):
        await database.write(lambda transaction: store.note_change(transaction, user_id))
        positions.append(database.position)
    return positions


async def changed(database: Database, after: int, upto: int) -> set[UserId]:
    return await DeviceListStore(database).load_changed([ALICE, BOB], after=after, upto=upto)


async def test_a_change_is_in_the_intervals_around_it_only(database: Database) -> None:
    (start,) = await change(database, ALICE)
    (position,) = await change(database, BOB)
    (end,) = await change(database, ALICE)
    assert await changed(database, start, position) == {BOB}
    assert await changed(database, position, end) == {ALICE}
    assert await changed(database, start, end) == {ALICE, BOB}
    assert await changed(database, end, end + 5) == set()


async def test_several_changes_in_one_commit_are_one_to_all_who_hear_of_it(database: Database) -> None:
    store = DeviceListStore(database)
    before = database.position

    async def work(transaction: Transaction) -> None:
        for _ in range(3):
            await store.note_change(transaction, ALICE)

    await database.write(work)
    assert await changed(database, before, database.position) == {ALICE}


async def test_rows_of_a_user_are_bounded_and_no_change_is_ever_missed(database: Database) -> None:
    start = database.position
    (of_bob,) = await change(database, BOB)
    positions = await change(database, ALICE, 3 * KEPT_CHANGES)
    rows = await database.fetch_value("SELECT count(*) FROM device_list_changes WHERE user_id = $1", ALICE)
    assert rows == KEPT_CHANGES
    before = [of_bob, *positions]
    for after, position in zip(before, positions, strict=False):
        assert ALICE in await changed(database, after, position)
    # The newest changes are told exactly, and what stands for the oldest ones begins with the first of them.
    assert await changed(database, positions[-1], positions[-1] + 10) == set()
    assert await changed(database, start, of_bob) == {BOB}
