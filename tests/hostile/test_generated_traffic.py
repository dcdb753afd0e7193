"""People of two servers do what people do, while one of the servers lies: the other stays sound, and its people go on."""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from federation.server_keys import own_document
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import Refused
from tests.eventgraph.rooms import KEY
from tests.hostile.attack import look_around, still_works
from tests.hostile.conftest import examples, keys_of
from tests.hostile.elsewhere import HONEST
from tests.hostile.mallory import Mallory
from tests.hostile.meddler import Meddler
from tests.hostile.oracle import check_database
from tests.hostile.wire import Answered, Wire
from tests.keys import Device
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

VERSIONS = ("1", "6", "10", "12")
DEEDS = 60
SOAK_TOWNS = 5
_CHANGED = 0.3
"""How much of what the other server says is changed."""


class Town:
    """Alice at the server under test, Eve at the one that lies."""

    def __init__(self, here: Server, there: Server, version: str) -> None:
        self.here = here
        self.there = there
        self.chance = Random(version)
        self.version = version
        self.wire = Wire()
        self.rooms: list[str] = []
        self.numbers = itertools.count()
        self.statuses: list[int] = []

    async def open(self) -> None:
        for server in (self.here, self.there):
            self.wire.plug_in(server)
        self.alice = await self.here.register("alice")
        self.eve = await self.there.register("eve")
        document = own_document(HONEST, [KEY], self.here.clock.now_ms())

        async def keys(_: Any) -> Answered:
            return Answered.json(document)

        self.wire.sites[HONEST] = keys
        self.honest = Mallory(self.here, HONEST, KEY)
        self.quiet = await self.alice.create_room(preset="public_chat")
        await self.honest.become("join", self.quiet, self.honest.user("helen"))
        self.meddler = Meddler(self.there, self.here, self.version)
        self.meddler.chance = self.chance
        self.meddler.words += [self.alice.user_id, self.eve.user_id, self.quiet]
        self.wire.taps.append(self.meddler.tap)
        for client in (self.alice, self.eve):
            await Device(client).upload(20)
        await self.theirs()
        await self.ours()

    # -- deeds -----------------------------------------------------------------------------------------

    def _room(self) -> str:
        return self.chance.choice(self.rooms)

    async def _remember(self, room_id: str) -> None:
        self.rooms = [*self.rooms[-5:], room_id]
        self.meddler.words = [*self.meddler.words[:5], *self.rooms]

    async def theirs(self) -> None:
        """Eve makes a room, talks there, and Alice comes."""
        rule = self.chance.choice(("public", "public", "knock", "restricted"))
        initial: list[Any] = []
        known = ROOM_VERSIONS[self.version]
        if rule == "restricted" and self.rooms and known.has_restricted_join:
            allow = [{"type": "m.room_membership", "room_id": self._room()}]
            initial = [{"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}]
        elif rule == "knock" and known.has_knock:
            initial = [{"type": "m.room.join_rules", "content": {"join_rule": rule}}]
        alias = f"room{next(self.numbers)}"
        room_id = await self.eve.create_room(
            preset="public_chat",
            room_version=self.version,
            initial_state=initial,
            room_alias_name=alias,
            visibility="public",
            name="Theirs",
        )
        for number in range(3):
            await self.eve.send(room_id, str(number))
        await self._remember(room_id)
        via = f"?via={self.meddler.evil}"
        if initial and rule == "knock":
            await self.alice.post(f"/knock/{quote(room_id, safe='')}{via}")
            await self.eve.invite(room_id, self.alice.user_id)
        if self.chance.random() < 0.5:
            await self.alice.join(f"#{alias}:{self.meddler.evil}")
        else:
            await self.alice.post(f"/join/{quote(room_id, safe='')}{via}")

    async def ours(self) -> None:
        """Alice makes a room, and Eve comes."""
        room_id = await self.alice.create_room(
            preset=self.chance.choice(("public_chat", "private_chat")),
            room_version=self.version,
            invite=[self.eve.user_id],
        )
        await self._remember(room_id)
        await self.eve.post(f"/join/{quote(room_id, safe='')}?via={self.meddler.victim}")

    async def invited(self) -> None:
        room_id = await self.eve.create_room(
            room_version=self.version, invite=[self.alice.user_id], name="Secret"
        )
        await self._remember(room_id)
        if self.chance.random() < 0.6:
            await self.alice.join(quote(room_id, safe=""))
        else:
            await self.alice.leave(room_id)

    async def talk(self) -> None:
        room_id = self._room()
        for client in self.chance.choices((self.alice, self.eve, self.eve), k=3):
            await client.send(room_id, f"text {next(self.numbers)}")

    async def decide(self) -> None:
        room_id = self._room()
        await self.eve.set_state(room_id, "m.room.topic", {"topic": str(next(self.numbers))})
        users = {self.alice.user_id: self.chance.choice((0, 50, 100))}
        if self.version != "12":
            users[self.eve.user_id] = 100
        await self.eve.set_state(room_id, "m.room.power_levels", {"users": users})

    async def redact(self) -> None:
        room_id = self._room()
        event_id = await self.eve.send(room_id, "oh no")
        await self.eve.redact(room_id, event_id)

    async def page_back(self) -> None:
        await self.alice.messages(self._room(), limit=100)

    async def go(self) -> None:
        deed = self.chance.choice((self.alice.leave, self.eve.leave))
        await deed(self._room())

    async def throw_out(self) -> None:
        deed = self.chance.choice((self.eve.kick, self.eve.ban))
        await deed(self._room(), self.alice.user_id)

    async def look_up(self) -> None:
        await self.alice.get(f"/profile/{quote(self.eve.user_id, safe='')}")

    async def look_up_rooms(self) -> None:
        await self.alice.get("/publicRooms", server=self.meddler.evil)
        await self.alice.post(
            f"/publicRooms?server={self.meddler.evil}", {"filter": {"generic_search_term": "x"}}
        )

    async def ask_for_keys(self) -> None:
        await self.alice.post("/keys/query", {"device_keys": {self.eve.user_id: []}})

    async def claim(self) -> None:
        wanted = {self.eve.user_id: {self.eve.device_id: "signed_curve25519"}}
        await self.alice.post("/keys/claim", {"one_time_keys": wanted})

    async def rename(self) -> None:
        name = {"display_name": str(next(self.numbers))}
        await self.eve.put(f"/devices/{self.eve.device_id}", name)
        await self.eve.put(f"/profile/{quote(self.eve.user_id, safe='')}/displayname", {"displayname": "Eve"})

    async def whisper(self) -> None:
        for sender, to in ((self.eve, self.alice), (self.alice, self.eve)):
            content = {"messages": {to.user_id: {"*": {"text": "psst"}}}}
            await sender.put(f"/sendToDevice/m.x/{next(self.numbers)}", content)

    async def be_about(self) -> None:
        room_id = self._room()
        user = quote(self.eve.user_id, safe="")
        await self.eve.put(f"/rooms/{room_id}/typing/{user}", {"typing": True, "timeout": 30_000})
        event_id = await self.eve.send(room_id, "read this")
        await self.eve.post(f"/rooms/{room_id}/receipt/m.read/{event_id}")

    async def live(self, chance: Random) -> None:
        """One deed; whatever Alice asks, the fault is never her server's."""
        deeds: list[Callable[[], Awaitable[None]]] = [
            *(
                self.theirs,
                self.theirs,
                self.ours,
                self.invited,
                self.invited,
                self.talk,
                self.talk,
                self.decide,
            ),
            *(self.redact, self.page_back, self.go, self.throw_out, self.look_up, self.look_up_rooms),
            *(self.ask_for_keys, self.claim, self.rename, self.whisper, self.be_about),
        ]
        self.chance = self.meddler.chance = chance
        self.meddler.share = _CHANGED
        try:
            await chance.choice(deeds)()
        except Refused as error:
            self.statuses.append(error.status)
        for server in (self.here, self.there):
            # Nobody is left in peace for having failed.
            server.clock.offset_ms += 61_000
        await asyncio.sleep(0)
        self.meddler.share = 0.0

    async def is_sound(self) -> None:
        await look_around(self.alice, [*self.rooms, self.quiet])
        await still_works(self.alice, self.honest, self.quiet)
        await self.here.application.inbound.queues.stop()
        keys = keys_of(self.here, self.honest, self.meddler.mallory)
        await check_database(self.here, keys)


async def begin(directory: Path, version: str) -> Town:
    servers = []
    for name in ("example.org", "evil.example"):
        own = directory / name
        own.mkdir()
        server = Server(own, f"sqlite:///{own}/restante.db", server_name=name, presence={"enabled": True})
        await server.start()
        servers.append(server)
    town = Town(*servers, version)
    await town.open()
    return town


async def end(town: Town) -> None:
    await town.is_sound()
    for server in (town.there, town.here):
        await server.stop()


def lie(directory: Path, version: str, deeds: int, *, derandomize: bool) -> Town:
    with asyncio.Runner() as runner, capture_logs() as logs:
        town = runner.run(begin(directory, version))
        examples(lambda chance: runner.run(town.live(chance)), deeds, derandomize=derandomize)
        runner.run(end(town))
    # 502 says that the fault is the other server's.
    assert all(status < 500 or status == 502 for status in town.statuses)
    assert town.meddler.changed
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    return town


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_stays_sound_whatever_another_says(tmp_path: Path, version: str) -> None:
    lie(tmp_path, version, DEEDS, derandomize=True)


@pytest.mark.soak
@pytest.mark.parametrize("version", ["1", "5", "8", "9", "10", "11", "12"])
def test_a_server_stays_sound_whatever_another_says_for_long(tmp_path: Path, version: str) -> None:
    for number in range(SOAK_TOWNS):
        directory = tmp_path / str(number)
        directory.mkdir()
        lie(directory, version, 2 * DEEDS, derandomize=False)
