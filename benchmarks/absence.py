"""A device that was away: each server is prepared once, its data kept, and copies of them measured."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvloop

from benchmarks.client import V3, Accounts, Device, in_parallel
from benchmarks.connection import Address
from benchmarks.parts import told
from benchmarks.scenarios import coming_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.figures import Absence, Figure
    from benchmarks.servers.process import Process

_MADE = "made.json"
_AT_ONCE = 16
_SEED = 4186
_DIRECT, _FAVOURITES, _MENTIONS = 10, 10, 50


@dataclass(frozen=True)
class Away:
    """What was sent while the device was away."""

    user_id: str
    access_token: str
    since: str
    rooms: list[str]
    sent: dict[str, list[str]]
    """The ids of the messages of each room, in order."""
    important: list[str]
    """The 20 rooms that matter most: direct chats and favourites."""

    def device(self, server: Process) -> Device:
        """The device, on a server that runs."""
        return Device(Address.of(server.url), self.user_id, self.access_token)


def measure(
    make: Callable[[], Process], kept: Path, absence: Absence, scenarios: Sequence[coming_back.Scenario]
) -> list[Figure]:
    """What a device that comes back sees in each of these ways, each on a copy of the same data."""
    folder = kept / f"absence-{make().name.lower()}-{absence.rooms}-{absence.messages}"
    if not (folder / _MADE).exists():
        _prepare(make(), folder, absence)
    away = Away(**json.loads((folder / _MADE).read_text()))
    return [figure for scenario in scenarios for figure in _on_a_copy(make(), folder, away, scenario)]


def _on_a_copy(server: Process, folder: Path, away: Away, scenario: coming_back.Scenario) -> list[Figure]:
    for data in server.data():
        source = folder / data.name
        if source.is_dir():
            shutil.copytree(source, data, dirs_exist_ok=True)
        else:
            shutil.copy(source, data)

    async def run() -> list[Figure]:
        device = away.device(server)
        try:
            return told(await scenario(device, away))
        finally:
            device.close()

    server.start()
    try:
        return uvloop.run(run())
    finally:
        server.stop()
        shutil.rmtree(server.directory)


def _prepare(server: Process, folder: Path, absence: Absence) -> None:
    print(f"{server.name}: {absence.rooms:,} rooms and {absence.messages:,} messages are made", flush=True)

    async def run() -> Away:
        accounts = Accounts(Address.of(server.url), server.shared_secret, "absence")
        try:
            return await _fill(accounts, absence)
        finally:
            accounts.close()

    server.start()
    try:
        away = uvloop.run(run())
    finally:
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for data in server.data():
        (shutil.copytree if data.is_dir() else shutil.copy)(data, folder / data.name)
    (folder / _MADE).write_text(json.dumps(asdict(away)))


async def _fill(accounts: Accounts, absence: Absence) -> Away:
    maker, device = await accounts.register("maker"), await accounts.register("away")

    async def room(number: int) -> str:
        room_id = await maker.create_room(name=f"Room {number}")
        await device.join(room_id)
        return room_id

    rooms = await in_parallel(
        _AT_ONCE, [lambda number=number: room(number) for number in range(absence.rooms)]
    )
    dice = random.Random(_SEED)
    busy = dice.sample(rooms, absence.busy_rooms)
    direct, favourite = busy[:_DIRECT], busy[_DIRECT : _DIRECT + _FAVOURITES]
    await device.call(
        "PUT", f"{V3}/user/{quote(device.user_id)}/account_data/m.direct", {maker.user_id: direct}
    )
    for room_id in favourite:
        path = f"{V3}/user/{quote(device.user_id)}/rooms/{quote(room_id)}/tags/m.favourite"
        await device.call("PUT", path, {"order": 0.5})
    since = (await device.sync(filter=coming_back.FILTER))["next_batch"]
    order = [busy[number % len(busy)] for number in range(absence.messages)]
    dice.shuffle(order)
    mentions = set(dice.sample(range(absence.messages), min(_MENTIONS, absence.messages)))
    queues: dict[str, list[dict[str, Any]]] = {}
    for number, room_id in enumerate(order):
        mentioned = {"user_ids": [device.user_id]} if number in mentions else {}
        text = f"{number} " + "lorem ipsum dolor sit amet "[: dice.randrange(5, 27)] * dice.randrange(1, 8)
        queues.setdefault(room_id, []).append({"msgtype": "m.text", "body": text, "m.mentions": mentioned})

    async def speak(room_id: str) -> tuple[str, list[str]]:
        # The messages of a room one after the other; several rooms at a time.
        sent = []
        for content in queues[room_id]:
            path = f"{V3}/rooms/{quote(room_id)}/send/m.room.message/{len(sent)}-{rooms.index(room_id)}"
            sent.append((await maker.call("PUT", path, content))["event_id"])
        return room_id, sent

    sent = dict(await in_parallel(_AT_ONCE, [lambda room_id=room_id: speak(room_id) for room_id in queues]))
    return Away(device.user_id, str(device.access_token), since, rooms, sent, direct + favourite)
