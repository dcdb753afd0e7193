"""What a piece of users' account data says, as it is read; answered from memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from homeserver.storage.account_data import GLOBAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from homeserver.ids import UserId
    from homeserver.storage.account_data import AccountDataStore

_CACHED_USERS = 10_000

T = TypeVar("T")


class AccountDataReading(Generic[T]):
    """Answers from memory; a change of the account data is noticed by its announcement."""

    def __init__(
        self, account_data: AccountDataStore, type_: str, read: Callable[[UserId, dict[str, Any]], T]
    ) -> None:
        """`read` is given the user and the content: an empty one, where there is none or it is no object."""
        self._account_data = account_data
        self._type = type_
        self._read = read
        self._known: OrderedDict[UserId, T] = OrderedDict()
        self._changes = 0

    async def of(self, user_id: UserId) -> T:
        """What the account data of a user says."""
        if user_id in self._known:
            return self._known[user_id]
        while True:
            changes = self._changes
            content = await self._account_data.get(user_id, GLOBAL, self._type)
            if changes == self._changes:
                break
        value: Any = orjson.loads(content) if content is not None else None
        said = self._known[user_id] = self._read(user_id, value if isinstance(value, dict) else {})
        if len(self._known) > _CACHED_USERS:
            self._known.popitem(last=False)
        return said

    def invalidate(self, user_id: UserId) -> None:
        """The account data of a user has changed."""
        self._changes += 1
        self._known.pop(user_id, None)
