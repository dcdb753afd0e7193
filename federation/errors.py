"""What can go wrong between servers: nothing came back, the other refused, or what came back is garbage.

The texts are for operators and logs. They may repeat what the other server said, bounded and without control characters.
"""

from __future__ import annotations

_MAX_TEXT = 300


class FederationError(Exception):
    """The root of this package's errors. `destination` is the server, or the host, that was to be called."""

    def __init__(self, destination: str, why: str) -> None:
        self.destination = plain(destination)
        self.why = plain(why)
        super().__init__(f"{self.destination}: {self.why}")


class Unreachable(FederationError):
    """No answer, or none that ended: worth another try later.

    `connected` says whether the request may have arrived; where it is false it certainly has not.
    """

    def __init__(self, destination: str, why: str, *, connected: bool = False) -> None:
        super().__init__(destination, why)
        self.connected = connected


class NameNotFound(Unreachable):
    """The name has no address."""


class AddressForbidden(Unreachable):
    """The name leads to an address to which this server must not connect, such as one of its own network."""


class CertificateRefused(Unreachable):
    """The other side could not prove that it is who it should be."""


class TimedOut(Unreachable):
    """It took too long."""


class Refused(FederationError):
    """The other server answered with an error.

    `errcode` is None where the answer was not in the form of Matrix, as those of proxies are. `retry_after_ms` is
    when it wants to be asked again, and `room_version` that of the room in question, where it said so.
    """

    def __init__(
        self,
        destination: str,
        status: int,
        errcode: str | None,
        error: str,
        retry_after_ms: int | None = None,
        room_version: str | None = None,
    ) -> None:
        self.status = status
        self.errcode = None if errcode is None else plain(errcode)
        self.error = plain(error)
        self.retry_after_ms = retry_after_ms
        self.room_version = None if room_version is None else plain(room_version)
        super().__init__(destination, f"{status} {self.errcode or ''} {self.error}")


class BadAnswer(FederationError):
    """An answer that is too large, not JSON, or not of the form that the specification says."""


class AnswerTooLarge(BadAnswer):
    """An answer with more bytes than it may have."""

    def __init__(self, destination: str, most: int) -> None:
        super().__init__(destination, f"the answer has more than {most} bytes")


def plain(text: str) -> str:
    """What another server said, for a terminal or a log: bounded, on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT]).split())
