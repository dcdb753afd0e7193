"""Media of other servers: `multipart/mixed` answers, of which the second part is the file, or says where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from federation.errors import BadAnswer, TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from federation.transport import StreamedAnswer

_MAX_METADATA_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 16


class RemoteMedia:
    """A file that is being downloaded.

    Where `location` is set there is no content: it is to be fetched from that URL, by whoever fetches from the internet
    in general and under the rules for that (`http_client`), since it is no server's name.
    """

    def __init__(self, destination: str, part: aiohttp.BodyPartReader, max_bytes: int) -> None:
        self.content_type: str | None = part.headers.get("Content-Type")
        self.content_disposition: str | None = part.headers.get("Content-Disposition")
        self.location: str | None = part.headers.get("Location")
        self._destination = destination
        self._part = part
        self._max_bytes = max_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content; raises `BadAnswer` where it is larger than it may be."""
        total = 0
        while not self._part.at_eof():
            try:
                chunk = await self._part.read_chunk(_CHUNK_BYTES)
            except (aiohttp.ClientError, HttpProcessingError, ValueError, OSError) as error:
                raise _broken(self._destination, error) from error
            total += len(chunk)
            if total > self._max_bytes:
                raise BadAnswer(self._destination, f"the file has more than {self._max_bytes} bytes")
            if chunk:
                yield chunk


async def read_media(destination: str, answer: StreamedAnswer, max_bytes: int) -> RemoteMedia:
    """Read on to the file; raises `BadAnswer` or `Unreachable`."""
    try:
        reader = aiohttp.MultipartReader(answer.headers, answer.content)
        metadata = await reader.next()
        if not isinstance(metadata, aiohttp.BodyPartReader):
            raise BadAnswer(destination, "the answer has no first part")
        described = b""
        while not metadata.at_eof():
            described += await metadata.read_chunk(_CHUNK_BYTES)
            if len(described) > _MAX_METADATA_BYTES:
                raise BadAnswer(destination, "the description of the file is too large")
        if not isinstance(json.loads(described or b"{}"), dict):
            raise BadAnswer(destination, "the description of the file is not an object")
        part = await reader.next()
    except (aiohttp.ClientError, HttpProcessingError, ValueError, AssertionError, OSError) as error:
        raise _broken(destination, error) from error
    if not isinstance(part, aiohttp.BodyPartReader):
        raise BadAnswer(destination, "the answer has no second part")
    return RemoteMedia(destination, part, max_bytes)


def _broken(destination: str, error: Exception) -> Unreachable | BadAnswer:
    if isinstance(error, TimeoutError):
        return TimedOut(destination, "no answer within the time", connected=True)
    if isinstance(error, aiohttp.ClientError | OSError):
        return Unreachable(destination, "the answer broke off", connected=True)
    return BadAnswer(destination, "the answer is not in two parts, as media are")
