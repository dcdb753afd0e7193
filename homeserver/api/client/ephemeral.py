"""Typing, receipts, read markers, presence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic

from homeserver.errors import Forbidden, InvalidParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId, UserId, is_user_id
from homeserver.services.account_data import FULLY_READ
from homeserver.services.suspension import check_not_suspended
from homeserver.services.typing import DEFAULT_TIMEOUT_MS
from homeserver.storage.delivery_news import DECRYPTED
from homeserver.storage.receipts import PRIVATE, PUBLIC
from homeserver.views.presence import presence_content

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class TypingBody(Body):
    """The body of `PUT /rooms/{roomId}/typing/{userId}`."""

    typing: bool
    timeout: int = pydantic.Field(default=DEFAULT_TIMEOUT_MS, ge=0)


class ReadMarkersBody(Body):
    """The body of `POST /rooms/{roomId}/read_markers`."""

    fully_read: str | None = pydantic.Field(default=None, alias="m.fully_read")
    read: str | None = pydantic.Field(default=None, alias="m.read")
    read_private: str | None = pydantic.Field(default=None, alias="m.read.private")


class PresenceBody(Body):
    """The body of `PUT /presence/{userId}/status`."""

    presence: Literal["online", "offline", "unavailable"]
    status_msg: str | None = None


class EphemeralEndpoints:
    """What people do just now."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("PUT", "/rooms/{roomId}/typing/{userId}", self.typing),
            *client("POST", "/rooms/{roomId}/receipt/{receiptType}/{eventId}", self.receipt),
            *client("POST", "/rooms/{roomId}/read_markers", self.read_markers),
            *client("GET", "/presence/{userId}/status", self.presence),
            *client("PUT", "/presence/{userId}/status", self.set_presence),
        ]

    async def typing(self, request: Request) -> Response:
        """`PUT /rooms/{roomId}/typing/{userId}`."""
        requester = await self._context.authenticator.requester(request)
        parameters = request.path_parameters
        if parameters["userId"] != requester.user_id:
            raise Forbidden("Nobody can type for somebody else")
        body = await request.parse(TypingBody)
        await self._context.typing.set(
            requester.user_id, RoomId(parameters["roomId"]), typing=body.typing, timeout_ms=body.timeout
        )
        await self._context.presence.active(requester.user_id)
        return json_response({})

    async def receipt(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`."""
        requester = await self._context.authenticator.requester(request)
        thread_id = _thread_id(await request.json(allow_empty=True))
        parameters = request.path_parameters
        room_id = RoomId(parameters["roomId"])
        if parameters["receiptType"] == DECRYPTED:
            await self._context.delivery_receipts.send(requester.user_id, room_id, parameters["eventId"])
            return json_response({})
        await self._context.receipts.send(
            requester.user_id, room_id, {parameters["receiptType"]: parameters["eventId"]}, thread_id
        )
        await self._context.presence.active(requester.user_id)
        return json_response({})

    async def read_markers(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/read_markers`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(ReadMarkersBody)
        room_id = RoomId(request.path_parameters["roomId"])
        wanted = {FULLY_READ: body.fully_read, PUBLIC: body.read, PRIVATE: body.read_private}
        receipts = {name: event_id for name, event_id in wanted.items() if event_id is not None}
        await self._context.receipts.send(requester.user_id, room_id, receipts)
        await self._context.presence.active(requester.user_id)
        return json_response({})

    async def presence(self, request: Request) -> Response:
        """`GET /presence/{userId}/status`."""
        requester = await self._context.authenticator.requester(request)
        user_id = request.path_parameters["userId"]
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        row = await self._context.presence.get(UserId(user_id), requester.user_id)
        return json_response(presence_content(row, self._context.clock.now_ms()))

    async def set_presence(self, request: Request) -> Response:
        """`PUT /presence/{userId}/status`."""
        requester = await self._context.authenticator.requester(request)
        if request.path_parameters["userId"] != requester.user_id:
            raise Forbidden("This is another user's presence")
        body = await request.parse(PresenceBody)
        if body.status_msg:
            check_not_suspended(requester)
        await self._context.presence.set(requester.user_id, body.presence, body.status_msg)
        return json_response({})


def _thread_id(body: dict[str, Any]) -> str | None:
    """The thread of a receipt; `InvalidParam` for what is not a non-empty string."""
    if "thread_id" not in body:
        return None
    thread_id = body["thread_id"]
    if not isinstance(thread_id, str) or not thread_id:
        raise InvalidParam("`thread_id` is not a non-empty string")
    return thread_id
