"""What this server's users are told of other servers' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MatrixError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from federation.errors import Refused
    from homeserver.ids import ServerName


# What else they may say would be about our own users' sessions and accounts: a client that reads `M_UNKNOWN_TOKEN`
# logs out.
_PASSED_ON = frozenset(
    {
        "M_FORBIDDEN",
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


def unreachable(server_names: Iterable[ServerName]) -> dict[ServerName, dict[str, str]]:
    """The `failures` of an answer: none of these servers could be asked."""
    return {name: {"errcode": "M_UNKNOWN", "error": "This server cannot be reached"} for name in server_names}


def as_matrix_error(error: Refused, *, verbatim: bool = False) -> MatrixError:
    """What another server said, for the client; its own faults are not the client's.

    `verbatim`: the client is told no more than that.
    """
    status = error.status if 400 <= error.status < 500 and error.status != 401 else 502
    message = error.error if verbatim and error.error else f"The other server says: {error.error}"
    errcode = error.errcode if error.errcode in _PASSED_ON else _BY_STATUS.get(status, "M_UNKNOWN")
    fields = {}
    if status == 429 and error.retry_after_ms is not None:
        fields["retry_after_ms"] = error.retry_after_ms
    return MatrixError(message, status=status, errcode=errcode, **fields)
