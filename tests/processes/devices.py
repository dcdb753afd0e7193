"""Devices that talk to servers in processes of their own, and do not give up when one goes away."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests.client import Client, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.server_process import Account, ServerProcess

TIMELINE = {"room": {"timeline": {"limit": 100}}, "presence": {"types": []}}
_PATIENCE_SECONDS = 60
_LONGEST_LIFE_SECONDS = 0.15


@asynccontextmanager
async def connected(server: ServerProcess, *accounts: Account) -> AsyncIterator[list[Client]]:
    """Devices of accounts, at one server."""
    async with AsyncExitStack() as stack:
        clients = []
        for account in accounts:
            limits = httpx.Limits(max_connections=None)
            http = httpx.AsyncClient(base_url=server.url, timeout=_PATIENCE_SECONDS, limits=limits)
            await stack.enter_async_context(http)
            clients.append(Client(http, account.user_id, account.device_id, account.access_token))
        yield clients


class Sender:
    """Sends messages one after the other, each until it is answered, under one transaction id."""

    def __init__(self, client: Client, room_id: str, name: str) -> None:
        self.client = client
        self.room_id = room_id
        self.name = name
        self.answered: dict[str, str] = {}
        """The text of each answered message, and the event id that was the answer, if any."""
        self.progress = asyncio.Event()
        """Set by every answer."""
        self.tried_again = 0

    async def send(self, up: asyncio.Event) -> None:
        """Send the next message, whenever the server is `up`."""
        text = f"{self.name} {len(self.answered)}"
        while True:
            await up.wait()
            try:
                self.answered[text] = await self.deliver(text)
                self.progress.set()
            except (httpx.TransportError, Refused) as error:
                if isinstance(error, Refused) and error.status != 503:
                    raise
                self.tried_again += 1
                # Others go first: one of them may know that the server is down.
                await asyncio.sleep(0)
                continue
            return

    async def deliver(self, text: str) -> str:
        """Ask once for the sending of a message."""
        return await self.client.send(self.room_id, text, transaction_id=text)


class DeviceSender(Sender):
    """Sends to another device instead of a room."""

    def __init__(self, client: Client, recipient: Client, name: str) -> None:
        super().__init__(client, "", name)
        self.recipient = recipient

    async def deliver(self, text: str) -> str:
        messages = {self.recipient.user_id: {self.recipient.device_id: {"text": text}}}
        await self.client.put(f"/sendToDevice/m.test/{text}", {"messages": messages})
        return ""


class Reader:
    """Syncs on and on, and keeps every event of a room's timeline in the order in which it came."""

    def __init__(self, client: Client, room_id: str) -> None:
        self.client = client
        self.room_id = room_id
        self.events: list[dict[str, Any]] = []
        self.since: str | None = None
        self.lost_answers = 0

    async def sync(self, timeout: int = 0) -> bool:
        """Sync once; the answer is whether something came. Raises `httpx.TransportError` where there is no answer."""
        answer = await self.client.sync(self.since, timeout=timeout, filter=TIMELINE)
        room = answer.get("rooms", {}).get("join", {}).get(self.room_id)
        if room is not None:
            timeline = room["timeline"]
            if self.since is not None and timeline["limited"]:
                self.events += await self._gap(timeline["prev_batch"], self.since)
            self.events += timeline["events"]
        self.since = answer["next_batch"]
        return room is not None

    async def _gap(self, start: str, stop: str) -> list[dict[str, Any]]:
        """What lies between the last answer and this one, oldest first."""
        events: list[dict[str, Any]] = []
        token: str | None = start
        while token is not None:
            page = await self.client.messages(self.room_id, to=stop, **{"from": token})
            events += page["chunk"]
            token = page.get("end")
        return events[::-1]

    async def sync_for_ever(self, up: asyncio.Event) -> None:
        """Sync on, whatever becomes of the server."""
        while True:
            await up.wait()
            try:
                await self.sync(timeout=30_000)
            except (httpx.TransportError, Refused) as error:
                if isinstance(error, Refused) and error.status != 503:
                    raise
                self.lost_answers += 1
                await asyncio.sleep(0)

    async def catch_up(self) -> None:
        """Sync until there is nothing new."""
        while await self.sync():
            pass


class InboxReader(Reader):
    """Syncs on and on, and keeps the texts that were sent to the device."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, "")
        self.texts: list[str] = []

    async def sync(self, timeout: int = 0) -> bool:
        answer = await self.client.sync(self.since, timeout=timeout, filter=TIMELINE)
        events = answer.get("to_device", {}).get("events", [])
        self.texts += [event["content"]["text"] for event in events]
        self.since = answer["next_batch"]
        return bool(events)


async def timeline(client: Client, room_id: str) -> list[dict[str, Any]]:
    """All events of a room, oldest first."""
    events: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        page = await client.messages(room_id, **({"from": token} if token else {}))
        events += page["chunk"]
        token = page.get("end")
        if token is None:
            return events[::-1]


async def send_and_kill(
    server: ServerProcess, senders: Sequence[Sender], readers: Sequence[Reader], kills: int
) -> None:
    """Send and read on while the server is killed again and again, each time in the middle of it."""
    up, over = asyncio.Event(), asyncio.Event()
    up.set()
    chance = random.Random(kills)
    async with asyncio.TaskGroup() as tasks:
        for sender in senders:
            tasks.create_task(_send_on(sender, up, over))
        reading = [tasks.create_task(reader.sync_for_ever(up)) for reader in readers]
        for _ in range(kills):
            chosen = chance.choice(senders)
            chosen.progress.clear()
            await chosen.progress.wait()
            # Any moment is as good as any other.
            await asyncio.sleep(chance.uniform(0, _LONGEST_LIFE_SECONDS))
            up.clear()
            server.kill()
            await asyncio.to_thread(server.start)
            up.set()
        over.set()
        for task in reading:
            task.cancel()


async def _send_on(sender: Sender, up: asyncio.Event, over: asyncio.Event) -> None:
    while not over.is_set():
        await sender.send(up)
