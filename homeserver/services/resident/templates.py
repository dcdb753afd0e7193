"""Member events for users of other servers, to be filled in and signed there (SS "Joining Rooms", "Knocking", "Leaving")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, MatrixError
from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.services.event_writer import NewEvent

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.ids import RoomId, ServerName
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.resident.access import ResidentAccess
    from homeserver.services.resident.join_conditions import JoinConditions

_NOT_IN_TEMPLATE = ("hashes", "signatures", "event_id")


class Templates:
    """Builds what the other server is to sign."""

    def __init__(
        self,
        server_name: ServerName,
        access: ResidentAccess,
        writer: EventWriter,
        conditions: JoinConditions,
    ) -> None:
        self._server_name = server_name
        self._access = access
        self._writer = writer
        self._conditions = conditions

    async def member_event(
        self,
        origin: ServerName,
        room_id: RoomId,
        user_id: str,
        membership: str,
        versions: Collection[str] | None,
    ) -> dict[str, Any]:
        """The answer of `make_join`, `make_knock` and `make_leave`, with the room's version in it.

        `versions` are those that the other server knows; None where that does not matter. Raises `NotFound`,
        `Forbidden`, and `MatrixError` with the codes of SS "Restricted rooms" and `M_INCOMPATIBLE_ROOM_VERSION`.
        """
        if not is_user_id(user_id) or server_name_of(user_id) != origin:
            raise Forbidden("This is not a user of your server")
        room = await self._access.room(origin, room_id)
        if versions is not None and room.version.identifier not in versions:
            raise MatrixError(
                "Your server does not support the version of this room",
                errcode="M_INCOMPATIBLE_ROOM_VERSION",
                room_version=room.version.identifier,
            )
        content: dict[str, Any] = {"membership": membership}
        if membership == "join":
            authoriser = await self._conditions.authoriser(room, UserId(user_id))
            if authoriser is not None:
                content["join_authorised_via_users_server"] = authoriser
        new = NewEvent("m.room.member", content, UserId(user_id), state_key=user_id)
        event = await self._writer.draft(room_id, new)
        template = {name: value for name, value in event.pdu.items() if name not in _NOT_IN_TEMPLATE}
        return {
            "room_version": room.version.identifier,
            "event": {**template, "origin": self._server_name},
        }
