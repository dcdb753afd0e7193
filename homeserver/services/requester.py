"""Who asks: the one type that stands for the sender of a request in every service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.ids import DeviceId, UserId


@dataclass(frozen=True, slots=True)
class Requester:
    """A user on a device; or an application service, for itself or for one of its users."""

    user_id: UserId
    device_id: DeviceId | None
    access_token_id: int | None
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    appservice_id: str | None = None
