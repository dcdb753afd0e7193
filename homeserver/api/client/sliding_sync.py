"""`POST /sync`: simplified sliding sync (MSC4186), in both dialects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from homeserver.api.client.sliding_dialects import Accepted, Deployed
from homeserver.errors import InvalidParam
from homeserver.http.request import WhileConnected
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.services.presence import STATES
from homeserver.sync.sliding.engine import MAX_TIMEOUT_MS

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.client.sliding_dialects import Dialect, ReadRequest
    from homeserver.api.context import ApiContext
    from homeserver.http.request import Query, Request
    from homeserver.services.requester import Requester

_MAX_BODY_BYTES = 1 << 18


class SlidingSyncEndpoints:
    """The long poll."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._accepted, self._deployed = Accepted(), Deployed()

    def routes(self) -> list[Route]:
        """All routes of this module."""
        unstable = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        return [
            Route("POST", "/_matrix/client/v4/sync", self.accepted, _MAX_BODY_BYTES),
            Route("POST", unstable, self.deployed, _MAX_BODY_BYTES),
        ]

    async def accepted(self, request: Request) -> Response:
        """`POST /_matrix/client/v4/sync`."""
        return await self._sync(request, self._accepted)

    async def deployed(self, request: Request) -> Response:
        """`POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync`."""
        return await self._sync(request, self._deployed)

    async def _sync(self, request: Request, dialect: Dialect) -> Response:
        context = self._context
        requester = await context.authenticator.requester(request, allow_guest=True)
        read = _with_query(dialect.read(await request.json(), requester.user_id), request.query)
        presence = read.set_presence or "online"
        if presence not in STATES:
            raise InvalidParam(f"`set_presence` is none of {', '.join(STATES)}")
        if read.request.pos is None:
            context.rate_limits.check("initial_syncs", requester.user_id)
        await context.presence.sync_begins(requester.user_id, presence)
        try:
            if read.request.timeout_ms == 0 or read.request.pos is None:
                return await self._answer(request, requester, read, dialect)
            async with WhileConnected(request):
                return await self._answer(request, requester, read, dialect)
        finally:
            context.presence.sync_ends(requester.user_id, presence)

    async def _answer(
        self, request: Request, requester: Requester, read: ReadRequest, dialect: Dialect
    ) -> Response:
        async def check_access() -> None:
            await self._context.authenticator.check_still_valid(request)

        answer = await self._context.sliding_sync.answer(requester, read.request, check_access)
        return json_response(dialect.write(answer))


def _with_query(read: ReadRequest, query: Query) -> ReadRequest:
    """What the deployed dialect has in the query, and the accepted one in the body, may stand in either."""
    pos = query.get("pos") or read.request.pos or None
    timeout_ms = query.get_int("timeout", read.request.timeout_ms, maximum=MAX_TIMEOUT_MS)
    return replace(
        read,
        request=replace(read.request, pos=pos, timeout_ms=min(timeout_ms, MAX_TIMEOUT_MS)),
        set_presence=query.get("set_presence") or read.set_presence,
    )
