"""The database as the rest of the program sees it: one writer that commits in groups, readers that never wait.

Every fact that somebody may have to learn gets a position in one order, inside the transaction that writes it, in
the order of the commits. After a commit the announcements of its works are handed on, then `position` is moved,
then the callers get their answers: whoever sees a position can read all that lies before it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from homeserver.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from homeserver.storage.announcements import Announcement, Topic

T = TypeVar("T")
Row = tuple[Any, ...]

MAX_WAITING_WRITES = 5_000
MAX_GROUP = 256

_log = structlog.get_logger(__name__)


class DatabaseRefused(StartupError):
    """The database cannot be used; the text says why and what to do, in one sentence."""


class DatabaseClosed(Exception):
    """The database was closed."""


class Reader(ABC):
    """What can be asked."""

    @abstractmethod
    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        """All rows of an answer."""

    async def fetch_one(self, sql: str, *arguments: Any) -> Row | None:
        """The first row of an answer, if there is one."""
        rows = await self.fetch_all(sql, *arguments)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, *arguments: Any) -> Any | None:
        """The first column of the first row, if there is one."""
        row = await self.fetch_one(sql, *arguments)
        return row[0] if row else None


class Transaction(Reader):
    """A transaction that writes; handed to the work of `Database.write`."""

    def __init__(self) -> None:
        self.announced: dict[tuple[Topic, str], None] = {}
        self.effects: list[Callable[[], None]] = []

    @abstractmethod
    async def execute(self, sql: str, *arguments: Any) -> int:
        """Run a statement; the answer is the number of rows that it changed."""

    @abstractmethod
    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of arguments."""

    @abstractmethod
    async def next_position(self) -> int:
        """Take the next position of the log."""

    def announce(self, topic: Topic, key: str) -> None:
        """Tell, once this is committed, that something with this key has changed."""
        self.announced[topic, key] = None

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Run `effect` once this is committed, before anybody else hears of it. It must not fail."""
        self.effects.append(effect)


class _Write:
    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[Transaction], Awaitable[Any]], done: asyncio.Future[Any]) -> None:
        self.work = work
        self.done = done


class Database(Reader):
    """One of the two engines."""

    def __init__(self) -> None:
        self.position = 0
        self.epoch = 0
        self.on_commit: Callable[[int, Sequence[Announcement]], None] = _nobody_listens
        self._waiting: deque[_Write] = deque()
        self._room = asyncio.Semaphore(MAX_WAITING_WRITES)
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` inside a transaction and answer with what it returns, once that is committed.

        Works that wait at the same time are committed together. One that fails is rolled back alone; for that the
        others of its group are run again, so a work must have no effects but through its transaction. A caller
        that is cancelled does not stop its work: whatever is written must bear being written twice.
        """
        if self._closing:
            raise DatabaseClosed
        async with self._room:
            write = _Write(work, asyncio.get_running_loop().create_future())
            self._waiting.append(write)
            self._wake.set()
            return await asyncio.shield(write.done)  # type: ignore[no-any-return]

    def start_writer(self) -> None:
        """Begin to take writes; called by the engine when it is open."""
        self._writer = asyncio.create_task(self._run_writer())

    async def stop_writer(self) -> None:
        """Take no more writes, and finish those that were taken."""
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            await self._writer

    @abstractmethod
    async def close(self) -> None:
        """Finish what was taken, and let go of the database. May be called again."""

    @abstractmethod
    async def commit_group(self, works: Sequence[Callable[[Transaction], Awaitable[Any]]]) -> list[Any]:
        """Run works in one transaction and commit it; if one raises, nothing of any of them is kept."""

    async def _run_writer(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
            await self._write_group(group)

    async def _write_group(self, group: list[_Write]) -> None:
        try:
            results = await self.commit_group([write.work for write in group])
        except Exception as error:  # noqa: BLE001 - it is handed to the caller whose work raised it
            if len(group) == 1:
                if not group[0].done.done():
                    group[0].done.set_exception(error)
                    # The caller may be gone.
                    group[0].done.exception()
                return
            for write in group:
                await self._write_group([write])
            return
        for write, result in zip(group, results, strict=True):
            if not write.done.done():
                write.done.set_result(result)

    def committed(self, transaction: Transaction, position: int, announcements: Sequence[Announcement]) -> None:
        """Tell of a commit; called by the engine, in the order of the commits."""
        for effect in transaction.effects:
            try:
                effect()
            except Exception:
                _log.exception("effect_of_commit_failed")
        self.deliver(position, announcements)

    def deliver(self, position: int, announcements: Sequence[Announcement]) -> None:
        """Hand announcements on, then move the position."""
        try:
            self.on_commit(position, announcements)
        except Exception:
            _log.exception("announcements_not_delivered")
        self.position = max(self.position, position)


def _nobody_listens(position: int, announcements: Sequence[Announcement]) -> None:
    """Until the program has said who listens."""
