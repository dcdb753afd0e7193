"""The database as the rest of the program sees it: one writer that commits in groups, readers that never wait.

Every fact that somebody may have to learn gets a position in one order, inside the transaction that writes it, in
the order of the commits. After a commit its effects are run, its announcements are handed on, then `position` is
moved, then the callers get their answers: whoever sees a position can read all that lies before it.

Statements are written once, for both engines; `homeserver.storage.dialect` says what may stand in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from homeserver.storage.errors import DatabaseClosed, DatabaseLocked, DatabaseRefused, DatabaseUnavailable
from homeserver.storage.group_commit import Failure, GroupCommit, outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from homeserver.clock import Clock
    from homeserver.storage.announcements import Announcement, Topic

__all__ = [
    "Database",
    "DatabaseClosed",
    "DatabaseLocked",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "Reader",
    "Row",
    "Transaction",
]

T = TypeVar("T")
Row = tuple[Any, ...]

_log = structlog.get_logger(__name__)


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
    """A transaction that writes; handed to the work of `Database.write`. One call at a time.

    A statement that breaks a constraint fails the whole work: what may collide is written with ON CONFLICT.
    """

    def __init__(self) -> None:
        self.announced: dict[tuple[Topic, str], None] = {}
        self.effects: list[Callable[[], None]] = []

    @abstractmethod
    async def execute(self, sql: str, *arguments: Any) -> int:
        """Run a statement; the answer is the number of rows that it changed."""

    @abstractmethod
    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of arguments.

        The cheapest way to write, even for one row: as it has no answer it may be put off until the next
        question or the commit, and is then run together with others. If it fails the work fails.
        """

    @abstractmethod
    async def next_position(self) -> int:
        """Take the next position of the log. Positions grow in the order of the commits; some may be skipped."""

    @abstractmethod
    async def flush(self) -> None:
        """Run what was put off."""

    def announce(self, topic: Topic, key: str) -> None:
        """Tell, once this is committed, that something with this key has changed."""
        self.announced[topic, key] = None

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Run `effect` once this is committed, before anybody else hears of it. It must not fail."""
        self.effects.append(effect)


class Database(Reader):
    """One of the two engines."""

    is_shared = False
    """Whether other processes may use it at the same time."""

    def __init__(self, clock: Clock) -> None:
        self.position = 0
        """The highest committed position whose announcements were handed on; no token may exceed it."""
        self.epoch = 0
        """Grows when a backup is restored."""
        self.on_commit: Callable[[int, Sequence[Announcement]], None] = _nobody_listens
        """Hears of every move of `position`, in order, with what was announced since the last."""
        self._clock = clock
        self._group_commit = GroupCommit(self._commit_group)

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` inside a transaction and answer with what it returns, once that is committed.

        Works that wait at the same time are committed together, in the order in which they came. One that raises
        is rolled back alone; for that the others of its group are run again, so a work must have no effects but
        through its transaction. A caller that is cancelled does not stop its work: whatever is written must bear
        being written twice. Raises what the work raised, or `DatabaseUnavailable`.
        """
        self._check_usable()
        result: T = await self._group_commit.submit(work)
        return result

    async def reach(self, position: int) -> bool:
        """Whether a position has been committed; `position` is then at least there.

        Another process may have committed, and told its clients of, what this one has not heard of yet.
        """
        return position <= self.position

    @abstractmethod
    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[Row]:
        """Ask the same for each row of arguments, in one go: the rows of all answers, one after the other.

        Where each of many has bounds of its own, this is what a single statement cannot say for both engines.
        """

    @abstractmethod
    async def table_names(self) -> set[str]:
        """The tables that there are."""

    async def close(self) -> None:
        """Take no more writes, finish those that were taken, let go of the database. May be called again."""
        await self._group_commit.close(self._disconnect)

    # -- what an engine does ---------------------------------------------------------------------------

    @abstractmethod
    async def _begin(self) -> Transaction:
        """Begin to write; there is never more than one transaction at a time."""

    @abstractmethod
    async def _commit(self, transaction: Transaction) -> None:
        """Commit, then call `_committed`."""

    @abstractmethod
    async def _roll_back(self, transaction: Transaction) -> None:
        """Leave no trace of the transaction. Must not fail."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Let go of the database; the writer is at rest."""

    def _check_usable(self) -> None:
        if self._group_commit.closing:
            raise DatabaseClosed

    # -- writing ---------------------------------------------------------------------------------------

    async def _commit_group(self, works: Sequence[Callable[[Transaction], Awaitable[Any]]]) -> list[Any]:
        """Commit works together, in one transaction: what each returned, or the `Failure` of those that raised.

        First as if none would fail. If one does, all are run again in a second transaction, each between
        savepoints, so that only what fails is taken back.
        """
        outcome = await outcome_of(self._run_together(works))
        if (
            isinstance(outcome, Failure)
            and len(works) > 1
            and not isinstance(outcome.error, DatabaseUnavailable)
        ):
            outcome = await outcome_of(self._run_apart(works))
        if isinstance(outcome, Failure):
            return [outcome] * len(works)
        return outcome

    async def _run_together(self, works: Sequence[Callable[[Transaction], Awaitable[Any]]]) -> list[Any]:
        transaction = await self._begin()
        try:
            results = [await work(transaction) for work in works]
            await self._commit(transaction)
        except BaseException:
            await self._roll_back(transaction)
            raise
        return results

    async def _run_apart(self, works: Sequence[Callable[[Transaction], Awaitable[Any]]]) -> list[Any]:
        transaction = await self._begin()
        try:
            outcomes = [await self._run_between_savepoints(transaction, work) for work in works]
            await self._commit(transaction)
        except BaseException:
            await self._roll_back(transaction)
            raise
        return outcomes

    async def _run_between_savepoints(
        self, transaction: Transaction, work: Callable[[Transaction], Awaitable[Any]]
    ) -> Any:
        announced, effects = dict(transaction.announced), list(transaction.effects)
        await transaction.execute("SAVEPOINT work")
        outcome = await outcome_of(_run_and_flush(transaction, work))
        if isinstance(outcome, Failure):
            transaction.announced, transaction.effects = announced, effects
            await transaction.execute("ROLLBACK TO SAVEPOINT work")
        await transaction.execute("RELEASE SAVEPOINT work")
        return outcome

    def _committed(self, transaction: Transaction) -> None:
        """Run the effects of a commit; what is delivered comes after."""
        for effect in transaction.effects:
            try:
                effect()
            except Exception:  # noqa: BLE001 - it is logged, and the commit stands
                _log.exception("effect_of_commit_failed")

    def _deliver(self, position: int, announcements: Sequence[Announcement]) -> None:
        """Hand announcements on, then move the position; called in the order of the commits."""
        try:
            self.on_commit(position, announcements)
        except Exception:  # noqa: BLE001 - it is logged, and the commit stands
            _log.exception("announcements_not_delivered")
        self.position = position


async def _run_and_flush(transaction: Transaction, work: Callable[[Transaction], Awaitable[T]]) -> T:
    result = await work(transaction)
    await transaction.flush()
    return result


def _nobody_listens(position: int, announcements: Sequence[Announcement]) -> None:
    """Until the program has said who listens."""
