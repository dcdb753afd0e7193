"""Registration (CS "Account registration")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, MissingParam
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.logins import NewSession

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.config import Settings
    from homeserver.http.request import Request
    from homeserver.services.logins import OpenedSession
    from homeserver.services.requester import Requester


_MAX_BODY_BYTES = 65_536


class RegisterBody(Body):
    """The body of `POST /register`."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None


class GuestBody(Body):
    """The body of `POST /register?kind=guest`: everything else in it is ignored."""

    initial_device_display_name: str | None = None


class RegistrationEndpoints:
    """New accounts."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("POST", "/register", self.register, max_body_bytes=_MAX_BODY_BYTES),
            *client("GET", "/register/available", self.available),
            *client("GET", "/register/m.login.registration_token/validity", self.validity, versions=("v1",)),
        ]

    async def register(self, request: Request) -> Response:
        """`POST /register`."""
        context = self._context
        body = await request.json(allow_empty=True)
        context.rate_limits.check_address("registration", request.client_address)
        if request.query.get_choice("kind", ("user", "guest"), "user") == "guest":
            visitor = parse(GuestBody, body)
            visit = await context.registration.register_guest(visitor.initial_device_display_name)
            return json_response(session(visit, context.settings))
        fields = parse(RegisterBody, body)
        flows = context.registration.flows
        guest = await self._guest(fields)
        await context.registration.check(fields.username, fields.password, _wanted(fields), guest)
        proof = await context.user_interactive.require(
            operation="POST /register", user_id=None, body=body, flows=flows, body_may_change=True
        )
        fields = parse(RegisterBody, proof.body)
        if fields.password is None:
            raise MissingParam("`password` is missing")
        user_id, opened = await context.registration.register(
            fields.username,
            fields.password,
            _wanted(fields),
            proof,
            log_in=not fields.inhibit_login,
            guest=await self._guest(fields),
        )
        await context.user_interactive.finish(proof)
        if opened is None:
            return json_response({"user_id": user_id, "home_server": context.settings.server_name})
        return json_response(session(opened, context.settings))

    async def _guest(self, fields: RegisterBody) -> Requester | None:
        """The guest who wants to become a user (CS "Guest Access")."""
        if fields.guest_access_token is None:
            return None
        return await self._context.access_tokens.lookup(fields.guest_access_token)

    async def available(self, request: Request) -> Response:
        """`GET /register/available`."""
        self._context.rate_limits.check_address("registration", request.client_address)
        self._check_open()
        await self._context.accounts.check_available(request.query.require("username").lower())
        return json_response({"available": True})

    async def validity(self, request: Request) -> Response:
        """`GET /register/m.login.registration_token/validity`."""
        self._context.rate_limits.check_address("registration", request.client_address)
        token = request.query.require("token")
        self._check_open()
        return json_response({"valid": await self._context.registration.is_good_token(token)})

    def _check_open(self) -> None:
        if self._context.settings.registration.mode == "closed":
            raise Forbidden("Registration is closed on this server")


def _wanted(fields: RegisterBody) -> NewSession:
    return NewSession(fields.device_id, fields.initial_device_display_name, fields.refresh_token)


def session(opened: OpenedSession, settings: Settings) -> dict[str, Any]:
    """The answer that tells of an opened session."""
    answer: dict[str, Any] = {
        "user_id": opened.user_id,
        "device_id": opened.device_id,
        "access_token": opened.tokens.access_token,
        "home_server": settings.server_name,
    }
    if opened.tokens.refresh_token is not None:
        answer["refresh_token"] = opened.tokens.refresh_token
        answer["expires_in_ms"] = opened.tokens.expires_in_ms
    return answer
