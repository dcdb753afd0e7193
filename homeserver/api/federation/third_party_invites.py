"""Invites to addresses turn into invites of users (SS "Third-party invites")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from homeserver.errors import InvalidParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.services.third_party_invites import MAX_BOUND, read_claim

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_V1 = "/_matrix/federation/v1"


class ThirdPartyInvite(Body):
    """The `third_party_invite` of an invite."""

    signed: dict[str, Any]


class InviteContent(Body):
    """The content of an invite."""

    membership: str
    third_party_invite: ThirdPartyInvite


class ExchangeBody(Body):
    """The body of `PUT /exchange_third_party_invite/{roomId}`: a part of a member event."""

    type: str
    room_id: str
    sender: str
    state_key: str
    content: InviteContent


class BoundBody(Body):
    """The body of `PUT /3pid/onbind`."""

    mxid: str
    invites: list[dict[str, Any]] = Field(max_length=MAX_BOUND)


class ThirdPartyInviteEndpoints:
    """What the invited user's server asks of the inviting one, and what an identity server tells."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._invites = context.third_party_invites

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("PUT", f"{_V1}/exchange_third_party_invite/{{roomId}}", self.exchange),
            Route("PUT", f"{_V1}/3pid/onbind", self.bound),
            # So it is in a drawing of the specification, and with other servers.
            Route("POST", f"{_V1}/3pid/onbind", self.bound),
        ]

    async def exchange(self, request: Request) -> Response:
        """`PUT /exchange_third_party_invite/{roomId}`."""
        origin = await self._context.federation_authenticator.origin(request)
        self._context.rate_limits.check("invites_from_server", origin)
        body = await request.parse(ExchangeBody)
        if body.type != "m.room.member" or body.content.membership != "invite":
            raise InvalidParam("This is not a part of an invite")
        if body.room_id != request.path_parameters["roomId"]:
            raise InvalidParam("The invite is of another room")
        signed = body.content.third_party_invite.signed
        claim = read_claim(body.room_id, body.sender, body.state_key, signed)
        await self._invites.exchange(origin, claim)
        return json_response({})

    async def bound(self, request: Request) -> Response:
        """`PUT` (or `POST`) `/3pid/onbind`. Nobody signs it: what it says is shown by the signatures in the invites."""
        self._context.federation_authenticator.anyone(request)
        body = await request.parse(BoundBody)
        # Each may cost a request to wherever somebody says.
        count = max(1, len(body.invites))
        self._context.rate_limits.check_address("bound_addresses", request.client_address, count)
        await self._invites.bound(body.mxid, body.invites)
        return json_response({})
