"""Joins, knocks and leaves by way of this server (SS "Joining Rooms", "Knocking upon a room", "Leaving Rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import RoomId
from homeserver.services.resident.member_events import SignedMemberEvent

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_V1, _V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
_ROOM_AND_USER, _ROOM_AND_EVENT = "{roomId}/{userId}", "{roomId}/{eventId}"


class HandshakeEndpoints:
    """The handshakes. The first version of `send_join` and `send_leave` is what servers fall back on."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._templates = context.member_templates
        self._handshakes = context.handshakes

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", f"{_V1}/make_join/{_ROOM_AND_USER}", self.make_join),
            Route("PUT", f"{_V1}/send_join/{_ROOM_AND_EVENT}", self.send_join_v1),
            Route("PUT", f"{_V2}/send_join/{_ROOM_AND_EVENT}", self.send_join),
            Route("GET", f"{_V1}/make_knock/{_ROOM_AND_USER}", self.make_knock),
            Route("PUT", f"{_V1}/send_knock/{_ROOM_AND_EVENT}", self.send_knock),
            Route("GET", f"{_V1}/make_leave/{_ROOM_AND_USER}", self.make_leave),
            Route("PUT", f"{_V1}/send_leave/{_ROOM_AND_EVENT}", self.send_leave_v1),
            Route("PUT", f"{_V2}/send_leave/{_ROOM_AND_EVENT}", self.send_leave),
        ]

    # -- templates -------------------------------------------------------------------------------------

    async def make_join(self, request: Request) -> Response:
        """`GET /make_join/{roomId}/{userId}`."""
        return await self._make(request, "join")

    async def make_knock(self, request: Request) -> Response:
        """`GET /make_knock/{roomId}/{userId}`."""
        return await self._make(request, "knock")

    async def make_leave(self, request: Request) -> Response:
        """`GET /make_leave/{roomId}/{userId}`."""
        return await self._make(request, "leave")

    async def _make(self, request: Request, membership: str) -> Response:
        origin = await self._context.federation_authenticator.origin(request)
        parameters = request.path_parameters
        versions = None
        if membership == "join":
            versions = request.query.get_all("ver") or ["1"]
        elif membership == "knock":
            request.query.require("ver")
            versions = request.query.get_all("ver")
        template = await self._templates.member_event(
            origin, RoomId(parameters["roomId"]), parameters["userId"], membership, versions
        )
        return json_response(template)

    # -- signed events ---------------------------------------------------------------------------------

    async def send_join(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`."""
        sent = await self._signed(request, "join")
        return await self._join(sent, omit_members=request.query.get_bool("omit_members"))

    async def send_join_v1(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`."""
        sent = await self._signed(request, "join")
        return await self._join(sent, omit_members=False, before=b"[200,", after=b"]")

    async def _join(
        self, sent: SignedMemberEvent, *, omit_members: bool, before: bytes = b"", after: bytes = b""
    ) -> Response:
        self._context.big_answers.check(sent.origin)
        joined = await self._handshakes.join(sent, omit_members=omit_members)
        fields: dict[str, Any] = {
            "origin": self._context.settings.server_name,
            "event": orjson.Fragment(joined.event),
            "members_omitted": joined.servers_in_room is not None,
        }
        if joined.servers_in_room is not None:
            fields["servers_in_room"] = joined.servers_in_room
        graph = self._context.room_graph
        return self._context.big_answers.stream(
            sent.origin,
            {"auth_chain": graph.elements(joined.auth_chain), "state": graph.elements(joined.state)},
            fields,
            before=before,
            after=after,
        )

    async def send_knock(self, request: Request) -> Response:
        """`PUT /send_knock/{roomId}/{eventId}`."""
        state = await self._handshakes.knock(await self._signed(request, "knock"))
        return json_response({"knock_room_state": [orjson.Fragment(event) for event in state]})

    async def send_leave(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`."""
        await self._handshakes.leave(await self._signed(request, "leave"))
        return json_response({})

    async def send_leave_v1(self, request: Request) -> Response:
        """`PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`."""
        await self._handshakes.leave(await self._signed(request, "leave"))
        return json_response([200, {}])

    async def _signed(self, request: Request, membership: str) -> SignedMemberEvent:
        origin = await self._context.federation_authenticator.origin(request)
        parameters = request.path_parameters
        return SignedMemberEvent(
            origin,
            RoomId(parameters["roomId"]),
            parameters["eventId"],
            membership,
            await request.exact_json(),
        )
