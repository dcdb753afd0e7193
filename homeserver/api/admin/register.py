"""`/_synapse/admin/v1/register`: accounts made by tools that know the shared secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
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
_NONCE_SECONDS = 60
_MAX_NONCES = 10_000


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
        self._nonces: OrderedDict[str, float] = OrderedDict()

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("GET", _PATH, self.nonce), Route("POST", _PATH, self.register)]

    async def nonce(self, request: Request) -> Response:  # noqa: ARG002
        """A number that is used once, within a minute."""
        self._secret()
        self._drop_old()
        nonce = secrets.token_hex(32)
        self._nonces[nonce] = self._context.clock.monotonic() + _NONCE_SECONDS
        return json_response({"nonce": nonce})

    async def register(self, request: Request) -> Response:
        """Make an account and log in."""
        secret = self._secret()
        body = await request.parse(SharedSecretBody)
        self._drop_old()
        if self._nonces.pop(body.nonce, None) is None:
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

    def _drop_old(self) -> None:
        now = self._context.clock.monotonic()
        while self._nonces and (next(iter(self._nonces.values())) < now or len(self._nonces) > _MAX_NONCES):
            self._nonces.popitem(last=False)
