"""Transactions of other servers (SS "Transactions")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from crypto import exact_json
from crypto.canonical_json import MAX_MESSAGE_DEPTH
from federation import json_stream
from homeserver.errors import BadJson, NotJson
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
# To take a transaction apart by its brackets takes a second for a mebibyte of brackets; hardly any has more.
_MAX_TAKEN_APART_BYTES = MEBIBYTE


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
        body = await _read(request)
        results = await self._context.inbound_transactions.receive(origin, body.pdus, body.edus)
        return json_response({"pdus": results})


async def _read(request: Request) -> TransactionBody:
    """The body of a transaction, without what is nested so deeply that no parser reads it.

    The specification has no answer for half a transaction that cannot be read; for an event that cannot be taken in it has:
    200. A server that is refused a transaction because of one event would lose the others with it, or send it for ever.
    """
    try:
        body = await request.parse(TransactionBody)
        if exact_json.has_long_numbers(await request.body()):
            # Those of old room versions may hold such numbers, and nothing else.
            body = TransactionBody(pdus=(await _exact(request)).pdus, edus=body.edus)
    except (NotJson, BadJson):
        members = await asyncio.to_thread(_members, await request.body())
        if members is None:
            raise
        body = parse(TransactionBody, members)
    return body


async def _exact(request: Request) -> TransactionBody:
    return parse(TransactionBody, await request.exact_json())


def _members(body: bytes) -> dict[str, list[Any]] | None:
    """The lists of a transaction, if it is one; what is too deep in them is None, which is no event and no EDU."""
    if len(body) > _MAX_TAKEN_APART_BYTES:
        return None
    members: dict[str, list[Any]] = {"pdus": [], "edus": []}
    stream = json_stream.ObjectStream(members, len(body), max_depth=MAX_MESSAGE_DEPTH)
    try:
        for name, item in (*stream.feed(body), *stream.end()):
            if name in members:
                members[name].append(item)
    except json_stream.NotJson:
        return None
    return members
