"""Events and states of rooms (SS "Retrieving events", "Backfilling and retrieving missing events")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from pydantic import Field

from homeserver.errors import InvalidParam, MissingParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import EventId, RoomId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_V1 = "/_matrix/federation/v1"
_MAX_NAMED = 100
# The ends of a room as the other server knows it: there may be many, and each is only left out.
_MAX_KNOWN = 1_000
_DEFAULT_MISSING = 10
_DEFAULT_BACKFILL = 100


class MissingEventsBody(Body):
    """The body of `POST /get_missing_events/{roomId}`."""

    earliest_events: list[str] = Field(max_length=_MAX_KNOWN)
    latest_events: list[str] = Field(max_length=_MAX_NAMED)
    limit: int = Field(default=_DEFAULT_MISSING, ge=0)
    min_depth: int = 0


class GraphEndpoints:
    """The graph of events, for servers that are in the room."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._graph = context.room_graph

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", f"{_V1}/event/{{eventId}}", self.event),
            Route("GET", f"{_V1}/state/{{roomId}}", self.state),
            Route("GET", f"{_V1}/state_ids/{{roomId}}", self.state_ids),
            Route("GET", f"{_V1}/event_auth/{{roomId}}/{{eventId}}", self.event_auth),
            Route("GET", f"{_V1}/backfill/{{roomId}}", self.backfill),
            Route("POST", f"{_V1}/get_missing_events/{{roomId}}", self.missing_events),
            Route("GET", f"{_V1}/timestamp_to_event/{{roomId}}", self.timestamp_to_event),
        ]

    async def event(self, request: Request) -> Response:
        """`GET /event/{eventId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        event = await self._graph.event(origin, EventId(request.path_parameters["eventId"]))
        return self._transaction([event])

    async def state(self, request: Request) -> Response:
        """`GET /state/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        self._context.big_answers.check(origin)
        state, chain = await self._graph.state_before(origin, _room(request), _event_in_query(request))
        return self._context.big_answers.stream(
            origin, {"auth_chain": self._graph.elements(chain), "pdus": self._graph.elements(state)}
        )

    async def state_ids(self, request: Request) -> Response:
        """`GET /state_ids/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        state, chain = await self._graph.state_before(origin, _room(request), _event_in_query(request))
        ids = {"auth_chain_ids": await self._graph.ids(chain), "pdu_ids": await self._graph.ids(state)}
        return json_response(ids)

    async def event_auth(self, request: Request) -> Response:
        """`GET /event_auth/{roomId}/{eventId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        self._context.big_answers.check(origin)
        event_id = EventId(request.path_parameters["eventId"])
        chain = await self._graph.event_auth(origin, _room(request), event_id)
        return self._context.big_answers.stream(origin, {"auth_chain": self._graph.elements(chain)})

    async def backfill(self, request: Request) -> Response:
        """`GET /backfill/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        event_ids = [EventId(event_id) for event_id in request.query.get_all("v")]
        if not event_ids:
            raise MissingParam("`v` is missing")
        if len(event_ids) > _MAX_NAMED:
            raise InvalidParam(f"`v` can stand there {_MAX_NAMED} times")
        limit = request.query.get_int("limit", _DEFAULT_BACKFILL)
        return self._transaction(await self._graph.backfill(origin, _room(request), event_ids, limit))

    async def missing_events(self, request: Request) -> Response:
        """`POST /get_missing_events/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        body = await request.parse(MissingEventsBody)
        events = await self._graph.missing_events(
            origin,
            _room(request),
            earliest=[EventId(event_id) for event_id in body.earliest_events],
            latest=[EventId(event_id) for event_id in body.latest_events],
            limit=body.limit,
            min_depth=body.min_depth,
        )
        return json_response({"events": [orjson.Fragment(event) for event in events]})

    async def timestamp_to_event(self, request: Request) -> Response:
        """`GET /timestamp_to_event/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        request.query.require("ts")
        ts = request.query.get_int("ts", 0)
        request.query.require("dir")
        direction = request.query.get_choice("dir", ("f", "b"), None)
        event_id, found_ts = await self._graph.nearest(origin, _room(request), ts, backwards=direction == "b")
        return json_response({"event_id": event_id, "origin_server_ts": found_ts})

    def _transaction(self, events: Sequence[bytes]) -> Response:
        return json_response(
            {
                "origin": self._context.settings.server_name,
                "origin_server_ts": self._context.clock.now_ms(),
                "pdus": [orjson.Fragment(event) for event in events],
            }
        )


def _room(request: Request) -> RoomId:
    return RoomId(request.path_parameters["roomId"])


def _event_in_query(request: Request) -> EventId:
    return EventId(request.query.require("event_id"))
