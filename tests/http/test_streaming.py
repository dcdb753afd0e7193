"""Answers that are written part by part, as fast as the client reads them; over real sockets."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.http.site import PART, answer, end, running, until

if TYPE_CHECKING:
    from asyncio import StreamReader

WHOLE = b"".join(b"%d" % number * PART for number in range(3))


async def chunks(reader: StreamReader) -> bytes:
    """The body behind a head that was read already."""
    body = b""
    async with asyncio.timeout(20):
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    return body


async def test_a_client_gets_all_parts_and_the_connection_goes_on() -> None:
    async with running() as site, httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
        response = await client.get("/parts")
        assert response.content == WHOLE
        assert response.headers["content-type"] == "application/json"
        assert response.headers["access-control-allow-origin"] == "*"
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /parts HTTP/1.1\r\n\r\n" * 2 + b"GET /nothing HTTP/1.1\r\n\r\n")
        for _ in range(2):
            status, headers, _ = await answer(reader)
            assert (status, headers["transfer-encoding"]) == (200, "chunked")
            assert "content-length" not in headers
            assert await chunks(reader) == WHOLE
        assert (await answer(reader))[0] == 404


async def test_who_knows_of_no_chunks_reads_to_the_end_of_the_connection() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /parts HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        _, headers, _ = await answer(reader)
        assert headers["connection"] == "close"
        assert "transfer-encoding" not in headers
        async with asyncio.timeout(20):
            assert await reader.read() == WHOLE


async def test_head_makes_no_part() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"HEAD /parts HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n")
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 404]
        assert site.made == 0


async def test_what_nobody_reads_is_not_made_and_ends_with_the_connection() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        reader._transport.pause_reading()
        writer.write(b"GET /parts?many=1000 HTTP/1.1\r\n\r\n")
        before = -1
        while before != site.made:
            before = site.made
            await asyncio.sleep(0.05)
        # The system's own buffers take some megabytes.
        assert 0 < site.made < 200
        assert site.connections[0].transport.get_write_buffer_size() < 3 * PART
        site.look()
        await until(lambda: not site.connections)
        await until(site.left.is_set)
        await until(lambda: not site.server.server_state.tasks)


async def test_who_reads_slowly_but_surely_gets_all() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /parts?many=300 HTTP/1.1\r\n\r\n")
        await answer(reader)
        connection, total, made, looks = site.connections[0], 0, 0, 0
        async with asyncio.timeout(20):
            while size := int(await reader.readline(), 16):
                total += len(await reader.readexactly(size + 2)) - 2
                if site.made > made:
                    # The buffer may be exactly as full as it was, but something was taken out of it.
                    made = site.made
                    connection.look()
                    looks += 1
                    assert connection._looks_without_progress == 0
        assert total == 300 * PART
        assert looks > 10


async def test_a_client_that_leaves_ends_the_making_of_parts() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        reader._transport.pause_reading()
        writer.write(b"GET /parts?many=1000 HTTP/1.1\r\n\r\n")
        await until(lambda: site.made)
        writer.transport.abort()
        await until(site.left.is_set)
        assert site.made < 1000
        await until(lambda: not site.server.server_state.tasks)


@pytest.mark.parametrize("fails", [0, 2])
async def test_an_answer_that_fails_half_way_is_not_taken_for_a_whole_one(fails: int) -> None:
    async with running() as site:
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failed.append(context["exception"])
        )
        reader, writer = await site.connect()
        writer.write(b"GET /parts?fails=%d HTTP/1.1\r\n\r\n" % fails)
        await answer(reader)
        for _ in range(fails):
            await reader.readexactly(int(await reader.readline(), 16) + 2)
        # Not the empty chunk that ends a whole one.
        await end(reader)
        gc.collect()
        await until(lambda: failed)
        assert isinstance(failed[0], OSError)
