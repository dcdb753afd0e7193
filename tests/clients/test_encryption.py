"""matrix-js-sdk with its Rust crypto and matrix-nio with vodozemac, unmodified, in one encrypted room."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.actors import Actor, RemoteDevice
from tests.clients.environment import clients_python, node
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.interop
_HERE = Path(__file__).resolve().parent
_ROTATION = 40
"""The number of messages for which a key is good; matrix-nio takes 100 whatever a room says."""
_TURNS = 5
_AWAY_MESSAGES = 1_000


@dataclass
class Stage:
    """A server, and a program for each library."""

    server: ServerProcess
    js: Actor
    nio: Actor


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with _stage(tmp_path) as made:
        yield made


@asynccontextmanager
async def _stage(tmp_path: Path) -> AsyncIterator[Stage]:
    keys = tmp_path / "keys"
    keys.mkdir()
    with ServerProcess(tmp_path / "server") as server:
        js = Actor(node(), _HERE / "js" / "actor.js", server.url)
        nio = Actor(clients_python(), _HERE / "matrix_nio" / "actor.py", server.url, keys)
        async with js, nio:
            yield Stage(server, js, nio)


async def test_four_users_with_two_devices_each_verify_back_up_and_read_everything(stage: Stage) -> None:
    js, nio = stage.js, stage.nio
    phone, bob, carol, dave = await asyncio.gather(
        js.register("alice", "alice's phone"),
        js.register("bob", "bob's phone"),
        nio.register("carol", "carol's phone"),
        js.register("dave", "dave's phone"),
    )
    recovery_key, *_ = await asyncio.gather(phone.bootstrap(), bob.bootstrap(), dave.bootstrap())
    laptop, bobs_laptop, carols_laptop, daves_desk = await asyncio.gather(
        js.login("alice", "alice's laptop"),
        js.login("bob", "bob's laptop"),
        nio.login("carol", "carol's laptop"),
        nio.login("dave", "dave's desk"),
    )
    devices = [phone, laptop, bob, bobs_laptop, carol, carols_laptop, dave, daves_desk]
    await asyncio.gather(_verify(laptop, phone), _verify(bobs_laptop, bob))
    await dave.cross_sign(daves_desk.device_id)

    room_id = await phone.create_room([bob.user_id, carol.user_id, dave.user_id], _ROTATION)
    await asyncio.gather(*(device.join(room_id) for device in (bob, carol, dave)))
    await _know_each_other(devices)
    await _verify(phone, bob, room_id)
    await _verify(carol, daves_desk)
    await _verify(carols_laptop, carol)
    # By the signatures alone, devices that never met trust each other.
    await asyncio.gather(
        laptop.trusts(bob.user_id, bobs_laptop.device_id),
        bobs_laptop.trusts(phone.user_id, laptop.device_id),
    )

    said = await _greet(room_id, devices)
    said |= await _talk(room_id, devices, _TURNS)
    await _all_read(room_id, devices, said)

    await phone.backed_up(room_id, list(said))
    tablet = await js.login("alice", "alice's tablet")
    assert await tablet.restore(recovery_key) > 0
    assert await tablet.read(room_id, list(said)) == said
    assert await tablet.unreadable(room_id) == []
    devices.append(tablet)
    await _know_each_other(devices)

    away = [bobs_laptop, carols_laptop]
    await asyncio.gather(*(device.leave() for device in away))
    present = [phone, bob, carol, dave, daves_desk]
    missed = await _talk(room_id, present, _AWAY_MESSAGES // len(present))
    await asyncio.gather(*(device.come_back() for device in away))
    await _all_read(room_id, devices, missed)
    for device in devices:
        assert await device.unreadable(room_id) == [], device
    for device in (phone, laptop, bob, carol, dave, daves_desk):
        assert await device.failures() == [], device


async def _verify(one: RemoteDevice, other: RemoteDevice, room_id: str | None = None) -> None:
    """Two people compare the short strings that their devices show: in a room, or directly."""
    await one.knows_device(other.user_id, other.device_id)
    await other.knows_device(one.user_id, one.device_id)
    await one.begin_verification(other.user_id, other.device_id, room_id)
    await other.accept_verification(one.user_id)
    strings = await asyncio.gather(one.short_string(True), other.short_string(False))
    assert strings[0] == strings[1]
    assert len(strings[0]) == 7
    await asyncio.gather(one.confirm_verification(), other.confirm_verification())
    await asyncio.gather(one.trusts(other.user_id, other.device_id), other.trusts(one.user_id, one.device_id))


async def _know_each_other(devices: Sequence[RemoteDevice]) -> None:
    """Wait until each device knows the devices of each user."""
    of_user = defaultdict(list)
    for device in devices:
        of_user[device.user_id].append(device.device_id)
    await asyncio.gather(
        *(device.knows(user_id, device_ids) for device in devices for user_id, device_ids in of_user.items())
    )


async def _greet(room_id: str, devices: Sequence[RemoteDevice]) -> dict[str, str]:
    """Everybody says something, and the next when all have read it; what was said, by the ids of the events.

    Where two devices write their first Olm messages to each other at the same time, matrix-js-sdk shares the key of the
    room again, from the present message on, and matrix-nio gives up its better one for it.
    """
    said: dict[str, str] = {}
    for speaker in devices:
        text = f"hello from {speaker}"
        spoken = {await speaker.say(room_id, text): text}
        await _all_read(room_id, devices, spoken)
        said |= spoken
    return said


async def _talk(room_id: str, speakers: Sequence[RemoteDevice], turns: int) -> dict[str, str]:
    """All speak at once, each one thing after another; what was said, by the ids of the events."""

    async def speak(speaker: RemoteDevice) -> dict[str, str]:
        texts = [f"{speaker}: {number}" for number in range(turns)]
        return {await speaker.say(room_id, text): text for text in texts}

    said: dict[str, str] = {}
    for spoken in await asyncio.gather(*map(speak, speakers)):
        said |= spoken
    return said


async def _all_read(room_id: str, readers: Sequence[RemoteDevice], said: dict[str, str]) -> None:
    """Each device reads all of it."""
    for reader, texts in zip(
        readers, await asyncio.gather(*(reader.read(room_id, list(said)) for reader in readers)), strict=True
    ):
        assert texts == said, reader
