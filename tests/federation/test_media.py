"""Files of other servers: two parts, whatever is in them and however they come."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.keys import key_from_seed
from federation.errors import AnswerTooLarge, BadAnswer, FederationError, Unreachable
from federation.media import read_media
from tests.federation.internet import FEDERATION, Internet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from federation.client import FederationClient
    from federation.media import RemoteMedia

THERE = "there.example"
BEGIN = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n"
END = b"\r\n--b--\r\n"


class Answer:
    """What another server sends, in these pieces."""

    def __init__(self, *pieces: bytes, content_type: str = "multipart/mixed; boundary=b") -> None:
        self.headers = {"Content-Type": content_type}
        self._pieces = pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


async def read(answer: Any, max_bytes: int = 1000) -> tuple[RemoteMedia, bytes]:
    media = await read_media(THERE, answer, max_bytes)
    return media, b"".join([chunk async for chunk in media.chunks])


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=40) | st.text("\r\n-b").map(str.encode), cuts=st.lists(st.integers(1, 160)))
def test_a_file_comes_as_it_was_sent_in_whatever_pieces(content: bytes, cuts: list[int]) -> None:
    if b"\r\n--b" in b"\r\n" + content:
        return
    whole = BEGIN + b"Content-Type: text/plain\r\n\r\n" + content + END
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    media, received = asyncio.run(read(Answer(*pieces)))
    assert received == content
    assert media.content_type == "text/plain"


@pytest.mark.parametrize(
    "sent",
    [
        BEGIN + b"\r\nthe file" + END,
        # Something before and behind the parts.
        b"hello\r\n" + BEGIN + b"\r\nthe file" + END + b"bye",
        # White space behind a boundary, and none before it where there are no headers; no end but a boundary.
        b"--b  \r\nx: y\r\n\r\n{}\r\n--b\t\r\n\r\nthe file\r\n--b",
        # More parts than there should be.
        BEGIN + b"\r\nthe file\r\n--b\r\n\r\nmore" + END,
    ],
)
async def test_forms_that_are_unusual_but_right(sent: bytes) -> None:
    assert (await read(Answer(sent)))[1] == b"the file"


async def test_a_file_is_of_any_type_also_of_one_with_parts() -> None:
    inner = b"--c\r\n\r\ninner\r\n--c--\r\n"
    media, received = await read(
        Answer(BEGIN + b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + inner + END)
    )
    assert media.content_type == "multipart/mixed; boundary=c"
    assert received == inner


async def test_where_there_is_a_location_there_is_no_content() -> None:
    media, received = await read(Answer(BEGIN + b"location:https://cdn.example/x\r\n\r\n--b--\r\n"))
    assert (media.location, received) == ("https://cdn.example/x", b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"no boundary at all",
        b"--b",
        b"--b--\r\n",
        b"--b\r\n\r\n{}\r\n--b--\r\n",
        b"--b\r\n\r\n[]\r\n--b\r\n\r\nthe file" + END,
        b"--b\r\n\r\n" + b"[" * 60_000 + b"\r\n--b\r\n\r\nthe file" + END,
        b"--b\r\n\r\n\xff\r\n--b\r\n\r\nthe file" + END,
        BEGIN,
        BEGIN + b"\r\nhalf of the fi",
        BEGIN + b"\r\nthe file\r\n--",
        b"x" * 100_000,
        b"--b\r\n" + b"x: y\r\n" * 10_000,
        BEGIN + b"x" * 100_000,
    ],
)
async def test_what_is_not_two_parts_is_a_bad_answer(sent: bytes) -> None:
    for pieces in ([sent], [sent[at : at + 1000] for at in range(0, len(sent), 1000)]):
        with pytest.raises(BadAnswer):
            await read(Answer(*pieces))


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/mixed",
        "multipart/mixed; boundary=",
        'multipart/mixed; boundary=""',
        "multipart/mixed; boundary=" + "b" * 71,
        "multipart/mixed; boundary=ü",
        "text/plain; boundary=b",
        "multipart/mixed; boundary*=utf-16''%00b",
    ],
)
async def test_without_a_boundary_there_are_no_parts(content_type: str) -> None:
    with pytest.raises(BadAnswer):
        await read(Answer(BEGIN + b"\r\nthe file" + END, content_type=content_type))


async def test_of_a_file_that_is_too_large_no_more_is_taken() -> None:
    taken = []

    class Endless(Answer):
        async def chunks(self) -> AsyncIterator[bytes]:
            yield BEGIN + b"\r\n"
            while True:
                taken.append(500)
                yield b"x" * 500

    with pytest.raises(AnswerTooLarge):
        await read(Endless())
    assert sum(taken) < 2000


# -- over HTTPS ------------------------------------------------------------------------------------------


async def client_of(internet: Internet, handler: Any) -> FederationClient:
    internet.dns.names[THERE] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, handler, THERE)
    return internet.client("here.example", key_from_seed("one", b"1" * 32))


async def download(client: FederationClient, *, signed: bool = True) -> bytes:
    call = client.download_media if signed else client.download_media_unsigned
    async with call(THERE, "a/b", max_bytes=1_000_000) as media:
        return b"".join([chunk async for chunk in media.chunks])


async def test_one_connection_brings_many_files(internet: Internet) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = BEGIN + b"\r\n" + b"x" * 300_000 + END
        return web.Response(body=body, headers={"Content-Type": "multipart/mixed; boundary=b"})

    client = await client_of(internet, answer)
    for _ in range(3):
        assert await download(client) == b"x" * 300_000
    assert internet.tried.count(("1.2.3.4", FEDERATION)) == 1


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_file_that_breaks_off_is_no_file(internet: Internet, has_length: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "multipart/mixed; boundary=b"})
        if has_length:
            response.content_length = 500_000
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(BEGIN + b"\r\n" + b"x" * 100_000)
        assert request.transport is not None
        request.transport.abort()
        return response

    client = await client_of(internet, answer)
    with pytest.raises(Unreachable):
        await download(client)


async def test_older_servers_are_asked_without_a_signature_and_not_for_files_of_others(
    internet: Internet,
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.raw_path, "Authorization" in request.headers))
        return web.Response(body=b"the file", headers={"Content-Type": "text/plain"})

    client = await client_of(internet, answer)
    assert await download(client, signed=False) == b"the file"
    path = f"/_matrix/media/v3/download/{THERE}/a%2Fb?allow_remote=false&timeout_ms=20000"
    assert asked == [(path, False)]


async def test_a_redirect_instead_of_parts_is_not_followed(internet: Internet) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://10.0.0.1/"})

    client = await client_of(internet, answer)
    for signed in (True, False):
        with pytest.raises(FederationError):
            await download(client, signed=signed)
    assert {address for address, _ in internet.tried} == {"1.2.3.4"}
