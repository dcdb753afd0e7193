"""The users that a user ignores (CS "Ignoring users"), from their account data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.ids import UserId
from homeserver.views.account_data import AccountDataReading

if TYPE_CHECKING:
    from homeserver.storage.account_data import AccountDataStore

IGNORED_USER_LIST = "m.ignored_user_list"


class IgnoredUsers(AccountDataReading[frozenset[UserId]]):
    """Whom users ignore."""

    def __init__(self, account_data: AccountDataStore) -> None:
        super().__init__(account_data, IGNORED_USER_LIST, _ignored_by)


def _ignored_by(user_id: UserId, content: dict[str, Any]) -> frozenset[UserId]:
    users = content.get("ignored_users")
    # Nobody can ignore themselves: their own events would vanish.
    return frozenset(map(UserId, users)) - {user_id} if isinstance(users, dict) else frozenset()
