"""One's own account: who one is, password, deactivation (CS "Password management", "Account deactivation")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.api.client.user_interactive import prove_by_password
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.passwords import check_new_password

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


class PasswordBody(Body):
    """The body of `POST /account/password`."""

    new_password: str
    logout_devices: bool = True


class DeactivateBody(Body):
    """The body of `POST /account/deactivate`."""

    erase: bool = False
    id_server: str | None = None


class AccountEndpoints:
    """The account of whoever asks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("GET", "/account/whoami", self.whoami),
            *client("POST", "/account/password", self.password),
            *client("POST", "/account/deactivate", self.deactivate),
            *client("GET", "/account/3pid", self.third_party_ids),
        ]

    async def whoami(self, request: Request) -> Response:
        """`GET /account/whoami`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        answer: dict[str, Any] = {"user_id": requester.user_id, "is_guest": requester.is_guest}
        if requester.device_id is not None:
            answer["device_id"] = requester.device_id
        return json_response(answer)

    async def password(self, request: Request) -> Response:
        """`POST /account/password`."""
        context = self._context
        requester = await context.authenticator.requester(request)
        body = await request.json()
        if body.keys() - {"auth"}:
            check_new_password(parse(PasswordBody, body).new_password)
        proof = await prove_by_password(context, requester, "POST /account/password", body)
        wanted = parse(PasswordBody, proof.body)
        await context.accounts.set_password(
            requester.user_id,
            wanted.new_password,
            logout_devices=wanted.logout_devices,
            but=requester.device_id,
        )
        await context.user_interactive.finish(proof)
        return json_response({})

    async def deactivate(self, request: Request) -> Response:
        """`POST /account/deactivate`."""
        context = self._context
        requester = await context.authenticator.requester(request)
        body = await request.json(allow_empty=True)
        parse(DeactivateBody, body)
        proof = await prove_by_password(context, requester, "POST /account/deactivate", body)
        wanted = parse(DeactivateBody, proof.body)
        await context.deactivation.deactivate(requester.user_id, erase=wanted.erase)
        await context.user_interactive.finish(proof)
        # There are no third-party identifiers to unbind.
        return json_response({"id_server_unbind_result": "success"})

    async def third_party_ids(self, request: Request) -> Response:
        """`GET /account/3pid`: this server keeps none."""
        await self._context.authenticator.requester(request)
        return json_response({"threepids": []})
