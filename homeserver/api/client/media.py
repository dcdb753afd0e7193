"""The content repository (CS "Content repository").

The endpoints without authentication are frozen, as the specification wants it from version 1.12 on: "any media uploaded
*after* (or *during*) the freeze SHOULD only be accessible through the new, authenticated, endpoints". This server never
had any from before, so these know of nothing.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from homeserver.api.files import file_answer
from homeserver.api.thumbnails import thumbnail_name, wanted_shape
from homeserver.errors import InvalidParam, NotFound
from homeserver.http.request import WhileConnected
from homeserver.http.response import json_response
from homeserver.http.routing import MEBIBYTE, Route, client
from homeserver.services.media.contents import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS
from homeserver.services.media.headers import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.http.routing import Handler
    from homeserver.ids import UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.media import Content

_MEDIA = "{serverName}/{mediaId}"


class MediaEndpoints:
    """Files of users: what they upload, and what they want to see."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._max_bytes = context.settings.media.max_upload_bytes

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("POST", "/_matrix/media/v1/create", self.create),
            *_media("POST", "/upload", self.upload, self._max_bytes),
            Route("PUT", f"/_matrix/media/v3/upload/{_MEDIA}", self.upload_to, self._max_bytes),
            *client("GET", f"/media/download/{_MEDIA}", self.download, ("v1",)),
            *client("GET", f"/media/download/{_MEDIA}/{{fileName}}", self.download, ("v1",)),
            *client("GET", f"/media/thumbnail/{_MEDIA}", self.thumbnail, ("v1",)),
            *client("GET", "/media/config", self.config, ("v1",)),
            *_media("GET", "/config", self.config),
            *_media("GET", f"/download/{_MEDIA}", self.frozen),
            *_media("GET", f"/download/{_MEDIA}/{{fileName}}", self.frozen),
            *_media("GET", f"/thumbnail/{_MEDIA}", self.frozen),
        ]

    # -- uploads -----------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """`POST /_matrix/media/v1/create`."""
        requester = await self._context.authenticator.requester(request)
        self._context.rate_limits.check("media_ids", requester.user_id)
        await request.json(allow_empty=True)
        uri, expires_ts = await self._context.uploads.create(requester.user_id)
        return json_response({"content_uri": uri, "unused_expires_at": expires_ts})

    async def upload(self, request: Request) -> Response:
        """`POST /_matrix/media/v3/upload`."""
        requester = await self._uploader(request)
        uri = await self._context.uploads.upload(
            requester.user_id,
            request.parts(),
            request.header(b"content-type"),
            _checked_name(request.query.get("filename")),
        )
        return json_response({"content_uri": uri})

    async def upload_to(self, request: Request) -> Response:
        """`PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`."""
        requester = await self._uploader(request)
        await self._context.uploads.upload_to(
            requester.user_id,
            request.path_parameters["serverName"],
            request.path_parameters["mediaId"],
            request.parts(),
            request.header(b"content-type"),
            _checked_name(request.query.get("filename")),
        )
        return json_response({})

    async def _uploader(self, request: Request) -> Requester:
        requester = await self._context.authenticator.requester(request)
        length = self._max_bytes if request.content_length is None else request.content_length
        mebibytes = max(1, math.ceil(min(length, self._max_bytes) / MEBIBYTE))
        self._context.rate_limits.check("uploads", requester.user_id, mebibytes)
        return requester

    # -- downloads ---------------------------------------------------------------------------------------

    async def download(self, request: Request) -> Response:
        """`GET /media/download/{serverName}/{mediaId}`, and with a `{fileName}` in the place of its own."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        given = _checked_name(request.path_parameters.get("fileName"))
        content = await self._content(request, requester.user_id)
        name = content.upload_name if given is None else given
        return await file_answer(request, self._context.media_contents, content, name)

    async def thumbnail(self, request: Request) -> Response:
        """`GET /media/thumbnail/{serverName}/{mediaId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        shape = wanted_shape(request.query)
        content = await self._content(request, requester.user_id)
        is_ours = self._context.media_contents.is_ours(request.path_parameters["serverName"])
        thumbnail = await self._context.thumbnails.find(content, shape, is_ours=is_ours)
        name = thumbnail_name(thumbnail.content_type)
        return await file_answer(request, self._context.media_contents, thumbnail, name)

    async def _content(self, request: Request, user_id: UserId) -> Content:
        timeout_ms = request.query.get_int("timeout_ms", DEFAULT_TIMEOUT_MS, maximum=MAX_TIMEOUT_MS)
        await request.body()
        async with WhileConnected(request):
            return await self._context.media_contents.find(
                request.path_parameters["serverName"],
                request.path_parameters["mediaId"],
                timeout_ms,
                before_fetch=partial(self._context.rate_limits.check, "remote_media", user_id),
            )

    async def config(self, request: Request) -> Response:
        """`GET /media/config`."""
        await self._context.authenticator.requester(request)
        return json_response({"m.upload.size": self._max_bytes})

    async def frozen(self, request: Request) -> Response:
        """`GET /_matrix/media/v3/download/...` and `.../thumbnail/...`, without authentication."""
        self._context.authenticator.anyone(request)
        raise NotFound("Media are for who is logged in: ask below /_matrix/client/v1/media")


def _media(method: str, path: str, handler: Handler, max_body_bytes: int = MEBIBYTE) -> list[Route]:
    """The routes of an endpoint that clients know by an older prefix, too."""
    return [
        Route(method, f"/_matrix/media/{version}{path}", handler, max_body_bytes) for version in ("v3", "r0")
    ]


def _checked_name(name: str | None) -> str | None:
    """The name of a file, where one is given that is no novel."""
    if name is not None and len(name) > MAX_NAME_LENGTH:
        raise InvalidParam(f"The name of the file has more than {MAX_NAME_LENGTH} characters")
    return name or None
