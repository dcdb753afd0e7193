"""What this server's users are told of other servers' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import MatrixError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from federation.errors import Refused
    from homeserver.ids import ServerName


def unreachable(server_names: Iterable[ServerName]) -> dict[ServerName, dict[str, str]]:
    """The `failures` of an answer: none of these servers could be asked."""
    return {name: {"errcode": "M_UNKNOWN", "error": "This server cannot be reached"} for name in server_names}


def as_matrix_error(error: Refused) -> MatrixError:
    """What another server said, for the client; its own faults are not the client's."""
    status = error.status if 400 <= error.status < 500 and error.status != 401 else 502
    message = f"The other server says: {error.error}"
    return MatrixError(message, status=status, errcode=error.errcode or "M_UNKNOWN")
