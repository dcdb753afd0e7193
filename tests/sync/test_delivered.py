"""When a device got something is remembered about right, however often it comes back."""

from __future__ import annotations

from homeserver.ids import DeviceId, UserId
from homeserver.storage.device_positions import DevicePosition
from homeserver.sync.delivered_positions import thinned

MINUTE_MS = 60_000


def test_times_of_long_ago_are_kept_about_right() -> None:
    times: list[tuple[int, int]] = []
    for minute in range(1, 5_001):
        times = thinned([*times, (minute, minute * MINUTE_MS)])
    device = DevicePosition(UserId("@bob:example.org"), DeviceId("PHONE"), 5_000, times)
    assert len(times) == 64
    for position in (1, 10, 1_000, 3_000, 4_900, 4_990, 5_000):
        told = device.when(position)
        assert told is not None
        age = (5_000 - position) * MINUTE_MS
        assert 0 <= told - position * MINUTE_MS <= age / 3
    assert device.when(5_001) is None
