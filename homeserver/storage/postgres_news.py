"""Hears of the commits of other processes, and prunes what all have heard.

NOTIFY carries the position of a commit. It is a hint: after a lost connection, and every few seconds in any case,
the process reads on from its own position.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.errors import DatabaseUnavailable
from homeserver.storage.postgres_connection import LOST, answer, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg.pool import PoolConnectionProxy

    from homeserver.clock import Clock

CHANNEL = "restante_log"
_POLL_SECONDS = 3.0
_RECONNECT_SECONDS = 1.0
# Who commits waits for who listens: a connection that stands still is given up.
_PATIENCE_SECONDS = 10.0
_KEPT_MS = 3_600_000
_PRUNE_SECONDS = 600.0
_TOPICS = {topic.value: topic for topic in Topic}

_log = structlog.get_logger(__name__)


class FellBehind(DatabaseUnavailable):
    """This process has stood still for so long that what it did not hear of is no longer there."""

    def __init__(self) -> None:
        super().__init__("this process has missed what others wrote, and must be restarted")


@dataclass(slots=True)
class Commits:
    """The last committed position, and what was announced up to it, by commit."""

    position: int
    commits: list[tuple[int, list[Announcement]]] = field(default_factory=list)


async def read_news(connection: asyncpg.Connection[Any] | PoolConnectionProxy[Any], after: int) -> Commits:
    """What was announced after a position, all seen at one moment; raises `FellBehind`."""
    sql = (
        "SELECT l.position, l.pruned_upto, a.position, a.topic, a.key FROM log_position l"
        " LEFT JOIN announcements a ON a.position > $1 ORDER BY a.position"
    )
    rows = await answer(connection, sql, connection.fetch(sql, after))
    last, pruned_upto = rows[0][0], rows[0][1]
    if pruned_upto > after:
        raise FellBehind
    news = Commits(last)
    for _, _, position, topic, key in rows:
        if position is None:
            continue
        if not news.commits or news.commits[-1][0] != position:
            news.commits.append((position, []))
        if topic in _TOPICS:
            # A newer program may know more topics; nobody here waits for those.
            news.commits[-1][1].append(Announcement(position, _TOPICS[topic], key, local=False))
    return news


class News:
    """Listens on a connection of its own, and has `hear` called with it whenever there may be something new."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        hear: Callable[[asyncpg.Connection[Any]], Awaitable[None]],
        is_own: Callable[[int], bool],
        fell_behind: Callable[[FellBehind], None],
    ) -> None:
        self._url = url
        self._clock = clock
        self._hear = hear
        self._is_own = is_own
        self._fell_behind = fell_behind
        self._wake = asyncio.Event()
        self._prune_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen_for_ever())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                connection = await connect(self._url)
                try:
                    await self._listen(connection)
                finally:
                    connection.terminate()
            except FellBehind as error:
                _log.critical("fell_behind", error=str(error))
                self._fell_behind(error)
                return
            except (*LOST, DatabaseUnavailable, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                _log.warning("listening_interrupted", error=str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self, connection: asyncpg.Connection[Any]) -> None:
        connection.add_termination_listener(self._lost)
        await connection.add_listener(CHANNEL, self._notified)
        while not connection.is_closed():
            # Cleared before reading: what comes while we read wakes us again.
            self._wake.clear()
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._hear(connection)
                await self._prune(connection)
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _notified(self, _connection: object, process: int, _channel: str, _payload: object) -> None:
        if not self._is_own(process):
            self._wake.set()

    def _lost(self, _connection: object) -> None:
        self._wake.set()

    async def _prune(self, connection: asyncpg.Connection[Any]) -> None:
        if self._clock.monotonic() < self._prune_at:
            return
        self._prune_at = self._clock.monotonic() + _PRUNE_SECONDS
        sql = (
            "WITH gone AS (DELETE FROM announcements WHERE created_ts < $1 RETURNING position)"
            " UPDATE log_position SET pruned_upto = greatest(pruned_upto, (SELECT max(position) FROM gone))"
            " WHERE EXISTS (SELECT 1 FROM gone)"
        )
        await answer(connection, sql, connection.execute(sql, self._clock.now_ms() - _KEPT_MS))
