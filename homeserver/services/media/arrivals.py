"""Who waits for content that has not come yet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WAITING = 2_000
"""So many requests wait at the same time; whoever comes then is not kept."""


class Arrivals:
    """Wakes those who wait, for the uploads of any process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0

    def hear(self, media_id: str) -> None:
        """The content of a media of this server has come."""
        for event in self._waiting.get(media_id, ()):
            event.set()

    def stop(self) -> None:
        """Let everybody go."""
        for media_id in self._waiting:
            self.hear(media_id)

    @contextlib.contextmanager
    def waiting_for(self, media_id: str) -> Iterator[asyncio.Event | None]:
        """What is set once the content has come, from now on; None where too many wait."""
        if self._count >= MAX_WAITING:
            yield None
            return
        event = asyncio.Event()
        self._waiting.setdefault(media_id, set()).add(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            self._waiting[media_id].discard(event)
            if not self._waiting[media_id]:
                del self._waiting[media_id]
