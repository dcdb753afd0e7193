"""Somebody comes into a large room of other servers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from benchmarks.client import V3, Refused

if TYPE_CHECKING:
    from benchmarks.client import Device
    from benchmarks.large_room import LargeRoom

_LONG_POLL_MS = 30_000
# As the apps on phones ask.
_FILTER = {"room": {"timeline": {"limit": 20}, "state": {"lazy_load_members": True}}}


@dataclass(frozen=True)
class Joined:
    """How long a join took, in seconds, from the request on."""

    answered: float
    """Until it was answered."""
    synced: float
    """Until a sync that waited had the room."""


async def measure(device: Device, room: LargeRoom) -> Joined:
    """Let a user join."""
    since = (await device.sync(filter=_FILTER))["next_batch"]
    started = time.perf_counter()
    syncing = asyncio.create_task(_until_there(device, since, room.room_id))
    await device.join(room.room_id, room.server_names[0])
    answered = time.perf_counter() - started
    async with asyncio.timeout(60):
        synced = await syncing - started
    return Joined(answered, synced)


async def _until_there(device: Device, since: str, room_id: str) -> float:
    while True:
        answer = await device.sync(since, timeout_ms=_LONG_POLL_MS, filter=_FILTER)
        if room_id in answer.get("rooms", {}).get("join", {}):
            return time.perf_counter()
        since = answer["next_batch"]


async def check(device: Device, room: LargeRoom, *, partial: bool) -> None:
    """The whole of the room's state must be there; nothing is asked where its members were left out."""
    if partial:
        return
    path = f"{V3}/rooms/{quote(room.room_id, safe='')}"
    members = (await device.call("GET", f"{path}/joined_members"))["joined"]
    if len(members) != room.joined_members + 1:
        raise Refused(f"{len(members)} members of {room.joined_members + 1}")
    state = await device.call("GET", f"{path}/state")
    if len(state) != room.state_events + 1:
        raise Refused(f"{len(state)} state events of {room.state_events + 1}")
