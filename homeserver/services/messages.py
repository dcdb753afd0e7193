"""Sending events and setting state (CS "Sending events to a room")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import BadJson, Forbidden, MatrixError
from homeserver.ids import EventId, is_event_id
from homeserver.services.event_writer import NewEvent, TransactionReference
from homeserver.services.suspension import check_not_suspended
from homeserver.storage.transaction_ids import transaction_key

if TYPE_CHECKING:
    from homeserver.ids import RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.directory import Directory
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.membership import Membership
    from homeserver.services.relation_rules import RelationRules
    from homeserver.services.requester import Requester
    from homeserver.storage.transaction_ids import TransactionIdStore

_REDACTION = "m.room.redaction"
_GUEST_ACCESS = "m.room.guest_access"
_CANONICAL_ALIAS = "m.room.canonical_alias"


class Messages:
    """Brings what clients send into rooms."""

    def __init__(
        self,
        rooms: RoomReader,
        writer: EventWriter,
        membership: Membership,
        directory: Directory,
        relation_rules: RelationRules,
        transaction_ids: TransactionIdStore,
    ) -> None:
        self._rooms = rooms
        self._writer = writer
        self._membership = membership
        self._directory = directory
        self._relation_rules = relation_rules
        self._transaction_ids = transaction_ids

    async def send(
        self,
        requester: Requester,
        room_id: RoomId,
        event_type: str,
        content: dict[str, Any],
        transaction_id: str,
        *,
        origin_server_ts: int | None = None,
    ) -> EventId:
        """Send a message event; a repeated transaction id answers with the event that it made."""
        redacts = None
        if event_type == _REDACTION:
            redacts = _redacted(content)
            content = {name: value for name, value in content.items() if name != "redacts"}
        new = NewEvent(
            event_type, content, requester.user_id, redacts=redacts, origin_server_ts=origin_server_ts
        )
        endpoint = f"send {room_id} {event_type}"
        return await self._send(
            requester, room_id, new, TransactionReference(requester.device_id, endpoint, transaction_id)
        )

    async def redact(
        self,
        requester: Requester,
        room_id: RoomId,
        event_id: str,
        content: dict[str, Any],
        transaction_id: str,
    ) -> EventId:
        """Redact an event; the answer is the id of the redaction."""
        new = NewEvent(_REDACTION, content, requester.user_id, redacts=_redacted({"redacts": event_id}))
        endpoint = f"redact {room_id} {event_id}"
        return await self._send(
            requester, room_id, new, TransactionReference(requester.device_id, endpoint, transaction_id)
        )

    async def set_state(
        self, requester: Requester, room_id: RoomId, event_type: str, state_key: str, content: dict[str, Any]
    ) -> EventId:
        """Set an entry of the state; one that is so already is not set again."""
        if event_type == "m.room.member":
            return await self._membership.set(requester, room_id, state_key, content)
        check_not_suspended(requester)
        await self._check_in_room(requester, room_id)
        if event_type == _CANONICAL_ALIAS and state_key == "":
            known = await self._rooms.state_event(room_id, _CANONICAL_ALIAS)
            await self._directory.check_canonical(room_id, content, known.content if known else {})
        new = NewEvent(event_type, content, requester.user_id, state_key=state_key)
        event_id = await self._writer.write(room_id, new)
        if event_type == _GUEST_ACCESS:
            await self._membership.remove_guests(room_id)
        return event_id

    async def _send(
        self, requester: Requester, room_id: RoomId, new: NewEvent, transaction: TransactionReference
    ) -> EventId:
        try:
            await self._check_in_room(requester, room_id)
            if requester.is_suspended and not await self._is_own(requester, new.redacts):
                check_not_suspended(requester)
            if "m.relates_to" not in new.content:
                return await self._writer.write(room_id, new, transaction=transaction)
            async with self._relation_rules.checked(room_id, new.sender, new.type, new.content):
                return await self._writer.write(room_id, new, transaction=transaction)
        except MatrixError:
            # What is refused now may be the repetition of what was sent before, when it was allowed.
            key = transaction_key(
                new.sender, transaction.device_id, transaction.endpoint, transaction.transaction_id
            )
            sent = await self._transaction_ids.get(key)
            if sent is None:
                raise
            return sent

    async def _is_own(self, requester: Requester, event_id: EventId | None) -> bool:
        """Whether an event is one that the requester has sent."""
        stored = None if event_id is None else await self._rooms.event(event_id)
        return stored is not None and stored.event.sender == requester.user_id

    async def _check_in_room(self, requester: Requester, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")


def _redacted(content: dict[str, Any]) -> EventId:
    redacts = content.get("redacts")
    if not isinstance(redacts, str) or not is_event_id(redacts):
        raise BadJson("`redacts` is not an event id")
    return EventId(redacts)
