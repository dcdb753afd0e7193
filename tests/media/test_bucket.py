"""Files in an S3-compatible store instead of a directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.errors import StartupError
from homeserver.storage.media_bucket import MediaBucket
from tests.client import refused
from tests.media.bucket import BUCKET, Bucket
from tests.media.conftest import Desk, files_of, image_in, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import StartServer
    from tests.server import Server

MOST = 12 << 20


@pytest.fixture
async def bucket() -> AsyncIterator[Bucket]:
    async with Bucket() as made:
        yield made


@pytest.fixture
def engine() -> str:
    """What the database is makes no difference."""
    return "sqlite"


@pytest.fixture
async def server(start_server: StartServer, bucket: Bucket) -> Server:
    s3: dict[str, Any] = {
        "bucket": BUCKET,
        "prefix": "matrix",
        "endpoint": bucket.endpoint,
        "access_key_id": "key",
        "secret_access_key": "secret",
    }
    return await start_server(media={"max_upload_bytes": MOST, "s3": s3})


async def test_files_are_kept_in_the_bucket_and_nowhere_else(
    desk: Desk, server: Server, bucket: Bucket
) -> None:
    for content in (b"", b"abc", os.urandom(3_000_000), os.urandom(MOST)):
        media = await desk.upload(content, "application/x-test", filename="a.bin")
        answer = await desk.download(media)
        assert answer.content == content
        assert answer.headers["content-disposition"] == 'attachment; filename="a.bin"'
        if len(content) > 10:
            assert (await desk.download(media, {"Range": "bytes=5-9"})).content == content[5:10]
    assert len(bucket.objects) == 4
    assert all(name.startswith("matrix/") for name in bucket.objects)
    assert files_of(server) == []


async def test_thumbnails_are_made_of_them_and_kept_there(desk: Desk, bucket: Bucket) -> None:
    media = await desk.upload(picture(), "image/png")
    for _ in range(2):
        assert image_in(await desk.thumbnail(media, 320, 240)).size == (320, 160)
    assert len(bucket.objects) == 2


async def test_what_is_not_wanted_goes(desk: Desk, server: Server, bucket: Bucket) -> None:
    with refused(413, "M_TOO_LARGE"):
        await desk.upload(b"x" * (MOST + 1))
    await desk.upload(b"same")
    await desk.upload(b"same")
    await server.application.upkeep.look_after()
    assert list(bucket.objects.values()) == [b"same"]
    assert await server.application.database.fetch_value("SELECT count(*) FROM media_strays") == 0


async def test_where_the_store_fails_nothing_is_kept_and_nothing_lost(
    desk: Desk, server: Server, bucket: Bucket
) -> None:
    media = await desk.upload(b"abc")
    bucket.is_broken = True
    with refused(503, "M_UNKNOWN"):
        await desk.upload(b"other")
    with refused(503, "M_UNKNOWN"):
        await desk.download(media)
    bucket.is_broken = False
    assert (await desk.download(media)).content == b"abc"
    await server.application.upkeep.look_after()
    assert len(bucket.objects) == 1
    assert await server.application.database.fetch_value("SELECT count(*) FROM media_strays") == 0
    bucket.objects.clear()
    with refused(404, "M_NOT_FOUND"):
        await desk.download(media)


def test_half_a_login_is_none() -> None:
    with pytest.raises(StartupError, match="both"):
        MediaBucket("x", prefix="", endpoint=None, region="x", access_key_id="key", secret_access_key=None)
