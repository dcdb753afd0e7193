"""How an event is doing: stored, handed over to other servers, delivered to devices, read (docs/offline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden

if TYPE_CHECKING:
    from homeserver.ids import RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.handovers import Handovers
    from homeserver.services.history import History
    from homeserver.services.recipients import Recipients
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipStore
    from homeserver.views.delivery_sharing import DeliverySharing


class DeliveryStatus:
    """Answers the senders of events."""

    def __init__(
        self,
        history: History,
        rooms: RoomReader,
        memberships: MembershipStore,
        sharing: DeliverySharing,
        recipients: Recipients,
        handovers: Handovers,
    ) -> None:
        self._history = history
        self._rooms = rooms
        self._memberships = memberships
        self._sharing = sharing
        self._recipients = recipients
        self._handovers = handovers

    async def of(self, requester: Requester, room_id: RoomId, event_id: str) -> dict[str, Any]:
        """The status of an event, for its sender.

        Raises `NotFound` for an event that the requester may not see, `Forbidden` for one that somebody else has sent, in
        a room that has too many members or that the requester has left, and where all of this is switched off.
        """
        _, stored = await self._history.visible_event(requester, room_id, event_id)
        if stored.event.sender != requester.user_id:
            raise Forbidden("Only who has sent an event may ask how it is doing")
        if not self._sharing.is_on:
            raise Forbidden("This server does not tell how events are doing")
        own = await self._rooms.membership(room_id, requester.user_id)
        if own is None or own.membership != "join":
            raise Forbidden("You are not in this room")
        joined, _ = await self._memberships.count(stored.room_nid)
        if not self._sharing.allows_members(joined):
            raise Forbidden("The room has too many members to tell how events in it are doing")
        return {
            "event_id": stored.event.event_id,
            "stored": True,
            "users": await self._recipients.of(requester.user_id, stored),
            "servers": await self._handovers.of(stored),
        }
