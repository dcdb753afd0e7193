"""Events that wait in the queue of their room until what they follow can be had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from federation.answers import PduTransaction
from federation.errors import Refused, Unreachable
from homeserver.ids import EventId, RoomId, ServerName
from homeserver.services.inbound import queues
from homeserver.services.inbound.queues import RoomQueues
from homeserver.services.inbound.remote import RemoteSources
from homeserver.services.inbound.sources import SourceFailed, SourceUnreachable
from homeserver.storage.stored_event import Status
from tests.eventgraph.rooms import ALICE, BOB, Room, public_room
from tests.inbound.foreign_rooms import ForeignRoom, Resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from homeserver.eventgraph.event import Event
    from tests.server import Server

ONE, TWO, THREE = ServerName("one.example"), ServerName("two.example"), ServerName("three.example")
HOUR = 3_600.0


class Source(Resident):
    """Gives what is missing, unless it cannot be reached."""

    is_away = False

    def _answers(self) -> None:
        self.asked.append("anything")
        if self.is_away:
            raise SourceUnreachable

    async def missing_events(self, *arguments: Any, **named: Any) -> list[Any]:
        self._answers()
        return await super().missing_events(*arguments, **named)

    async def backfill(self, *arguments: Any) -> list[Any]:
        self._answers()
        return await super().backfill(*arguments)

    async def state_ids(self, *arguments: Any) -> Any:
        self._answers()
        return await super().state_ids(*arguments)


class Waiting:
    """A room with a queue, and the server that sends into it."""

    def __init__(self, server: Server, room: Room) -> None:
        self.server = server
        self.room = room
        self.foreign = ForeignRoom(server, room)
        self.source = Source(room)
        self.seconds = 0.0
        """That have passed for the queue."""
        application = server.application
        self.store = application.stores.staged_events
        self.queues = RoomQueues(
            application.database, self.store, application.rooms.live, self.foreign.filler, self
        )

    def of(self, room_id: RoomId, origin: ServerName) -> Source:
        return self.source

    def of_any(self, room_id: RoomId) -> Source:
        return self.source

    async def late(self) -> Event:
        """An event comes that follows one that did not."""
        self.room.send("m.room.message", ALICE, {"body": "missing"})
        event = self.room.send("m.room.message", ALICE, {"body": "late"})
        room = await self.server.application.rooms.live.get(self.room.room_id)
        await self.queues.add(room, ONE, [event])
        return event

    async def until_tried(self, number: int) -> None:
        """Until the source was asked so often for the sake of one event, and that is over."""
        async with asyncio.timeout(10):
            while len(self.source.asked) < number or not self._is_postponed():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    def _is_postponed(self) -> bool:
        queue = self.queues._queues.get(self.room.room_id)
        return queue is not None and bool(queue._postponed) and not queue._slow

    async def until_placed(self, event: Event) -> None:
        async with asyncio.timeout(10):
            while await self.status(event.event_id) is not Status.TIMELINE:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def until_given_up(self) -> None:
        async with asyncio.timeout(10):
            while await self.store.load_rooms():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def status(self, event_id: EventId) -> Status | None:
        stored = await self.server.application.stores.events.get(event_id)
        return None if stored is None else stored.status


@pytest.fixture
async def waiting(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waiting]:
    room = public_room("11", BOB)
    made = Waiting(server, room)
    monkeypatch.setattr(queues, "_time", lambda: made.seconds)
    await made.foreign.arrive(room.newest())
    yield made
    await made.queues.stop()


async def test_what_comes_from_a_server_that_has_gone_waits_until_it_is_back(waiting: Waiting) -> None:
    """It was told that the event is taken in, and does not send it again."""
    waiting.source.is_away = True
    late = await waiting.late()
    for _ in range(20):
        asked = len(waiting.source.asked)
        await waiting.until_tried(max(asked, 1))
        waiting.seconds += HOUR
        waiting.queues.heard_from(ONE)
        await waiting.until_tried(asked + 1)
    waiting.source.is_away = False
    waiting.seconds += HOUR
    waiting.queues.heard_from(ONE)
    await waiting.until_placed(late)


async def test_a_server_that_calls_and_cannot_be_reached_is_not_tried_again_and_again(
    waiting: Waiting,
) -> None:
    waiting.source.is_away = True
    late = await waiting.late()
    await waiting.until_tried(1)
    asked = len(waiting.source.asked)
    for _ in range(5):
        waiting.queues.heard_from(ONE)
        waiting.queues.heard_from(TWO)
        await asyncio.sleep(0.001)
    assert len(waiting.source.asked) == asked
    waiting.source.is_away = False
    waiting.seconds += 2.0
    # What is told once lasts: anything that wakes the queue will do.
    waiting.queues._wake(waiting.room.room_id)
    await waiting.until_placed(late)


async def test_a_request_of_a_server_that_nothing_waits_for_costs_nothing(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting.source.is_away = True
    await waiting.late()
    await waiting.until_tried(1)
    looked: list[ServerName] = []
    monkeypatch.setattr(queues._Queue, "heard_from", lambda _, origin: looked.append(origin))
    for _ in range(3):
        waiting.queues.heard_from(TWO)
        waiting.queues.heard_from(ONE)
    assert looked == [ONE]


async def test_a_server_is_not_waited_for_for_ever(waiting: Waiting) -> None:
    waiting.source.is_away = True
    late = await waiting.late()
    await waiting.until_tried(1)
    waiting.seconds += queues.UNREACHABLE_SECONDS
    waiting.queues.heard_from(ONE)
    await waiting.until_given_up()
    assert await waiting.status(late.event_id) is None


class Away:
    """The client of a server that reaches nobody, or whom everybody refuses."""

    def __init__(self) -> None:
        self.asked: list[ServerName] = []
        self.refusing: set[ServerName] = set()

    async def backfill(
        self, server: ServerName, room_id: RoomId, event_ids: Sequence[EventId], limit: int
    ) -> Any:
        self.asked.append(server)
        if server in self.refusing:
            raise Refused(server, 404, "M_NOT_FOUND", "never heard of it")
        raise Unreachable(server, "no connection")


class Ignorant:
    """The client of a server to which others answer; only one of them knows anything."""

    def __init__(self) -> None:
        self.asked: list[ServerName] = []

    async def backfill(
        self, server: ServerName, room_id: RoomId, event_ids: Sequence[EventId], limit: int
    ) -> PduTransaction:
        self.asked.append(server)
        return PduTransaction(pdus=[{"from": server}] * (server == THREE))

    async def event(self, server: ServerName, event_id: EventId) -> PduTransaction:
        return await self.backfill(server, RoomId("!room"), [event_id], 1)


class ThreeServers:
    """In every room."""

    async def servers(self, room_id: RoomId) -> set[ServerName]:
        return {ONE, TWO, THREE}


async def test_whoever_was_out_of_reach_is_not_asked_again_for_the_same_purpose() -> None:
    client = Away()
    client.refusing = {TWO, THREE}
    source = RemoteSources(ServerName("example.org"), client, ThreeServers()).of(RoomId("!room"), ONE)  # type: ignore[arg-type]
    for _ in range(2):
        # Whether it can be had at all only the first can say.
        with pytest.raises(SourceUnreachable):
            await source.backfill(RoomId("!room"), [EventId("$event")], 10)
    assert client.asked[0] == ONE
    assert client.asked.count(ONE) == 1
    assert client.asked.count(TWO) == client.asked.count(THREE) == 2


async def test_what_its_own_server_refuses_is_not_waited_for() -> None:
    client = Away()
    client.refusing = {ONE}
    source = RemoteSources(ServerName("example.org"), client, ThreeServers()).of(RoomId("!room"), ONE)  # type: ignore[arg-type]
    with pytest.raises(SourceFailed) as caught:
        await source.backfill(RoomId("!room"), [EventId("$event")], 10)
    assert not isinstance(caught.value, SourceUnreachable)


@pytest.mark.parametrize("first", [None, ONE])
async def test_a_server_that_knows_nothing_does_not_speak_for_the_others(first: ServerName | None) -> None:
    """Whoever came later than this server has nothing of what was before either."""
    client = Ignorant()
    sources = RemoteSources(ServerName("example.org"), client, ThreeServers())  # type: ignore[arg-type]
    for _ in range(5):
        room_id, event_id = RoomId("!room"), EventId("$event")
        source = sources.of_any(room_id) if first is None else sources.of(room_id, first)
        assert await source.backfill(room_id, [event_id], 10) == [{"from": THREE}]
        assert await source.event(room_id, event_id) == {"from": THREE}
    assert set(client.asked) > {THREE}
