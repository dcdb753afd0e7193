"""Files as answers: whole or a range of them, with what keeps browsers from running them (CS "Content repository")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response

from homeserver.http.response import Streamed, json_response
from homeserver.services.media.headers import content_disposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homeserver.http.request import Request
    from homeserver.services.media.contents import Contents
    from homeserver.storage.media import Content, StoredFile

_PROTECTION = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf;"
        " style-src 'unsafe-inline'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class _Range(NamedTuple):
    start: int
    end: int
    """Before this one."""


async def file_answer(request: Request, contents: Contents, content: Content, name: str | None) -> Response:
    """The file, or as much of it as is asked for; nothing, where the client has it already."""
    file = content.file
    etag = f'"{file.sha256.hex()[:32]}"'
    headers = {
        **_PROTECTION,
        "Content-Type": content.content_type,
        "Content-Disposition": content_disposition(content.content_type, name),
        "ETag": etag,
        # A media never changes.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
    }
    if _names(request.header(b"if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted, status = _Range(0, file.size), 200
    if request.header(b"if-range") in (None, etag):
        asked = _range_of(request.header(b"range"), file.size)
        if asked is not None and asked.start >= asked.end:
            return json_response(
                {"errcode": "M_UNKNOWN", "error": "The file has no such range"},
                416,
                {"Content-Range": f"bytes */{file.size}"},
            )
        if asked is not None:
            wanted, status = asked, 206
            headers["Content-Range"] = f"bytes {asked.start}-{asked.end - 1}/{file.size}"
    headers["Content-Length"] = str(wanted.end - wanted.start)
    return Streamed(await begun(contents, file, wanted.start, wanted.end), _raw(headers), status)


async def begun(contents: Contents, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
    """A part of a file, of which the beginning has been read: what is lost is known before anything is sent."""
    middle = min(end, start + contents.part_bytes)
    beginning = await contents.read(file, start, middle)

    async def parts() -> AsyncIterator[bytes]:
        if beginning:
            yield beginning
        async for part in contents.parts(file, middle, end):
            yield part

    return parts()


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _names(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    named = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in named or etag in named


def _range_of(header: str | None, size: int) -> _Range | None:
    """The range in a header, empty where the file has no such bytes; None for all (RFC 9110, section 14.2)."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        # Several at once are seldom wanted, and a server may ignore them.
        return None
    first, last = match.groups()
    if not first:
        return _Range(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return _Range(int(first), min(int(last) + 1, size) if last else size)
