"""Login, refresh and logout (CS "Legacy API: Login", "Refreshing access tokens")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.api.client.registration import session
from homeserver.errors import Forbidden, InvalidParam, MissingParam
from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.user_interactive import PASSWORD

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.ids import UserId


class LoginBody(Body):
    """The body of `POST /login`."""

    type: str
    identifier: dict[str, Any] | None = None
    user: str | None = None
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
            *client("POST", "/refresh", self.refresh, versions=("v3",)),
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
        body = await request.parse(LoginBody)
        context.rate_limits.check_address("login_address", request.client_address)
        if body.type == "m.login.password":
            user_id = await self._by_password(body)
        elif body.type == "m.login.token":
            if body.token is None:
                raise MissingParam("`token` is missing")
            user_id = await context.logins.by_token(body.token)
        else:
            raise InvalidParam("Unknown type of login", errcode="M_UNKNOWN")
        device_id, pair = await context.logins.open(
            user_id, body.device_id, body.initial_device_display_name, refreshable=body.refresh_token
        )
        answer: dict[str, Any] = {
            "user_id": user_id,
            "home_server": context.settings.server_name,
            **session(device_id, pair),
        }
        if context.settings.public_base_url is not None:
            answer["well_known"] = {"m.homeserver": {"base_url": context.settings.public_base_url}}
        return json_response(answer)

    async def _by_password(self, body: LoginBody) -> UserId:
        identifier = body.identifier or {}
        kind = identifier.get("type", "m.id.user")
        name = identifier.get("user") if body.identifier is not None else body.user
        if kind != "m.id.user":
            raise Forbidden("Log in with your user name")
        if not isinstance(name, str) or body.password is None:
            raise MissingParam("`identifier` or `password` is missing")
        user_id = self._context.accounts.local_user_id(name)
        return await self._context.accounts.verify_password(user_id, body.password)

    async def get_token(self, request: Request) -> Response:
        """`POST /login/get_token`."""
        requester = await self._context.authenticator.requester(request)
        proof = await self._context.user_interactive.require(
            operation="POST /login/get_token",
            user_id=requester.user_id,
            body=await request.json(allow_empty=True),
            flows=[(PASSWORD,)],
        )
        await self._context.user_interactive.finish(proof)
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
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        await self._context.logins.logout(requester)
        return json_response({})

    async def logout_all(self, request: Request) -> Response:
        """`POST /logout/all`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        await self._context.logins.logout_all(requester.user_id)
        return json_response({})
