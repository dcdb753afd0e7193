"""What this server's users are told of other servers' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from federation.errors import CertificateRefused, Refused, TimedOut, Unreachable
from homeserver.errors import MatrixError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import ServerName


# What else they may say would be about our own users' sessions and accounts: a client that reads `M_UNKNOWN_TOKEN`
# logs out.
_PASSED_ON = frozenset(
    {
        "M_FORBIDDEN",
        "M_INVITE_BLOCKED",
        "M_NOT_FOUND",
        "M_LIMIT_EXCEEDED",
        "M_BAD_STATE",
        "M_INCOMPATIBLE_ROOM_VERSION",
        "M_UNSUPPORTED_ROOM_VERSION",
        "M_UNABLE_TO_AUTHORISE_JOIN",
        "M_UNABLE_TO_GRANT_JOIN",
    }
)
_BY_STATUS = {403: "M_FORBIDDEN", 404: "M_NOT_FOUND", 429: "M_LIMIT_EXCEEDED"}
_INCOMPATIBLE = "M_INCOMPATIBLE_ROOM_VERSION"
_ABOUT_OUR_REQUEST = ("M_INVALID_PARAM", "M_MISSING_PARAM")


_log = structlog.get_logger(__name__)


def unreachable(server_names: Iterable[ServerName]) -> dict[ServerName, dict[str, str]]:
    """The `failures` of an answer: none of these servers could be asked."""
    return {name: {"errcode": "M_UNKNOWN", "error": "This server cannot be reached"} for name in server_names}


def as_matrix_error(error: Refused, *, verbatim: bool = False, of_our_making: bool = False) -> MatrixError:
    """What another server said, for the client; its own faults are not the client's.

    `verbatim`: the client is told no more than that. `of_our_making`: what was sent was made here, so that what is wrong
    with it is not the client's fault ("the Client-Server API request SHOULD fail with a 5xx error").
    """
    status = error.status if 400 <= error.status < 500 and error.status != 401 else 502
    if of_our_making and error.errcode in _ABOUT_OUR_REQUEST:
        status = 502
    message = error.error if verbatim and error.error else f"The other server says: {error.error}"
    errcode = error.errcode if error.errcode in _PASSED_ON else _BY_STATUS.get(status, "M_UNKNOWN")
    if errcode == _INCOMPATIBLE:
        return incompatible(error.room_version or "", message)
    fields = {}
    if status == 429 and error.retry_after_ms is not None:
        fields["retry_after_ms"] = error.retry_after_ms
    return MatrixError(message, status=status, errcode=errcode, **fields)


def incompatible(
    room_version: str, message: str = "This server does not support the version of this room"
) -> MatrixError:
    """The room is of a version that is unknown here: "Inspect the `room_version` property of the error response"."""
    return MatrixError(message, errcode=_INCOMPATIBLE, room_version=room_version)


def of_no_use(server_name: ServerName, error: Exception) -> MatrixError:
    """The 502 for a client where a server was of no use; what went wrong exactly is for the log alone."""
    _log.info("server_of_no_use", server=server_name, why=str(error))
    return MatrixError(f"This cannot be done: {what_failed(server_name, error)}", status=502)


def what_failed(server_name: ServerName, error: Exception) -> str:
    """Why a server was of no use, for the client: nothing of addresses, which may be those of a network of ours."""
    if isinstance(error, CertificateRefused):
        return f"the certificate of {server_name} is not valid"
    if isinstance(error, TimedOut):
        return f"{server_name} does not answer in time"
    if isinstance(error, Unreachable):
        return f"{server_name} cannot be reached"
    return f"{server_name} gave an answer that cannot be used"
