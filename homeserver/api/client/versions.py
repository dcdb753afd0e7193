"""`/versions`, `/capabilities` and what clients find first (CS "API Versions", "Capabilities negotiation")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import NotFound
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 13))]
UNSTABLE_FEATURES = {
    "org.matrix.msc3030": True,
    "org.matrix.msc3440.stable": True,
    "org.matrix.msc3773": True,
    "org.matrix.msc3814": True,
    "org.matrix.msc3827.stable": True,
    "org.matrix.msc3916.stable": True,
    "org.matrix.msc3981": True,
    "org.matrix.msc4115": True,
    "org.matrix.msc4222": True,
    "org.matrix.msc4306": True,
    "org.matrix.msc4308": True,
    "org.matrix.simplified_msc3575": True,
    "uk.tcpip.msc4133.stable": True,
}


class VersionEndpoints:
    """What this server speaks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._versions = json_response({"versions": VERSIONS, "unstable_features": UNSTABLE_FEATURES})

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", "/_matrix/client/versions", self.versions),
            *client("GET", "/capabilities", self.capabilities),
            Route("GET", "/.well-known/matrix/client", self.well_known),
        ]

    async def versions(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /versions`."""
        return self._versions

    async def capabilities(self, request: Request) -> Response:
        """`GET /capabilities`."""
        await self._context.authenticator.requester(request, allow_guest=True)
        return json_response(
            {
                "capabilities": {
                    "m.change_password": {"enabled": True},
                    "m.room_versions": {
                        "default": self._context.settings.rooms.default_version,
                        "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
                    },
                    "m.set_displayname": {"enabled": True},
                    "m.set_avatar_url": {"enabled": True},
                    "m.3pid_changes": {"enabled": False},
                    "m.get_login_token": {"enabled": True},
                    "m.profile_fields": {"enabled": True},
                    "m.forget_forced_upon_leave": {"enabled": False},
                }
            }
        )

    async def well_known(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /.well-known/matrix/client`."""
        url = self._context.settings.public_base_url
        if url is None:
            raise NotFound("This server has no public address in its configuration")
        return json_response({"m.homeserver": {"base_url": url}})
