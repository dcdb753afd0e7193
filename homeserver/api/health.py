"""What machines that watch over the server ask: health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from homeserver.http.response import json_response
from homeserver.http.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from homeserver.http.request import Request
    from homeserver.metrics import Metrics
    from homeserver.storage.database import Database


class HealthEndpoint:
    """`/_restante/health`: 200 while the database answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("GET", "/_restante/health", self.health)]

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """Ask the database for something."""
        await self._database.fetch_value("SELECT position FROM log_position")
        return json_response({"status": "ok"})


class MetricsEndpoint:
    """`/metrics`, in the text format of Prometheus."""

    def __init__(self, metrics: Metrics, measure: Callable[[], None]) -> None:
        self._metrics = metrics
        self._measure = measure

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("GET", "/metrics", self.metrics)]

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """All metrics."""
        self._measure()
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
