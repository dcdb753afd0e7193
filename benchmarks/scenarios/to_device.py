"""Messages from device to device: into the queues of devices that are away, and out when they come back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.client import V3, Refused, in_parallel
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.client import Device
    from benchmarks.figures import Setting

_BODY = "x" * 1_000
"""With the rest of it about 1 KiB, as an encrypted room key is."""

# Rooms would cost more than the messages.
_OPTIONS: dict[str, Any] = {"filter": {"room": {"rooms": []}, "presence": {"types": []}}}


async def measure(setting: Setting) -> list[Figure]:
    """Everybody sends to a neighbour, who is away; then all come back."""
    devices = setting.speakers
    tokens = [(await device.sync(**_OPTIONS))["next_batch"] for device in devices]
    started = time.perf_counter()
    deadline = started + setting.load.seconds
    works = [
        lambda pair=pair: _send(*pair, deadline)
        for pair in zip(devices, [*devices[1:], devices[0]], strict=True)
    ]
    sent = sum(await in_parallel(len(works), works))
    sending = time.perf_counter() - started
    started = time.perf_counter()
    drains = [
        lambda device=device, since=since: _drain(device, since)
        for device, since in zip(devices, tokens, strict=True)
    ]
    received = sum(await in_parallel(len(drains), drains))
    receiving = time.perf_counter() - started
    if received != sent:
        raise Refused(f"{received} messages came of {sent}")
    count = f"{len(devices)} at a time"
    return [
        Figure(f"To-device messages in, {count}", sent / sending, "/s", more_is_better=True),
        Figure(f"To-device messages out, {count}", received / receiving, "/s", more_is_better=True),
    ]


async def _send(sender: Device, recipient: Device, deadline: float) -> int:
    """Send one after the other; the answer is how many."""
    number = 0
    while time.perf_counter() < deadline:
        content = {"number": number, "body": _BODY}
        body = {"messages": {recipient.user_id: {"*": content}}}
        await sender.call("PUT", f"{V3}/sendToDevice/org.example.benchmark/d{number}", body)
        number += 1
    return number


async def _drain(device: Device, since: str) -> int:
    """Sync until nothing waits any more; the answer is how many came, of one sender and in order."""
    count = 0
    while True:
        answer = await device.sync(since, **_OPTIONS)
        since = answer["next_batch"]
        events = answer.get("to_device", {}).get("events", [])
        if not events:
            return count
        for event in events:
            if event["content"] != {"number": count, "body": _BODY}:
                raise Refused("a message is lost, came twice or in another order")
            count += 1
