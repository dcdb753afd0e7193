"""As much of an S3-compatible store as is used: objects put whole or in parts, read by ranges, deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from aiohttp import web

if TYPE_CHECKING:
    from typing import Self

BUCKET = "files"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Bucket:
    """A store with one bucket, at `http://127.0.0.1:PORT`; `is_broken` makes it fail."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_broken = False
        self.requests: list[tuple[str, str]] = []
        self._parts: dict[str, dict[int, bytes]] = {}

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        key = request.path.removeprefix(f"/{BUCKET}/")
        self.requests.append((request.method, request.path_qs))
        assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=key/")
        if self.is_broken:
            return _error(403, "AccessDenied")
        if request.method == "POST" and "uploads" in request.query:
            upload = f"upload{len(self.requests)}"
            self._parts[upload] = {}
            return _xml(
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "PUT" and "partNumber" in request.query:
            number = int(request.query["partNumber"])
            self._parts[request.query["uploadId"]][number] = await request.read()
            return web.Response(headers={"ETag": f'"{number}"'})
        if request.method == "POST":
            parts = self._parts.pop(request.query["uploadId"])
            assert all(len(parts[number]) >= 5 << 20 for number in sorted(parts)[:-1])
            self.objects[key] = b"".join(parts[number] for number in sorted(parts))
            return _xml('<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')
        if request.method == "PUT":
            self.objects[key] = await request.read()
            return web.Response(headers={"ETag": '"x"'})
        if request.method == "DELETE":
            if "uploadId" in request.query:
                self._parts.pop(request.query["uploadId"], None)
            else:
                self.objects.pop(key, None)
            return web.Response(status=204)
        return self._get(request, key)

    def _get(self, request: web.Request, key: str) -> web.Response:
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        content = self.objects[key]
        asked = _RANGE.fullmatch(request.headers["Range"])
        assert asked is not None
        start, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        if start >= len(content):
            return _error(416, "InvalidRange")
        return web.Response(
            status=206,
            body=content[start : last + 1],
            headers={
                "Content-Range": f"bytes {start}-{last}/{len(content)}",
                "ETag": '"x"',
                "Last-Modified": "Mon, 30 Nov 2026 12:00:00 GMT",
            },
        )


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0"?>{text}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{escape(code)}</Code></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
