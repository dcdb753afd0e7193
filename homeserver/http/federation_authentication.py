"""Which server sent a request (Server-Server API, "Request Authentication")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.keyring import WantedKey
from federation.request_auth import (
    BadAuthorization,
    parse_authorization,
    verify_canonical_request,
    verify_request,
)
from homeserver.errors import MatrixError
from homeserver.ids import ServerName

if TYPE_CHECKING:
    from collections.abc import Callable

    import nacl.signing

    from federation.keyring import Keyring
    from federation.request_auth import Authorization
    from homeserver.http.rate_limits import RateLimits
    from homeserver.http.request import Request

_WITH_BODY = ("PUT", "POST")
# A server waits for its answer; what comes later is there for the next request.
_KEY_SECONDS = 20.0


class Unauthorized(MatrixError):
    """Not signed, or not as it must be."""

    status = 401
    errcode = "M_UNAUTHORIZED"


class FederationAuthenticator:
    """Checks who signed a request."""

    def __init__(
        self,
        server_name: ServerName,
        keyring: Keyring,
        rate_limits: RateLimits,
        heard_from: Callable[[ServerName], None],
    ) -> None:
        """`heard_from` is told which server has made a valid request."""
        self._heard_from = heard_from
        self._server_name = server_name
        self._keyring = keyring
        self._rate_limits = rate_limits

    def anyone(self, request: Request) -> None:
        """A request that nobody signs; `LimitExceeded` where too many come from one address."""
        self._rate_limits.check_address("anonymous", request.client_address)

    async def origin(self, request: Request) -> ServerName:
        """The server that signed the request, its body included.

        Whether the body is JSON is for who reads it. Raises `Unauthorized` where nobody signed, `NotJson` or `BadJson`
        for a body that cannot have been signed,
        `LimitExceeded` where requests that nobody signed come too fast from an address, or those of a server.
        """
        try:
            authorization = parse_authorization(request.header(b"authorization") or "")
        except BadAuthorization as error:
            self.anyone(request)
            raise Unauthorized(str(error)) from error
        origin = authorization.origin
        if authorization.destination not in (None, self._server_name) or origin == self._server_name:
            self.anyone(request)
            raise Unauthorized(f"The request is not from another server to {self._server_name}")
        wanted = WantedKey(origin, authorization.key_id, for_request=True)
        if not self._keyring.has(wanted):
            # To look for it costs requests to wherever somebody says: everybody has only so many.
            self._rate_limits.check_address("unknown_server", request.client_address)
        key = (await self._keyring.find([wanted], seconds=_KEY_SECONDS)).get(wanted)
        if key is None:
            raise Unauthorized(
                f"The key {authorization.key_id} of {origin} cannot be found, or is no longer valid"
            )
        if not await self._is_signed(request, authorization, key):
            self.anyone(request)
            raise Unauthorized("The signature of the request is wrong")
        self._heard_from(ServerName(origin))
        self._rate_limits.check("federation", origin)
        return ServerName(origin)

    async def _is_signed(
        self, request: Request, authorization: Authorization, key: nacl.signing.VerifyKey
    ) -> bool:
        of_request = authorization, key, self._server_name, request.method, _target(request)
        if request.method not in _WITH_BODY:
            return verify_request(*of_request)
        if verify_canonical_request(*of_request, await request.body()):
            return True
        return verify_request(*of_request, await request.exact_json())


def _target(request: Request) -> str:
    """Path and query as they came in, byte for byte: that is what was signed."""
    path: bytes = request.scope.get("raw_path") or request.path.encode()
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
