"""Messages from one server to another: from the sender's request to the sync of somebody elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.client import V3, Refused, in_parallel
from benchmarks.figures import Figure
from benchmarks.scenarios.delivering import FILTER, deliver
from benchmarks.scenarios.sending import TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from benchmarks.client import Accounts, Device
    from benchmarks.figures import Setting

_ROOMS = 4
_LONG_POLL_MS = 30_000
_PATIENCE_SECONDS = 60.0
_BODY = "x" * 1_000
_FILTER = {"room": {"timeline": {"limit": 100}}}


async def measure(setting: Setting, there: Accounts) -> list[Figure]:
    """The speakers are here, those who listen on another server."""
    listener = await there.register("listener")
    return [
        *await _one_at_a_time(setting, listener),
        await _many_at_a_time(setting, listener),
        await _many_receivers(setting, there),
        await _to_device(setting, listener),
    ]


async def _one_at_a_time(setting: Setting, listener: Device) -> list[Figure]:
    (room_id,) = await _shared_rooms(setting.speakers[:1], listener, 1)
    since = (await listener.sync(filter=FILTER))["next_batch"]
    times, _ = await deliver(setting.load.seconds, setting.speakers[0], room_id, [(listener, since)])
    times.sort()
    name = "From a send to a sync on the other server"
    return [
        Figure(f"{name}, median", 1000 * statistics.median(times), "ms"),
        Figure(f"{name}, 95th percentile", 1000 * times[int(0.95 * (len(times) - 1))], "ms"),
    ]


async def _many_at_a_time(setting: Setting, listener: Device) -> Figure:
    """All speak for a while; it ends when the listener has the last message."""
    speakers, load = setting.speakers, setting.load
    rooms = await _shared_rooms(speakers, listener, _ROOMS)
    started = time.perf_counter()

    async def speak(number: int, speaker: Device) -> int:
        count = 0
        while time.perf_counter() < started + load.seconds:
            text = f"{number} {count} {TEXT}"
            await speaker.send(speaker.encode_message(rooms[number % len(rooms)], text))
            count += 1
        return count

    async with _listening(listener, rooms) as heard:
        counts = await asyncio.gather(*(speak(*speaker) for speaker in enumerate(speakers)))
        await heard.all(sum(counts))
    for number, count in enumerate(counts):
        if heard.of(number) != list(range(count)):
            raise Refused(f"of {count} messages of a speaker not every one came once and in order")
    name = f"Messages to the other server, {len(speakers)} at a time"
    return Figure(name, sum(counts) / (heard.last - started), "/s", more_is_better=True)


async def _many_receivers(setting: Setting, there: Accounts) -> Figure:
    speaker, load = setting.speakers[0], setting.load
    room_id = await speaker.create_room(name="Many receivers")

    async def receiver(number: int) -> tuple[Device, str]:
        device = await there.register(f"receiver-{number}")
        await device.join(room_id, speaker.server_name)
        return device, (await device.sync(filter=FILTER))["next_batch"]

    # The first brings the room; the others come into it there.
    receivers = [await receiver(0)]
    works = [lambda number=number: receiver(number) for number in range(1, load.far_receivers)]
    receivers += await in_parallel(4, works)
    times, _ = await deliver(load.seconds, speaker, room_id, receivers)
    name = f"From a send to the last of {load.far_receivers} receivers there"
    return Figure(name, 1000 * statistics.median(times), "ms")


async def _to_device(setting: Setting, listener: Device) -> Figure:
    """All send messages to one device; it ends when that has the last."""
    started = time.perf_counter()

    async def send(number: int, speaker: Device) -> int:
        count = 0
        while time.perf_counter() < started + setting.load.seconds:
            content = {"text": f"{number} {count} {_BODY}"}
            body = {"messages": {listener.user_id: {"*": content}}}
            await speaker.call("PUT", f"{V3}/sendToDevice/org.example.benchmark/f{count}", body)
            count += 1
        return count

    async with _listening(listener, ()) as heard:
        counts = await asyncio.gather(*(send(*speaker) for speaker in enumerate(setting.speakers)))
        await heard.all(sum(counts))
    for number, count in enumerate(counts):
        if heard.of(number) != list(range(count)):
            raise Refused("a message to a device is lost, came twice or in another order")
    name = f"To-device messages to the other server, {len(setting.speakers)} at a time"
    return Figure(name, sum(counts) / (heard.last - started), "/s", more_is_better=True)


async def _shared_rooms(speakers: list[Device], listener: Device, count: int) -> list[str]:
    """Rooms with the listener and a part of the speakers each."""
    rooms = []
    for number in range(count):
        room_id = await speakers[0].create_room(name=f"Shared {number}")
        await listener.join(room_id, speakers[0].server_name)
        for speaker in speakers[number::count]:
            if speaker is not speakers[0]:
                await speaker.join(room_id)
        rooms.append(room_id)
    return rooms


@contextlib.asynccontextmanager
async def _listening(device: Device, rooms: Collection[str]) -> AsyncIterator[_Heard]:
    """A device that syncs until the end of the block."""
    heard = _Heard()
    since = (await device.sync(filter=_FILTER))["next_batch"]
    task = asyncio.create_task(heard.listen(device, since, rooms))
    try:
        yield heard
    finally:
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    if not isinstance(outcome, asyncio.CancelledError):
        raise Refused(f"the listener stopped: {outcome!r}")


class _Heard:
    """What a listener has heard: texts that begin with the number of a speaker and that of the message."""

    def __init__(self) -> None:
        self.last = 0.0
        self._numbers: dict[int, list[int]] = {}
        self._count = 0
        self._news = asyncio.Event()

    def of(self, speaker: int) -> list[int]:
        """The messages of a speaker, in the order in which they came."""
        return self._numbers.get(speaker, [])

    async def all(self, count: int) -> None:
        """Wait until so many have come."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._count < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise Refused(f"{self._count} messages came of {count}") from None

    async def listen(self, device: Device, since: str, rooms: Collection[str]) -> None:
        """Sync for ever."""
        while True:
            answer = await device.sync(since, timeout_ms=_LONG_POLL_MS, filter=_FILTER)
            for room_id in rooms:
                joined = answer.get("rooms", {}).get("join", {}).get(room_id)
                if joined is not None:
                    self._hear(await _complete(device, room_id, joined["timeline"], since))
            events = answer.get("to_device", {}).get("events", [])
            self._hear([{"content": {"body": event["content"]["text"]}} for event in events])
            since = answer["next_batch"]

    def _hear(self, events: list[Any]) -> None:
        for event in events:
            text = event["content"].get("body")
            if text is not None:
                speaker, number, _ = text.split(" ", 2)
                self._numbers.setdefault(int(speaker), []).append(int(number))
                self._count += 1
                self.last = time.perf_counter()
        self._news.set()


async def _complete(device: Device, room_id: str, timeline: Any, since: str) -> list[Any]:
    events: list[Any] = timeline["events"]
    if timeline.get("limited"):
        events = [*(await device.read_back(room_id, timeline["prev_batch"], since))[::-1], *events]
    return events
