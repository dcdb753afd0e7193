"""`GET /sync` (CS "Syncing")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.http.link import budget_bytes
from homeserver.http.request import WhileConnected
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.presence import STATES
from homeserver.sync.classic import MAX_TIMEOUT_MS, SyncRequest

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Query, Request


class SyncEndpoints:
    """The long poll."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return client("GET", "/sync", self.sync)

    async def sync(self, request: Request) -> Response:
        """`GET /sync`."""
        context = self._context
        requester = await context.authenticator.requester(request, allow_guest=True)
        query = request.query
        presence = query.get_choice("set_presence", STATES, "online") or "online"
        wanted = SyncRequest(
            since=query.get("since") or None,
            timeout_ms=query.get_int("timeout", 0, maximum=MAX_TIMEOUT_MS),
            filter=await context.filters.for_sync(requester.user_id, query.get("filter")),
            full_state=query.get_bool("full_state"),
            state_name=_state_name(query),
            budget_bytes=budget_bytes(request) if context.settings.sync.adaptive else None,
        )
        headers = {}
        if wanted.budget_bytes is not None:
            headers["Dev-Restante-Budget"] = str(wanted.budget_bytes)
            context.metrics.budgeted_syncs.inc()
        if wanted.since is None:
            context.rate_limits.check("initial_syncs", requester.user_id)

        async def check_access() -> None:
            await context.authenticator.check_still_valid(request)

        await context.presence.sync_begins(requester.user_id, presence)
        try:
            if wanted.timeout_ms == 0 or wanted.since is None:
                return json_response(
                    await context.sync.answer(requester, wanted, check_access), headers=headers
                )
            await request.body()
            async with WhileConnected(request):
                return json_response(
                    await context.sync.answer(requester, wanted, check_access), headers=headers
                )
        finally:
            context.presence.sync_ends(requester.user_id, presence)


def _state_name(query: Query) -> str:
    """MSC4222 by either of its names."""
    if query.get_bool("org.matrix.msc4222.use_state_after"):
        return "org.matrix.msc4222.state_after"
    return "state_after" if query.get_bool("use_state_after") else "state"
