"""Time, as an argument: everything that needs the time is handed a `Clock`."""

from __future__ import annotations

import time


class Clock:
    """The time of this machine. Tests hand in a subclass."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, as in `origin_server_ts`."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back, for durations."""
        return time.monotonic()
