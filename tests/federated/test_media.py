"""Two servers of ours, over HTTPS: what is uploaded at one is seen at the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.client import refused
from tests.federation.neighbours import Neighbour
from tests.http.site import until
from tests.media.conftest import UPLOAD, Desk, image_in, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def pair(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[tuple[Neighbour, Neighbour]]:
    servers = (
        Neighbour(tmp_path / "1", f"sqlite:///{tmp_path}/first.db", authority),
        Neighbour(tmp_path / "2", f"sqlite:///{tmp_path}/second.db", authority),
    )
    for server in servers:
        server.replaced = ()
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


async def test_files_and_thumbnails_of_the_other_server(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    alice, bob = Desk(await one.register("alice")), Desk(await two.register("bob"))
    content = bytes(range(256)) * 20_000
    media = await alice.upload(content, "application/x-test", filename="Ü ber.bin")
    here, there = await alice.download(media), await bob.download(media)
    assert here.content == there.content == content
    for name in ("content-type", "content-disposition", "etag", "content-length"):
        assert here.headers[name] == there.headers[name]
    media = await alice.upload(picture(), "image/png")
    assert image_in(await bob.thumbnail(media, 320, 240)).size == (320, 160)
    # What was seen is kept while the other server is away.
    await one.unplug()
    assert (await bob.download(media)).content == picture()
    await one.plug_in()


async def test_content_that_comes_while_the_other_server_waits_for_it(
    pair: tuple[Neighbour, Neighbour],
) -> None:
    one, two = pair
    alice, bob = Desk(await one.register("alice")), Desk(await two.register("bob"))
    uri = (await alice.client.post("/_matrix/media/v1/create", {}))["content_uri"]
    media = uri.removeprefix("mxc://")
    with refused(504, "M_NOT_YET_UPLOADED"):
        await bob.download(media, timeout_ms=10)
    waiting = asyncio.create_task(bob.download(media))
    await until(lambda: one.application.media.arrivals._count)
    await alice.client.call("PUT", f"{UPLOAD}/{media}", content=b"abc")
    assert (await waiting).content == b"abc"


async def test_what_the_other_server_has_not(pair: tuple[Neighbour, Neighbour]) -> None:
    one, two = pair
    bob = Desk(await two.register("bob"))
    with refused(404, "M_NOT_FOUND"):
        await bob.download(f"{one.name}/unknown")
    # A file of the one is not to be had from the other.
    carol = Desk(await one.register("carol"))
    with refused(404, "M_NOT_FOUND"):
        await carol.download(f"{two.name}/{(await carol.upload(b'x')).partition('/')[2]}")
