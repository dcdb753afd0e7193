"""Catching up across rooms, an API of this server's own (docs/offline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.sync.missed import pages
from homeserver.sync.missed.pages import MissedRequest

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request

_PREFIX = "/dev.restante.missed"
_DEFAULT_LIMIT = 100


class MissedEndpoints:
    """What was missed: how much, and all of it."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("GET", f"{_PREFIX}/summary", self.summary, versions=("unstable",)),
            *client("GET", f"{_PREFIX}/messages", self.messages, versions=("unstable",)),
        ]

    async def summary(self, request: Request) -> Response:
        """`GET /dev.restante.missed/summary`."""
        requester = await self._context.authenticator.requester(request)
        start = request.query.require("from")
        return json_response(await self._context.missed_summary.read(requester, start))

    async def messages(self, request: Request) -> Response:
        """`GET /dev.restante.missed/messages`."""
        requester = await self._context.authenticator.requester(request)
        query = request.query
        start, span = query.get("from"), None
        if query.get("from_ts") is not None or query.get("to_ts") is not None:
            last = query.get_int("to_ts", pages.MAX_TS, maximum=pages.MAX_TS)
            span = (query.get_int("from_ts", 0, maximum=pages.MAX_TS), last)
        wanted = MissedRequest(
            start,
            query.get("to") or None,
            important_first=query.get_choice("order", ("log", "important"), "log") == "important",
            span=span,
        )
        return json_response(
            await self._context.missed_pages.read(
                requester,
                wanted,
                limit=query.get_int("limit", _DEFAULT_LIMIT, minimum=1, maximum=pages.MAX_PAGE),
                lazy_load_members=query.get_bool("lazy_load_members", default=True),
            )
        )
