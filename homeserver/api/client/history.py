"""Pages of events: `/messages`, `/context`, `/relations`, `/threads`, `/timestamp_to_event`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MissingParam
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId
from homeserver.services import history, relations
from homeserver.services.history import PageRequest
from homeserver.services.relations import RelationsRequest
from homeserver.views.filters import RoomEventFilter, parse_event_filter_text

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_EVERY_EVENT = RoomEventFilter()
_DEFAULT_LIMIT = 10
_DEFAULT_RELATIONS = 50


class HistoryEndpoints:
    """The past of rooms."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        room = "/rooms/{roomId}"
        versions = ("v1", "unstable")
        related = f"{room}/relations/{{eventId}}"
        return [
            *client("GET", f"{room}/messages", self.messages),
            *client("GET", f"{room}/context/{{eventId}}", self.context),
            *client("GET", f"{room}/timestamp_to_event", self.timestamp_to_event, versions=("v1",)),
            *client("GET", f"{room}/threads", self.threads, versions=("v1",)),
            *client("GET", related, self.relations, versions=versions),
            *client("GET", f"{related}/{{relType}}", self.relations, versions=versions),
            *client("GET", f"{related}/{{relType}}/{{eventType}}", self.relations, versions=versions),
        ]

    async def messages(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/messages`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        query = request.query
        direction = query.get_choice("dir", ("b", "f"), None)
        if direction is None:
            raise MissingParam("`dir` is missing")
        event_filter = _filter(query.get("filter"))
        page = PageRequest(
            start=query.get("from") or None,
            stop=query.get("to") or None,
            backwards=direction == "b",
            limit=query.get_int("limit", _DEFAULT_LIMIT, maximum=history.MAX_PAGE),
            filter=event_filter,
        )
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response(await self._context.history.messages(requester, room_id, page))

    async def context(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/context/{eventId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        limit = request.query.get_int("limit", _DEFAULT_LIMIT, maximum=history.MAX_PAGE)
        parameters = request.path_parameters
        return json_response(
            await self._context.history.context(
                requester,
                RoomId(parameters["roomId"]),
                parameters["eventId"],
                limit,
                _filter(request.query.get("filter")),
            )
        )

    async def timestamp_to_event(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/timestamp_to_event`."""
        requester = await self._context.authenticator.requester(request)
        request.query.require("ts")
        direction = request.query.get_choice("dir", ("b", "f"), None)
        if direction is None:
            raise MissingParam("`dir` is missing")
        event_id, ts = await self._context.history.at_time(
            requester,
            RoomId(request.path_parameters["roomId"]),
            request.query.get_int("ts", 0),
            backwards=direction == "b",
        )
        return json_response({"event_id": event_id, "origin_server_ts": ts})

    async def relations(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/relations/{eventId}`, with a type of relation, and with a type of event."""
        requester = await self._context.authenticator.requester(request)
        query, parameters = request.query, request.path_parameters
        wanted = RelationsRequest(
            relation_type=parameters.get("relType"),
            event_type=parameters.get("eventType"),
            start=query.get("from") or None,
            stop=query.get("to") or None,
            backwards=query.get_choice("dir", ("b", "f"), "b") == "b",
            limit=query.get_int("limit", _DEFAULT_RELATIONS, minimum=1, maximum=relations.MAX_PAGE),
            recurse=query.get_bool("recurse"),
        )
        return json_response(
            await self._context.relations.page(
                requester, RoomId(parameters["roomId"]), parameters["eventId"], wanted
            )
        )

    async def threads(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/threads`."""
        requester = await self._context.authenticator.requester(request)
        query = request.query
        return json_response(
            await self._context.relations.threads(
                requester,
                RoomId(request.path_parameters["roomId"]),
                participated=query.get_choice("include", ("all", "participated"), "all") == "participated",
                since=query.get("from") or None,
                limit=query.get_int("limit", _DEFAULT_RELATIONS, minimum=1, maximum=relations.MAX_PAGE),
            )
        )


def _filter(text: str | None) -> RoomEventFilter:
    return _EVERY_EVENT if not text else parse_event_filter_text(text)
