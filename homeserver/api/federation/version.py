"""What this server is, and where other servers reach it (Server-Server API, "Server discovery")."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from homeserver import __version__
from homeserver.errors import NotFound
from homeserver.http.response import json_response
from homeserver.http.routing import Route

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.config import Settings
    from homeserver.http.request import Request

_HTTPS_PORT = 443


class FederationVersionEndpoints:
    """Nobody signs these requests."""

    def __init__(self, context: ApiContext) -> None:
        self._delegated = delegated_name(context.settings)

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", "/_matrix/federation/v1/version", self.version),
            Route("GET", "/.well-known/matrix/server", self.well_known),
        ]

    async def version(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /_matrix/federation/v1/version`."""
        return json_response({"server": {"name": "Restante", "version": __version__}})

    async def well_known(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /.well-known/matrix/server`."""
        if self._delegated is None:
            raise NotFound(
                "Other servers find this one without a well-known file, or not by its public address"
            )
        return json_response({"m.server": self._delegated})


def delegated_name(settings: Settings) -> str | None:
    """Where other servers are sent to: the public address, where they are answered there too.

    They are where a listener serves clients and servers both, and the address is a whole HTTPS site: the paths of
    federation cannot stand below another path.
    """
    if settings.public_base_url is None:
        return None
    url = urlsplit(settings.public_base_url)
    both = any({"client", "federation"} <= set(listener.resources) for listener in settings.listeners)
    if url.scheme != "https" or url.path not in ("", "/") or url.hostname is None or not both:
        return None
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{host}:{url.port or _HTTPS_PORT}"
