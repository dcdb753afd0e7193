"""Our signing keys, and other servers' as a notary tells them (Server-Server API, "Retrieving server keys")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from federation.server_names import is_server_name
from homeserver.errors import InvalidParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_MAX_SERVERS = 100
_MAX_KEYS = 100


class Criteria(Body):
    """What is wanted of a key."""

    minimum_valid_until_ts: int | None = None


class QueryBody(Body):
    """The body of `POST /_matrix/key/v2/query`: key ids by server; none mean all keys."""

    server_keys: Annotated[
        dict[str, Annotated[dict[str, Criteria], Field(max_length=_MAX_KEYS)]], Field(max_length=_MAX_SERVERS)
    ]


class ServerKeyEndpoints:
    """Keys. Nobody signs these requests: keys are what is needed first."""

    def __init__(self, context: ApiContext) -> None:
        self._authenticator = context.federation_authenticator
        self._rate_limits = context.rate_limits
        self._keyring = context.keyring

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", "/_matrix/key/v2/server", self.own),
            Route("GET", "/_matrix/key/v2/query/{serverName}", self.query_one),
            Route("POST", "/_matrix/key/v2/query", self.query),
        ]

    async def own(self, request: Request) -> Response:
        """`GET /_matrix/key/v2/server`."""
        self._authenticator.anyone(request)
        return json_response(self._keyring.own_document())

    async def query_one(self, request: Request) -> Response:
        """`GET /_matrix/key/v2/query/{serverName}`."""
        server_name = request.path_parameters["serverName"]
        if not is_server_name(server_name):
            raise InvalidParam("This is not a server name")
        given = request.query.get("minimum_valid_until_ts") is not None
        least = request.query.get_int("minimum_valid_until_ts", 0) if given else None
        # Without a key that is asked for, the time stands for all of them.
        return await self._answer(request, {server_name: {"": least}})

    async def query(self, request: Request) -> Response:
        """`POST /_matrix/key/v2/query`."""
        self._authenticator.anyone(request)
        body = await request.parse(QueryBody)
        wanted = {
            server_name: {key_id: criteria.minimum_valid_until_ts for key_id, criteria in keys.items()}
            for server_name, keys in body.server_keys.items()
        }
        return await self._answer(request, wanted)

    async def _answer(self, request: Request, wanted: dict[str, dict[str, int | None]]) -> Response:
        # Each may cost requests to wherever somebody says.
        self._rate_limits.check_address("notary", request.client_address, max(1, len(wanted)))
        return json_response({"server_keys": await self._keyring.notarised(wanted)})
