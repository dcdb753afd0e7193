"""Rate limits: a bucket of tokens for each limit and key, held in memory."""

from __future__ import annotations

import functools
import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import LimitExceeded

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.metrics import Metrics

MAX_KEYS = 20_000
"""So many users, devices or addresses are remembered for each limit; those that did nothing for longest go first."""
_MAX_KEY_LENGTH = 512
# Who comes back just when it was said is let through.
_ROUNDING = 1e-6
# Whoever has one address of IPv6 has all of its network.
_IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many per second in the long run, and so many at once."""

    per_second: float
    burst: int


RATE_LIMITS: dict[str, RateLimit] = {
    # Per address: whoever has not logged in, or has not signed.
    "anonymous": RateLimit(20, 200),
    "login_address": RateLimit(0.5, 30),
    "registration": RateLimit(0.2, 20),
    "unknown_server": RateLimit(1, 500),
    "notary": RateLimit(5, 500),
    "bound_addresses": RateLimit(0.5, 30),
    # Per account: wrong passwords, from wherever.
    "login_account": RateLimit(0.1, 10),
    # Per device: everything.
    "requests": RateLimit(50, 500),
    # Per server: everything.
    "federation": RateLimit(100, 2000),
    "invites_from_server": RateLimit(2, 200),
    # Per user.
    "invites_to_user": RateLimit(0.1, 50),
    "messages": RateLimit(10, 100),
    # Counted in KiB, each message as one at least: a key of a room goes to every device of its members.
    "to_device": RateLimit(500, 30_000),
    "key_changes": RateLimit(0.5, 100),
    "claims": RateLimit(100, 10_000),
    "membership": RateLimit(5, 100),
    "joins": RateLimit(0.5, 30),
    "invites": RateLimit(0.5, 50),
    "room_creation": RateLimit(0.2, 20),
    "aliases": RateLimit(0.5, 20),
    "profile": RateLimit(0.2, 20),
    "initial_syncs": RateLimit(0.2, 20),
    # Counted in MiB, each file as one at least.
    "uploads": RateLimit(5, 2_000),
    "media_ids": RateLimit(1, 100),
    "remote_media": RateLimit(10, 1_000),
}
"""The limits by name, and what they are counted by."""


class RateLimits:
    """Says when somebody is too fast."""

    def __init__(self, clock: Clock, metrics: Metrics, *, enabled: bool = True) -> None:
        self._clock = clock
        self._metrics = metrics
        self._enabled = enabled
        # Name -> key -> (tokens left, when that was).
        self._buckets: dict[str, OrderedDict[str, tuple[float, float]]] = {
            name: OrderedDict() for name in RATE_LIMITS
        }

    @property
    def size(self) -> int:
        """How many buckets there are."""
        return sum(map(len, self._buckets.values()))

    def check(self, name: str, key: str, count: int = 1) -> None:
        """Take so many tokens, or as many as there can be; `LimitExceeded` where there are fewer."""
        if not self._enabled:
            return
        limit = RATE_LIMITS[name]
        buckets = self._buckets[name]
        key = key[:_MAX_KEY_LENGTH]
        now = self._clock.monotonic()
        wanted = min(count, limit.burst)
        tokens, since = buckets.pop(key, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - since) * limit.per_second)
        if tokens < wanted - _ROUNDING:
            buckets[key] = (tokens, now)
            self._metrics.rate_limited.labels(name).inc()
            raise LimitExceeded(name, math.ceil((wanted - tokens) / limit.per_second * 1000))
        buckets[key] = (tokens - wanted, now)
        if len(buckets) > MAX_KEYS:
            buckets.popitem(last=False)

    def check_address(self, name: str, address: str, count: int = 1) -> None:
        """`check` for where a request came from."""
        if self._enabled:
            self.check(name, _network_of(address), count)

    def give_back(self, name: str, key: str) -> None:
        """Give a token back that was taken for something that turned out to be harmless."""
        bucket = self._buckets[name].get(key[:_MAX_KEY_LENGTH])
        if bucket is not None:
            tokens, since = bucket
            self._buckets[name][key[:_MAX_KEY_LENGTH]] = (tokens + 1, since)


@functools.lru_cache(4096)
def _network_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
