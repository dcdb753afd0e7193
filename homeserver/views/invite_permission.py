"""Which invites users do not want to see: all of them (CS "Invite permission"), or those of people they ignore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.views.account_data import AccountDataReading

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.account_data import AccountDataStore
    from homeserver.storage.memberships import MembershipRow

INVITE_PERMISSION = "m.invite_permission_config"


class InvitesBlocked(AccountDataReading[bool]):
    """Whether users block all invites; any other value than `block` means that they do not."""

    def __init__(self, account_data: AccountDataStore) -> None:
        super().__init__(
            account_data, INVITE_PERMISSION, lambda _, content: content.get("default_action") == "block"
        )


@dataclass(frozen=True, slots=True)
class HiddenInvites:
    """Those of a user: such an invite is told as if it had not come."""

    are_all: bool
    ignored: frozenset[UserId]

    @property
    def may_be_any(self) -> bool:
        """Whether there is anything that a user is not shown."""
        return self.are_all or bool(self.ignored)

    def has(self, row: MembershipRow) -> bool:
        """Whether a membership is an invite that is not shown."""
        return row.membership == "invite" and (self.are_all or row.sender in self.ignored)
