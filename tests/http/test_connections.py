"""Clients that are slow, silent, endless, or no clients at all; over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource

import pytest

from homeserver.http.connections import (
    MAX_HEAD_BYTES,
    MAX_WAITING_REQUESTS,
    PATIENCE,
)
from homeserver.http.server import allow_many_files
from tests.http.site import BIG, answer, end, received, running, until


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /wait HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"GET /wait HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_matrix_error(sent: bytes) -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(sent)
        status, headers, body = await answer(reader)
        assert status == 400
        assert headers["access-control-allow-origin"] == "*"
        assert json.loads(body)["errcode"] == "M_UNKNOWN"
        await end(reader)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /wait HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES,
        b"GET /wait HTTP/1.1\r\nA: " + b"b" * 8 * MAX_HEAD_BYTES,
        b"GET /" + b"a" * 8 * MAX_HEAD_BYTES,
        # Trailers are headers behind the body.
        b"PUT /read HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES,
    ],
    ids=["headers", "header", "path", "trailers"],
)
async def test_a_head_without_end_is_refused(head: bytes) -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(head)
        status, _, body = await answer(reader)
        assert status == 431
        assert json.loads(body)["errcode"] == "M_TOO_LARGE"


async def test_a_big_body_is_no_head() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        for _ in range(2):
            writer.write(b"PUT /read HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % BIG + b"x" * BIG)
            status, _, body = await answer(reader)
            assert (status, json.loads(body)) == (200, {"bytes": BIG})


@pytest.mark.parametrize(
    ("sent", "dripping"),
    [(b"", b"\r\n"), (b"GET /wait HTTP/1.1\r\nA: b\r\n", b"B"), (b"\r\n\r\n", b"\r\n")],
)
async def test_a_connection_on_which_no_request_comes_is_ended(sent: bytes, dripping: bytes) -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(sent)
        await received(site, len(sent))
        site.look(PATIENCE)
        writer.write(dripping)
        await received(site, len(sent) + len(dripping))
        site.look(1)
        await end(reader)


async def test_a_body_that_does_not_come_is_a_timeout() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        sent = b"PUT /read HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"
        writer.write(sent)
        await received(site, len(sent))
        site.look()
        status, headers, body = await answer(reader)
        assert status == 408
        assert headers["access-control-allow-origin"] == "*"
        assert json.loads(body)["errcode"] == "M_UNKNOWN"
        await end(reader)


async def test_a_body_that_comes_slowly_but_surely_is_taken() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        part = b"x" * 5000
        head = b"PUT /read HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (20 * len(part))
        writer.write(head)
        for number in range(1, 21):
            writer.write(part)
            await received(site, len(head) + number * len(part))
            site.look(PATIENCE)
        assert (await answer(reader))[0] == 200


async def test_a_body_that_was_refused_need_not_be_heard_to_its_end() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"PUT /refuse HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        assert (await answer(reader))[0] == 413
        writer.write(b"x")
        await until(lambda: site.connections[0].timeout_keep_alive_task is None)
        site.look()
        await end(reader)


async def test_who_does_not_read_the_answer_loses_the_connection() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /big HTTP/1.1\r\n\r\n")
        await until(lambda: site.connections and site.connections[0].transport.get_write_buffer_size())
        reader._transport.pause_reading()
        await until(lambda: site.connections[0].cycle.response_complete)
        before = -1
        while before != site.connections[0].transport.get_write_buffer_size():
            before = site.connections[0].transport.get_write_buffer_size()
            await asyncio.sleep(0.05)
        site.look()
        await until(lambda: not site.connections)


async def test_how_fast_somebody_reads_counts_for_them_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.http.connections._MEASURED_SECONDS", 0)
    async with running() as site:
        reader, writer = await site.connect()

        async def rate(credentials: bytes) -> float | None:
            writer.write(b"GET /rate HTTP/1.1\r\nAuthorization: %s\r\n\r\n" % credentials)
            found: float | None = json.loads((await answer(reader))[2])["rate"]
            return found

        assert await rate(b"Bearer one") is None
        writer.write(b"GET /big HTTP/1.1\r\nAuthorization: Bearer one\r\n\r\n")
        assert (await answer(reader))[0] == 200
        measured = await rate(b"Bearer one")
        assert measured is not None
        assert measured > 0
        assert await rate(b"Bearer two") is None


async def test_a_long_poll_and_a_connection_between_two_requests_are_left_alone() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: site.connections and site.connections[0].cycle is not None)
        site.look(10)
        site.may_answer.set()
        assert (await answer(reader))[0] == 200
        await until(lambda: site.connections[0].timeout_keep_alive_task is not None)
        site.look(10)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        assert (await answer(reader))[0] == 200


async def test_the_server_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as site:
        looks: list[object] = []
        monkeypatch.setattr("homeserver.http.server.look_at", looks.append)
        await site.server.on_tick(0)
        await site.server.on_tick(1)
        assert looks == [site.server.server_state.connections]


async def test_head_and_options_have_no_body_and_the_connection_goes_on() -> None:
    async with running() as site:
        site.may_answer.set()
        reader, writer = await site.connect()
        writer.write(b"HEAD /wait HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-length: 2\r\n" in head
        assert b"access-control-allow-origin: *\r\n" in head
        writer.write(b"OPTIONS /wait HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"content-length" not in head
        assert b"access-control-allow-methods: GET, HEAD" in head
        writer.write(b"GET /nothing HTTP/1.1\r\n\r\n")
        status, headers, body = await answer(reader)
        assert (status, headers["content-type"]) == (404, "application/json")
        assert json.loads(body)["errcode"] == "M_UNRECOGNIZED"
        writer.write(b"DELETE /wait HTTP/1.1\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_requests_that_come_before_the_last_was_answered_are_answered_in_their_order() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        writer.write(b"PUT /read HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd" * 3)
        writer.write(b"GET /nothing HTTP/1.1\r\n\r\n")
        await received(site, 1)
        site.may_answer.set()
        assert [(await answer(reader))[0] for _ in range(5)] == [200, 200, 200, 200, 404]


@pytest.mark.parametrize("head", [b"GET /wait HTTP/1.0\r\n", b"GET /wait HTTP/1.1\r\nConnection: close\r\n"])
async def test_who_wants_the_connection_to_end_is_told_that_it_does(head: bytes) -> None:
    async with running() as site:
        site.may_answer.set()
        reader, writer = await site.connect()
        writer.write(head + b"\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        await end(reader)


async def test_who_asks_first_whether_to_send_a_body_is_told_to_go_on_or_not_to() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        expect = b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        writer.write(b"PUT /read HTTP/1.1\r\n" + expect)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abcde")
        assert (await answer(reader))[0] == 200
        writer.write(b"PUT /refuse HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n")
        assert (await answer(reader))[0] == 413


async def test_a_request_whose_client_goes_away_leaves_nothing_behind() -> None:
    async with running() as site:
        _, writer = await site.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: site.connections and site.connections[0].cycle is not None)
        writer.transport.abort()
        await until(lambda: not site.connections)
        site.may_answer.set()
        await until(lambda: not site.server.server_state.tasks)


async def test_who_waits_learns_that_the_client_has_gone_though_more_was_asked_meanwhile() -> None:
    async with running() as site:
        _, writer = await site.connect()
        writer.write(b"GET /poll HTTP/1.1\r\n\r\n" + b"GET /wait HTTP/1.1\r\n\r\n" * 3)
        await until(lambda: site.connections and len(site.connections[0].pipeline) == 3)
        writer.transport.abort()
        async with asyncio.timeout(20):
            await site.left.wait()
        await until(lambda: not site.server.server_state.tasks)


async def test_few_requests_may_wait_behind_the_one_that_is_answered() -> None:
    async with running() as site:
        _, writer = await site.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n" * 10_000)
        await until(lambda: site.connections)
        connection = site.connections[0]
        await until(lambda: not site.connections)
        assert len(connection.pipeline) <= MAX_WAITING_REQUESTS


async def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.http.connections.MAX_CONNECTIONS", 3)
    async with running() as site:
        site.may_answer.set()
        opened = [await site.connect() for _ in range(3)]
        await until(lambda: len(site.connections) == 3)
        reader, _ = await site.connect()
        with contextlib.suppress(ConnectionResetError):
            await end(reader)
        reader, writer = opened[0]
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        assert (await answer(reader))[0] == 200


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 50_000)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    allow_many_files()
    assert limits["now"] == (50_000, 50_000)
    limits["now"] = (1024, resource.RLIM_INFINITY)
    allow_many_files()
    assert limits["now"][0] > 50_000


async def test_a_handler_that_cannot_be_answered_for_ends_the_connection() -> None:
    async with running() as site:
        reader, writer = await site.connect()
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failed.append(context["exception"])
        )
        writer.write(b"GET /torn HTTP/1.1\r\n\r\n")
        await end(reader)
        # The task is looked at when it is thrown away.
        gc.collect()
        await until(lambda: failed)
        assert isinstance(failed[0], ValueError)
