"""The one place where errors become answers (CS "Standard error response")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog

from homeserver.errors import Conflict, LimitExceeded, MatrixError, MethodNotAllowed
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.http.compression import KNOWN_CODINGS, UnknownCoding
from homeserver.http.response import json_response
from homeserver.storage.errors import DatabaseClosed, DatabaseUnavailable

if TYPE_CHECKING:
    from starlette.responses import Response

# The text of an error may repeat what the client sent.
_MAX_TEXT = 500

_log = structlog.get_logger(__name__)


def error_response(error: Exception, request_id: str) -> Response:
    """The answer for an error that a handler raised; what is not foreseen is logged, and told by its id only."""
    if isinstance(error, MatrixError):
        # The answer of user-interactive authentication has no errcode on the first call.
        body = {
            **({"errcode": error.errcode, "error": error.message[:_MAX_TEXT]} if error.errcode else {}),
            **error.fields,
        }
        headers = None
        if isinstance(error, LimitExceeded):
            headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_ms / 1000)))}
        elif isinstance(error, MethodNotAllowed):
            headers = {"Allow": error.allowed}
        elif isinstance(error, UnknownCoding):
            headers = {"Accept-Encoding": KNOWN_CODINGS}
        return json_response(body, error.status, headers)
    if isinstance(error, AuthRuleViolated):
        return json_response({"errcode": "M_FORBIDDEN", "error": error.why}, 403)
    if isinstance(error, EventRefused):
        if error.too_large:
            return json_response({"errcode": "M_TOO_LARGE", "error": str(error)}, 413)
        return json_response({"errcode": "M_BAD_JSON", "error": str(error)}, 400)
    if isinstance(error, DatabaseClosed):
        return json_response({"errcode": "M_UNKNOWN", "error": "The server is stopping"}, 503)
    if isinstance(error, DatabaseUnavailable):
        _log.error("database_unavailable", error=str(error))
        return json_response(
            {"errcode": "M_UNKNOWN", "error": "The server's database cannot be reached: try again later"}, 503
        )
    if isinstance(error, Conflict):
        return json_response({"errcode": "M_UNKNOWN", "error": "Somebody else was faster: try again"}, 409)
    _log.error("request_failed", exc_info=error)
    return json_response(
        {"errcode": "M_UNKNOWN", "error": f"Internal error; in the log it is request {request_id}"}, 500
    )
