"""Who lets senders know that their messages have arrived: everybody, unless their account data says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.views.account_data import AccountDataReading

if TYPE_CHECKING:
    from homeserver.storage.account_data import AccountDataStore

DELIVERY_STATUS = "dev.restante.delivery_status"
"""`{"share": false}` switches it off."""


class DeliverySharing(AccountDataReading[bool]):
    """Whether users share it."""

    def __init__(self, account_data: AccountDataStore) -> None:
        super().__init__(account_data, DELIVERY_STATUS, lambda _, content: content.get("share") is not False)
