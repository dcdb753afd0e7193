"""Profiles (CS "Profiles")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MissingParam
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import is_user_id

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
        user_id = request.path_parameters["userId"]
        if await self._is_elsewhere(request, user_id):
            return json_response(await self._context.remote_lookups.profile(user_id))
        return json_response(await self._context.profiles.load(user_id))

    async def get(self, request: Request) -> Response:
        """`GET /profile/{userId}/{keyName}`."""
        user_id, field = request.path_parameters["userId"], request.path_parameters["keyName"]
        if await self._is_elsewhere(request, user_id):
            return json_response(await self._context.remote_lookups.profile(user_id, field))
        return json_response({field: await self._context.profiles.get(user_id, field)})

    async def _is_elsewhere(self, request: Request, user_id: str) -> bool:
        """Whether another server has to be asked: anybody may ask for the users of this one, its users for all others."""
        if is_user_id(user_id) and self._context.remote_lookups.is_elsewhere(user_id):
            await self._context.authenticator.requester(request, allow_guest=True)
            return True
        self._context.authenticator.anyone(request)
        return False

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
