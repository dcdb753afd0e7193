"""Processes that make thumbnails (`images`): few at a time, ended where they take too long or have nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from homeserver.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homeserver.storage.media_thumbnails import Shape

MAX_WAITING = 200
"""So many thumbnails are made or wait for it; whoever comes then is told to come back later."""
SECONDS = 30.0
"""Whatever takes longer is taken for no image."""
_RETRY_AFTER_MS = 5_000
_PROGRAM = "homeserver.services.media.images"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image: a thumbnail, nothing since it is one itself, or why there is none."""

    outcome: Literal["made", "as_it_is", "too_large", "no_image"]
    content_type: str = ""
    content: bytes = b""


class ImageWorkers:
    """Starts processes as they are needed."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))
        self._waiting = 0
        self._idle: list[asyncio.subprocess.Process] = []
        self._idle_at_last_look: set[int] = set()

    async def make(self, parts: AsyncIterator[bytes], size: int, shape: Shape) -> Outcome:
        """A thumbnail of the image in `parts`, which have `size` bytes; `LimitExceeded` where too many wait."""
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded("thumbnails", _RETRY_AFTER_MS)
        self._waiting += 1
        try:
            async with self._places:
                return await self._make(parts, size, shape)
        finally:
            self._waiting -= 1

    async def _make(self, parts: AsyncIterator[bytes], size: int, shape: Shape) -> Outcome:
        process = self._idle.pop() if self._idle else await _start()
        try:
            async with asyncio.timeout(SECONDS):
                outcome = await _ask(process, parts, size, shape)
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            # It hangs, or has come to harm.
            await _end(process)
            return Outcome("no_image")
        except BaseException:
            await _end(process)
            raise
        self._idle.append(process)
        return outcome

    async def look_after(self) -> None:
        """End those that had nothing to do since the last time."""
        resting = [process for process in self._idle if process.pid in self._idle_at_last_look]
        self._idle = [process for process in self._idle if process not in resting]
        self._idle_at_last_look = {process.pid for process in self._idle}
        for process in resting:
            await _end(process)

    async def close(self) -> None:
        """End all of them."""
        idle, self._idle = self._idle, []
        for process in idle:
            await _end(process)


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # No secrets.
        env={name: value for name, value in os.environ.items() if not name.startswith("RESTANTE_")},
        start_new_session=True,
    )


async def _ask(
    process: asyncio.subprocess.Process, parts: AsyncIterator[bytes], size: int, shape: Shape
) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    order = {
        "size": size,
        "width": shape.width,
        "height": shape.height,
        "method": shape.method,
        "is_animated": shape.is_animated,
    }
    process.stdin.write(json.dumps(order).encode() + b"\n")
    async for part in parts:
        process.stdin.write(part)
        await process.stdin.drain()
    answer = json.loads(await process.stdout.readline())
    content = await process.stdout.readexactly(answer["size"])
    return Outcome(answer["outcome"], answer.get("content_type", ""), content)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
