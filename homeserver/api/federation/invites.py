"""Invites from other servers (SS "Inviting to a room")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import RoomId, server_name_of
from homeserver.services.inbound.invitations import SentInvite
from homeserver.services.resident.member_events import SignedMemberEvent

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.eventgraph.event import Event
    from homeserver.http.request import Request

_PATH = "invite/{roomId}/{eventId}"


class InviteBody(Body):
    """The body of the second version of `PUT /invite/{roomId}/{eventId}`."""

    room_version: str
    event: dict[str, Any]
    invite_room_state: list[Any] = []


class InviteEndpoints:
    """Both versions of the endpoint."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("PUT", f"/_matrix/federation/v1/{_PATH}", self.invite_v1),
            Route("PUT", f"/_matrix/federation/v2/{_PATH}", self.invite),
        ]

    async def invite(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        body = parse(InviteBody, await request.exact_json())
        event = await self._receive(request, origin, body.event, body.room_version, body.invite_room_state)
        return json_response({"event": orjson.Fragment(event.json)})

    async def invite_v1(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        pdu = await request.exact_json()
        unsigned = pdu.get("unsigned")
        state = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        # "Servers which receive a v1 invite request must assume that the room version is either 1 or 2": in these
        # an event is the same.
        event = await self._receive(request, origin, pdu, "2", state if isinstance(state, list) else [])
        return json_response([200, {"event": orjson.Fragment(event.json)}])

    async def _receive(
        self, request: Request, origin: Any, pdu: dict[str, Any], room_version: str, state: list[Any]
    ) -> Event:
        limits = self._context.rate_limits
        limits.check("invites_from_server", origin)
        parameters = request.path_parameters
        target = pdu.get("state_key")
        if isinstance(target, str) and server_name_of(target) == self._context.settings.server_name:
            limits.check("invites_to_user", target)
        sent = SignedMemberEvent(origin, RoomId(parameters["roomId"]), parameters["eventId"], "invite", pdu)
        return await self._context.invitations.receive(SentInvite(sent, room_version, state))
