"""What happens while a server is away, and what a device there must have been told once it is back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.client import bodies
from tests.interop.people import Somebody, another_device
from tests.keys import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.client import Client

_TO_DEVICE_EVERY = 50
# On PostgreSQL another process takes over what one has left without a word within half a minute.
_WAIT_SECONDS = 180


class Witness(Somebody):
    """Somebody whose device keeps what it is told, in the order in which it is, as clients do.

    Gaps are closed by `/messages`, and devices are asked for when they are said to have changed.
    """

    def __init__(self, client: Client, server_name: str) -> None:
        super().__init__(client, server_name)
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.gaps = 0
        self.devices: dict[str, set[str]] = {}
        """Of users that are followed."""

    async def take_in(self, answer: dict[str, Any], since: str | None) -> None:
        """Keep what an answer to `/sync` says of rooms."""
        await super().take_in(answer, since)
        for room_id, room in answer.get("rooms", {}).get("join", {}).items():
            timeline, events = room["timeline"], self.events.setdefault(room_id, [])
            if since is not None and timeline["limited"]:
                self.gaps += 1
                events += await self._between(room_id, since, timeline["prev_batch"])
            events += timeline["events"]
        for user_id in self.changed & self.devices.keys():
            self.changed.discard(user_id)
            await self.follow(user_id)

    async def follow(self, user_id: str) -> None:
        """Know somebody's devices from now on; ask again where their server is said not to have answered."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                answer = await self.client.post("/keys/query", {"device_keys": {user_id: []}})
                if not answer["failures"]:
                    break
        self.devices[user_id] = set(answer["device_keys"].get(user_id, ()))

    async def _between(self, room_id: str, since: str, prev_batch: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        token: str | None = prev_batch
        while token is not None:
            page = await self.client.messages(room_id, to=since, **{"from": token})
            events += page["chunk"]
            token = page.get("end") if page["chunk"] else None
        return events[::-1]

    def told(self, room_id: str) -> list[str]:
        """The messages of a room as they came."""
        return bodies(self.events.get(room_id, []))

    async def until_told(self, room_id: str, text: str) -> None:
        """Sync until a message has come."""

        async def holds() -> bool:
            return text in self.told(room_id)

        await self.until(holds, f"{text!r} in {room_id}")


@dataclass
class Absence:
    """What one person does while the other's server is away."""

    here: Somebody
    away: Witness
    rooms: Sequence[str]
    messages: int
    said: dict[str, list[str]] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)

    @classmethod
    async def begin(cls, here: Somebody, away: Witness, messages: int) -> Absence:
        """Two rooms, one of each, in which both are, and of which all was told."""
        rooms = []
        for host, guest in ((here, away), (away, here)):
            rooms.append(await host.client.create_room(preset="public_chat"))
            await guest.join(rooms[-1], host)
            await host.until_member(rooms[-1], guest.user_id, "join")
        await Device(here.client).upload()
        # Of changes before the first answer to `/sync` nobody is told.
        await away.sync(0)
        await away.follow(here.user_id)
        for room_id in rooms:
            await here.say(room_id, "before")
            await away.until_told(room_id, "before")
        return cls(here, away, rooms, messages)

    async def live(self) -> None:
        """Write in both rooms by turns, to the other's device, and log in with another device."""
        here, away = self.here, self.away
        for number in range(self.messages):
            room_id = self.rooms[number % len(self.rooms)]
            await here.client.send(room_id, f"{number}")
            self.said.setdefault(room_id, ["before"]).append(f"{number}")
            if number % _TO_DEVICE_EVERY == 0:
                content = {away.user_id: {away.client.device_id: {"number": number}}}
                await here.client.put(f"/sendToDevice/org.example/{number}", {"messages": content})
                self.sent.append(number)
        second = await another_device(here.client)
        await Device(second).upload()
        self.devices = {here.client.device_id, second.device_id}

    async def until_known(self) -> None:
        """Sync until the device that was away knows of the newest messages, and of all that is not in rooms."""
        lacking: list[str] = []

        async def has_all() -> bool:
            lacking[:] = self._lacking()
            return not lacking

        try:
            await self.away.until(has_all, "all", _WAIT_SECONDS)
        except AssertionError:
            raise AssertionError(f"{self.away.user_id} was not told of {'; '.join(lacking)}") from None
        await self.away.sync(0)
        assert [message["content"]["number"] for message in self.away.to_device] == self.sent

    def _lacking(self) -> list[str]:
        away, devices = self.away, self.away.devices[self.here.user_id]
        lacking = [
            f"the end of {room_id}, of which it has {len(away.told(room_id))}"
            for room_id, said in self.said.items()
            if said[-1] not in away.told(room_id)
        ]
        if len(away.to_device) < len(self.sent):
            lacking.append(f"messages to it, of which it has {len(away.to_device)}")
        if devices != self.devices:
            lacking.append(f"devices {self.devices}, but {devices}")
        return lacking

    def told(self) -> dict[str, list[str]]:
        """What the device was told, by room."""
        return {room_id: self.away.told(room_id) for room_id in self.rooms}
