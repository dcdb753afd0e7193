"""Programs with devices of a foreign library, that do what a test tells them: both libraries in one room."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio import subprocess
from itertools import count
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_SECONDS = 240
_LINE_BYTES = 16_000_000


class Actor:
    """A running program. It reads an order in each line and writes an answer in each; many may be under way."""

    def __init__(self, *command: str | Path, **environment: str) -> None:
        self._command = command
        self._environment = environment
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await subprocess.create_subprocess_exec(
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=_LINE_BYTES,
            env={**os.environ, **self._environment},
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, error_type: object, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reading is not None
        if error_type is not None:
            self._process.kill()
        self._process.stdin.close()
        async with asyncio.timeout(_SECONDS):
            await self._process.wait()
            await self._reading

    async def tell(self, device: str, verb: str, *values: Any) -> Any:
        """What a device answers to an order; its failure fails the test."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        order = {"id": number, "device": device, "verb": verb, "arguments": values}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(_SECONDS):
            outcome = await waiting
        assert "error" not in outcome, f"{device} failed to {verb}:\n{outcome['error']}"
        return outcome["answer"]

    async def register(self, user: str, name: str, *, start: bool = True) -> RemoteDevice:
        """The first device of a new user; it syncs, unless it is to be started later."""
        device = RemoteDevice(self, name, **await self.tell(name, "register", user))
        if start:
            await device.start()
        return device

    async def login(self, user: str, name: str) -> RemoteDevice:
        """Another device of a user; it syncs."""
        device = RemoteDevice(self, name, **await self.tell(name, "login", user))
        await device.start()
        return device

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            outcome = json.loads(line)
            waiting = self._waiting.pop(outcome["id"])
            if not waiting.done():  # as it is where nobody waits any more
                waiting.set_result(outcome)
        for waiting in self._waiting.values():
            waiting.set_exception(AssertionError(f"{self._command[1]} has ended"))


class RemoteDevice:
    """A device of an actor. Its methods are those of `EncryptedDevice`, in Python's spelling."""

    def __init__(self, actor: Actor, name: str, user_id: str, device_id: str) -> None:
        self._actor = actor
        self.name = name
        self.user_id = user_id
        self.device_id = device_id

    def __repr__(self) -> str:
        return self.name

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        return lambda *values: self._actor.tell(self.name, verb, *values)
