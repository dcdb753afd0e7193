"""A sender, an outbox in memory, and an internet of servers that behave as they are told; in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from federation.answers import TransactionAnswer
from federation.outgoing import Item, Standing, Waiting
from federation.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FAR = "far.example"


def now() -> float:
    return asyncio.get_running_loop().time()


def event(number: int, size: int = 500) -> Item:
    return Item(number, f"${number}", {"event_id": f"${number}"}, (), size)


def edu(number: int, size: int = 100) -> Item:
    return Item(number, f"edu {number}", None, ({"edu_type": "m.test", "content": {"n": number}},), size)


@dataclass
class State:
    """What an outbox knows of a destination; survives a restart of the sender."""

    items: list[Item] = field(default_factory=list)
    passing: list[dict[str, Any]] = field(default_factory=list)
    failures: int = 0
    retry_at: float = 0.0
    why: str | None = None
    recently_alive: bool = True
    is_ours: bool = True
    aside: list[str] = field(default_factory=list)


class Outbox:
    """In memory."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.loaded = 0

    def of(self, destination: str) -> State:
        return self.states.setdefault(destination, State())

    async def load_destinations(self) -> Iterable[str]:
        return [name for name, state in self.states.items() if state.items]

    async def standing(self, destination: str) -> Standing | None:
        state = self.of(destination)
        if not state.is_ours:
            return None
        return Standing(state.failures, max(0.0, state.retry_at - now()), state.recently_alive)

    async def load(self, destination: str) -> Waiting:
        self.loaded += 1
        state = self.of(destination)
        passing, state.passing = state.passing, []
        items = state.items[:200]
        upto = items[-1].position if items else 0
        await asyncio.sleep(0)
        return Waiting(items, upto, passing)

    async def delivered(self, destination: str, upto: int) -> None:
        state = self.of(destination)
        await asyncio.sleep(0)
        state.items = [item for item in state.items if item.position > upto]
        state.failures, state.retry_at, state.why = 0, 0.0, None

    async def failed(self, destination: str, failures: int, retry_seconds: float, why: str) -> None:
        state = self.of(destination)
        state.failures, state.retry_at, state.why = failures, now() + retry_seconds, why

    async def set_aside(self, destination: str, item: Item, why: str) -> None:
        state = self.of(destination)
        state.aside.append(item.name)
        assert state.items[0] is item
        del state.items[0]
        state.failures, state.retry_at, state.why = 0, 0.0, None


@dataclass
class Sent:
    destination: str
    transaction_id: str
    pdus: list[str]
    edus: list[Any]
    at: float


class Internet:
    """The other servers: each answers as its behaviour says, which may raise, or take its time."""

    def __init__(self) -> None:
        self.tried: list[Sent] = []
        self.taken: list[Sent] = []
        self.behaviours: dict[str, Callable[[Sent], Any]] = {}
        self.under_way = 0
        self.most_under_way = 0
        self.by_destination: Counter[str] = Counter()

    async def send_transaction(
        self,
        destination: str,
        transaction_id: str,
        *,
        origin: str,
        origin_server_ts: int,
        pdus: Sequence[dict[str, Any]],
        edus: Sequence[dict[str, Any]],
    ) -> TransactionAnswer:
        sent = Sent(destination, transaction_id, [pdu["event_id"] for pdu in pdus], list(edus), now())
        self.tried.append(sent)
        assert not self.by_destination[destination], "two transactions at once"
        self.by_destination[destination] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0.1)
            behaviour = self.behaviours.get(destination)
            answer = behaviour(sent) if behaviour is not None else None
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.under_way -= 1
            self.by_destination[destination] -= 1
        self.taken.append(sent)
        return TransactionAnswer(pdus=answer or {})

    def events_taken(self, destination: str = FAR) -> list[str]:
        return [name for sent in self.taken if sent.destination == destination for name in sent.pdus]


class Counts:
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.aside = 0

    def transaction_sent(self, outcome: str, pdus: int, edus: int) -> None:
        self.outcomes[outcome] += 1

    def item_set_aside(self) -> None:
        self.aside += 1


class World:
    """A sender with its surroundings; time is virtual."""

    def __init__(self, **places: int) -> None:
        self.outbox = Outbox()
        self.internet = Internet()
        self.counts = Counts()
        self.places = places
        self.sender = self.make()

    def make(self) -> Sender:
        return Sender(
            "here.example",
            self.internet,
            self.outbox,
            self.counts,
            lambda: round(now() * 1000),
            chance=lambda: 1.0,
            **self.places,
        )

    def put(self, items: Iterable[Item], destination: str = FAR) -> None:
        self.outbox.of(destination).items += items
        self.sender.wake(destination)

    async def crash(self) -> None:
        """The program ends, and is started again."""
        await self.sender.stop()
        self.sender = self.make()
        await self.sender.resume()
