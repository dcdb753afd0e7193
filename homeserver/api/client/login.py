"""Login, refresh and logout (CS "Legacy API: Login", "Refreshing access tokens")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.api.client.registration import session
from homeserver.api.client.user_interactive import prove_by_password
from homeserver.errors import MatrixError, MissingParam
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.logins import NewSession
from homeserver.services.user_identifiers import user_name

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class LoginBody(Body):
    """The body of `POST /login`."""

    type: str
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class RefreshBody(Body):
    """The body of `POST /refresh`."""

    refresh_token: str


class LoginEndpoints:
    """Sessions of devices."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("GET", "/login", self.flows),
            *client("POST", "/login", self.login),
            *client("POST", "/login/get_token", self.get_token, versions=("v1",)),
            *client("POST", "/refresh", self.refresh),
            *client("POST", "/logout", self.logout),
            *client("POST", "/logout/all", self.logout_all),
        ]

    async def flows(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /login`."""
        return json_response(
            {"flows": [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]}
        )

    async def login(self, request: Request) -> Response:
        """`POST /login`."""
        context = self._context
        body = await request.json()
        fields = parse(LoginBody, body)
        wanted = NewSession(fields.device_id, fields.initial_device_display_name, fields.refresh_token)
        context.rate_limits.check_address("login_address", request.client_address)
        if fields.type == "m.login.password":
            name = user_name(body)
            if name is None or fields.password is None:
                raise MissingParam("`identifier` or `password` is missing")
            user_id = context.accounts.local_user_id(name)
            opened = await context.logins.by_password(user_id, fields.password, wanted)
        elif fields.type == "m.login.token":
            if fields.token is None:
                raise MissingParam("`token` is missing")
            opened = await context.logins.by_token(fields.token, wanted)
        else:
            raise MatrixError("Unknown type of login", errcode="M_UNKNOWN")
        answer = session(opened, context.settings)
        if context.settings.public_base_url is not None:
            answer["well_known"] = {"m.homeserver": {"base_url": context.settings.public_base_url}}
        return json_response(answer)

    async def get_token(self, request: Request) -> Response:
        """`POST /login/get_token`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.json(allow_empty=True)
        proof = await prove_by_password(self._context, requester, "POST /login/get_token", body)
        # One proof, one token.
        await self._context.user_interactive.claim(proof)
        token, lifetime = await self._context.access_tokens.issue_login_token(requester.user_id)
        return json_response({"login_token": token, "expires_in_ms": lifetime})

    async def refresh(self, request: Request) -> Response:
        """`POST /refresh`."""
        body = await request.parse(RefreshBody)
        self._context.rate_limits.check_address("login_address", request.client_address)
        pair = await self._context.access_tokens.refresh(body.refresh_token)
        return json_response(
            {
                "access_token": pair.access_token,
                "refresh_token": pair.refresh_token,
                "expires_in_ms": pair.expires_in_ms,
            }
        )

    async def logout(self, request: Request) -> Response:
        """`POST /logout`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True, allow_locked=True)
        await self._context.logins.logout(requester)
        return json_response({})

    async def logout_all(self, request: Request) -> Response:
        """`POST /logout/all`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True, allow_locked=True)
        await self._context.logins.logout_all(requester.user_id)
        return json_response({})
