"""Who sent a request (CS "Using access tokens")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homeserver.errors import Forbidden, MissingToken

if TYPE_CHECKING:
    from homeserver.http.request import Request
    from homeserver.services.requester import Requester


class TokenLookup(Protocol):
    """Knows the access tokens."""

    async def lookup(self, token: str) -> Requester:
        """Who holds the token; raises `UnknownToken`."""

    def seen(self, requester: Requester, address: str, user_agent: str | None) -> None:
        """Note that a device was here."""


class Authenticator:
    """Reads the access token of a request, and says whose it is."""

    def __init__(self, tokens: TokenLookup) -> None:
        self._tokens = tokens

    async def requester(self, request: Request, *, allow_guest: bool = False) -> Requester:
        """The sender of a request; `MissingToken`, `UnknownToken`, or `Forbidden` for guests where they may not."""
        requester = await self._tokens.lookup(access_token(request))
        if requester.is_guest and not allow_guest:
            message = "Guests may not do this"
            raise Forbidden(message, errcode="M_GUEST_ACCESS_FORBIDDEN")
        self._tokens.seen(requester, request.client_address, request.headers.get("user-agent"))
        return requester

    async def optional_requester(self, request: Request) -> Requester | None:
        """The sender of a request that may come without a token."""
        if request.headers.get("authorization") is None and request.query.get("access_token") is None:
            return None
        return await self.requester(request, allow_guest=True)


def access_token(request: Request) -> str:
    """The token in the header, or, for older clients, in the query."""
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    token_in_query = request.query.get("access_token")
    if not token_in_query:
        message = "An access token is needed"
        raise MissingToken(message)
    return token_in_query
