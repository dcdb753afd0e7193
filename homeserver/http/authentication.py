"""Who sent a request (CS "Using access tokens")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homeserver.errors import Forbidden, MissingToken, UnknownToken

if TYPE_CHECKING:
    from homeserver.http.rate_limits import RateLimits
    from homeserver.http.request import Request
    from homeserver.services.requester import Requester


class TokenLookup(Protocol):
    """Knows the access tokens."""

    async def lookup(self, token: str, *, allow_locked: bool = False) -> Requester:
        """Who holds the token; raises `UnknownToken`, or `M_USER_LOCKED` unless `allow_locked`."""

    def seen(self, requester: Requester, address: str, user_agent: str | None) -> None:
        """Note that a device was here."""


class Authenticator:
    """Reads the access token of a request, and says whose it is."""

    def __init__(self, tokens: TokenLookup, rate_limits: RateLimits) -> None:
        self._tokens = tokens
        self._rate_limits = rate_limits

    def anyone(self, request: Request) -> None:
        """A request for which nobody has to log in; `LimitExceeded` where too many come from one address."""
        self._rate_limits.check_address("anonymous", request.client_address)

    async def requester(
        self, request: Request, *, allow_guest: bool = False, allow_locked: bool = False
    ) -> Requester:
        """The sender of a request.

        Raises `MissingToken`, `UnknownToken`, `Forbidden` for guests where they may not, `M_USER_LOCKED` for
        locked accounts where they may not, which is everywhere but at the logout, or `LimitExceeded`.
        """
        token = access_token(request)
        try:
            requester = await self._tokens.lookup(token, allow_locked=allow_locked)
        except UnknownToken:
            # Each costs a question to the database.
            self.anyone(request)
            raise
        self._rate_limits.check("requests", f"{requester.user_id} {requester.device_id}")
        if requester.is_guest and not allow_guest:
            message = "Guests may not do this"
            raise Forbidden(message, errcode="M_GUEST_ACCESS_FORBIDDEN")
        self._tokens.seen(requester, request.client_address, request.header(b"user-agent"))
        return requester

    async def check_still_valid(self, request: Request) -> None:
        """A request that waits: its sender must not have been logged out meanwhile. Counts as no request."""
        await self._tokens.lookup(access_token(request))

    async def optional_requester(self, request: Request) -> Requester | None:
        """The sender of a request that may come without a token."""
        if request.header(b"authorization") is None and request.query.get("access_token") is None:
            self.anyone(request)
            return None
        return await self.requester(request, allow_guest=True)


def access_token(request: Request) -> str:
    """The token in the header, or, for older clients, in the query."""
    header = request.header(b"authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    token_in_query = request.query.get("access_token")
    if not token_in_query:
        message = "An access token is needed"
        raise MissingToken(message)
    return token_in_query
