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

    from homeserver.clock import Clock

CHANNEL = "restante_log"
_POLL_SECONDS = 3.0
_RECONNECT_SECONDS = 1.0
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


async def read_news(connection: asyncpg.Connection[Any], after: int) -> Commits:
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
