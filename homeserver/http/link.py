"""How good the link of a client is: what it says itself, or what was measured on its connection.

The hints are those of browsers: `Save-Data`, `ECT`, `Downlink` in Mbit/s, `RTT` in milliseconds (Network Information API).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.http.request import Request

RATE = "restante.bytes_per_second"
"""Under this name the connection says in the scope how fast its client took the last large answer."""
_MIN_BYTES, _MAX_BYTES = 4_096, 10_000_000
_SECONDS = 3
"""An answer is to take no longer than about this."""
_BY_TYPE = {"slow-2g": 16_384, "2g": 32_768, "3g": 131_072}
_SAVING_BYTES = 65_536
_FAST_BYTES_PER_SECOND = 125_000
_LONG_RTT_MS = 1_000
_DOUBLING_SECONDS, _MAX_DOUBLINGS = 60.0, 40.0


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast whoever reads at a connection took a large answer, and when that was, in seconds of some clock.

    A proxy has many readers on one connection: what was measured holds for the one with the same credentials only. And
    answers that are kept small tell nothing new of the link, which may be a better one by now: with every minute it
    counts for twice as fast, until an answer is large enough to measure it anew.
    """

    bytes_per_second: float
    at: float
    credentials: bytes | None

    def now(self, credentials: bytes | None, at: float) -> float | None:
        """How fast the link of whoever sends these credentials is taken for; None where nothing is known of it."""
        if credentials != self.credentials:
            return None
        doublings = min((at - self.at) / _DOUBLING_SECONDS, _MAX_DOUBLINGS)
        return self.bytes_per_second * math.exp2(doublings)


def budget_bytes(request: Request) -> int | None:
    """How many bytes an answer should have for this client's link; None where the link is good.

    A client may say so itself: `dev.restante.network` is `weak` or `good`, `dev.restante.max_bytes` a number.
    """
    query = request.query
    network = query.get_choice("dev.restante.network", ("weak", "good"), None)
    if query.get("dev.restante.max_bytes") is not None:
        return query.get_int("dev.restante.max_bytes", _SAVING_BYTES, minimum=1, maximum=_MAX_BYTES)
    if network is not None:
        return _SAVING_BYTES if network == "weak" else None
    rate = request.scope.get(RATE)
    found = [budget for budget in (_hinted(request), _measured(rate)) if budget is not None]
    return max(_MIN_BYTES, min(found)) if found else None


def _hinted(request: Request) -> int | None:
    budgets = []
    if (request.header(b"save-data") or "").strip().lower() == "on":
        budgets.append(_SAVING_BYTES)
    by_type = _BY_TYPE.get((request.header(b"ect") or "").strip().lower())
    if by_type is not None:
        budgets.append(by_type)
    downlink = _number(request.header(b"downlink"))
    if downlink is not None:
        by_rate = _measured(downlink * 1_000_000 / 8)
        if by_rate is not None:
            budgets.append(by_rate)
    rtt = _number(request.header(b"rtt"))
    if rtt is not None and rtt >= _LONG_RTT_MS:
        budgets.append(_SAVING_BYTES)
    return min(budgets, default=None)


def _measured(bytes_per_second: float | None) -> int | None:
    if bytes_per_second is None or bytes_per_second >= _FAST_BYTES_PER_SECOND:
        return None
    return int(bytes_per_second * _SECONDS)


def _number(text: str | None) -> float | None:
    """A number that is not negative; None for anything else: hints may lie."""
    try:
        number = float(text) if text is not None and len(text) < 20 else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e9 else None
