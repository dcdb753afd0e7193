"""How much of the bodies of requests is in memory at once, over all connections and listeners.

A body counts from its beginning, with the length that it is said to have, until it is answered, but for the little that a
connection buffers anyway: so ordinary requests wait for nobody. Who wants more than is left waits in turn. If that lasts,
whoever has been sending for the longest time makes room: what holds up others may be slow, but not for long. Nobody waits
for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from homeserver.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_BYTES = 64 << 20
"""Of all bodies together. What is made of them takes several times as much."""
FREE_BYTES = 65_536
"""Of each body: as much as the server buffers for a connection whether it wants it or not."""
PATIENCE_SECONDS = 10.0
"""Who has been sending for so long may be made to stop, if others wait."""
WAIT_SECONDS = 30.0
"""Who has waited for so long is turned away."""
_NEXT_SECONDS = 0.1
_RETRY_MS = 5_000


class BodyBudget:
    """What is left for bodies."""

    def __init__(
        self,
        most: int = MAX_BYTES,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.left = most
        self._patience = patience_seconds
        self._wait = wait_seconds
        # Those who are sending, the first first.
        self._sending: dict[BodyShare, None] = {}
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def share(self) -> BodyShare:
        """The share of one request."""
        return BodyShare(self)

    async def take(self, wanted: int) -> None:
        """Take a part of what is left, in turn; raises `LimitExceeded` after a while."""
        if not self._waiting and wanted <= self.left:
            self.left -= wanted
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((turn, wanted))
        until = loop.time() + self._wait
        try:
            while not turn.done():
                now = loop.time()
                if now >= until:
                    raise _crowded()
                await asyncio.wait([turn], timeout=min(until, self._stop_slowest(now)) - now)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back(wanted)
            raise
        finally:
            turn.cancel()
            with contextlib.suppress(ValueError):
                self._waiting.remove((turn, wanted))
                # Those behind it may want less.
                self.give_back(0)

    def give_back(self, amount: int) -> None:
        """Somebody is done with a part."""
        self.left += amount
        while self._waiting and self._waiting[0][1] <= self.left:
            turn, wanted = self._waiting.popleft()
            if not turn.done():
                self.left -= wanted
                turn.set_result(None)

    def begins(self, share: BodyShare) -> None:
        """A body begins to come."""
        self._sending[share] = None

    def ends(self, share: BodyShare) -> None:
        """It is all there, or nobody wants it any more."""
        self._sending.pop(share, None)

    def _stop_slowest(self, now: float) -> float:
        """Stop whoever has been sending for too long, one at a time; the answer is when to look again."""
        for share in self._sending:
            if share.held:
                if share.since + self._patience > now:
                    return share.since + self._patience
                self.ends(share)
                share.stop()
                # What it held is given back as soon as it runs. If that is not enough, the next one follows.
                return now + min(self._patience, _NEXT_SECONDS)
        return now + self._patience


class BodyShare:
    """What one request has of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._timeout: asyncio.Timeout | None = None
        self.held = 0
        self.since = 0.0

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """While the body comes; `LimitExceeded` where it is made to stop."""
        self.since = asyncio.get_running_loop().time()
        self._budget.begins(self)
        try:
            async with asyncio.timeout(None) as self._timeout:
                yield
        except TimeoutError as error:
            raise _crowded() from error
        finally:
            self._budget.ends(self)

    def stop(self) -> None:
        """Give way to others."""
        if self._timeout is not None:
            self._timeout.reschedule(self.since)

    async def grow_to(self, size: int) -> None:
        """The body has, or is going to have, so many bytes; waits until there is room for them."""
        wanted = size - FREE_BYTES - self.held
        if wanted > 0:
            await self._budget.take(wanted)
            self.held += wanted

    def shrink_to(self, size: int) -> None:
        """The body turned out to have no more than that."""
        unused = self.held - max(0, size - FREE_BYTES)
        if unused > 0:
            self.held -= unused
            self._budget.give_back(unused)

    def release(self) -> None:
        """The body is not needed any more."""
        self.shrink_to(0)


def _crowded() -> LimitExceeded:
    return LimitExceeded("bodies", _RETRY_MS)
