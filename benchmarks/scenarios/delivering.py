"""From a send to the last of many long-polling receivers."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.client import Refused, in_parallel
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.client import Device
    from benchmarks.figures import Setting

_LONG_POLL_MS = 30_000
_PATIENCE_SECONDS = 60.0
FILTER = {"room": {"timeline": {"limit": 10}}}


async def measure(setting: Setting) -> list[Figure]:
    """One speaks; the next message is sent when everybody has the last one."""
    speaker, load = setting.speakers[0], setting.load
    room_id = await speaker.create_room(name="Delivering")

    async def receiver(number: int) -> tuple[Device, str]:
        device = await setting.accounts.register(f"receiver-{number}")
        await device.join(room_id)
        return device, (await device.sync(filter=FILTER))["next_batch"]

    works = [lambda number=number: receiver(number) for number in range(load.receivers)]
    times, passed = await deliver(load.seconds, speaker, room_id, await in_parallel(4, works))
    who = f"{load.receivers} long-polling receivers"
    return [
        Figure(f"From a send to the last of {who}", 1000 * statistics.median(times), "ms"),
        Figure(f"Deliveries to {who}", len(times) * load.receivers / passed, "/s", more_is_better=True),
    ]


async def deliver(
    seconds: float, speaker: Device, room_id: str, receivers: Sequence[tuple[Device, str]]
) -> tuple[list[float], float]:
    """Send messages one after the other to devices that sync from a token on.

    The answer is the seconds from each send to the last of the receivers, and how long all took.
    """
    arrivals = _Arrivals(room_id, len(receivers))
    receiving = [asyncio.create_task(arrivals.receive(device, since)) for device, since in receivers]
    # Everybody has been told of everybody's joining.
    await arrivals.of(speaker, "first")
    started = time.perf_counter()
    times = []
    while time.perf_counter() < started + seconds:
        sent = time.perf_counter()
        await arrivals.of(speaker, f"message {len(times)}")
        times.append(time.perf_counter() - sent)
    passed = time.perf_counter() - started
    for task in receiving:
        task.cancel()
    for outcome in await asyncio.gather(*receiving, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise Refused(f"a receiver stopped: {outcome!r}")
    return times, passed


class _Arrivals:
    """Counts who has got which message."""

    def __init__(self, room_id: str, receivers: int) -> None:
        self._room_id = room_id
        self._receivers = receivers
        self._text = ""
        self._missing = 0
        self._all = asyncio.Event()

    async def of(self, speaker: Device, text: str) -> None:
        """Send a message, and come back when everybody has it."""
        self._text, self._missing = text, self._receivers
        self._all.clear()
        await speaker.send(speaker.encode_message(self._room_id, text))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._all.wait()

    async def receive(self, device: Device, since: str) -> None:
        """Sync for ever; every message must come once."""
        held = set()
        while True:
            answer = await device.sync(since, timeout_ms=_LONG_POLL_MS, filter=FILTER)
            since = answer["next_batch"]
            for event in _timeline(answer, self._room_id):
                if event["event_id"] in held:
                    raise Refused("a message came twice")
                held.add(event["event_id"])
                if event["content"].get("body") == self._text:
                    self._missing -= 1
                    if self._missing == 0:
                        self._all.set()


def _timeline(answer: Any, room_id: str) -> list[Any]:
    joined = answer.get("rooms", {}).get("join", {}).get(room_id)
    return joined["timeline"]["events"] if joined else []
