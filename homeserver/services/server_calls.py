"""Questions to other servers for users who wait: all at the same time, none to a server that just did not answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from federation.errors import FederationError, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from homeserver.clock import Clock
    from homeserver.ids import ServerName

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 60_000
_AT_ONCE = 100
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 300.0
_MAX_REMEMBERED = 10_000

T = TypeVar("T")


def timeout_seconds(timeout_ms: int | None) -> float:
    """How long a client wants to wait for other servers, within bounds."""
    return min(max(DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms, 0), MAX_TIMEOUT_MS) / 1000


class ServerCalls:
    """Asks, and remembers who did not answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._failed: OrderedDict[ServerName, tuple[int, float]] = OrderedDict()
        """How often in a row, and from when on it may be asked again."""

    async def ask(self, server_name: ServerName, call: Callable[[], Awaitable[T]]) -> T:
        """What the call answers; raises what it raises, `Unreachable` where it is too early for another try."""
        _, retry_at = self._failed.get(server_name, (0, 0.0))
        if self._clock.monotonic() < retry_at:
            raise Unreachable(server_name, "it did not answer just now")
        async with self._slots:
            try:
                answer = await call()
            except FederationError as error:
                if not isinstance(error, Refused) or error.status >= 500 or error.status == 429:
                    self._note_failure(server_name)
                raise
        self._failed.pop(server_name, None)
        return answer

    def heard_from(self, server_name: ServerName) -> None:
        """A server has made a valid request: it may be asked at once."""
        self._failed.pop(server_name, None)

    def _note_failure(self, server_name: ServerName) -> None:
        failures = self._failed.pop(server_name, (0, 0.0))[0] + 1
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 20), _LONGEST_PAUSE_SECONDS)
        self._failed[server_name] = (failures, self._clock.monotonic() + pause)
        while len(self._failed) > _MAX_REMEMBERED:
            self._failed.popitem(last=False)
