from __future__ import annotations

import pytest

from homeserver.clock import Clock
from homeserver.errors import LimitExceeded
from homeserver.http import rate_limits
from homeserver.http.rate_limits import RATE_LIMITS, RateLimits
from homeserver.metrics import Metrics


class HandClock(Clock):
    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def limits(clock: HandClock, metrics: Metrics) -> RateLimits:
    return RateLimits(clock, metrics)


def allowed(limits: RateLimits, name: str, key: str) -> int:
    for count in range(RATE_LIMITS[name].burst + 1):
        try:
            limits.check(name, key)
        except LimitExceeded:
            return count
    raise AssertionError("there is no limit")


@pytest.mark.parametrize("name", RATE_LIMITS)
def test_so_many_at_once_then_so_many_per_second(limits: RateLimits, clock: HandClock, name: str) -> None:
    limit = RATE_LIMITS[name]
    assert allowed(limits, name, "@a:b") == limit.burst
    with pytest.raises(LimitExceeded) as refused:
        limits.check(name, "@a:b")
    assert refused.value.limit == name
    assert name in refused.value.message
    assert isinstance(refused.value.retry_after_ms, int)
    # Coming back just then is right, and earlier is not.
    half = refused.value.retry_after_ms / 2000
    clock.seconds += half
    with pytest.raises(LimitExceeded):
        limits.check(name, "@a:b")
    clock.seconds += half
    limits.check(name, "@a:b")
    clock.seconds += limit.burst / limit.per_second
    assert allowed(limits, name, "@a:b") == limit.burst


def test_one_is_not_limited_by_what_another_does(limits: RateLimits) -> None:
    allowed(limits, "messages", "@a:b")
    assert allowed(limits, "messages", "@c:b") == RATE_LIMITS["messages"].burst
    assert allowed(limits, "joins", "@a:b") == RATE_LIMITS["joins"].burst


def test_several_at_once_take_as_much_but_never_more_than_there_can_be(limits: RateLimits) -> None:
    burst = RATE_LIMITS["invites"].burst
    limits.check("invites", "@a:b", burst - 1)
    limits.check("invites", "@a:b")
    with pytest.raises(LimitExceeded):
        limits.check("invites", "@a:b")
    limits.check("invites", "@c:b", 100 * burst)
    with pytest.raises(LimitExceeded):
        limits.check("invites", "@c:b")


def test_what_is_given_back_can_be_taken_again(limits: RateLimits) -> None:
    for _ in range(100):
        limits.check("login_account", "@a:b")
        limits.give_back("login_account", "@a:b")
    assert allowed(limits, "login_account", "@a:b") == RATE_LIMITS["login_account"].burst
    limits.give_back("login_account", "@never seen:b")
    assert allowed(limits, "login_account", "@never seen:b") == RATE_LIMITS["login_account"].burst


def test_the_memory_of_limits_is_bounded(limits: RateLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_KEYS", 10)
    limits.check("messages", "@a:b")
    for number in range(100):
        limits.check("joins", f"{number}" * 100_000)
    assert limits.size == 11
    # Whoever fills one limit with keys does not empty another.
    assert allowed(limits, "messages", "@a:b") == RATE_LIMITS["messages"].burst - 1


def test_the_addresses_of_one_network_of_ipv6_are_one(limits: RateLimits) -> None:
    for number in range(RATE_LIMITS["registration"].burst):
        limits.check_address("registration", f"2001:db8:0:1::{number:x}")
    with pytest.raises(LimitExceeded):
        limits.check_address("registration", "2001:db8:0:1:ffff::1")
    limits.check_address("registration", "2001:db8:0:2::1")
    limits.check_address("registration", "192.0.2.1")
    limits.check_address("registration", "")


def test_what_is_refused_is_counted_by_limit(limits: RateLimits, metrics: Metrics) -> None:
    allowed(limits, "joins", "@a:b")
    assert b'restante_rate_limited_requests_total{limit="joins"} 1.0' in metrics.render()


def test_limits_can_be_turned_off(clock: HandClock, metrics: Metrics) -> None:
    limits = RateLimits(clock, metrics, enabled=False)
    for _ in range(1000):
        limits.check("login_account", "@a:b")
        limits.check_address("registration", "192.0.2.1")
    assert limits.size == 0
