"""Thread subscriptions (MSC4306), and their changes read backwards (MSC4308)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId
from homeserver.services.thread_subscriptions import MAX_PAGE

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.requester import Requester

_DEFAULT_LIMIT = 100


class _Subscription(Body):
    """The body of `PUT .../subscription`."""

    automatic: str | None = None


class ThreadSubscriptionEndpoints:
    """Which threads a user wants to hear of."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        path = "/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription"
        changes = "/io.element.msc4308/thread_subscriptions"
        return [
            *client("GET", path, self.subscription, versions=("unstable",)),
            *client("PUT", path, self.subscribe, versions=("unstable",)),
            *client("DELETE", path, self.unsubscribe, versions=("unstable",)),
            *client("GET", changes, self.changes, versions=("unstable",)),
        ]

    async def subscription(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/thread/{eventId}/subscription`."""
        automatic = await self._context.thread_subscriptions.is_automatic(*await self._thread(request))
        return json_response({"automatic": automatic})

    async def subscribe(self, request: Request) -> Response:
        """`PUT /rooms/{roomId}/thread/{eventId}/subscription`."""
        thread = await self._thread(request)
        body = await request.parse(_Subscription, allow_empty=True)
        await self._context.thread_subscriptions.subscribe(*thread, body.automatic)
        return json_response({})

    async def unsubscribe(self, request: Request) -> Response:
        """`DELETE /rooms/{roomId}/thread/{eventId}/subscription`."""
        await self._context.thread_subscriptions.unsubscribe(*await self._thread(request))
        return json_response({})

    async def changes(self, request: Request) -> Response:
        """`GET /thread_subscriptions`."""
        requester = await self._context.authenticator.requester(request)
        query = request.query
        query.require("dir")
        query.get_choice("dir", ("b",), None)
        limit = query.get_int("limit", _DEFAULT_LIMIT, minimum=1, maximum=MAX_PAGE)
        return json_response(
            await self._context.thread_subscriptions.changes(
                requester.user_id, query.get("from") or None, query.get("to") or None, limit
            )
        )

    async def _thread(self, request: Request) -> tuple[Requester, RoomId, str]:
        requester = await self._context.authenticator.requester(request)
        parameters = request.path_parameters
        return requester, RoomId(parameters["roomId"]), parameters["eventId"]
