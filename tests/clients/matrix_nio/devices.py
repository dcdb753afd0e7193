"""Devices that run matrix-nio, and hold every event of their rooms once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nio import AsyncClient, AsyncClientConfig, ErrorResponse, MessageDirection, RoomMessageText, SyncResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nio import RoomInfo

PASSWORD = "a long enough secret"
SECONDS = 120
_LONG_POLL_MS = 30_000
_PAGE = 40


def ok(answer: Any) -> Any:
    """The answer of the server; an error ends the test."""
    assert not isinstance(answer, ErrorResponse), f"the server refused: {answer!r}"
    return answer


class Device:
    """A device of a user. While it is `online`, it closes each gap in a room by paging back."""

    def __init__(self, url: str, name: str, store_path: str = "") -> None:
        # An error of the server is to be seen, not to be tried again.
        config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0)
        self.client = AsyncClient(url, name, store_path=store_path, config=config)
        self.client.add_response_callback(self._received, SyncResponse)
        self.client.add_response_callback(self._refused, ErrorResponse)
        self.events: dict[str, list[dict[str, Any]]] = {}
        """By room: its events, oldest first, as they came from the server."""
        self.left: set[str] = set()
        self.gaps = 0
        self._position: str | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def register(self, device_name: str) -> None:
        """A new user, of whom this is the first device."""
        ok(await self.client.register(self.client.user, PASSWORD, device_name))

    async def login(self, device_name: str) -> None:
        """Another device of a user."""
        ok(await self.client.login(PASSWORD, device_name))

    def after_restart(self) -> Device:
        """The same device, as its program finds it when it is started again: with what it had saved."""
        again = Device(self.client.homeserver, self.client.user)
        self._hand_over(again)
        return again

    def _hand_over(self, again: Device) -> None:
        again.client.restore_login(self.client.user_id, self.client.device_id, self.client.access_token)
        again.events = {room_id: list(events) for room_id, events in self.events.items()}
        again._position = self._position

    @asynccontextmanager
    async def online(
        self, timeline_limit: int | None = None, full_state: bool | None = None
    ) -> AsyncIterator[None]:
        """Sync until the end of the block, from where the device was."""
        sync_filter = None if timeline_limit is None else {"room": {"timeline": {"limit": timeline_limit}}}
        self._syncing = asyncio.create_task(
            self.client.sync_forever(
                timeout=_LONG_POLL_MS, sync_filter=sync_filter, since=self._position, full_state=full_state
            )
        )
        try:
            yield
        finally:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)
            self._syncing = None

    async def until(self, what: str, reached: Callable[[], object]) -> None:
        """Wait for something that a sync brings about."""

        async def wait() -> None:
            async with self._news:
                await self._news.wait_for(reached)

        assert self._syncing is not None, "the device is not online"
        waiting = asyncio.create_task(wait())
        done, _ = await asyncio.wait(
            [waiting, self._syncing], timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if waiting in done:
            return
        waiting.cancel()
        if self._syncing in done:
            self._syncing.result()
        raise AssertionError(f"{self.client.device_id} of {self.client.user_id} waited in vain for: {what}")

    async def until_it_has(self, room_id: str, event_ids: list[str]) -> None:
        """Wait for events of a room."""
        await self.until(f"{len(event_ids)} events", lambda: set(event_ids) <= set(self.ids(room_id)))

    def ids(self, room_id: str) -> list[str]:
        """The ids of all events of a room, oldest first."""
        return [event["event_id"] for event in self.events.get(room_id, [])]

    def texts(self, room_id: str) -> list[str]:
        """What was said in a room."""
        return [
            event["content"]["body"]
            for event in self.events.get(room_id, [])
            if event["type"] == "m.room.message"
        ]

    async def say(self, room_id: str, text: str, transaction_id: str | None = None) -> str:
        """Send a message; the answer is the id of its event."""
        content = {"msgtype": "m.text", "body": text}
        answer = ok(await self.client.room_send(room_id, "m.room.message", content, tx_id=transaction_id))
        return answer.event_id

    async def whole_room(self, room_id: str) -> list[dict[str, Any]]:
        """All events of a room as `/messages` tells them from its beginning on."""
        events: list[dict[str, Any]] = []
        start: str | None = ""
        while start is not None:
            page = ok(
                await self.client.room_messages(
                    room_id, start or None, direction=MessageDirection.front, limit=_PAGE
                )
            )
            events += [event.source for event in page.chunk]
            start = page.end
        return events

    async def _refused(self, answer: ErrorResponse) -> None:
        raise AssertionError(f"the server refused: {answer!r}")

    async def _received(self, answer: SyncResponse) -> None:
        for room_id, room in answer.rooms.join.items():
            await self._add(room_id, room)
        for room_id, room in answer.rooms.leave.items():
            await self._add(room_id, room)
            self.left.add(room_id)
        self._position = answer.next_batch
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _add(self, room_id: str, room: RoomInfo) -> None:
        known = self.events.setdefault(room_id, [])
        missed: list[dict[str, Any]] = []
        if room.timeline.limited:
            self.gaps += 1
            # A room that is new to the device is read back to its beginning.
            missed = await self._missed(room_id, room.timeline.prev_batch, self._position if known else None)
        known += [*missed, *(event.source for event in room.timeline.events)]

    async def _missed(
        self, room_id: str, prev_batch: str | None, position: str | None
    ) -> list[dict[str, Any]]:
        """The events between the position where the device was and a timeline."""
        newest_first: list[dict[str, Any]] = []
        start = prev_batch
        while start is not None:
            page = ok(await self.client.room_messages(room_id, start, end=position, limit=_PAGE))
            newest_first += [event.source for event in page.chunk]
            start = page.end
        return newest_first[::-1]


async def close(*devices: Device) -> None:
    """End the connections of devices."""
    for device in devices:
        await device.client.close()


def assert_same_room(room_id: str, truth: list[dict[str, Any]], device: Device) -> None:
    """Whether a device holds all events of a room, in order, each once."""
    expected = [event["event_id"] for event in truth]
    assert expected, "the room has no events"
    assert len(set(expected)) == len(expected), "/messages told an event twice"
    held = device.ids(room_id)
    doubled = sorted({event_id for event_id in held if held.count(event_id) > 1})
    assert not doubled, f"{device.client.device_id} was told events twice: {doubled}"
    lost = [event_id for event_id in expected if event_id not in set(held)]
    assert not lost, f"{device.client.device_id} lost {len(lost)} events: {lost}"
    strange = [event_id for event_id in held if event_id not in set(expected)]
    assert not strange, f"{device.client.device_id} holds events that /messages does not tell: {strange}"
    assert held == expected, f"{device.client.device_id} holds the events in another order"
    contents = [event["content"] for event in device.events[room_id]]
    assert contents == [event["content"] for event in truth], "the events differ in their content"


def is_text(event: object) -> bool:
    """Whether matrix-nio understood an event as a text message."""
    return isinstance(event, RoomMessageText)
