"""Answers are compressed as their readers like it, where that gains something; requests may come compressed."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import zlib
from typing import TYPE_CHECKING, Any

import brotli
import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from homeserver.errors import BadJson, TooLarge
from homeserver.http import compression
from homeserver.http.application import HttpApplication
from homeserver.http.compression import MIN_BYTES, coding_for, decompress
from homeserver.http.response import StreamedJson, html_response, json_response
from homeserver.http.routing import Route, Router
from homeserver.metrics import Metrics
from tests.http.site import PART, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.responses import Response

    from homeserver.http.request import Request

MOST = 100_000
TEXT = "Was it a car or a cat I saw? " * 100
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


async def long(request: Request) -> Response:
    return json_response({"text": TEXT * request.query.get_int("times", 1)})


async def short(request: Request) -> Response:
    return json_response({"text": "x" * (MIN_BYTES - 100)})


async def page(request: Request) -> Response:
    return html_response(TEXT)


async def picture(request: Request) -> Response:
    response = html_response(TEXT)
    response.headers["content-type"] = "image/png"
    return response


async def read(request: Request) -> Response:
    return json_response({"bytes": len(await request.body())})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    routes = [
        Route("GET", "/long", long),
        Route("GET", "/short", short),
        Route("GET", "/page", page),
        Route("GET", "/picture", picture),
        Route("PUT", "/read", read, max_body_bytes=MOST),
    ]
    transport = httpx.ASGITransport(HttpApplication(Router(routes), Metrics()))
    async with httpx.AsyncClient(transport=transport, base_url="http://example.org") as made:
        yield made


async def raw(client: httpx.AsyncClient, path: str, accepted: str | None) -> tuple[httpx.Response, bytes]:
    request = client.build_request("GET", path)
    del request.headers["Accept-Encoding"]
    if accepted is not None:
        request.headers["Accept-Encoding"] = accepted
    response = await client.send(request, stream=True)
    return response, b"".join([part async for part in response.aiter_raw()])


# -- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 100])
@pytest.mark.parametrize("coding", PACK)
async def test_a_long_answer_is_compressed_as_the_client_likes_it(
    client: httpx.AsyncClient, coding: str, times: int
) -> None:
    response, body = await raw(client, f"/long?times={times}", coding)
    assert response.headers["Content-Encoding"] == coding
    assert response.headers["Vary"] == "Accept-Encoding"
    assert int(response.headers["Content-Length"]) == len(body) < 1000
    assert json.loads(UNPACK[coding](body)) == {"text": TEXT * times}


async def test_an_answer_that_fits_into_a_packet_is_sent_as_it_is(client: httpx.AsyncClient) -> None:
    response, body = await raw(client, "/short", "zstd, br, gzip")
    assert "Content-Encoding" not in response.headers
    assert json.loads(body)["text"].startswith("xxx")


async def test_pages_are_compressed_and_pictures_are_not(client: httpx.AsyncClient) -> None:
    response, body = await raw(client, "/page", "gzip")
    assert gzip.decompress(body).decode() == TEXT
    response, body = await raw(client, "/picture", "gzip")
    assert "Content-Encoding" not in response.headers
    assert body.decode() == TEXT


@pytest.mark.parametrize(
    "accepted", [None, "", "identity", "gzip;q=0", "deflate", "gzip;q=nonsense", ";;,,;q"]
)
async def test_who_takes_nothing_else_gets_plain_text(
    client: httpx.AsyncClient, accepted: str | None
) -> None:
    response, body = await raw(client, "/long", accepted)
    assert "Content-Encoding" not in response.headers
    # A cache in between must not give this to others, nor theirs to this one.
    assert response.headers["Vary"] == "Accept-Encoding"
    assert json.loads(body) == {"text": TEXT}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("*", "zstd"),
        ("*;q=0.1, gzip", "gzip"),
        ("zstd;q=0, *", "br"),
        ("zstd;q=0.2, br;q=0.8, gzip;q=0.5", "br"),
        ("identity;q=0.5, gzip;q=0.4", None),
        ("gzip;q=7", "gzip"),
        ("gzip;q=-1", None),
        ("zstd;q=nan, gzip", "gzip"),
    ],
)
def test_what_the_client_prefers_goes_before_what_the_server_prefers(
    accepted: str, coding: str | None
) -> None:
    assert coding_for(accepted) == coding


@given(st.text(max_size=100))
def test_any_header_is_read(accepted: str) -> None:
    assert coding_for(accepted) in {None, "zstd", "br", "gzip"}


async def test_head_says_what_get_would(client: httpx.AsyncClient) -> None:
    got = await client.get("/long", headers={"Accept-Encoding": "gzip"})
    head = await client.head("/long", headers={"Accept-Encoding": "gzip"})
    assert head.content == b""
    assert head.headers == got.headers


@pytest.mark.parametrize("coding", PACK)
async def test_what_is_streamed_is_compressed_part_by_part(coding: str) -> None:
    async with running() as site, httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
        response, body = await raw(client, "/parts?many=20", coding)
        assert response.headers["Content-Encoding"] == coding
        assert UNPACK[coding](body) == b"".join(b"%d" % (number % 10) * PART for number in range(20))
        assert len(body) < PART
        # The connection goes on.
        response, body = await raw(client, "/parts?many=1", coding)
        assert UNPACK[coding](body) == b"0" * PART


@pytest.mark.parametrize("coding", PACK)
async def test_each_part_can_be_read_once_it_is_sent(coding: str) -> None:
    sent: list[bytes] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number * 1000
            assert readable(coding, b"".join(sent)).endswith(b"%d" % number)

    answer = await compression.compress(
        StreamedJson(parts()), {"headers": [(b"accept-encoding", coding.encode())]}
    )
    assert isinstance(answer, StreamedJson)
    async for part in answer.parts:
        sent.append(part)
    assert UNPACK[coding](b"".join(sent)) == b"0" * 1000 + b"1" * 1000 + b"2" * 1000


def readable(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        return zlib.decompressobj(wbits=31).decompress(data)
    if coding == "br":
        return bytes(brotli.Decompressor().process(data))
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


# -- requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, MOST])
@pytest.mark.parametrize("coding", [*PACK, "x-gzip", " GZIP "])
async def test_a_request_may_come_compressed(client: httpx.AsyncClient, coding: str, size: int) -> None:
    pack = PACK.get(coding, gzip.compress)
    response = await client.put("/read", content=pack(b"x" * size), headers={"Content-Encoding": coding})
    assert response.json() == {"bytes": size}


@pytest.mark.parametrize("size", [MOST + 1, 300 * MOST])
@pytest.mark.parametrize("coding", PACK)
async def test_a_bomb_is_refused(client: httpx.AsyncClient, coding: str, size: int) -> None:
    body = PACK[coding](b"x" * size)
    response = await client.put("/read", content=body, headers={"Content-Encoding": coding})
    assert response.status_code == 413
    assert response.json()["errcode"] == "M_TOO_LARGE"


@pytest.mark.parametrize("coding", PACK)
async def test_no_more_of_a_bomb_is_unpacked_than_may_come(coding: str) -> None:
    bomb = PACK[coding](b"x" * 300 * MOST)
    # Brotli gives out whole blocks of its own.
    expanded = compression._EXPAND[coding](bomb, MOST)
    assert len(expanded) <= 4 * MOST


@pytest.mark.parametrize("coding", ["deflate", "compress", "identity, gzip", "gzip, gzip", "nonsense"])
async def test_a_coding_that_is_not_known_is_refused(client: httpx.AsyncClient, coding: str) -> None:
    response = await client.put("/read", content=b"{}", headers={"Content-Encoding": coding})
    assert response.status_code == 415
    assert response.json()["errcode"] == "M_NOT_JSON"
    assert response.headers["Accept-Encoding"] == "zstd, br, gzip"


@pytest.mark.parametrize("coding", PACK)
async def test_what_is_cut_short_or_something_else_is_refused(client: httpx.AsyncClient, coding: str) -> None:
    for body in (PACK[coding](b"{}" * 50)[:-3], b"{}", b"\xff" * 10):
        response = await client.put("/read", content=body, headers={"Content-Encoding": coding})
        assert response.status_code == 400
        assert response.json()["errcode"] == "M_BAD_JSON"


@pytest.mark.parametrize("coding", PACK)
async def test_a_body_counts_only_whole_and_alone(coding: str) -> None:
    # What cannot be made smaller is told in several blocks.
    packed = PACK[coding](random.Random(5).randbytes(300_000))
    assert len(await decompress(packed, coding, 1_000_000)) == 300_000
    for body in (packed[:-1], packed[:-5], packed[: len(packed) // 2], packed + b"{}", packed + packed):
        with pytest.raises(BadJson):
            await decompress(body, coding, 1_000_000)


@given(st.sampled_from(sorted(PACK)), st.binary(max_size=200), st.binary(max_size=50), st.integers(0, 60))
async def test_any_bytes_are_read_or_refused(coding: str, plain: bytes, noise: bytes, at: int) -> None:
    packed: Any = bytearray(PACK[coding](plain))
    packed[at : at + len(noise)] = noise
    with contextlib.suppress(BadJson, TooLarge):
        assert len(await decompress(bytes(packed), coding, 100)) <= 100
