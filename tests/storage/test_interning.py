"""Users and state keys have numbers: the same for ever, and never one that was taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.storage.interning import NumberStore

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction

KEY = ("m.room.member", "@alice:example.org")
USER = "@alice:example.org"


@pytest.fixture
def numbers(database: Database) -> NumberStore:
    return NumberStore(database)


async def number(numbers: NumberStore, transaction: Transaction) -> tuple[int, int]:
    users = await numbers.number_users(transaction, [USER])
    keys = await numbers.number_keys(transaction, [KEY])
    return users[USER], keys[KEY]


async def test_numbers_are_given_once(database: Database, numbers: NumberStore) -> None:
    first = await database.write(lambda t: number(numbers, t))
    assert await database.write(lambda t: number(numbers, t)) == first
    assert await database.write(lambda t: number(NumberStore(database), t)) == first
    assert (await numbers.user_number(USER), await numbers.key_number(KEY)) == first


async def test_a_number_that_was_taken_back_is_not_remembered(
    database: Database, numbers: NumberStore
) -> None:
    async def fails(transaction: Transaction) -> None:
        await number(numbers, transaction)
        # Now they are found in the transaction, and yet are not there to stay.
        await number(numbers, transaction)
        raise ValueError

    async def later(transaction: Transaction) -> tuple[int, int]:
        await transaction.next_position()
        return await number(numbers, transaction)

    with pytest.raises(ValueError):
        await database.write(fails)
    given = await database.write(later)
    assert given == (
        await database.fetch_value("SELECT user_nid FROM user_numbers WHERE user_id = $1", USER),
        await database.fetch_value("SELECT key_nid FROM state_keys WHERE type = $1 AND state_key = $2", *KEY),
    )


async def test_what_no_room_used_is_found_once_one_does(database: Database, numbers: NumberStore) -> None:
    assert await numbers.key_number(KEY) is None
    given = await database.write(lambda t: numbers.number_keys(t, [KEY]))
    assert await numbers.key_number(KEY) == given[KEY]


async def test_a_number_that_is_given_while_one_asks_for_it_is_found(
    database: Database, numbers: NumberStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = database.fetch_all

    async def ask(sql: str, *arguments: object) -> list[tuple[object, ...]]:
        rows = await asked(sql, *arguments)
        await database.write(lambda t: numbers.number_keys(t, [KEY]))
        return rows

    monkeypatch.setattr(database, "fetch_all", ask)
    assert await numbers.key_number(KEY) is None
    monkeypatch.undo()
    assert await numbers.key_number(KEY) is not None


async def test_what_no_room_used_is_not_asked_for_again(
    database: Database, numbers: NumberStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await numbers.load_key_numbers([KEY]) == {}

    async def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(database, "fetch_all", refuse)
    assert await numbers.load_key_numbers([KEY]) == {}


async def test_what_another_process_begins_to_use_is_found(database: Database, numbers: NumberStore) -> None:
    if not database.is_shared:
        pytest.skip("SQLite has one process")
    assert await numbers.key_number(KEY) is None
    given = await database.write(lambda t: NumberStore(database).number_keys(t, [KEY]))
    assert await numbers.key_number(KEY) == given[KEY]
