"""The errors that services raise; `homeserver.http.errors` turns them into Matrix error bodies.

The text of an error is shown to the client, so it never holds what the client may not know.
"""

from __future__ import annotations

from typing import Any


class MatrixError(Exception):
    """An answer other than success: a status, an `errcode`, a text for people, further fields of the body."""

    status = 400
    errcode = "M_UNKNOWN"

    def __init__(
        self, message: str, *, errcode: str | None = None, status: int | None = None, **fields: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errcode = errcode or self.errcode
        self.status = status or self.status
        self.fields = fields


class NotJson(MatrixError):
    """The body is not JSON."""

    errcode = "M_NOT_JSON"


class BadJson(MatrixError):
    """JSON, but not of the form that the endpoint takes."""

    errcode = "M_BAD_JSON"


class InvalidParam(MatrixError):
    """A parameter has a value that cannot be used."""

    errcode = "M_INVALID_PARAM"


class MissingParam(MatrixError):
    """A required parameter is absent."""

    errcode = "M_MISSING_PARAM"


class Unrecognized(MatrixError):
    """No such endpoint."""

    status = 404
    errcode = "M_UNRECOGNIZED"


class MethodNotAllowed(Unrecognized):
    """There is such an endpoint, but not with that method; `allowed` lists those that there are."""

    status = 405

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotFound(MatrixError):
    """What was asked for does not exist, or the asker may not know that it does."""

    status = 404
    errcode = "M_NOT_FOUND"


class Forbidden(MatrixError):
    """Known, understood and refused."""

    status = 403
    errcode = "M_FORBIDDEN"


class InviteBlocked(Forbidden):
    """The invited user wants no invites (CS "Invite permission")."""

    errcode = "M_INVITE_BLOCKED"

    def __init__(self) -> None:
        super().__init__("This user wants no invites")


class MissingToken(MatrixError):
    """The endpoint needs an access token."""

    status = 401
    errcode = "M_MISSING_TOKEN"


class UnknownToken(MatrixError):
    """The access token is not, or no longer, valid; `soft_logout=True` where the session still exists."""

    status = 401
    errcode = "M_UNKNOWN_TOKEN"


class UnknownPosition(MatrixError):
    """The place to go on from is no longer, or was never, one that this server keeps: begin anew (MSC4186)."""

    errcode = "M_UNKNOWN_POS"


class TooLarge(MatrixError):
    """A body or an event over its size limit."""

    status = 413
    errcode = "M_TOO_LARGE"


class NotYetUploaded(MatrixError):
    """The content of a media is not there yet."""

    status = 504
    errcode = "M_NOT_YET_UPLOADED"


class LimitExceeded(MatrixError):
    """Too many requests; `retry_after_ms` is when to come back, `limit` is the name of the limit."""

    status = 429
    errcode = "M_LIMIT_EXCEEDED"

    def __init__(self, limit: str, retry_after_ms: int) -> None:
        super().__init__(f"Too many requests ({limit})", retry_after_ms=retry_after_ms)
        self.limit = limit
        self.retry_after_ms = retry_after_ms


class Conflict(Exception):
    """Somebody else wrote first; the deed is to be done again on the new state."""


class StartupError(Exception):
    """What keeps the program from starting. Its text is one line for people: the key concerned and the cure."""
