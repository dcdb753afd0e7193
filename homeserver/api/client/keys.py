"""Keys for end-to-end encryption (CS "Key Distribution", "Cross-signing")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class UploadBody(Body):
    """The body of `POST /keys/upload`."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    unstable_fallback_keys: dict[str, Any] | None = pydantic.Field(
        default=None, alias="org.matrix.msc2732.fallback_keys"
    )


class QueryBody(Body):
    """The body of `POST /keys/query`."""

    device_keys: dict[str, list[str]]
    timeout: int | None = None


class ClaimBody(Body):
    """The body of `POST /keys/claim`."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: int | None = None


class KeyEndpoints:
    """Keys, as far as the server knows them: the public ones."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("POST", "/keys/upload", self.upload),
            *client("POST", "/keys/query", self.query),
            *client("POST", "/keys/claim", self.claim),
        ]

    async def upload(self, request: Request) -> Response:
        """`POST /keys/upload`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(UploadBody)
        counts = await self._context.device_keys.upload(
            requester,
            body.device_keys,
            body.one_time_keys or {},
            body.fallback_keys or body.unstable_fallback_keys or {},
        )
        return json_response({"one_time_key_counts": counts})

    async def query(self, request: Request) -> Response:
        """`POST /keys/query`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(QueryBody)
        return json_response(await self._context.key_queries.query(requester.user_id, body.device_keys))

    async def claim(self, request: Request) -> Response:
        """`POST /keys/claim`."""
        await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(ClaimBody)
        return json_response(await self._context.one_time_keys.claim(body.one_time_keys))
