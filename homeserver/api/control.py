"""The deeds that the command line asks of the running server, through its Unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import InvalidParam, NotFound, Unrecognized
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import ServerName

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.responses import Response

    from homeserver.delivery.server_delivery import ServerDelivery
    from homeserver.http.request import Request
    from homeserver.ids import UserId
    from homeserver.services.accounts import Accounts
    from homeserver.services.deactivation import Deactivation
    from homeserver.services.jobs import JobSource
    from homeserver.services.registration import Registration
    from homeserver.storage.registration_tokens import RegistrationToken

    Deed = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class CreateUser(Body):
    """A new account."""

    name: str
    password: str
    admin: bool = False


class NamedUser(Body):
    """An account."""

    name: str


class NewPassword(NamedUser):
    """A new password for an account."""

    password: str
    logout: bool = True


class MakeAdmin(NamedUser):
    """An account that is to be an administrator's, or no longer."""

    admin: bool


class CreateToken(Body):
    """A new registration token."""

    token: str | None = None
    uses: int | None = None
    expires_ts: int | None = None


class NamedToken(Body):
    """A registration token."""

    token: str


class NamedServer(Body):
    """Another server."""

    name: str


class Control:
    """Deeds by name; the same whether they come through the socket or directly."""

    def __init__(
        self,
        accounts: Accounts,
        deactivation: Deactivation,
        registration: Registration,
        delivery: ServerDelivery | None,
        job_sources: Sequence[JobSource],
    ) -> None:
        """`delivery` is None where federation is switched off; `job_sources` do long work."""
        self._accounts = accounts
        self._deactivation = deactivation
        self._registration = registration
        self._server_delivery = delivery
        self._job_sources = job_sources
        self._deeds: dict[str, Deed] = {
            "user-create": self._create_user,
            "user-list": self._list_users,
            "user-reset-password": self._reset_password,
            "user-deactivate": self._deactivate,
            "user-make-admin": self._make_admin,
            "registration-token-create": self._create_token,
            "registration-token-list": self._list_tokens,
            "registration-token-revoke": self._revoke_token,
            "federation-destinations": self._list_destinations,
            "federation-retry": self._retry_destination,
            "jobs": self._list_jobs,
        }

    def routes(self) -> list[Route]:
        """The one route of the socket."""
        return [Route("POST", "/{deed}", self.handle)]

    async def handle(self, request: Request) -> Response:
        """`POST /{deed}` with the arguments as JSON."""
        return json_response(await self.perform(request.path_parameters["deed"], await request.json()))

    async def perform(self, deed: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do it; raises `MatrixError` where it is refused."""
        if deed not in self._deeds:
            raise Unrecognized(f"This server cannot {deed}: is it of another version?")
        return await self._deeds[deed](arguments)

    # -- users -----------------------------------------------------------------------------------------

    async def _create_user(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user = parse(CreateUser, arguments)
        user_id = self._user_id(user.name)
        localpart = user_id[1:].partition(":")[0]
        return {"user_id": await self._accounts.create(localpart, user.password, is_admin=user.admin)}

    async def _list_users(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {
            "users": [
                {
                    "user_id": account.user_id,
                    "admin": account.is_admin,
                    "guest": account.is_guest,
                    "deactivated": account.deactivated_ts is not None,
                    "created_ts": account.created_ts,
                }
                for account in await self._accounts.load_all()
            ]
        }

    async def _reset_password(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user = parse(NewPassword, arguments)
        user_id = self._user_id(user.name)
        await self._accounts.set_password(user_id, user.password, logout_devices=user.logout)
        return {"user_id": user_id}

    async def _deactivate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user_id = self._user_id(parse(NamedUser, arguments).name)
        await self._deactivation.deactivate(user_id)
        return {"user_id": user_id}

    async def _make_admin(self, arguments: dict[str, Any]) -> dict[str, Any]:
        user = parse(MakeAdmin, arguments)
        user_id = self._user_id(user.name)
        await self._accounts.set_admin(user_id, is_admin=user.admin)
        return {"user_id": user_id}

    def _user_id(self, name: str) -> UserId:
        user_id = self._accounts.local_user_id(name)
        if user_id is None:
            raise InvalidParam(f"{name} is not a user of this server")
        return user_id

    # -- registration tokens ---------------------------------------------------------------------------

    async def _create_token(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted = parse(CreateToken, arguments)
        token = await self._registration.create_token(
            wanted.token, uses_allowed=wanted.uses, expires_ts=wanted.expires_ts
        )
        return _token_form(token)

    async def _list_tokens(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"tokens": [_token_form(token) for token in await self._registration.load_tokens()]}

    async def _revoke_token(self, arguments: dict[str, Any]) -> dict[str, Any]:
        token = parse(NamedToken, arguments).token
        await self._registration.revoke_token(token)
        return {"token": token}

    # -- other servers ---------------------------------------------------------------------------------

    @property
    def _delivery(self) -> ServerDelivery:
        if self._server_delivery is None:
            raise InvalidParam("Federation is switched off (federation.enabled)")
        return self._server_delivery

    async def _list_destinations(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {
            "destinations": [
                {
                    "server_name": one.server_name,
                    "waits": waits,
                    "failures": one.failures,
                    "failing_since_ts": one.failing_since_ts,
                    "retry_ts": one.retry_ts,
                    "why": one.why,
                    "alive_ts": one.alive_ts,
                    "set_aside": one.set_aside,
                    "last_set_aside": one.last_set_aside,
                }
                for one, waits in await self._delivery.load_destinations()
            ]
        }

    async def _retry_destination(self, arguments: dict[str, Any]) -> dict[str, Any]:
        server_name = parse(NamedServer, arguments).name
        if not await self._delivery.retry(ServerName(server_name)):
            raise NotFound(f"Nothing was ever sent to {server_name}")
        return {"server_name": server_name}

    # -- long work -------------------------------------------------------------------------------------

    async def _list_jobs(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        jobs = [job for source in self._job_sources for job in await source.load_jobs()]
        return {
            "jobs": [
                {
                    "kind": job.kind,
                    "user_id": job.user_id,
                    "room_id": job.room_id,
                    "created_ts": job.created_ts,
                    "phase": job.progress.phase,
                    "received": job.progress.received,
                    "checked": job.progress.checked,
                    "written": job.progress.written,
                    "tried": job.progress.tried,
                    "last_error": job.progress.last_error,
                }
                for job in jobs
            ]
        }


def _token_form(token: RegistrationToken) -> dict[str, Any]:
    return {
        "token": token.token,
        "uses_allowed": token.uses_allowed,
        "completed": token.completed,
        "expires_ts": token.expires_ts,
    }
