"""Reading the state of a room: all of it, one entry, its members (CS "Getting events for a room")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    import orjson

    from homeserver.ids import RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.history import History
    from homeserver.services.requester import Requester
    from homeserver.services.room_access import RoomAccess, RoomAccessRules
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.client_events import ClientEvents

_MEMBER = "m.room.member"


class RoomState:
    """Reads states: members get the room as it is, former members as it was when they went."""

    def __init__(
        self, rooms: RoomReader, access: RoomAccessRules, history: History, client_events: ClientEvents
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._history = history
        self._client_events = client_events

    async def all(self, requester: Requester, room_id: RoomId) -> list[orjson.Fragment]:
        """The whole state."""
        access = await self._access.check(requester.user_id, room_id)
        if access.upto is None:
            stored = await self._rooms.stored_state(room_id)
        else:
            stored = await self._rooms.stored_state_at(await self._rooms.snapshot_at(room_id, access.upto))
        return await self._client_events.render(stored, requester, aggregate=False)

    async def entry(
        self, requester: Requester, room_id: RoomId, event_type: str, state_key: str
    ) -> StoredEvent:
        """One entry of the state; `NotFound` where it is not set."""
        access = await self._access.check(requester.user_id, room_id)
        found: StoredEvent | None = None
        if access.upto is None:
            event = await self._rooms.state_event(room_id, event_type, state_key)
            found = await self._rooms.event(event.event_id) if event is not None else None
        else:
            snapshot_nid = await self._rooms.snapshot_at(room_id, access.upto)
            entries = await self._rooms.stored_entries_at(snapshot_nid, [(event_type, state_key)])
            found = entries[0] if entries else None
        if found is None:
            raise NotFound("There is no such state")
        return found

    async def members(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        at: str | None,
        membership: str | None,
        not_membership: str | None,
    ) -> list[orjson.Fragment]:
        """The member events of a room, now or at a token.

        "When specified alongside not_membership, the two parameters create an 'or' condition."
        """
        access = await self._access.check(requester.user_id, room_id)
        stored = await self._members(access, at)
        if membership is not None or not_membership is not None:
            stored = [
                one
                for one in stored
                if (membership is not None and one.event.membership == membership)
                or (not_membership is not None and one.event.membership != not_membership)
            ]
        return await self._client_events.render(stored, requester, aggregate=False)

    async def joined_members(self, requester: Requester, room_id: RoomId) -> dict[str, dict[str, Any]]:
        """The joined members with their names and avatars. "The current user must be in the room.\""""
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        return {
            one.event.state_key or "": _profile(one.event.content)
            for one in await self._rooms.stored_state_of_type(room_id, _MEMBER)
            if one.event.membership == "join"
        }

    async def _members(self, access: RoomAccess, at: str | None) -> Sequence[StoredEvent]:
        if at is not None:
            snapshot_nid = await self._history.snapshot_at_token(access, at)
        elif access.upto is not None:
            snapshot_nid = await self._rooms.snapshot_at(access.room_id, access.upto)
        else:
            return await self._rooms.stored_state_of_type(access.room_id, _MEMBER)
        return await self._rooms.stored_state_of_type_at(snapshot_nid, _MEMBER)


def _profile(content: dict[str, Any]) -> dict[str, Any]:
    profile = {}
    for field, name in (("display_name", "displayname"), ("avatar_url", "avatar_url")):
        if isinstance(content.get(name), str):
            profile[field] = content[name]
    return profile
