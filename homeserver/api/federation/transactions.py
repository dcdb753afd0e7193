"""Transactions of other servers (SS "Transactions")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from crypto import exact_json
from crypto.canonical_json import MAX_MESSAGE_DEPTH
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import MEBIBYTE, Route
from homeserver.services.inbound.transactions import MAX_EDUS, MAX_PDUS

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


# Fifty events as large as they may be, and a hundred EDUs: a server whose transaction is refused may drop it whole.
_MAX_BYTES = 8 * MEBIBYTE


class TransactionBody(Body):
    """The body of `PUT /send/{txnId}`. What is in the lists is judged one by one."""

    pdus: Annotated[list[Any], Field(max_length=MAX_PDUS)] = []
    edus: Annotated[list[Any], Field(max_length=MAX_EDUS)] = []


class TransactionEndpoints:
    """What other servers send."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        path = "/_matrix/federation/v1/send/{txnId}"
        return [Route("PUT", path, self.send, max_body_bytes=_MAX_BYTES, max_depth=MAX_MESSAGE_DEPTH)]

    async def send(self, request: Request) -> Response:
        """`PUT /send/{txnId}`. The origin is whoever signed it; a transaction id is not needed to take it in once."""
        origin = await self._context.federation_authenticator.origin(request)
        body = await request.parse(TransactionBody)
        pdus = body.pdus
        if exact_json.has_long_numbers(await request.body()):
            # Those of old room versions may hold such numbers, and nothing else.
            pdus = parse(TransactionBody, await request.exact_json()).pdus
        results = await self._context.inbound_transactions.receive(origin, pdus, body.edus)
        return json_response({"pdus": results})
