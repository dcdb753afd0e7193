"""Messages to devices (CS "Send-to-Device messaging")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from homeserver.errors import BadJson, MissingParam
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.to_device import Contents


class _Body(msgspec.Struct):
    """The body of `PUT /sendToDevice/{eventType}/{txnId}`; what stands in the contents is not ours to read."""

    messages: dict[str, dict[str, msgspec.Raw]] | msgspec.UnsetType = msgspec.UNSET


class ToDeviceEndpoints:
    """The way from device to device."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return client("PUT", "/sendToDevice/{eventType}/{txnId}", self.send)

    async def send(self, request: Request) -> Response:
        """`PUT /sendToDevice/{eventType}/{txnId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        contents = await _contents(request)
        parameters = request.path_parameters
        await self._context.to_device.send(requester, parameters["eventType"], parameters["txnId"], contents)
        return json_response({})


async def _contents(request: Request) -> Contents:
    """The contents in a body, each byte for byte as it stands there."""
    body = await request.decode(_Body)
    if isinstance(body.messages, msgspec.UnsetType):
        raise MissingParam("`messages` is missing")
    contents = {
        user_id: {device_id: bytes(content) for device_id, content in by_device.items()}
        for user_id, by_device in body.messages.items()
    }
    if not all(content.startswith(b"{") for by_device in contents.values() for content in by_device.values()):
        raise BadJson("The content of a message is an object")
    return contents
