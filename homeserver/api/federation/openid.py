"""Whose an OpenID token is (SS "OpenID")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MissingToken
from homeserver.http.response import json_response
from homeserver.http.routing import Route

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class OpenIdInfoEndpoints:
    """Anybody asks who has the token: the request is not signed."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("GET", "/_matrix/federation/v1/openid/userinfo", self.user_info)]

    async def user_info(self, request: Request) -> Response:
        """`GET /openid/userinfo`."""
        self._context.authenticator.anyone(request)
        token = request.query.get("access_token")
        if token is None:
            raise MissingToken("`access_token` is missing")
        return json_response({"sub": await self._context.openid.user_of(token)})
