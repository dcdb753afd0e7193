"""Files of our users for other servers: signed requests, answers in two parts, and never a file of somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from federation.media import read_media
from federation.request_auth import sign_request
from tests.client import refused
from tests.media.conftest import Desk, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

V1 = "/_matrix/federation/v1/media"
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


async def get(remote: Remote, target: str) -> httpx.Response:
    """A signed request whose answer is not JSON."""
    header = sign_request(remote.key, remote.name, remote.server.settings.server_name, "GET", target)
    return await remote.server.http.get(target, headers={"Authorization": header})


class Answer:
    """An answer as those who ask other servers see it."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._body = response.content

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body


async def read(response: httpx.Response) -> tuple[Any, ...]:
    media = await read_media("example.org", Answer(response), 10_000_000)  # type: ignore[arg-type]
    content = b"".join([chunk async for chunk in media.chunks])
    return media.content_type, media.content_disposition, media.location, content


@pytest.fixture
def desk(alice: Client) -> Desk:
    return Desk(alice)


async def test_a_file_comes_in_two_parts(desk: Desk, one: Remote) -> None:
    for content in (b"", b"abc", b"\r\n--" * 200_000):
        media_id = (await desk.upload(content, "text/html", filename="ä.html")).partition("/")[2]
        response = await get(one, f"{V1}/download/{media_id}?timeout_ms=20000")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("multipart/mixed; boundary=")
        assert int(response.headers["content-length"]) == len(response.content)
        assert await read(response) == (
            "text/html",
            "attachment; filename*=utf-8''%C3%A4.html",
            None,
            content,
        )


async def test_a_thumbnail_comes_in_two_parts(desk: Desk, one: Remote) -> None:
    media_id = (await desk.upload(picture(), "image/png")).partition("/")[2]
    response = await get(one, f"{V1}/thumbnail/{media_id}?width=320&height=240&method=scale")
    content_type, disposition, _, content = await read(response)
    assert (content_type, disposition) == ("image/jpeg", 'inline; filename="thumbnail.jpeg"')
    assert content.startswith(b"\xff\xd8\xff")
    for query, status, errcode in (
        ("width=320", 400, "M_MISSING_PARAM"),
        ("width=320&height=-1", 400, "M_INVALID_PARAM"),
    ):
        with refused(status, errcode):
            await one.get(f"/media/thumbnail/{media_id}?{query}")
    text_id = (await desk.upload(b"text")).partition("/")[2]
    with refused(400, "M_UNKNOWN"):
        await one.get(f"/media/thumbnail/{text_id}?width=1&height=1")


async def test_only_servers_are_answered(server: Server, desk: Desk) -> None:
    media_id = (await desk.upload(b"abc")).partition("/")[2]
    for client in (server.nobody(), desk.client):
        for path in (f"{V1}/download/{media_id}", f"{V1}/thumbnail/{media_id}?width=1&height=1"):
            with refused(401, "M_UNAUTHORIZED"):
                await client.get(path)


async def test_what_is_not_there_and_what_is_not_there_yet(desk: Desk, one: Remote) -> None:
    for media_id in ("unknown", "..%2F..%2Fx", "a.b", "x" * 300):
        with refused(404, "M_NOT_FOUND"):
            await one.get(f"/media/download/{media_id}")
    uri = (await desk.client.post("/_matrix/media/v1/create", {}))["content_uri"]
    media_id = uri.rpartition("/")[2]
    with refused(504, "M_NOT_YET_UPLOADED"):
        await one.get(f"/media/download/{media_id}", timeout_ms=1)
    with refused(400, "M_INVALID_PARAM"):
        await one.get(f"/media/download/{media_id}", timeout_ms="soon")


async def test_files_of_other_servers_are_not_handed_on(server: Server, desk: Desk, one: Remote) -> None:
    media = await desk.upload(b"abc")
    # As if it had been fetched from elsewhere.
    await server.application.database.write(
        lambda t: t.execute("UPDATE media SET server_name = 'two.example', user_id = NULL")
    )
    with refused(404, "M_NOT_FOUND"):
        await one.get(f"/media/download/{media.partition('/')[2]}")
