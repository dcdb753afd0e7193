"""Devices that do what they are told, line by line: {"id", "device", "verb", "arguments"} in, an answer or an error out."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from functools import partial
from traceback import format_exception
from typing import Any

from encrypted_devices import EncryptedDevice

_LINE_BYTES = 1_000_000


class Actor:
    """Devices by name."""

    def __init__(self, url: str, folder: str) -> None:
        self._url = url
        self._folder = folder
        self._devices: dict[str, EncryptedDevice] = {}
        self._at_work: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Until the input ends."""
        reader = asyncio.StreamReader(_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        async for line in reader:
            order = json.loads(line)
            task = asyncio.create_task(self._obey(order["device"], order["verb"], order["arguments"]))
            self._at_work.add(task)
            task.add_done_callback(partial(self._answer, order["id"]))
        for task in self._at_work:
            task.cancel()
        for device in self._devices.values():
            await device.leave()

    def _answer(self, number: int, task: asyncio.Task[Any]) -> None:
        self._at_work.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        outcome = {"answer": task.result()} if error is None else {"error": "".join(format_exception(error))}
        sys.stdout.write(json.dumps({"id": number, **outcome}) + "\n")
        sys.stdout.flush()

    async def _obey(self, name: str, verb: str, values: list[Any]) -> Any:
        if verb in {"register", "login"}:
            device = EncryptedDevice(self._url, *values, self._folder)
            self._devices[name] = device
            await getattr(device, verb)(name)
            return {"user_id": device.client.user_id, "device_id": device.client.device_id}
        if verb == "come_back":
            self._devices[name] = self._devices[name].after_restart()
            return await self._devices[name].start()
        answer = getattr(self._devices[name], verb)
        if callable(answer):
            answer = answer(*values)
        return await answer if inspect.isawaitable(answer) else answer


if __name__ == "__main__":
    # It warns of each attempt to decrypt.
    logging.getLogger("nio").setLevel(logging.ERROR)
    asyncio.run(Actor(*sys.argv[1:]).run())
