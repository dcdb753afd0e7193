"""Registration (CS "Account registration")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, InvalidParam
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.registration import NewSession

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.access_tokens import TokenPair


class RegisterBody(Body):
    """The body of `POST /register`."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False


class RegistrationEndpoints:
    """New accounts."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("POST", "/register", self.register),
            *client("GET", "/register/available", self.available),
            *client("GET", "/register/m.login.registration_token/validity", self.validity, versions=("v1",)),
        ]

    async def register(self, request: Request) -> Response:
        """`POST /register`."""
        context = self._context
        body = await request.json(allow_empty=True)
        context.rate_limits.check_address("registration", request.client_address)
        kind = request.query.get_choice("kind", ("user", "guest"), "user")
        fields = parse(RegisterBody, body)
        if kind == "guest":
            user_id, device_id, pair = await context.registration.register_guest(
                fields.initial_device_display_name
            )
            return json_response(
                {"user_id": user_id, "home_server": context.settings.server_name, **session(device_id, pair)}
            )
        flows = context.registration.flows
        if fields.username is not None:
            await context.accounts.check_available(fields.username.lower())
        proof = await context.user_interactive.require(
            operation="POST /register", user_id=None, body=body, flows=flows
        )
        wanted = parse(RegisterBody, proof.body)
        if wanted.password is None:
            raise InvalidParam("`password` is missing", errcode="M_MISSING_PARAM")
        new_user, device, tokens = await context.registration.register(
            wanted.username,
            wanted.password,
            NewSession(
                wanted.device_id,
                wanted.initial_device_display_name,
                wanted.inhibit_login,
                wanted.refresh_token,
            ),
            proof,
        )
        await context.user_interactive.finish(proof)
        answer: dict[str, Any] = {"user_id": new_user, "home_server": context.settings.server_name}
        if device is not None and tokens is not None:
            answer |= session(device, tokens)
        return json_response(answer)

    async def available(self, request: Request) -> Response:
        """`GET /register/available`."""
        if self._context.settings.registration.mode == "closed":
            raise Forbidden("Registration is closed on this server")
        self._context.rate_limits.check_address("registration", request.client_address)
        await self._context.accounts.check_available(request.query.require("username").lower())
        return json_response({"available": True})

    async def validity(self, request: Request) -> Response:
        """`GET /register/m.login.registration_token/validity`."""
        self._context.rate_limits.check_address("registration", request.client_address)
        token = request.query.require("token")
        if self._context.settings.registration.mode != "token":
            raise Forbidden("This server does not ask for registration tokens")
        return json_response({"valid": await self._context.registration.is_good_token(token)})


def session(device_id: str, pair: TokenPair) -> dict[str, Any]:
    """The fields of an answer that opens a session."""
    fields: dict[str, Any] = {"device_id": device_id, "access_token": pair.access_token}
    if pair.refresh_token is not None:
        fields["refresh_token"] = pair.refresh_token
        fields["expires_in_ms"] = pair.expires_in_ms
    return fields
