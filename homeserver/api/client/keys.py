"""Keys for end-to-end encryption (CS "Key Distribution", "Cross-signing")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

from homeserver.api.client.user_interactive import prove_by_password
from homeserver.errors import BadJson
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.services.server_calls import timeout_seconds
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request


_MAX_CROSS_SIGNING_BYTES = 65_536
"""The body is stored until its sender has shown who they are."""


class UploadBody(Body):
    """The body of `POST /keys/upload`."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    unstable_fallback_keys: dict[str, Any] | None = pydantic.Field(
        default=None, alias="org.matrix.msc2732.fallback_keys"
    )


class QueryBody(Body):
    """The body of `POST /keys/query`."""

    device_keys: dict[str, list[str]]
    timeout: int | None = None


class ClaimBody(Body):
    """The body of `POST /keys/claim`."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: int | None = None


class CrossSigningBody(Body):
    """The body of `POST /keys/device_signing/upload`."""

    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None
    user_signing_key: dict[str, Any] | None = None

    def by_usage(self) -> dict[str, dict[str, Any]]:
        """Those keys that are there."""
        keys = ((MASTER, self.master_key), (SELF_SIGNING, self.self_signing_key))
        return {
            usage: key for usage, key in (*keys, (USER_SIGNING, self.user_signing_key)) if key is not None
        }


class KeyEndpoints:
    """Keys, as far as the server knows them: the public ones."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("POST", "/keys/upload", self.upload),
            *client("POST", "/keys/query", self.query),
            *client("POST", "/keys/claim", self.claim),
            *client(
                "POST",
                "/keys/device_signing/upload",
                self.upload_cross_signing,
                ("v3",),
                _MAX_CROSS_SIGNING_BYTES,
            ),
            *client("POST", "/keys/signatures/upload", self.upload_signatures, ("v3",)),
        ]

    async def upload(self, request: Request) -> Response:
        """`POST /keys/upload`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(UploadBody)
        if body.device_keys is not None:
            self._context.rate_limits.check("key_changes", requester.user_id)
        counts = await self._context.device_keys.upload(
            requester,
            body.device_keys,
            body.one_time_keys or {},
            body.fallback_keys or body.unstable_fallback_keys or {},
        )
        return json_response({"one_time_key_counts": counts})

    async def query(self, request: Request) -> Response:
        """`POST /keys/query`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(QueryBody)
        seconds = timeout_seconds(body.timeout)
        answer = await self._context.key_queries.query(requester.user_id, body.device_keys, seconds)
        return json_response(answer)

    async def claim(self, request: Request) -> Response:
        """`POST /keys/claim`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(ClaimBody)
        number = sum(map(len, body.one_time_keys.values()))
        self._context.rate_limits.check("claims", requester.user_id, number)
        seconds = timeout_seconds(body.timeout)
        return json_response(await self._context.one_time_keys.claim(body.one_time_keys, seconds))

    async def upload_cross_signing(self, request: Request) -> Response:
        """`POST /keys/device_signing/upload`."""
        context = self._context
        requester = await context.authenticator.requester(request)
        body = await request.json()
        keys = parse(CrossSigningBody, body).by_usage()
        context.rate_limits.check("key_changes", requester.user_id)
        if await context.cross_signing.upload(requester, keys, proved=False):
            return json_response({})
        proof = await prove_by_password(context, requester, "POST /keys/device_signing/upload", body)
        keys = parse(CrossSigningBody, proof.body).by_usage()
        await context.cross_signing.upload(requester, keys, proved=True)
        await context.user_interactive.finish(proof)
        return json_response({})

    async def upload_signatures(self, request: Request) -> Response:
        """`POST /keys/signatures/upload`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.json()
        if not all(isinstance(by_key, dict) for by_key in body.values()):
            raise BadJson("The body is not an object of objects")
        self._context.rate_limits.check("key_changes", requester.user_id)
        failures = await self._context.key_signatures.upload(requester.user_id, body)
        return json_response({"failures": failures})
