"""A server with devices of both libraries, and what people do together in encrypted rooms."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.clients.actors import Actor, RemoteDevice
from tests.clients.environment import clients_python, node
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ROTATION = 5
"""The number of messages for which a key is good in these rooms; matrix-nio takes 100 whatever a room says."""
_HERE = Path(__file__).resolve().parent
_SYMBOLS = 7


@dataclass(frozen=True)
class Stage:
    """A server, and a program for each library."""

    server: ServerProcess
    js: Actor
    nio: Actor


@asynccontextmanager
async def set_up(folder: Path, **settings: Any) -> AsyncIterator[Stage]:
    """All of it runs until the end of the block; the settings are those of `ServerProcess`."""
    with ServerProcess(folder / "server", **settings) as server:
        async with js_actor(server.url) as js, nio_actor(server.url, folder) as nio:
            yield Stage(server, js, nio)


@asynccontextmanager
async def set_up_two_processes(folder: Path, postgresql_url: str) -> AsyncIterator[Stage]:
    """The same with a process of the server for each library, on one database."""
    settings = {
        "server_name": "example.org",
        "database": {"url": postgresql_url},
        "data_dir": str(folder / "data"),
    }
    with (
        ServerProcess(folder / "one", **settings) as one,
        ServerProcess(folder / "other", **settings) as other,
    ):
        async with js_actor(one.url) as js, nio_actor(other.url, folder) as nio:
            yield Stage(one, js, nio)


def js_actor(url: str, **environment: str) -> Actor:
    """Devices of matrix-js-sdk that use the server at an address."""
    return Actor(node(), _HERE / "js" / "actor.js", url, **environment)


def nio_actor(url: str, folder: Path, **environment: str) -> Actor:
    """Devices of matrix-nio that use the server at an address, and keep their keys in a folder."""
    keys = folder / "keys"
    keys.mkdir()
    return Actor(clients_python(), _HERE / "matrix_nio" / "actor.py", url, keys, **environment)


async def verify(one: RemoteDevice, other: RemoteDevice, room_id: str | None = None) -> None:
    """Two people compare the short strings that their devices show; they write in a room, or directly."""
    await one.knows_device(other.user_id, other.device_id)
    await other.knows_device(one.user_id, one.device_id)
    await one.begin_verification(other.user_id, other.device_id, room_id)
    await other.accept_verification(one.user_id)
    strings = await asyncio.gather(one.short_string(True), other.short_string(False))
    assert strings[0] == strings[1]
    assert len(strings[0]) == _SYMBOLS
    await asyncio.gather(one.confirm_verification(), other.confirm_verification())
    await asyncio.gather(one.trusts(other.user_id, other.device_id), other.trusts(one.user_id, one.device_id))


async def know_each_other(devices: Sequence[RemoteDevice]) -> None:
    """Wait until each device knows the devices of each user, and no others."""
    of_user = defaultdict(list)
    for device in devices:
        of_user[device.user_id].append(device.device_id)
    await asyncio.gather(
        *(device.knows(user_id, device_ids) for device in devices for user_id, device_ids in of_user.items())
    )


async def greet(room_id: str, devices: Sequence[RemoteDevice]) -> dict[str, str]:
    """Everybody says something, and the next when all have read it; what was said, by the ids of the events.

    Where two devices write their first Olm messages to each other at the same time, matrix-js-sdk shares the key of the
    room again, from the present message on. matrix-nio gives up its better key for it, and so does matrix-js-sdk where
    both come in one answer.
    """
    said: dict[str, str] = {}
    for speaker in devices:
        text = f"hello from {speaker}"
        spoken = {await speaker.say(room_id, text): text}
        await all_read(room_id, devices, spoken)
        said |= spoken
    return said


async def talk(room_id: str, speakers: Sequence[RemoteDevice], turns: int) -> dict[str, str]:
    """All speak at once, each one thing after another; what was said, by the ids of the events."""

    async def speak(speaker: RemoteDevice) -> dict[str, str]:
        texts = [f"{speaker}: {number}" for number in range(turns)]
        return {await speaker.say(room_id, text): text for text in texts}

    said: dict[str, str] = {}
    for spoken in await asyncio.gather(*map(speak, speakers)):
        said |= spoken
    return said


async def all_read(room_id: str, readers: Sequence[RemoteDevice], said: dict[str, str]) -> None:
    """Each device reads all of it."""

    async def read(reader: RemoteDevice) -> None:
        assert await reader.read(room_id, list(said)) == said, reader

    await asyncio.gather(*map(read, readers))


async def nothing_is_unreadable(room_id: str, readers: Sequence[RemoteDevice]) -> None:
    """There is nothing in the room that a device has and cannot read."""
    for reader in readers:
        assert await reader.unreadable(room_id) == [], reader
