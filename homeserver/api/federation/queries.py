"""Questions of other servers (SS "Querying for information", "Published Room Directory", "Spaces")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam, NotFound
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import RoomAlias, RoomId, is_room_alias, is_user_id, server_name_of
from homeserver.services.published_rooms import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_V1 = "/_matrix/federation/v1"


class PublicRoomsFilter(Body):
    """The filter of `POST /publicRooms`."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRoomsBody(Body):
    """The body of `POST /publicRooms`."""

    limit: int | None = None
    since: str | None = None
    filter: PublicRoomsFilter | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class QueryEndpoints:
    """What other servers may know without being in a room."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", f"{_V1}/query/directory", self.directory),
            Route("GET", f"{_V1}/query/profile", self.profile),
            Route("GET", f"{_V1}/query/{{queryType}}", self.other),
            Route("GET", f"{_V1}/publicRooms", self.public_rooms),
            Route("POST", f"{_V1}/publicRooms", self.search_public_rooms),
            Route("GET", f"{_V1}/hierarchy/{{roomId}}", self.hierarchy),
        ]

    async def directory(self, request: Request) -> Response:
        """`GET /query/directory`."""
        await self._context.federation_authenticator.origin(request)
        alias = request.query.require("room_alias")
        if not is_room_alias(alias):
            raise InvalidParam("This is not a room alias")
        self._check_ours(alias)
        resolved = await self._context.directory.resolve(RoomAlias(alias))
        return json_response({"room_id": resolved.room_id, "servers": resolved.servers})

    async def profile(self, request: Request) -> Response:
        """`GET /query/profile`."""
        await self._context.federation_authenticator.origin(request)
        user_id = request.query.require("user_id")
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        self._check_ours(user_id)
        field = request.query.get("field")
        if field is None:
            return json_response(await self._context.profiles.load(user_id))
        return json_response({field: await self._context.profiles.get(user_id, field)})

    async def other(self, request: Request) -> Response:
        """`GET /query/{queryType}`."""
        await self._context.federation_authenticator.origin(request)
        raise NotFound("This server knows no such query", errcode="M_UNRECOGNIZED")

    async def public_rooms(self, request: Request) -> Response:
        """`GET /publicRooms`."""
        await self._context.federation_authenticator.origin(request)
        limit = request.query.get_int("limit", 0)
        return await self._list(None, None, request.query.get("since"), limit)

    async def search_public_rooms(self, request: Request) -> Response:
        """`POST /publicRooms`."""
        await self._context.federation_authenticator.origin(request)
        body = await request.parse(PublicRoomsBody)
        wanted = body.filter or PublicRoomsFilter()
        if body.limit is not None and body.limit < 0:
            raise InvalidParam("`limit` must not be negative")
        term = wanted.generic_search_term or None
        return await self._list(term, wanted.room_types, body.since, body.limit or 0)

    async def hierarchy(self, request: Request) -> Response:
        """`GET /hierarchy/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        return json_response(
            await self._context.space_answers.hierarchy(
                origin,
                RoomId(request.path_parameters["roomId"]),
                suggested_only=request.query.get_bool("suggested_only"),
            )
        )

    async def _list(
        self, term: str | None, room_types: Sequence[str | None] | None, since: str | None, limit: int
    ) -> Response:
        if not self._context.settings.room_directory.public_over_federation:
            raise Forbidden("This server does not show its list of rooms to others")
        # Zero, the default, is no limit, as far as there is none.
        limit = min(limit or MAX_PAGE, MAX_PAGE)
        return json_response(
            await self._context.published_rooms.page(
                term=term, room_types=room_types, since=since, limit=limit
            )
        )

    def _check_ours(self, name: str) -> None:
        if server_name_of(name) != self._context.settings.server_name:
            raise NotFound("This is another server's")
