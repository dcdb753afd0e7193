"""`/_synapse/admin/v1/register`: accounts made by tools that know the shared secret.

A nonce carries its own time under a MAC, so that nothing is kept of those that were given out, and any process may
see it again. Used twice it makes nothing new: the MAC of the request covers the name, and a name is given once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from homeserver.api.client.registration import session
from homeserver.errors import Forbidden, InvalidParam, Unrecognized
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_PATH = "/_synapse/admin/v1/register"
_NONCE_MS = 60_000


class SharedSecretBody(Body):
    """The body of the request; `mac` is over the other fields."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    displayname: str | None = None
    user_type: str | None = None


class SharedSecretRegistration:
    """Makes accounts for whoever knows `registration.shared_secret`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("GET", _PATH, self.nonce), Route("POST", _PATH, self.register)]

    async def nonce(self, request: Request) -> Response:  # noqa: ARG002
        """What a request has to carry within a minute."""
        made = f"{self._context.clock.now_ms():x}.{secrets.token_hex(8)}"
        return json_response({"nonce": f"{made}.{_seal(self._secret(), made)}"})

    async def register(self, request: Request) -> Response:
        """Make an account and log in."""
        secret = self._secret()
        body = await request.parse(SharedSecretBody)
        if not self._is_fresh(secret, body.nonce):
            raise InvalidParam("Unknown nonce", errcode="M_UNKNOWN")
        fields = [body.nonce, body.username, body.password, "admin" if body.admin else "notadmin"]
        if body.user_type is not None:
            fields.append(body.user_type)
        expected = hmac.new(
            secret.encode(), "\x00".join(fields).encode("utf-8", "surrogatepass"), hashlib.sha1
        ).hexdigest()
        if not hmac.compare_digest(expected, body.mac.encode("ascii", "replace").decode()):
            raise Forbidden("The MAC is wrong")
        user_id = await self._context.accounts.create(
            body.username.lower(), body.password, is_admin=body.admin, display_name=body.displayname
        )
        return json_response(session(await self._context.logins.open(user_id), self._context.settings))

    def _secret(self) -> str:
        secret = self._context.settings.registration.shared_secret
        if not secret:
            raise Unrecognized("This server has no shared secret for registration")
        return secret

    def _is_fresh(self, secret: str, nonce: str) -> bool:
        made, _, seal = nonce.rpartition(".")
        if not hmac.compare_digest(_seal(secret, made), seal.encode("ascii", "replace").decode()):
            return False
        return abs(self._context.clock.now_ms() - int(made.partition(".")[0], 16)) <= _NONCE_MS


def _seal(secret: str, made: str) -> str:
    # Another hash than that of the requests, so that none of them is ever taken for a nonce.
    return hmac.new(secret.encode(), made.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
