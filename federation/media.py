"""Media of other servers: `multipart/mixed` answers, of which the second part is the file, or says where it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING

from federation.errors import AnswerTooLarge, BadAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from federation.transport import StreamedAnswer

_MAX_METADATA_BYTES = 64 << 10
_MAX_HEADER_BYTES = 16 << 10
_MAX_PREAMBLE_BYTES = _MAX_EPILOGUE_BYTES = 16 << 10
# RFC 2046, 5.1.1
_MAX_BOUNDARY_LENGTH = 70


@dataclass(frozen=True, slots=True)
class RemoteMedia:
    """A file that is being downloaded.

    Where `location` is set there is no content: it is to be fetched from that URL, by whoever fetches from the internet
    in general and under the rules for that (`http_client`), since it is no server's name. `chunks` raises `BadAnswer`
    where the content is larger than it may be or has no end, `Unreachable` where it breaks off.
    """

    content_type: str | None
    content_disposition: str | None
    location: str | None
    chunks: AsyncIterator[bytes]


async def read_media(destination: str, answer: StreamedAnswer, max_bytes: int) -> RemoteMedia:
    """Read on to the file; raises `BadAnswer` or `Unreachable`."""
    parts = _Parts(destination, answer)
    await parts.begin()
    await parts.headers()
    try:
        described = b"".join([chunk async for chunk in parts.content(_MAX_METADATA_BYTES)])
    except AnswerTooLarge:
        raise BadAnswer(destination, "the description of the file is too large") from None
    try:
        metadata = json.loads(described)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise BadAnswer(destination, "the first part does not describe the file")
    headers = await parts.headers()
    return RemoteMedia(
        headers.get("content-type"),
        headers.get("content-disposition"),
        headers.get("location"),
        parts.last_content(max_bytes),
    )


def plain_media(answer: StreamedAnswer) -> RemoteMedia:
    """The file that is an answer by itself."""
    return RemoteMedia(
        answer.headers.get("Content-Type"),
        answer.headers.get("Content-Disposition"),
        None,
        answer.chunks(),
    )


class _Parts:
    """The parts of an answer, one after the other; no more of it is held than a chunk and a boundary."""

    def __init__(self, destination: str, answer: StreamedAnswer) -> None:
        self._destination = destination
        self._chunks = answer.chunks()
        self._delimiter = b"\r\n--" + _boundary(destination, answer.headers.get("Content-Type", ""))
        # As if something stood before the first boundary.
        self._buffer = b"\r\n"

    async def begin(self) -> None:
        """Go to the first part."""
        await self._until(self._delimiter, _MAX_PREAMBLE_BYTES)

    async def headers(self) -> dict[str, str]:
        """The headers of the part that begins here, by their names in small letters."""
        rest, *lines = (await self._until(b"\r\n\r\n", _MAX_HEADER_BYTES)).split(b"\r\n")
        if rest.startswith(b"--"):
            raise BadAnswer(self._destination, "the answer has fewer than two parts")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                headers.setdefault(name.strip().lower(), value.strip())
        return headers

    async def content(self, max_bytes: int) -> AsyncIterator[bytes]:
        """The content of the part, to the boundary after it."""
        # The line break before a boundary belongs to that; behind headers it may be the one that ended them.
        while len(self._buffer) < len(self._delimiter):
            await self._more()
        if self._buffer.startswith(self._delimiter[2:]):
            self._buffer = b"\r\n" + self._buffer
        total = 0
        while True:
            at = self._buffer.find(self._delimiter)
            # Without a boundary in sight, the last bytes may be the beginning of one.
            known = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
            total += known
            if total > max_bytes:
                raise AnswerTooLarge(self._destination, max_bytes)
            if known:
                yield self._buffer[:known]
                self._buffer = self._buffer[known:]
            if at >= 0:
                self._buffer = self._buffer[len(self._delimiter) :]
                return
            await self._more()

    async def last_content(self, max_bytes: int) -> AsyncIterator[bytes]:
        """The content of the last part; what stands behind is read, too, so that the connection can go on."""
        async for chunk in self.content(max_bytes):
            yield chunk
        behind = 0
        async for chunk in self._chunks:
            behind += len(chunk)
            if behind > _MAX_EPILOGUE_BYTES:
                return

    async def _until(self, mark: bytes, most: int) -> bytes:
        """What stands before a mark; go on behind it."""
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > most:
                raise BadAnswer(self._destination, "the answer is not in parts, as media are")
            await self._more()
        before, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return before

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise BadAnswer(self._destination, "the answer ends before its last part does") from None


def _boundary(destination: str, content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if (
        header.get_content_maintype() != "multipart"
        or boundary is None
        or not 0 < len(boundary) <= _MAX_BOUNDARY_LENGTH
        or not boundary.isascii()
    ):
        raise BadAnswer(destination, "the answer is not in parts, as media are")
    return boundary.encode()
