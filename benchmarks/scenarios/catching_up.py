"""A device that was away while much was said, and the pages of rooms with a history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.client import Refused, in_parallel
from benchmarks.figures import Figure
from benchmarks.scenarios.sending import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.client import Device
    from benchmarks.figures import Setting

_AT_ONCE = 4
_PAGE = 100
_FILTER = {"room": {"timeline": {"limit": 20}}}


async def measure(setting: Setting, database_bytes: Callable[[], int] | None) -> list[Figure]:
    """Away, then back; every message must be there once and in order. Then the same rooms back to their beginning."""
    load = setting.load
    device = await setting.accounts.register("traveller")
    rooms: dict[str, Device] = {}
    for number in range(load.missed_rooms):
        speaker = setting.speakers[number % len(setting.speakers)]
        room_id = await speaker.create_room(name=f"Missed {number}")
        await device.join(room_id)
        rooms[room_id] = speaker
    since = (await device.sync(filter=_FILTER))["next_batch"]

    async def speak(room_id: str, speaker: Device) -> tuple[str, list[str]]:
        requests = [
            speaker.encode_message(room_id, f"{number} {TEXT}")
            for number in range(load.missed // load.missed_rooms)
        ]
        return room_id, [await speaker.send(request) for request in requests]

    size = database_bytes() if database_bytes is not None else 0
    works = [lambda room=room: speak(*room) for room in rooms.items()]
    sent = dict(await in_parallel(len(setting.speakers), works))
    figures = [await _catch_up(device, since, sent), await _page_back(load.seconds, device, sent)]
    if database_bytes is not None:
        figures.append(Figure("Database per message", (database_bytes() - size) / load.missed, "bytes"))
    return figures


async def _catch_up(device: Device, since: str, sent: dict[str, list[str]]) -> Figure:
    started = time.perf_counter()
    answer = await device.sync(since, filter=_FILTER)

    async def room(room_id: str) -> tuple[str, list[str]]:
        timeline = answer["rooms"]["join"][room_id]["timeline"]
        events = timeline["events"]
        if timeline["limited"]:
            events = [*(await device.read_back(room_id, timeline["prev_batch"], since))[::-1], *events]
        return room_id, [event["event_id"] for event in events]

    held = dict(await in_parallel(_AT_ONCE, [lambda room_id=room_id: room(room_id) for room_id in sent]))
    passed = time.perf_counter() - started
    if held != sent:
        raise Refused("not every message that was missed came once and in order")
    count = sum(map(len, sent.values()))
    return Figure(f"Catching up on {count:,} messages in {len(sent)} rooms", 1000 * passed, "ms")


async def _page_back(seconds: float, device: Device, sent: dict[str, list[str]]) -> Figure:
    count = 0
    started = time.perf_counter()

    async def room(room_id: str) -> None:
        nonlocal count
        events = await device.read_back(room_id)
        count += len(events)
        messages = [event["event_id"] for event in events if event["type"] == "m.room.message"]
        if messages[::-1] != sent[room_id] or events[-1]["type"] != "m.room.create":
            raise Refused("the pages of a room do not hold all of it")

    while time.perf_counter() < started + seconds:
        await in_parallel(_AT_ONCE, [lambda room_id=room_id: room(room_id) for room_id in sent])
    passed = time.perf_counter() - started
    return Figure(f"Pages of {_PAGE} events", count / _PAGE / passed, "/s", more_is_better=True)
