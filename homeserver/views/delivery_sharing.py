"""Who lets senders know that their messages have arrived: everybody, unless their account data says otherwise."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.storage.account_data import GLOBAL

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.account_data import AccountDataStore

DELIVERY_STATUS = "dev.restante.delivery_status"
"""`{"share": false}` switches it off."""
_CACHED_USERS = 10_000


class DeliverySharing:
    """Answers from memory; a change of the account data is noticed by its announcement."""

    def __init__(self, account_data: AccountDataStore) -> None:
        self._account_data = account_data
        self._shares: OrderedDict[UserId, bool] = OrderedDict()
        self._changes = 0

    async def of(self, user_id: UserId) -> bool:
        """Whether a user shares it."""
        known = self._shares.get(user_id)
        if known is not None:
            return known
        while True:
            changes = self._changes
            content = await self._account_data.get(user_id, GLOBAL, DELIVERY_STATUS)
            if changes == self._changes:
                break
        value: Any = orjson.loads(content) if content is not None else None
        shares = not (isinstance(value, dict) and value.get("share") is False)
        self._shares[user_id] = shares
        if len(self._shares) > _CACHED_USERS:
            self._shares.popitem(last=False)
        return shares

    def invalidate(self, user_id: UserId) -> None:
        """The account data of a user has changed."""
        self._changes += 1
        self._shares.pop(user_id, None)
