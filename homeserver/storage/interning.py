"""Users and state keys as small numbers, so that rows and indexes that name them stay small."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from homeserver.eventgraph.event import StateKey
    from homeserver.storage.database import Database, Reader, Transaction

T = TypeVar("T")

_CACHED = 100_000


class NumberStore:
    """The numbers of users and of state keys; a number, once given, never changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._users: OrderedDict[str, int] = OrderedDict()
        self._keys: OrderedDict[StateKey, int] = OrderedDict()
        # Keys that no room ever used, with where the log stood when that was asked: clients want the same ones again.
        self._unused_keys: OrderedDict[StateKey, int] = OrderedDict()
        self._given = 0

    async def number_users(self, transaction: Transaction, user_ids: Iterable[str]) -> dict[str, int]:
        """The numbers of these users, given now to those that have none."""
        numbers, missing = _split(self._users, user_ids)
        if missing:
            rows = await transaction.fetch_all(
                "SELECT user_id, user_nid FROM user_numbers WHERE user_id = ANY($1::text[])", list(missing)
            )
            found: dict[str, int] = dict(rows)
            new = [
                (await transaction.next_position(), user_id) for user_id in missing if user_id not in found
            ]
            if new:
                await transaction.execute_many(
                    "INSERT INTO user_numbers (user_nid, user_id) VALUES ($1, $2)", new
                )
            given = {**found, **{user_id: user_nid for user_nid, user_id in new}}
            # Not before: what was found may have been given in this transaction, which may yet be taken back.
            transaction.after_commit(lambda: _remember(self._users, given))
            numbers.update(given)
        return numbers

    async def number_keys(self, transaction: Transaction, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """The numbers of these state keys, given now to those that have none."""
        numbers, missing = _split(self._keys, keys)
        if missing:
            given = await _load_keys(transaction, missing)
            new = [(await transaction.next_position(), *key) for key in missing if key not in given]
            if new:
                await transaction.execute_many(
                    "INSERT INTO state_keys (key_nid, type, state_key) VALUES ($1, $2, $3)", new
                )
                given.update({(type_, state_key): key_nid for key_nid, type_, state_key in new})
            transaction.after_commit(lambda: self._use(given))
            numbers.update(given)
        return numbers

    def _use(self, keys: dict[StateKey, int]) -> None:
        self._given += 1
        _remember(self._keys, keys)
        for key in keys:
            self._unused_keys.pop(key, None)

    async def user_number(self, user_id: str) -> int | None:
        """The number of a user, if they ever had one."""
        known = self._users.get(user_id)
        if known is None:
            known = await self._database.fetch_value(
                "SELECT user_nid FROM user_numbers WHERE user_id = $1", user_id
            )
            if known is not None:
                _remember(self._users, {user_id: known})
        return known

    async def load_key_numbers(self, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """The numbers of those of these state keys that any room ever used."""
        numbers, missing = _split(self._keys, keys)
        asked = [key for key in missing if not self._is_unused(key)]
        if asked:
            given, position = self._given, self._database.position
            found = await _load_keys(self._database, asked)
            numbers.update(found)
            _remember(self._keys, found)
            if given == self._given:
                _remember(self._unused_keys, {key: position for key in asked if key not in found})
        return numbers

    async def key_number(self, key: StateKey) -> int | None:
        """The number of a state key, if any room ever used it."""
        return (await self.load_key_numbers([key])).get(key)

    def _is_unused(self, key: StateKey) -> bool:
        """Whether no room has used a key: other processes may have begun to, with every move of the log."""
        position = self._unused_keys.get(key)
        return position is not None and (position == self._database.position or not self._database.is_shared)


async def _load_keys(reader: Reader, keys: Collection[StateKey]) -> dict[StateKey, int]:
    # Every type with every state key: the few that were not asked for are dropped.
    rows = await reader.fetch_all(
        "SELECT type, state_key, key_nid FROM state_keys"
        " WHERE type = ANY($1::text[]) AND state_key = ANY($2::text[])",
        list({event_type for event_type, _ in keys}),
        list({state_key for _, state_key in keys}),
    )
    wanted = set(keys)
    return {
        (event_type, state_key): key_nid
        for event_type, state_key, key_nid in rows
        if (event_type, state_key) in wanted
    }


def _split(known: OrderedDict[T, int], wanted: Iterable[T]) -> tuple[dict[T, int], list[T]]:
    found: dict[T, int] = {}
    missing: dict[T, None] = {}
    for item in wanted:
        number = known.get(item)
        if number is None:
            missing[item] = None
        else:
            found[item] = number
    return found, list(missing)


def _remember(known: OrderedDict[T, int], numbers: dict[T, int]) -> None:
    known.update(numbers)
    while len(known) > _CACHED:
        known.popitem(last=False)
