"""Answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

JSON_HEADERS = [(b"content-type", b"application/json")]
CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"X-Requested-With, Content-Type, Authorization"),
    (b"access-control-expose-headers", b"ETag, Retry-After"),
]
"""On every answer, so that browsers show it to pages of other origins (CS "Web Browser Clients")."""


class JsonResponse(Response):
    """A JSON answer; ready fragments (`orjson.Fragment`) go in as they are."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status_code = status
        self.background = None
        self.body = orjson.dumps(value)
        self.raw_headers = [*JSON_HEADERS, (b"content-length", b"%d" % len(self.body))]
        if headers:
            self.raw_headers += [
                (name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()
            ]


class Streamed(Response):
    """An answer that is too large to be held whole: it is written part by part, as the client reads it.

    What is raised while the parts are made ends the connection, so that the client does not take a part for the whole.
    Where the headers say how long it is, the parts have just so many bytes.
    """

    def __init__(
        self, parts: AsyncIterator[bytes], headers: list[tuple[bytes, bytes]], status: int = 200
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = b""
        self.raw_headers = headers
        self.parts = parts


class StreamedJson(Streamed):
    """A JSON answer that is too large to be held whole."""

    media_type = "application/json"

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        super().__init__(parts, [*JSON_HEADERS])


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return JsonResponse(value, status, headers)


def html_response(text: str, status: int = 200) -> Response:
    """A page for people; nothing in it may run or load anything but what the page itself brings."""
    return Response(
        text,
        status,
        {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'self'; frame-ancestors *"
        },
        "text/html; charset=utf-8",
    )
