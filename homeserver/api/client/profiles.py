"""Profiles (CS "Profiles")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MissingParam
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_MAX_BODY_BYTES = 131_072


class ProfileEndpoints:
    """Names, avatars and other fields."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        field = "/profile/{userId}/{keyName}"
        return [
            *client("GET", "/profile/{userId}", self.profile),
            *client("GET", field, self.get),
            *client("PUT", field, self.set, max_body_bytes=_MAX_BODY_BYTES),
            *client("DELETE", field, self.delete),
        ]

    async def profile(self, request: Request) -> Response:
        """`GET /profile/{userId}`."""
        self._context.authenticator.anyone(request)
        return json_response(await self._context.profiles.load(request.path_parameters["userId"]))

    async def get(self, request: Request) -> Response:
        """`GET /profile/{userId}/{keyName}`."""
        self._context.authenticator.anyone(request)
        field = request.path_parameters["keyName"]
        return json_response(
            {field: await self._context.profiles.get(request.path_parameters["userId"], field)}
        )

    async def set(self, request: Request) -> Response:
        """`PUT /profile/{userId}/{keyName}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        field = request.path_parameters["keyName"]
        body = await request.json()
        if field not in body:
            raise MissingParam(f"`{field}` is missing")
        self._context.rate_limits.check("profile", requester.user_id)
        await self._context.profiles.set(requester, request.path_parameters["userId"], field, body[field])
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """`DELETE /profile/{userId}/{keyName}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        self._context.rate_limits.check("profile", requester.user_id)
        await self._context.profiles.delete(
            requester, request.path_parameters["userId"], request.path_parameters["keyName"]
        )
        return json_response({})
