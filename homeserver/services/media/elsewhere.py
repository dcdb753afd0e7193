"""Files that another server keeps elsewhere, at an address on the internet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from yarl import URL

from federation.errors import BadAnswer, Unreachable
from federation.media import plain_media
from federation.transport import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from federation.media import RemoteMedia
    from federation.transport import Transport

_MAX_REDIRECTS = 3
_SECONDS = 600
_REDIRECTS = (301, 302, 303, 307, 308)


class Elsewhere:
    """Downloads by HTTPS, without saying who asks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @contextlib.asynccontextmanager
    async def download(self, location: str, max_bytes: int) -> AsyncIterator[RemoteMedia]:
        """The file at a URL, to be read inside the `with`; raises `BadAnswer` and `Unreachable`."""
        url = _https(location)
        limits = Limits(max_bytes=max_bytes, seconds=_SECONDS)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._transport.stream("GET", url, limits) as answer:
                if answer.status == 200:
                    yield plain_media(answer)
                    return
                if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                    raise BadAnswer(url.host or location, f"answered with status {answer.status}")
                url = _https(answer.headers["Location"], url)
        raise Unreachable(url.host or location, "it sends everybody on and on", connected=True)


def _https(location: str, base: URL | None = None) -> URL:
    try:
        url = URL(location) if base is None else base.join(URL(location))
    except (ValueError, TypeError):
        raise BadAnswer(location, "this is not a URL") from None
    if url.scheme != "https" or not url.raw_host or url.user is not None:
        raise BadAnswer(location, "this is not a file on the internet")
    return url
