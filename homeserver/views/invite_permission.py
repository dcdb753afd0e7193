"""Who wants no invites (CS "Invite permission"), from their account data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.views.account_data import AccountDataReading

if TYPE_CHECKING:
    from homeserver.storage.account_data import AccountDataStore

INVITE_PERMISSION = "m.invite_permission_config"


class InvitesBlocked(AccountDataReading[bool]):
    """Whether users block all invites; any other value than `block` means that they do not."""

    def __init__(self, account_data: AccountDataStore) -> None:
        super().__init__(
            account_data, INVITE_PERMISSION, lambda _, content: content.get("default_action") == "block"
        )
