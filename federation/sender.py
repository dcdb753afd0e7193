"""Sends to other servers: one loop for each that something waits for, over an `Outbox`.

1. What waits is loaded when it can be sent, and not before: a server that is away costs no memory and no socket.
2. The cursor moves when the other server has answered 200. "The sending server must wait and retry for a 200 OK
   response before sending a transaction with a different `txnId`": one transaction at a time for each server.
3. After a failure the server is left in peace for longer and longer, until it is heard from. When to try again is the
   outbox's to keep, over restarts.
4. A server that refuses a transaction again and again gets half of it, and half of that, until one item is left. If it
   then takes an empty transaction, and still not this item, the item is set aside; if it takes neither, it is the server.
5. So many servers are called at a time. Those that fail, take long or were never heard of share few places among
   them: they slow nobody else.
6. A server that is to be greeted gets what waits for it, or an empty transaction: after a time in which it may have
   tried in vain, it hears that we are there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import structlog

from crypto.errors import CanonicalJsonError
from federation.errors import BadAnswer, FederationError, Refused
from federation.outgoing import (
    MAX_EDUS,
    MAX_PDUS,
    back_off_seconds,
    how_many_fit,
    passing_that_fit,
    transaction_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from federation.answers import Json, Pdu, TransactionAnswer
    from federation.outgoing import Item, Standing, Waiting

_MAX_ITEMS = MAX_PDUS + MAX_EDUS
_PROMPT_PLACES = 200
_DOUBTFUL_PLACES = 50
_SLOW_SECONDS = 20.0
# Whoever is heard from is tried at once, but not more often than this.
_LEAST_SECONDS = 2.0
_HEARD_FAILURES = 2
_AFTER_REFUSAL_SECONDS = 1.0
_AFTER_BUG_SECONDS = 30.0
# Answers that are about what was sent, with how often the same must be refused until it is halved.
_ABOUT_CONTENT = {400: 2, 413: 1, 422: 2, 500: 4}
_MAX_RETRY_SECONDS = 3_600.0
_MAX_WHY = 200

_log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How a try ended, for those who count."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    BAD_ANSWER = "bad_answer"


class Outbox(Protocol):
    """What waits for other servers, with a cursor for each."""

    async def load_destinations(self) -> Iterable[str]:
        """Every destination that something waits for."""
        ...

    async def standing(self, destination: str) -> Standing | None:
        """How things stand; None where this process is not to send to the destination."""
        ...

    async def load(self, destination: str) -> Waiting:
        """The oldest of what waits: as much as one transaction can take, or all."""
        ...

    async def delivered(self, destination: str, upto: int) -> None:
        """The destination has everything up to a position."""
        ...

    async def failed(self, destination: str, failures: int, retry_seconds: float, why: str) -> None:
        """The destination is not to be tried for so long; nothing was delivered."""
        ...

    async def set_aside(self, destination: str, item: Item, why: str) -> None:
        """The destination does not take this item, the oldest: it is passed over, and the destination is well."""
        ...


class Courier(Protocol):
    """`federation.client.FederationClient`, as far as the sender needs it."""

    async def send_transaction(
        self,
        destination: str,
        transaction_id: str,
        *,
        origin: str,
        origin_server_ts: int,
        pdus: Sequence[Pdu],
        edus: Sequence[Json],
    ) -> TransactionAnswer:
        """`PUT /send/{txnId}`; raises `FederationError`."""
        ...


class Counts(Protocol):
    """Counts what is sent."""

    def transaction_sent(self, outcome: str, pdus: int, edus: int) -> None:
        """A transaction with so many events and EDUs was tried."""

    def item_set_aside(self) -> None:
        """A destination did not take something."""


@dataclass(slots=True, eq=False)
class _Line:
    """A destination that something waits for."""

    destination: str
    news: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    is_slow: bool = False
    is_to_be_greeted: bool = False
    at_most: int = _MAX_ITEMS
    refusals: int = 0
    tried_at: float = float("-inf")


class Sender:
    """The loops."""

    def __init__(
        self,
        server_name: str,
        courier: Courier,
        outbox: Outbox,
        counts: Counts,
        now_ms: Callable[[], int],
        *,
        chance: Callable[[], float] = random.random,
        prompt_places: int = _PROMPT_PLACES,
        doubtful_places: int = _DOUBTFUL_PLACES,
    ) -> None:
        self._server_name = server_name
        self._courier = courier
        self._outbox = outbox
        self._counts = counts
        self._now_ms = now_ms
        self._chance = chance
        self._prompt = asyncio.Semaphore(prompt_places)
        self._doubtful = asyncio.Semaphore(doubtful_places)
        self._lines: dict[str, _Line] = {}
        self._stopping = False

    async def resume(self) -> None:
        """Go on with every destination that something waits for."""
        for destination in await self._outbox.load_destinations():
            self.wake(destination)

    def wake(self, destination: str) -> None:
        """Something may wait for a destination."""
        if self._stopping or destination == self._server_name:
            return
        line = self._lines.get(destination)
        if line is None:
            line = self._lines[destination] = _Line(destination)
            line.task = asyncio.create_task(self._serve(line))
        line.news.set()

    def greet(self, destination: str) -> None:
        """Call a destination, also if nothing waits for it: once it has answered well it knows that we are there."""
        self.wake(destination)
        line = self._lines.get(destination)
        if line is not None:
            line.is_to_be_greeted = True

    def heard_from(self, destination: str) -> None:
        """A server has made a valid request: it is there again."""
        line = self._lines.get(destination)
        if line is not None:
            line.heard.set()

    async def stop(self) -> None:
        """Send no more. What is under way is broken off, and sent again another time."""
        self._stopping = True
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- one destination -------------------------------------------------------------------------------

    async def _serve(self, line: _Line) -> None:
        """Send until nothing waits any more."""
        try:
            while not self._stopping:
                line.news.clear()
                try:
                    goes_on = await self._turn(line)
                except Exception:  # noqa: BLE001 - it is logged, and tried again
                    _log.exception("sending_failed", destination=line.destination)
                    await asyncio.sleep(_AFTER_BUG_SECONDS)
                    goes_on = True
                # Nothing is awaited from here to the end: who wakes it meanwhile is seen, or makes a new line.
                if not goes_on and not line.news.is_set():
                    return
        finally:
            del self._lines[line.destination]

    async def _turn(self, line: _Line) -> bool:
        """Wait until the destination may be tried, and try it; False where nothing waits for it here."""
        standing = await self._outbox.standing(line.destination)
        if standing is None:
            return False
        if standing.retry_seconds > 0:
            if not await self._rest(line, standing.retry_seconds):
                # Another process may have taken the destination over meanwhile.
                return True
            standing = replace(standing, failures=min(standing.failures, _HEARD_FAILURES))
        is_doubtful = standing.failures or line.is_slow or not standing.recently_alive
        async with self._doubtful if is_doubtful else self._prompt:
            return await self._try(line, standing)

    async def _rest(self, line: _Line, seconds: float) -> bool:
        """Leave a destination in peace; True where it was heard from before the time was over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.05)):
                await line.heard.wait()
        if not line.heard.is_set():
            return False
        line.heard.clear()
        await asyncio.sleep(max(0.0, line.tried_at + _LEAST_SECONDS - _time()))
        return True

    async def _try(self, line: _Line, standing: Standing) -> bool:
        waiting = await self._outbox.load(line.destination)
        items = waiting.items[: how_many_fit(waiting.items, line.at_most)]
        # What is being searched for what is wrong with it goes alone.
        passing = () if line.refusals else passing_that_fit(waiting.passing, items)
        if not items and not passing and not line.is_to_be_greeted:
            line.at_most, line.refusals = _MAX_ITEMS, 0
            return False
        line.heard.clear()
        try:
            await self._send(line, items, passing)
        except (FederationError, CanonicalJsonError) as error:
            if not await self._failed(line, standing, items, error):
                return True
        line.refusals, line.at_most, line.is_to_be_greeted = 0, min(_MAX_ITEMS, 2 * line.at_most), False
        complete = len(items) == len(waiting.items)
        await self._outbox.delivered(line.destination, waiting.upto if complete else items[-1].position)
        return True

    async def _send(self, line: _Line, items: Sequence[Item], passing: Sequence[Json]) -> None:
        pdus = [item.pdu for item in items if item.pdu is not None]
        edus = [*(edu for item in items for edu in item.edus), *passing]
        now_ms, line.tried_at = self._now_ms(), _time()
        try:
            answer = await self._courier.send_transaction(
                line.destination,
                transaction_id_of(items, passing, now_ms),
                origin=self._server_name,
                origin_server_ts=now_ms,
                pdus=pdus,
                edus=edus,
            )
        except (FederationError, CanonicalJsonError) as error:
            line.is_slow = _time() - line.tried_at > _SLOW_SECONDS
            self._counts.transaction_sent(_outcome_of(error), len(pdus), len(edus))
            raise
        line.is_slow = _time() - line.tried_at > _SLOW_SECONDS
        self._counts.transaction_sent(Outcome.DELIVERED, len(pdus), len(edus))
        for item in items:
            verdict = answer.pdus.get(item.name)
            if verdict is not None and verdict.error is not None:
                # "The server is to use this response even in the event of one or more PDUs failing": it is final.
                why = ascii(verdict.error)[:_MAX_WHY]
                _log.info("event_refused", destination=line.destination, event_id=item.name, why=why)

    # -- failures --------------------------------------------------------------------------------------

    async def _failed(
        self,
        line: _Line,
        standing: Standing,
        items: Sequence[Item],
        error: FederationError | CanonicalJsonError,
    ) -> bool:
        """Find out what is to be done after a failure; True where the items were taken after all."""
        if items and self._is_about_content(line, error):
            if len(items) > 1:
                line.at_most = len(items) // 2
                await self._leave(line, standing.failures, _AFTER_REFUSAL_SECONDS, error)
                return False
            blames_item = await self._blames(line, items[0], error)
            if blames_item is None:
                return True
            if blames_item:
                why = _why(error)
                _log.warning("set_aside", destination=line.destination, item=items[0].name, why=why)
                self._counts.item_set_aside()
                await self._outbox.set_aside(line.destination, items[0], why)
                line.refusals, line.at_most = 0, _MAX_ITEMS
                return False
        failures = standing.failures + 1
        seconds = back_off_seconds(failures, self._chance, recently_alive=standing.recently_alive)
        if isinstance(error, Refused) and error.retry_after_ms is not None:
            seconds = max(seconds, min(error.retry_after_ms / 1000, _MAX_RETRY_SECONDS))
        await self._leave(line, failures, seconds, error)
        return False

    @staticmethod
    def _is_about_content(line: _Line, error: FederationError | CanonicalJsonError) -> bool:
        """Whether what was sent has been refused often enough to be looked into."""
        if isinstance(error, CanonicalJsonError):
            line.refusals += 1
            return True
        if not isinstance(error, Refused) or error.status not in _ABOUT_CONTENT:
            # It is not there to judge; a server that is back begins anew.
            line.refusals = 0
            return False
        line.refusals += 1
        return line.refusals >= _ABOUT_CONTENT[error.status]

    async def _blames(
        self, line: _Line, item: Item, error: FederationError | CanonicalJsonError
    ) -> bool | None:
        """Whether it is one item that the server does not take, rather than anything; None where it takes it now."""
        if isinstance(error, CanonicalJsonError):
            return True
        try:
            await self._send(line, (), ())
        except FederationError:
            return False
        try:
            # It may have recovered in this moment.
            await self._send(line, (item,), ())
        except FederationError as again:
            return isinstance(again, Refused) and again.status in _ABOUT_CONTENT
        return None

    async def _leave(
        self, line: _Line, failures: int, seconds: float, error: FederationError | CanonicalJsonError
    ) -> None:
        why = _why(error)
        _log.info(
            "transaction_failed",
            destination=line.destination,
            failures=failures,
            retry=round(seconds),
            why=why,
        )
        await self._outbox.failed(line.destination, failures, seconds, why)


def _outcome_of(error: FederationError | CanonicalJsonError) -> Outcome:
    if isinstance(error, Refused | CanonicalJsonError):
        return Outcome.REFUSED
    return Outcome.BAD_ANSWER if isinstance(error, BadAnswer) else Outcome.UNREACHABLE


def _why(error: FederationError | CanonicalJsonError) -> str:
    return error.why if isinstance(error, FederationError) else "it cannot be written"


def _time() -> float:
    return asyncio.get_running_loop().time()
