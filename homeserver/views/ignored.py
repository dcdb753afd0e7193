"""The users that a user ignores (CS "Ignoring users"), from their account data."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import orjson

from homeserver.ids import UserId
from homeserver.storage.account_data import GLOBAL

if TYPE_CHECKING:
    from homeserver.storage.account_data import AccountDataStore

IGNORED_USER_LIST = "m.ignored_user_list"
_CACHED_USERS = 10_000


class IgnoredUsers:
    """Answers from memory; a change of the account data is noticed by its announcement."""

    def __init__(self, account_data: AccountDataStore) -> None:
        self._account_data = account_data
        self._ignored: OrderedDict[UserId, frozenset[UserId]] = OrderedDict()
        self._changes = 0

    async def of(self, user_id: UserId) -> frozenset[UserId]:
        """Whom a user ignores."""
        known = self._ignored.get(user_id)
        if known is not None:
            return known
        while True:
            changes = self._changes
            content = await self._account_data.get(user_id, GLOBAL, IGNORED_USER_LIST)
            if changes == self._changes:
                break
        # Nobody can ignore themselves: their own events would vanish.
        ignored = _read(content) - {user_id}
        self._ignored[user_id] = ignored
        if len(self._ignored) > _CACHED_USERS:
            self._ignored.popitem(last=False)
        return ignored

    def invalidate(self, user_id: UserId) -> None:
        """The account data of a user has changed."""
        self._changes += 1
        self._ignored.pop(user_id, None)


def _read(content: bytes | None) -> frozenset[UserId]:
    users = orjson.loads(content).get("ignored_users") if content is not None else None
    return frozenset(UserId(user_id) for user_id in users) if isinstance(users, dict) else frozenset()
