"""Answers with as many events as a room may have: written as they are read, one list after the other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import LimitExceeded
from homeserver.http.response import StreamedJson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from homeserver.ids import ServerName

MAX_AT_ONCE = 20
"""So many of them go to one server at the same time: each holds a part of itself in memory while it is read."""
_RETRY_MS = 5_000


class BigAnswers:
    """Streams objects, some to each server."""

    def __init__(self) -> None:
        self._running: Counter[ServerName] = Counter()

    def check(self, origin: ServerName) -> None:
        """Before the work is done: `LimitExceeded` for a server that reads many already."""
        if self._running[origin] >= MAX_AT_ONCE:
            raise LimitExceeded("big_answers", _RETRY_MS)

    def stream(
        self,
        origin: ServerName,
        lists: Mapping[str, AsyncIterator[bytes]],
        fields: Mapping[str, Any] | None = None,
        *,
        before: bytes = b"",
        after: bytes = b"",
    ) -> StreamedJson:
        """An object with small `fields` and big `lists`, of which each part holds some elements with commas between.

        `before` and `after` stand around the object.
        """
        return StreamedJson(self._counted(origin, _parts(lists, fields or {}, before, after)))

    async def _counted(self, origin: ServerName, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._running[origin] += 1
        try:
            async for part in parts:
                yield part
        finally:
            self._running[origin] -= 1
            if not self._running[origin]:
                del self._running[origin]


async def _parts(
    lists: Mapping[str, AsyncIterator[bytes]], fields: Mapping[str, Any], before: bytes, after: bytes
) -> AsyncIterator[bytes]:
    start = before + b"{"
    for name, value in fields.items():
        start += orjson.dumps(name) + b":" + orjson.dumps(value) + b","
    for name, elements in lists.items():
        yield start + orjson.dumps(name) + b":["
        async for part in elements:
            yield part
        start = b"],"
    yield b"]}" + after
