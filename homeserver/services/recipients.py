"""How far an event has come with those that it is for: delivered, decrypted, read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.ids import server_name_of
from homeserver.storage.receipts import PUBLIC
from homeserver.views.unread import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import ServerName, UserId
    from homeserver.services.delivered_devices import DeliveredDevices
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.delivery_sharing import DeliverySharing
    from homeserver.views.visibility import HistoryVisibility


class Recipients:
    """Says so of the members of its room who share it."""

    def __init__(
        self,
        server_name: ServerName,
        memberships: MembershipStore,
        visibility: HistoryVisibility,
        sharing: DeliverySharing,
        devices: DeliveredDevices,
        receipts: ReceiptStore,
        news: DeliveryNewsStore,
    ) -> None:
        self._server_name = server_name
        self._memberships = memberships
        self._visibility = visibility
        self._sharing = sharing
        self._devices = devices
        self._receipts = receipts
        self._news = news

    async def of(self, sender: UserId, stored: StoredEvent) -> dict[UserId, Any]:
        """Those of an event of this sender, who is not among them."""
        rows = await self._memberships.load_in_room(stored.room_nid, ("join",))
        recipients = {}
        for row in rows:
            if row.user_id != sender and await self._sharing.of(row.user_id):
                recipients[row.user_id] = row
        decrypted = await self._news.load_decrypted(sender, stored.room_id, stored.event.event_id)
        local = {
            user_id: row
            for user_id, row in recipients.items()
            if server_name_of(user_id) == self._server_name
            and await self._visibility.visible(user_id, [stored])
        }
        delivered = await self._devices.of(local, stored)
        receipts = await self._receipts.load_of_users(stored.room_id, recipients)
        users: dict[UserId, Any] = {}
        for user_id in recipients:
            status: dict[str, Any] = {}
            if user_id in delivered:
                status["delivery"] = delivered[user_id]
            read_ts = _read_at(receipts.get(user_id, ()), stored)
            if read_ts is not None:
                status["read"] = {"ts": read_ts}
            if user_id in decrypted:
                status["decrypted"] = {"ts": decrypted[user_id]}
            if status:
                users[user_id] = status
        return users


def _read_at(receipts: Iterable[ReceiptRow], stored: StoredEvent) -> int | None:
    """When the user of these receipts has read an event, as far as they let others know."""
    threads = {"", stored.thread_root or MAIN}
    times = [
        receipt.ts
        for receipt in receipts
        if receipt.receipt_type == PUBLIC and receipt.thread_id in threads and receipt.point >= stored.point
    ]
    return min(times, default=None)
