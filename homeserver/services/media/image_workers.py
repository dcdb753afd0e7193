"""Processes that make thumbnails (`images`): few at a time, ended where they take too long or have nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from homeserver.errors import LimitExceeded, MatrixError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homeserver.storage.media_thumbnails import Shape

MAX_WAITING = 200
"""So many thumbnails are made or wait for it; whoever comes then is told to come back later."""
SECONDS = 30.0
"""Whatever takes longer is taken for no image."""
MAX_BYTES = 32 << 20
"""So large may a thumbnail be."""
# What Python needs to find its modules and libraries; no secrets.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_RETRY_AFTER_MS = 5_000
_PROGRAM = "homeserver.services.media.images"

_log = structlog.get_logger(__name__)


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
        try:
            process = self._rested() or await _start()
        except OSError as error:
            _log.error("image_worker_not_started", error=str(error))
            raise MatrixError("No thumbnail can be made now: try again later", status=503) from error
        try:
            async with asyncio.timeout(SECONDS):
                outcome = await _ask(process, parts, size, shape)
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            # It hangs, or has come to harm, or says what it should not.
            await _end(process)
            return Outcome("no_image")
        except BaseException:
            await _end(process)
            raise
        if outcome.outcome == "too_large":
            await _end(process)
        else:
            self._idle.append(process)
        return outcome

    def _rested(self) -> asyncio.subprocess.Process | None:
        """One that has nothing to do; those that came to harm meanwhile say nothing about an image."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return None

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
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
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
    # What strangers send may have taken it over: it is believed no further than it must be.
    match answer:
        case {"outcome": "too_large" | "no_image" as why}:
            return Outcome(why)
        case {"outcome": "as_it_is", "content_type": content_type} if content_type in _TYPES:
            return Outcome("as_it_is", content_type)
        case {"outcome": "made", "content_type": content_type, "size": int(length)} if content_type in _TYPES:
            if length > MAX_BYTES:
                return Outcome("too_large")
            return Outcome("made", content_type, await process.stdout.readexactly(length))
    raise ValueError


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
