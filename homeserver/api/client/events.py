"""Sending events, setting and reading state (CS "Sending events to a room", "Getting events for a room")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_MAX_BODY_BYTES = 131_072
"""Twice the size of an event: JSON may be written with escapes and white space."""
_MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


class EventEndpoints:
    """Events of rooms, one by one."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        room = "/rooms/{roomId}"
        size = _MAX_BODY_BYTES
        return [
            *client("PUT", f"{room}/send/{{eventType}}/{{txnId}}", self.send, max_body_bytes=size),
            *client("PUT", f"{room}/redact/{{eventId}}/{{txnId}}", self.redact, max_body_bytes=size),
            *client("PUT", f"{room}/state/{{eventType}}/{{stateKey}}", self.set_state, max_body_bytes=size),
            *client("PUT", f"{room}/state/{{eventType}}", self.set_state, max_body_bytes=size),
            *client("GET", f"{room}/state/{{eventType}}/{{stateKey}}", self.state_event),
            *client("GET", f"{room}/state/{{eventType}}", self.state_event),
            *client("GET", f"{room}/state", self.state),
            *client("GET", f"{room}/members", self.members),
            *client("GET", f"{room}/joined_members", self.joined_members),
            *client("GET", f"{room}/event/{{eventId}}", self.event),
        ]

    async def send(self, request: Request) -> Response:
        """`PUT /rooms/{roomId}/send/{eventType}/{txnId}`."""
        context = self._context
        requester = await context.authenticator.requester(request, allow_guest=True)
        content = await request.json()
        context.rate_limits.check("messages", requester.user_id)
        parameters = request.path_parameters
        event_id = await context.messages.send(
            requester, RoomId(parameters["roomId"]), parameters["eventType"], content, parameters["txnId"]
        )
        await context.presence.active(requester.user_id)
        return json_response({"event_id": event_id})

    async def redact(self, request: Request) -> Response:
        """`PUT /rooms/{roomId}/redact/{eventId}/{txnId}`."""
        context = self._context
        requester = await context.authenticator.requester(request)
        content = await request.json(allow_empty=True)
        context.rate_limits.check("messages", requester.user_id)
        parameters = request.path_parameters
        event_id = await context.messages.redact(
            requester, RoomId(parameters["roomId"]), parameters["eventId"], content, parameters["txnId"]
        )
        return json_response({"event_id": event_id})

    async def set_state(self, request: Request) -> Response:
        """`PUT /rooms/{roomId}/state/{eventType}/{stateKey}`; without a state key it is empty."""
        context = self._context
        requester = await context.authenticator.requester(request, allow_guest=True)
        content = await request.json()
        context.rate_limits.check("messages", requester.user_id)
        parameters = request.path_parameters
        event_id = await context.messages.set_state(
            requester,
            RoomId(parameters["roomId"]),
            parameters["eventType"],
            parameters.get("stateKey", ""),
            content,
        )
        return json_response({"event_id": event_id})

    async def state_event(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/state/{eventType}/{stateKey}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        form = request.query.get_choice("format", ("content", "event"), "content")
        parameters = request.path_parameters
        stored = await self._context.room_state.entry(
            requester, RoomId(parameters["roomId"]), parameters["eventType"], parameters.get("stateKey", "")
        )
        if form == "content":
            return json_response(stored.event.content)
        (rendered,) = await self._context.client_events.render([stored], requester, aggregate=False)
        return json_response(rendered)

    async def state(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/state`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response(await self._context.room_state.all(requester, room_id))

    async def members(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/members`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        chunk = await self._context.room_state.members(
            requester,
            RoomId(request.path_parameters["roomId"]),
            at=request.query.get("at"),
            membership=request.query.get_choice("membership", _MEMBERSHIPS, None),
            not_membership=request.query.get_choice("not_membership", _MEMBERSHIPS, None),
        )
        return json_response({"chunk": chunk})

    async def joined_members(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/joined_members`."""
        requester = await self._context.authenticator.requester(request)
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response({"joined": await self._context.room_state.joined_members(requester, room_id)})

    async def event(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/event/{eventId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        parameters = request.path_parameters
        return json_response(
            await self._context.history.event(requester, RoomId(parameters["roomId"]), parameters["eventId"])
        )
