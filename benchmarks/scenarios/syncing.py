"""The first sync of a device with many rooms, and syncs that tell nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.client import Refused, in_parallel
from benchmarks.figures import Figure
from benchmarks.scenarios.sending import TEXT

if TYPE_CHECKING:
    from benchmarks.client import Device
    from benchmarks.figures import Setting

_MESSAGES = 3
_DEVICES = 3
_AT_ONCE = 16


async def measure(setting: Setting) -> list[Figure]:
    """A user of many rooms, in each of which something was said."""
    reader = await setting.accounts.register("reader")

    async def prepare(number: int) -> tuple[str, str]:
        speaker = setting.speakers[number % len(setting.speakers)]
        room_id = await speaker.create_room(name=f"Room {number}", topic="Syncing")
        await reader.join(room_id)
        for _ in range(_MESSAGES):
            event_id = await speaker.send(speaker.encode_message(room_id, TEXT))
        return room_id, event_id

    works = [lambda number=number: prepare(number) for number in range(setting.load.rooms)]
    last_events = dict(await in_parallel(4, works))
    times = []
    for device in [await reader.login() for _ in range(_DEVICES)]:
        started = time.perf_counter()
        answer = await device.sync()
        times.append(time.perf_counter() - started)
        _check(answer, last_events)
    return [
        Figure(f"First sync of {setting.load.rooms} rooms", 1000 * statistics.median(times), "ms"),
        await _empty(setting.load.seconds, reader),
    ]


def _check(answer: Any, last_events: dict[str, str]) -> None:
    joined = answer["rooms"]["join"]
    if joined.keys() != last_events.keys():
        raise Refused(f"{len(joined)} rooms of {len(last_events)} in the first sync")
    for room_id, event_id in last_events.items():
        timeline = joined[room_id]["timeline"]["events"]
        if timeline[-1]["event_id"] != event_id:
            raise Refused("the last message is not the last of the timeline")
        events = [*joined[room_id]["state"]["events"], *timeline]
        if {event["type"] for event in events} < {"m.room.create", "m.room.name", "m.room.member"}:
            raise Refused("the state is not whole")


async def _empty(seconds: float, reader: Device) -> Figure:
    since = (await reader.sync())["next_batch"]
    count = 0
    started = time.perf_counter()

    async def poll(since: str) -> None:
        nonlocal count
        while time.perf_counter() < started + seconds:
            answer = await reader.sync(since)
            if answer.get("rooms", {}).get("join"):
                raise Refused("there was something to tell")
            since = answer["next_batch"]
            count += 1

    await asyncio.gather(*(poll(since) for _ in range(_AT_ONCE)))
    passed = time.perf_counter() - started
    return Figure(f"Empty syncs, {_AT_ONCE} at a time", count / passed, "/s", more_is_better=True)
