"""Rate limits: a bucket of tokens for each limit and key, held in memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import LimitExceeded

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.metrics import Metrics

_MAX_BUCKETS = 50_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many per second in the long run, and so many at once."""

    per_second: float
    burst: int


RATE_LIMITS: dict[str, RateLimit] = {
    "login_address": RateLimit(0.5, 20),
    "login_account": RateLimit(0.2, 10),
    "registration": RateLimit(0.2, 10),
    "messages": RateLimit(10, 100),
    "joins": RateLimit(0.5, 30),
    "invites": RateLimit(0.5, 50),
    "room_creation": RateLimit(0.2, 20),
}
"""The limits by name. `login_address` and `registration` are per address, the others per user or account."""


class RateLimits:
    """Says when somebody is too fast."""

    def __init__(self, clock: Clock, metrics: Metrics, *, enabled: bool = True) -> None:
        self._clock = clock
        self._metrics = metrics
        self._enabled = enabled
        # Key -> (tokens left, when that was).
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def check(self, name: str, key: str) -> None:
        """Take one token; `LimitExceeded` when there is none."""
        if not self._enabled:
            return
        limit = RATE_LIMITS[name]
        now = self._clock.monotonic()
        tokens, since = self._buckets.pop((name, key), (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - since) * limit.per_second)
        if tokens < 1:
            self._buckets[name, key] = (tokens, now)
            self._metrics.rate_limited.labels(name).inc()
            raise LimitExceeded(name, math.ceil((1 - tokens) / limit.per_second * 1000))
        self._buckets[name, key] = (tokens - 1, now)
        while len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
