"""People on two servers, and what they see of a room."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.client import Client, Refused, bodies
from tests.interop.synapse import Person

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    import httpx

    from tests.federation.neighbours import Neighbour
    from tests.interop.synapse import Synapse

_WAIT_SECONDS = 120
_POLL_MS = 500
_numbers = itertools.count()

StateIds = dict[tuple[str, str], str]


class Somebody:
    """A person with one device, who waits for what comes by `/sync`."""

    def __init__(self, client: Client, server_name: str) -> None:
        self.client = client
        self.user_id = client.user_id
        self.server_name = server_name
        self.invited: set[str] = set()
        self.left: set[str] = set()
        self.to_device: list[dict[str, Any]] = []
        self.changed: set[str] = set()
        self._since: str | None = None

    async def sync(self, timeout: int = _POLL_MS) -> None:
        """See what is new."""
        since = self._since
        answer = await self.client.sync(since=since, timeout=timeout)
        await self.take_in(answer, since)
        self._since = answer["next_batch"]

    async def take_in(self, answer: dict[str, Any], since: str | None) -> None:
        """Keep what an answer to `/sync` says."""
        rooms = answer.get("rooms", {})
        self.invited = (self.invited | rooms.get("invite", {}).keys()) - rooms.get("join", {}).keys()
        self.left = (self.left | rooms.get("leave", {}).keys()) - rooms.get("join", {}).keys()
        self.to_device += answer.get("to_device", {}).get("events", [])
        self.changed |= set(answer.get("device_lists", {}).get("changed", ()))

    async def until(
        self, holds: Callable[[], Awaitable[Any]], what: str, seconds: float = _WAIT_SECONDS
    ) -> None:
        """Sync until it holds."""
        deadline = time.monotonic() + seconds
        while not await holds():
            assert time.monotonic() < deadline, f"{self.user_id} waits in vain for {what}"
            await self.sync()

    async def until_invited(self, room_id: str) -> None:
        """Sync until an invite is there."""

        async def holds() -> bool:
            return room_id in self.invited

        await self.until(holds, f"an invite to {room_id}")

    async def until_changed(self, user_id: str) -> None:
        """Sync until somebody's devices are said to have changed, and forget that."""

        async def holds() -> bool:
            return user_id in self.changed

        await self.until(holds, f"changed devices of {user_id}")
        self.changed.discard(user_id)

    async def devices_of(self, user_id: str) -> dict[str, Any]:
        """The keys of somebody's devices."""
        answer = await self.client.post("/keys/query", {"device_keys": {user_id: []}})
        assert answer["failures"] == {}, answer["failures"]
        return dict(answer["device_keys"].get(user_id, {}))

    async def until_left(self, room_id: str) -> None:
        """Sync until the room is one that was left."""

        async def holds() -> bool:
            return room_id in self.left

        await self.until(holds, f"the end of {room_id}")

    async def until_said(self, room_id: str, text: str) -> None:
        """Sync until a message is in the room."""

        async def holds() -> bool:
            return text in await self.said(room_id)

        await self.until(holds, f"{text!r} in {room_id}")

    async def until_member(self, room_id: str, user_id: str, membership: str) -> None:
        """Sync until somebody's membership is this."""

        async def holds() -> bool:
            return await self.membership(room_id, user_id) == membership

        await self.until(holds, f"{membership} of {user_id} in {room_id}")

    async def join(self, room_id: str, via: Somebody) -> None:
        """Join a room by another server."""
        await self.client.post(f"/join/{quote(room_id, safe='')}", {}, via=via.server_name)

    async def knock(self, room_id: str, via: Somebody) -> None:
        """Knock at a room of another server."""
        await self.client.post(f"/knock/{quote(room_id, safe='')}", {}, via=via.server_name)

    async def say(self, room_id: str, *texts: str) -> None:
        """Send messages, one after the other."""
        for text in texts:
            await self.client.send(room_id, text)

    async def state(self, room_id: str) -> StateIds:
        """The ids of the events of the current state."""
        events = await self.client.get(f"/rooms/{room_id}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    async def sees(self, room_id: str, event_id: str) -> bool:
        """Whether they are shown an event."""
        try:
            await self.client.get(f"/rooms/{room_id}/event/{quote(event_id, safe='')}")
        except Refused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    async def membership(self, room_id: str, user_id: str) -> str | None:
        """Somebody's membership in the current state."""
        for event in await self.client.get(f"/rooms/{room_id}/state"):
            if (event["type"], event["state_key"]) == ("m.room.member", user_id):
                return str(event["content"]["membership"])
        return None

    async def timeline(self, room_id: str) -> list[dict[str, Any]]:
        """All events of the room, the oldest first."""
        events: list[dict[str, Any]] = []
        start: str | None = None
        while True:
            page = await self.client.messages(room_id, **{"from": start})
            events += page["chunk"]
            start = page.get("end")
            if start is None:
                return events[::-1]

    async def said(self, room_id: str) -> list[str]:
        """All messages of the room, the oldest first."""
        return bodies([event for event in await self.timeline(room_id) if "body" in event["content"]])


async def of_ours(server: Neighbour, name: str) -> Somebody:
    """A new user of a server of ours."""
    return Somebody(await server.register(f"{name}{next(_numbers)}"), server.name)


async def of_synapse(server: Synapse, http: httpx.AsyncClient, name: str) -> Somebody:
    """A new user of Synapse."""
    name = f"{name}{next(_numbers)}"
    token = await asyncio.to_thread(server.register, name)
    person = Person(http, f"@{name}:{server.name}", "", token)
    person.device_id = (await person.get("/account/whoami"))["device_id"]
    return Somebody(person, server.name)


async def another_device(client: Client) -> Client:
    """Another device of a user."""
    identifier = {"type": "m.id.user", "user": client.user_id}
    password = "password" if isinstance(client, Person) else "secret"
    answer = await client.post(
        "/login", {"type": "m.login.password", "identifier": identifier, "password": password}
    )
    return replace(client, device_id=answer["device_id"], access_token=answer["access_token"])


async def agree(room_id: str, one: Somebody, other: Somebody, *, but_for: Collection[str] = ()) -> None:
    """Wait until both see the same state and the same events, whether or not some of them are shown to both."""
    seen: list[Any] = []

    async def holds() -> bool:
        states = [await who.state(room_id) for who in (one, other)]
        timelines = [
            {
                event["event_id"]: event["type"]
                for event in await who.timeline(room_id)
                if event["event_id"] not in but_for
            }
            for who in (one, other)
        ]
        differing = {
            key: [state.get(key) for state in states]
            for key in states[0].keys() | states[1].keys()
            if states[0].get(key) != states[1].get(key)
        }
        seen[:] = [
            ("state", differing),
            ("only the first", timelines[0].items() - timelines[1].items()),
            ("only the second", timelines[1].items() - timelines[0].items()),
        ]
        return not any(difference for _, difference in seen)

    try:
        await one.until(holds, "agreement")
    except AssertionError:
        message = f"{one.server_name} and {other.server_name} differ: {seen}"
        raise AssertionError(message) from None
