"""What suspended users may not do (CS "Account suspension"): whatever others see or are asked by.

They read and sync, keep their devices, keys and backups, send messages to devices (for verification), leave rooms and
reject invites, redact what they have sent themselves, log out, deactivate their account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden

if TYPE_CHECKING:
    from homeserver.services.requester import Requester


def check_not_suspended(requester: Requester) -> None:
    """Raise `M_USER_SUSPENDED` for a user who is suspended."""
    if requester.is_suspended:
        raise Forbidden("You cannot perform this action while suspended", errcode="M_USER_SUSPENDED")
