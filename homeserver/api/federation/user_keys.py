"""Devices and keys of this server's users (SS "Device Management", "End-to-End Encryption")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import server_name_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_V1 = "/_matrix/federation/v1/user"


class QueryBody(Body):
    """The body of `POST /user/keys/query`."""

    device_keys: dict[str, list[str]]


class ClaimBody(Body):
    """The body of `POST /user/keys/claim`."""

    one_time_keys: dict[str, dict[str, str]]


class UserKeyEndpoints:
    """Public keys; of users of other servers these servers are to be asked."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", f"{_V1}/devices/{{userId}}", self.devices),
            Route("POST", f"{_V1}/keys/query", self.query),
            Route("POST", f"{_V1}/keys/claim", self.claim),
        ]

    async def devices(self, request: Request) -> Response:
        """`GET /user/devices/{userId}`."""
        await self._context.federation_authenticator.origin(request)
        return json_response(await self._context.key_queries.devices(request.path_parameters["userId"]))

    async def query(self, request: Request) -> Response:
        """`POST /user/keys/query`."""
        await self._context.federation_authenticator.origin(request)
        body = await request.parse(QueryBody)
        return json_response(await self._context.key_queries.answer_server(body.device_keys))

    async def claim(self, request: Request) -> Response:
        """`POST /user/keys/claim`."""
        await self._context.federation_authenticator.origin(request)
        body = await request.parse(ClaimBody)
        answer = await self._context.one_time_keys.claim(self._of_ours(body.one_time_keys))
        return json_response({"one_time_keys": answer["one_time_keys"]})

    def _of_ours(self, by_user: dict[str, Any]) -> dict[str, Any]:
        """ "Requested users must be local to the receiving homeserver." """
        ours = self._context.settings.server_name
        return {user_id: value for user_id, value in by_user.items() if server_name_of(user_id) == ours}
