"""Media of this server, for other servers (SS "Content Repository")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.api.files import begun
from homeserver.api.thumbnails import thumbnail_name, wanted_shape
from homeserver.http.request import WhileConnected
from homeserver.http.response import Streamed
from homeserver.http.routing import Route
from homeserver.ids import random_string
from homeserver.services.media.contents import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS
from homeserver.services.media.headers import content_disposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.storage.media import Content

_V1 = "/_matrix/federation/v1"


class MediaAnswerEndpoints:
    """Files of our users; of nobody else's, since a server asks each for its own."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._contents = context.media_contents

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("GET", f"{_V1}/media/download/{{mediaId}}", self.download),
            Route("GET", f"{_V1}/media/thumbnail/{{mediaId}}", self.thumbnail),
        ]

    async def download(self, request: Request) -> Response:
        """`GET /media/download/{mediaId}`."""
        await self._context.federation_authenticator.origin(request)
        content = await self._content(request)
        return await self._in_two_parts(content, content.upload_name)

    async def thumbnail(self, request: Request) -> Response:
        """`GET /media/thumbnail/{mediaId}`."""
        await self._context.federation_authenticator.origin(request)
        shape = wanted_shape(request.query)
        content = await self._content(request)
        thumbnail = await self._context.thumbnails.find(content, shape, is_ours=True)
        return await self._in_two_parts(thumbnail, thumbnail_name(thumbnail.content_type))

    async def _content(self, request: Request) -> Content:
        timeout_ms = request.query.get_int("timeout_ms", DEFAULT_TIMEOUT_MS, maximum=MAX_TIMEOUT_MS)
        await request.body()
        async with WhileConnected(request):
            return await self._contents.find_ours(request.path_parameters["mediaId"], timeout_ms)

    async def _in_two_parts(self, content: Content, name: str | None) -> Response:
        """ "Exactly two parts": an empty object, and the file."""
        boundary = random_string(40)
        disposition = content_disposition(content.content_type, name)
        before = (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
            f"--{boundary}\r\nContent-Type: {content.content_type}\r\n"
            f"Content-Disposition: {disposition}\r\n\r\n"
        ).encode()
        after = f"\r\n--{boundary}--\r\n".encode()
        size = content.file.size
        parts = await begun(self._contents, content.file, 0, size)
        headers = [
            (b"content-type", f"multipart/mixed; boundary={boundary}".encode()),
            (b"content-length", b"%d" % (len(before) + size + len(after))),
        ]
        return Streamed(_between(before, parts, after), headers)


async def _between(before: bytes, parts: AsyncIterator[bytes], after: bytes) -> AsyncIterator[bytes]:
    yield before
    async for part in parts:
        yield part
    yield after
