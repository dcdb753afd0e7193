"""Files to upload, and a client that uploads them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.client import Refused

if TYPE_CHECKING:
    import httpx

    from tests.client import Client
    from tests.server import Server

UPLOAD = "/_matrix/media/v3/upload"
MEDIA = "/_matrix/client/v1/media"


def picture(
    width: int = 1000, height: int = 500, kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    """An image whose left half is red and whose right half is blue."""
    image = Image.new(mode, (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def animation(width: int = 600, height: int = 300, frames: int = 3, kind: str = "GIF") -> bytes:
    """An image that moves."""
    images = [
        Image.new("RGB", (width, height), colour) for colour in ("red", "green", "blue", "white")[:frames]
    ]
    made = io.BytesIO()
    images[0].save(made, kind, save_all=True, append_images=images[1:], duration=100, loop=0)
    return made.getvalue()


class Desk:
    """Where somebody uploads files and asks for them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.http = client.http

    async def upload(self, content: bytes, content_type: str | None = "text/plain", **query: Any) -> str:
        """Upload a file; what follows `mxc://`."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = await self.client.call("POST", UPLOAD, content=content, headers=headers, **query)
        uri = answer["content_uri"]
        assert uri.startswith("mxc://")
        return str(uri.removeprefix("mxc://"))

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        """An answer that is not JSON, or `Refused`."""
        sent = {"Authorization": f"Bearer {self.client.access_token}", **(headers or {})}
        answer = await self.http.get(MEDIA + path, headers=sent, params=query or None)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.json(), dict(answer.headers))
        return answer

    async def download(
        self, media: str, headers: dict[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        return await self.get(f"/download/{media}", headers, **query)

    async def thumbnail(self, media: str, width: int, height: int, **query: Any) -> httpx.Response:
        query = {name: str(value).lower() for name, value in query.items()}
        return await self.get(f"/thumbnail/{media}", width=width, height=height, **query)


def image_in(answer: httpx.Response) -> Image.Image:
    """The image that was answered."""
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    assert answer.headers["content-type"] == Image.MIME[image.format or ""]
    return image


@pytest.fixture
def desk(alice: Client) -> Desk:
    """Alice's."""
    return Desk(alice)


def files_of(server: Server) -> list[str]:
    """The names of all files that are kept, whole or not."""
    return sorted(path.name for path in server.settings.media_path.rglob("*") if path.is_file())
