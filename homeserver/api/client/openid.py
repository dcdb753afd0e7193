"""OpenID tokens (CS "OpenID")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class OpenIdEndpoints:
    """Where a user gets a token for somebody else."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [*client("POST", "/user/{userId}/openid/request_token", self.request_token)]

    async def request_token(self, request: Request) -> Response:
        """`POST /user/{userId}/openid/request_token`."""
        requester = await self._context.authenticator.requester(request)
        await request.json(allow_empty=True)
        user_id = request.path_parameters["userId"]
        return json_response(await self._context.openid.request_token(requester, user_id))
