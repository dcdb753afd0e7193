"""New rooms and upgrades (CS "Creation", "Room Upgrades")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from homeserver.api.client.third_party_addresses import ThirdPartyAddressBody  # noqa: TC001 - a model is made of it
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId
from homeserver.services.room_creation import InitialState, RoomOptions

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class StateEventBody(Body):
    """An event of `initial_state`."""

    type: str
    state_key: str = ""
    content: dict[str, Any]


class CreateRoomBody(Body):
    """The body of `POST /createRoom`."""

    visibility: Literal["public", "private"] = "private"
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] = []
    invite_3pid: list[ThirdPartyAddressBody] = []
    room_version: str | None = None
    creation_content: dict[str, Any] = {}
    initial_state: list[StateEventBody] = []
    preset: str | None = None
    is_direct: bool = False
    power_level_content_override: dict[str, Any] = {}


class UpgradeBody(Body):
    """The body of `POST /rooms/{roomId}/upgrade`."""

    new_version: str
    additional_creators: list[str] = []


class RoomCreationEndpoints:
    """Rooms that come to be."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("POST", "/createRoom", self.create),
            *client("POST", "/rooms/{roomId}/upgrade", self.upgrade),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /createRoom`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(CreateRoomBody, allow_empty=True)
        self._context.rate_limits.check("room_creation", requester.user_id)
        if body.invite or body.invite_3pid:
            invites = len(body.invite) + len(body.invite_3pid)
            self._context.rate_limits.check("invites", requester.user_id, invites)
        options = RoomOptions(
            preset=body.preset,
            public=body.visibility == "public",
            version=body.room_version,
            alias_localpart=body.room_alias_name,
            name=body.name,
            topic=body.topic,
            invite=body.invite,
            invite_3pid=[one.read() for one in body.invite_3pid],
            is_direct=body.is_direct,
            creation_content=body.creation_content,
            initial_state=[InitialState(one.type, one.state_key, one.content) for one in body.initial_state],
            power_levels=body.power_level_content_override,
        )
        return json_response({"room_id": await self._context.room_creation.create(requester, options)})

    async def upgrade(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/upgrade`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(UpgradeBody)
        self._context.rate_limits.check("room_creation", requester.user_id)
        room_id = RoomId(request.path_parameters["roomId"])
        new_room = await self._context.room_upgrades.upgrade(
            requester, room_id, body.new_version, body.additional_creators
        )
        return json_response({"replacement_room": new_room})
