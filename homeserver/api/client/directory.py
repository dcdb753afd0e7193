"""Aliases, published rooms, summaries, spaces (CS "Room aliases", "Room discovery", "Spaces")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from federation.server_names import is_server_name
from homeserver.errors import InvalidParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomAlias, RoomId, ServerName
from homeserver.services.published_rooms import MAX_PAGE
from homeserver.services.spaces import MAX_DEPTH, MAX_ROOMS, Page

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_DEFAULT_LIMIT = 100
_ANONYMOUS_COST = 10


class AliasBody(Body):
    """The body of `PUT /directory/room/{roomAlias}`."""

    room_id: str


class VisibilityBody(Body):
    """The body of `PUT /directory/list/room/{roomId}`."""

    visibility: Literal["public", "private"] = "public"


class PublicRoomsFilter(Body):
    """The filter of `POST /publicRooms`."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRoomsBody(Body):
    """The body of `POST /publicRooms`."""

    limit: int | None = None
    since: str | None = None
    filter: PublicRoomsFilter = PublicRoomsFilter()
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class DirectoryEndpoints:
    """How rooms are found."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        alias, listed = "/directory/room/{roomAlias}", "/directory/list/room/{roomId}"
        return [
            *client("GET", alias, self.resolve),
            *client("PUT", alias, self.create),
            *client("DELETE", alias, self.delete),
            *client("GET", "/rooms/{roomId}/aliases", self.aliases),
            *client("GET", listed, self.visibility),
            *client("PUT", listed, self.set_visibility),
            *client("GET", "/publicRooms", self.public_rooms),
            *client("POST", "/publicRooms", self.search_public_rooms),
            *client("GET", "/room_summary/{roomIdOrAlias}", self.summary, versions=("v1",)),
            *client("GET", "/rooms/{roomId}/hierarchy", self.hierarchy, versions=("v1",)),
        ]

    async def resolve(self, request: Request) -> Response:
        """`GET /directory/room/{roomAlias}`."""
        self._context.authenticator.anyone(request)
        resolved = await self._context.directory.resolve(RoomAlias(request.path_parameters["roomAlias"]))
        return json_response({"room_id": resolved.room_id, "servers": resolved.servers})

    async def create(self, request: Request) -> Response:
        """`PUT /directory/room/{roomAlias}`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(AliasBody)
        self._context.rate_limits.check("aliases", requester.user_id)
        alias = RoomAlias(request.path_parameters["roomAlias"])
        await self._context.directory.create(requester, alias, RoomId(body.room_id))
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """`DELETE /directory/room/{roomAlias}`."""
        requester = await self._context.authenticator.requester(request)
        self._context.rate_limits.check("aliases", requester.user_id)
        await self._context.directory.delete(requester, RoomAlias(request.path_parameters["roomAlias"]))
        return json_response({})

    async def aliases(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/aliases`."""
        requester = await self._context.authenticator.requester(request)
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response({"aliases": await self._context.directory.aliases_of(requester, room_id)})

    async def visibility(self, request: Request) -> Response:
        """`GET /directory/list/room/{roomId}`."""
        self._context.authenticator.anyone(request)
        published = await self._context.directory.is_published(RoomId(request.path_parameters["roomId"]))
        return json_response({"visibility": "public" if published else "private"})

    async def set_visibility(self, request: Request) -> Response:
        """`PUT /directory/list/room/{roomId}`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(VisibilityBody, allow_empty=True)
        self._context.rate_limits.check("aliases", requester.user_id)
        room_id = RoomId(request.path_parameters["roomId"])
        await self._context.directory.publish(requester, room_id, published=body.visibility == "public")
        return json_response({})

    async def public_rooms(self, request: Request) -> Response:
        """`GET /publicRooms`."""
        limit = request.query.get_int("limit", _DEFAULT_LIMIT, minimum=1, maximum=MAX_PAGE)
        since = request.query.get("since")
        other = self._other_server(request)
        if other is not None:
            await self._context.authenticator.requester(request, allow_guest=True)
            return json_response(
                await self._context.remote_lookups.public_rooms(other, limit=limit, since=since)
            )
        await self._check_may_list(request)
        page = await self._context.published_rooms.page(term=None, room_types=None, since=since, limit=limit)
        return json_response(page)

    async def search_public_rooms(self, request: Request) -> Response:
        """`POST /publicRooms`."""
        await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(PublicRoomsBody, allow_empty=True)
        limit = _DEFAULT_LIMIT if body.limit is None else body.limit
        if limit < 1:
            raise InvalidParam("`limit` must be greater than zero")
        other = self._other_server(request)
        if other is not None:
            search = body.filter.model_dump(exclude_none=True, exclude_unset=True)
            return json_response(
                await self._context.remote_lookups.public_rooms(
                    other, limit=min(limit, MAX_PAGE), since=body.since, search=search
                )
            )
        page = await self._context.published_rooms.page(
            term=body.filter.generic_search_term or None,
            room_types=body.filter.room_types,
            since=body.since,
            limit=min(limit, MAX_PAGE),
        )
        return json_response(page)

    async def summary(self, request: Request) -> Response:
        """`GET /room_summary/{roomIdOrAlias}`."""
        requester = await self._context.authenticator.optional_requester(request)
        if requester is None:
            # Other servers may have to be asked.
            self._context.rate_limits.check_address("anonymous", request.client_address, _ANONYMOUS_COST)
        room = await self._context.directory.find(request.path_parameters["roomIdOrAlias"])
        user_id = requester.user_id if requester is not None else None
        via = [*request.query.get_all("via"), *room.servers]
        return json_response(await self._context.room_previews.summary(room.room_id, user_id, via))

    async def hierarchy(self, request: Request) -> Response:
        """`GET /rooms/{roomId}/hierarchy`."""
        requester = await self._context.authenticator.requester(request)
        query = request.query
        page = Page(
            since=query.get("from"),
            limit=query.get_int("limit", MAX_ROOMS, minimum=1, maximum=MAX_ROOMS),
            max_depth=query.get_int("max_depth", MAX_DEPTH, maximum=MAX_DEPTH),
            suggested_only=query.get_bool("suggested_only"),
        )
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response(await self._context.spaces.hierarchy(room_id, requester.user_id, page))

    async def _check_may_list(self, request: Request) -> None:
        if self._context.settings.room_directory.public_without_login:
            self._context.authenticator.anyone(request)
        else:
            await self._context.authenticator.requester(request, allow_guest=True)

    def _other_server(self, request: Request) -> ServerName | None:
        """The server whose list is asked for; None for this one. `InvalidParam` for what is no server name."""
        server = request.query.get("server")
        if not server or server == self._context.settings.server_name:
            return None
        if not is_server_name(server):
            raise InvalidParam("`server` is not a server name")
        return ServerName(server)
