"""Files and thumbnails between Synapse and a server of ours: what is uploaded at one is seen at the other."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.services.media.headers import name_in
from tests.client import refused
from tests.interop.synapse import Person
from tests.media.conftest import UPLOAD, Desk, image_in, picture

if TYPE_CHECKING:
    from tests.interop.people import Somebody

    People = tuple[Somebody, Somebody]

pytestmark = pytest.mark.interop


@pytest.fixture
def desks(people: People) -> tuple[Desk, Desk]:
    """Where the one uploads, and where the other, whose server is the other one, asks for it."""
    return Desk(people[0].client), Desk(people[1].client)


def told(answer: Any) -> tuple[str, str, str | None]:
    """Type, disposition and name; whether a name is quoted makes no difference."""
    disposition = answer.headers["content-disposition"]
    return answer.headers["content-type"], disposition.partition(";")[0], name_in(disposition)


async def test_files_come_as_they_were_uploaded(people: People, desks: tuple[Desk, Desk]) -> None:
    files = [
        (b"abc", "text/csv; charset=utf-8", "notes.csv"),
        (os.urandom(3_000_000), "application/octet-stream", None),
        (b"<b>", "application/xhtml+xml", "Ü ber.html"),
    ]
    if not isinstance(people[0].client, Person):
        # Synapse never ends an answer with an empty one.
        files.append((b"", "image/png", "empty"))
    for content, content_type, name in files:
        query = {} if name is None else {"filename": name}
        media = await desks[0].upload(content, content_type, **query)
        here, there = [await desk.download(media) for desk in desks]
        assert here.content == there.content == content
        assert told(here) == told(there)
        assert told(here)[0].startswith(content_type)
        assert told(here)[2] == name


async def test_thumbnails(desks: tuple[Desk, Desk]) -> None:
    here, there = desks
    media = await here.upload(picture(), "image/png")
    assert (await there.download(media)).content == picture()
    assert image_in(await there.thumbnail(media, 320, 240, method="scale")).size == (320, 160)
    assert image_in(await there.thumbnail(media, 96, 96, method="crop")).size == (96, 96)


async def test_content_that_comes_while_the_other_server_waits(people: People) -> None:
    here, there = Desk(people[0].client), Desk(people[1].client)
    uri = (await here.client.post("/_matrix/media/v1/create", {}))["content_uri"]
    media = uri.removeprefix("mxc://")
    if isinstance(people[0].client, Person):
        # Synapse as the one that asks calls it a failure, and us, too, for a while.
        with refused(504, "M_NOT_YET_UPLOADED"):
            await there.download(media, timeout_ms=100)
    waiting = asyncio.create_task(there.download(media, timeout_ms=15_000))
    await asyncio.sleep(0.5)
    await here.client.call("PUT", f"{UPLOAD}/{media}", content=b"abc")
    assert (await waiting).content == b"abc"


async def test_what_the_other_server_has_not(people: People) -> None:
    here, there = people
    with refused(404, "M_NOT_FOUND"):
        await Desk(there.client).download(f"{here.server_name}/unknown")
