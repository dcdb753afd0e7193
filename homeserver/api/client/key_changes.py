"""Whose keys changed between two syncs (CS "Key management API")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class KeyChangesEndpoints:
    """What `device_lists` of a sync tells, asked for apart."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return client("GET", "/keys/changes", self.changes)

    async def changes(self, request: Request) -> Response:
        """`GET /keys/changes`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        start, end = request.query.require("from"), request.query.require("to")
        return json_response(await self._context.device_lists.answer(requester, start, end))
