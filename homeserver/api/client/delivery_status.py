"""How an event is doing, an API of this server's own (docs/offline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_PREFIX = "/dev.restante.delivery"


class DeliveryStatusEndpoints:
    """For the senders of events."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        path = f"{_PREFIX}/rooms/{{roomId}}/events/{{eventId}}"
        return client("GET", path, self.status, versions=("unstable",))

    async def status(self, request: Request) -> Response:
        """`GET /dev.restante.delivery/rooms/{roomId}/events/{eventId}`."""
        requester = await self._context.authenticator.requester(request)
        parameters = request.path_parameters
        return json_response(
            await self._context.delivery_status.of(
                requester, RoomId(parameters["roomId"]), parameters["eventId"]
            )
        )
