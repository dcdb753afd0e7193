"""The queue before the one writer: works that wait at the same time are committed together.

A work is run by the writer's own task, never by that of its caller. So a caller that is cancelled cannot leave a
transaction half done on the connection that all share (measured: catching the cancellation and rolling back is not
enough, since a BEGIN may still be on its way to the thread of the connection).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog

from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

MAX_WAITING = 4_096
"""Works in the queue; who comes when it is full waits in line before it."""
MAX_GROUP = 256
"""Works that are committed together at most."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """What was raised instead of an answer."""

    error: BaseException


async def outcome_of(coroutine: Coroutine[Any, Any, T]) -> T | Failure:
    """What a coroutine returns, or what it raises, even if that is that something in it was cancelled.

    Only the cancellation of the caller itself goes through.
    """
    outcomes: tuple[T | BaseException] = await asyncio.gather(coroutine, return_exceptions=True)
    outcome = outcomes[0]
    return Failure(outcome) if isinstance(outcome, BaseException) else outcome


class _Waiting(NamedTuple):
    work: Callable[[Any], Awaitable[Any]]
    done: asyncio.Future[Any]


class GroupCommit:
    """Gathers works into groups and has `commit_group` commit them, one group at a time.

    `commit_group` answers with one outcome for each work: its result, or a `Failure`.
    """

    def __init__(
        self,
        commit_group: Callable[[Sequence[Callable[[Any], Awaitable[Any]]]], Coroutine[Any, Any, list[Any]]],
    ) -> None:
        self.closing = False
        self._commit_group = commit_group
        self._waiting: deque[_Waiting] = deque()
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._writer: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None

    async def submit(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Have a work run, and answer with what it returned once that is committed; raises what it raised."""
        await self._places.acquire()
        if self.closing:
            self._places.release()
            raise DatabaseClosed
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(work, done))
        if self._writer is None:
            # In a context of its own: it works for all, and must not log under the request that came first.
            self._writer = asyncio.create_task(self._write(), context=contextvars.Context())
        return await done

    async def close(self, disconnect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Take no more works, finish those that wait, then `disconnect`. May be called again."""
        self.closing = True
        if self._end is None:
            self._end = asyncio.create_task(self._finish(disconnect))
        await asyncio.shield(self._end)

    async def _finish(self, disconnect: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await disconnect()

    async def _write(self) -> None:
        """Commit until nothing waits any more."""
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
                for _ in group:
                    self._places.release()
                outcomes = await self._commit_group([waiting.work for waiting in group])
                for waiting, outcome in zip(group, outcomes, strict=True):
                    _answer(waiting.done, outcome)
        finally:
            self._writer = None


def _answer(done: asyncio.Future[Any], outcome: Any) -> None:
    if done.done():
        # The caller has gone: its future was cancelled with it.
        if isinstance(outcome, Failure):
            _log.warning("write_without_caller_failed", exc_info=outcome.error)
    elif isinstance(outcome, Failure):
        done.set_exception(outcome.error)
    else:
        done.set_result(outcome)
