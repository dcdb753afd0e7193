"""Coming into rooms and going out of them (CS "Room membership")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from federation.server_names import is_server_name
from homeserver.api.client.third_party_addresses import ThirdPartyAddressBody
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId, ServerName
from homeserver.services.suspension import check_not_suspended
from homeserver.services.third_party_invites import read_claim

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class ReasonBody(Body):
    """A body that may hold a reason."""

    reason: str | None = None


class JoinBody(ReasonBody):
    """The body of `POST /join`."""

    third_party_signed: dict[str, Any] | None = None


class UserBody(ReasonBody):
    """The body of what is done to somebody."""

    user_id: str


class MembershipEndpoints:
    """Joins, invites, leaves, kicks, bans, knocks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("GET", "/joined_rooms", self.joined_rooms),
            *client("POST", "/join/{roomIdOrAlias}", self.join),
            *client("POST", "/rooms/{roomIdOrAlias}/join", self.join),
            *client("POST", "/knock/{roomIdOrAlias}", self.knock, versions=("v3",)),
            *client("POST", "/rooms/{roomId}/invite", self.invite),
            *client("POST", "/rooms/{roomId}/leave", self.leave),
            *client("POST", "/rooms/{roomId}/forget", self.forget),
            *client("POST", "/rooms/{roomId}/kick", self.kick),
            *client("POST", "/rooms/{roomId}/ban", self.ban),
            *client("POST", "/rooms/{roomId}/unban", self.unban),
        ]

    async def joined_rooms(self, request: Request) -> Response:
        """`GET /joined_rooms`."""
        requester = await self._context.authenticator.requester(request)
        return json_response({"joined_rooms": await self._context.membership.joined_rooms(requester.user_id)})

    async def join(self, request: Request) -> Response:
        """`POST /join/{roomIdOrAlias}`, `POST /rooms/{roomId}/join`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(JoinBody, allow_empty=True)
        self._context.rate_limits.check("joins", requester.user_id)
        room = await self._context.directory.find(request.path_parameters["roomIdOrAlias"])
        content = {"reason": body.reason} if body.reason is not None else {}
        via = [*_via(request), *room.servers]
        if body.third_party_signed is not None:
            # Not after it was used up.
            check_not_suspended(requester)
            signed = body.third_party_signed
            claim = read_claim(room.room_id, signed.get("sender"), requester.user_id, signed)
            await self._context.third_party_invites.claim(claim)
        await self._context.joins.join(requester, room.room_id, content, via)
        return json_response({"room_id": room.room_id})

    async def knock(self, request: Request) -> Response:
        """`POST /knock/{roomIdOrAlias}`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(ReasonBody, allow_empty=True)
        self._context.rate_limits.check("joins", requester.user_id)
        room = await self._context.directory.find(request.path_parameters["roomIdOrAlias"])
        via = [*_via(request), *room.servers]
        await self._context.membership.knock(requester, room.room_id, body.reason, via)
        return json_response({"room_id": room.room_id})

    async def invite(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/invite`."""
        requester = await self._context.authenticator.requester(request)
        content = await request.json()
        self._context.rate_limits.check("invites", requester.user_id)
        if "user_id" not in content and "address" in content:
            who = parse(ThirdPartyAddressBody, content).read()
            await self._context.third_party_invites.invite(requester, _room(request), who, {})
            return json_response({})
        body = parse(UserBody, content)
        await self._context.membership.invite(requester, _room(request), body.user_id, body.reason)
        return json_response({})

    async def leave(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/leave`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(ReasonBody, allow_empty=True)
        self._context.rate_limits.check("membership", requester.user_id)
        await self._context.membership.leave(requester.user_id, _room(request), body.reason)
        return json_response({})

    async def forget(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/forget`."""
        requester = await self._context.authenticator.requester(request)
        await request.json(allow_empty=True)
        self._context.rate_limits.check("membership", requester.user_id)
        await self._context.membership.forget(requester, _room(request))
        return json_response({})

    async def kick(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/kick`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(UserBody)
        self._context.rate_limits.check("membership", requester.user_id)
        await self._context.membership.kick(requester, _room(request), body.user_id, body.reason)
        return json_response({})

    async def ban(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/ban`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(UserBody)
        self._context.rate_limits.check("membership", requester.user_id)
        await self._context.membership.ban(requester, _room(request), body.user_id, body.reason)
        return json_response({})

    async def unban(self, request: Request) -> Response:
        """`POST /rooms/{roomId}/unban`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(UserBody)
        self._context.rate_limits.check("membership", requester.user_id)
        await self._context.membership.unban(requester, _room(request), body.user_id, body.reason)
        return json_response({})


def _via(request: Request) -> list[ServerName]:
    """The servers that a client names; `server_name` is what the parameter was called before version 1.12."""
    query = request.query
    names = query.get_all("via") or query.get_all("server_name")
    return [ServerName(name) for name in names if is_server_name(name)]


def _room(request: Request) -> RoomId:
    return RoomId(request.path_parameters["roomId"])
