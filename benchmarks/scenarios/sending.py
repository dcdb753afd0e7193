"""Messages sent per second."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks.client import Refused
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.client import Device
    from benchmarks.figures import Setting

_ROOMS = 4
TEXT = "It is a truth universally acknowledged, that a message which was sent must be in want of a reader."


async def measure(setting: Setting) -> list[Figure]:
    """One speaker, who waits for each answer; then all of them, each of whom does so."""
    rooms = [await setting.speakers[0].create_room(name=f"Sending {number}") for number in range(_ROOMS)]
    speakers = [(speaker, rooms[number % _ROOMS]) for number, speaker in enumerate(setting.speakers)]
    for speaker, room_id in speakers[1:]:
        await speaker.join(room_id)
    sent: dict[str, list[str]] = {room_id: [] for room_id in rooms}
    figures = [await measure_speakers(setting.load.seconds, speakers[:1], sent)]
    figures.append(await measure_speakers(setting.load.seconds, speakers, sent))
    for room_id, event_ids in sent.items():
        events = await setting.speakers[0].read_back(room_id)
        held = [event["event_id"] for event in events if event["type"] == "m.room.message"]
        if sorted(held) != sorted(event_ids):
            raise Refused(f"{len(event_ids)} messages were sent, {len(held)} are there")
    return figures


async def measure_speakers(
    seconds: float, speakers: list[tuple[Device, str]], sent: dict[str, list[str]]
) -> Figure:
    started = time.perf_counter()
    count = 0

    async def speak(speaker: Device, room_id: str) -> None:
        nonlocal count
        while time.perf_counter() < started + seconds:
            sent[room_id].append(await speaker.send(speaker.encode_message(room_id, TEXT)))
            count += 1

    await asyncio.gather(*(speak(*speaker) for speaker in speakers))
    passed = time.perf_counter() - started
    name = "Sending, one at a time" if len(speakers) == 1 else f"Sending, {len(speakers)} at a time"
    return Figure(name, count / passed, "messages/s", more_is_better=True)
