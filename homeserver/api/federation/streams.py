"""Answers with as many events as a room may have: written as they are read, one list after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.http.response import StreamedJson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


def streamed(
    lists: Mapping[str, AsyncIterator[bytes]],
    fields: Mapping[str, Any] | None = None,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> StreamedJson:
    """An object with small `fields` and big `lists`, of which each part holds some elements with commas between them.

    `before` and `after` stand around the object.
    """
    return StreamedJson(_parts(lists, fields or {}, before, after))


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
