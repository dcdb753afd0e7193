"""The application: request ids, HEAD and OPTIONS, dispatch, errors, metrics. `homeserver.http.connections` asks it."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import itertools
import time
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from homeserver import logs
from homeserver.errors import MatrixError, MethodNotAllowed, Unrecognized
from homeserver.http.body_budget import BodyBudget
from homeserver.http.compression import compress
from homeserver.http.errors import error_response
from homeserver.http.request import Request
from homeserver.http.response import CORS, Streamed
from homeserver.http.routing import Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from homeserver.http.routing import Router
    from homeserver.metrics import Metrics

    _Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Browsers need not ask again for a day.
_PREFLIGHT = Response(status_code=204, headers={"Access-Control-Max-Age": "86400"})
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
_UNRECOGNIZED = "unrecognized"

_log = structlog.get_logger(__name__)


class HttpApplication:
    """Answers the requests of one listener."""

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        trusted_proxies: Sequence[str] = (),
        budget: BodyBudget | None = None,
    ) -> None:
        """`budget` is of all listeners together; without one it is of this listener."""
        self._router = router
        self._metrics = metrics
        self._budget = budget or BodyBudget()
        self._trusted = [ipaddress.ip_network(proxy, strict=False) for proxy in trusted_proxies]
        self._numbers = itertools.count(1)
        self._prefix = f"{time.time_ns() // 1_000_000:x}"

    async def answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to a request (as in ASGI), without CORS; None where the client has gone away."""
        method: str = scope["method"]
        if method == "OPTIONS":
            return _PREFLIGHT
        started = time.monotonic()
        request_id = f"{self._prefix}-{next(self._numbers):x}"
        logs.request_id.set(request_id)
        name = _UNRECOGNIZED
        response: Response
        request: Request | None = None
        try:
            match = self._router.find(method, scope.get("raw_path") or scope["path"].encode())
            if not isinstance(match, Match):
                raise _unrecognized(match)
            route = match.route
            name = route.path
            address = self._client_address(scope)
            request = Request(scope, receive, route, match.parameters, address, request_id, self._budget)
            response = await route.handler(request)
            response = await compress(response, scope)
        except ClientDisconnect:
            return None
        except asyncio.CancelledError:
            # The server stops, and has waited for long enough.
            response = error_response(MatrixError("The server is stopping", status=503), request_id)
        except Exception as error:  # noqa: BLE001 - the one place that answers for every error
            response = error_response(error, request_id)
        finally:
            if request is not None:
                request.release()
        # Clients may make up methods: what is counted must stay bounded.
        counted = method if method in _METHODS else "other"
        seconds = time.monotonic() - started
        self._metrics.answered(counted, name, response.status_code, seconds)
        _log.debug("answered", method=counted, route=name, status=response.status_code, seconds=seconds)
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, for servers other than ours."""
        if scope["type"] != "http":
            return
        response = await self.answer(scope, receive)
        if response is None:
            return
        headers = [*response.raw_headers, *CORS]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if isinstance(response, Streamed) and scope["method"] != "HEAD":
            async for part in response.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        body = b"" if scope["method"] == "HEAD" else bytes(response.body)
        await send({"type": "http.response.body", "body": body})

    def _client_address(self, scope: Scope) -> str:
        """The address of the client: what the trusted proxies say, from the last one backwards."""
        client = scope.get("client")
        seen: str = client[0] if client else ""
        if not self._trusted and not seen.startswith("::ffff:"):
            return seen
        address = _address(seen)
        if address is None or not self._is_trusted(address):
            return seen if address is None else str(address)
        forwarded = [value for header, value in scope["headers"] if header == b"x-forwarded-for"]
        for hop in reversed(b",".join(forwarded).decode("latin-1").split(",")):
            before = _address(hop.strip())
            if before is None:
                break
            address = before
            if not self._is_trusted(address):
                break
        return str(address)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


@functools.lru_cache(4096)
def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that takes both protocols shows an IPv4 address as `::ffff:192.0.2.1`.
    return getattr(address, "ipv4_mapped", None) or address


def _unrecognized(methods: set[str] | None) -> MatrixError:
    if methods is None:
        return Unrecognized("Unrecognized request")
    if "GET" in methods:
        methods = methods | {"HEAD"}
    allowed = ", ".join(sorted(methods | {"OPTIONS"}))
    return MethodNotAllowed("This endpoint does not take this method", allowed)
