"""Bytes that only look like HTTP: whatever comes, the server answers or hangs up, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.http.site import answer, running

if TYPE_CHECKING:
    from tests.http.site import Site

PARTS = (
    *(
        b"GET ",
        b"PUT ",
        b"POST ",
        b"HEAD ",
        b"OPTIONS ",
        b"CONNECT ",
        b"BREW ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    *(
        b"/read ",
        b"/wait ",
        b"/nothing ",
        b"* ",
        b"//",
        b"/%00 ",
        b"/%zz ",
        b"/\xff ",
        b"http://a/read ",
        b"?a=%ff&%00 ",
    ),
    *(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"HTTP/9.9\r\n", b"HTTP/1.1\n", b"\r\n", b"\n", b"\r", b"\x00", b" "),
    *(
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Expect: 100-continue\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b": x\r\n",
    ),
    *(
        b"Authorization: Bearer \xff\r\n",
        b"X-Forwarded-For: ,,,\r\n",
        b"Content-Encoding: gzip\r\n",
        b" folded\r\n",
    ),
    *(
        b"abc",
        b"{}",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"fffffffff\r\n",
        b"3;x=y\r\nabc\r\n",
        b"0\r\nA: b\r\n\r\n",
    ),
    b"PUT /read HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /wait HTTP/1.1\r\n\r\n",
)
pieces = st.lists(
    st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=6)), max_size=8).map(b"".join), max_size=4
)


async def torment(site: Site, sent: list[bytes]) -> None:
    reader, writer = await site.connect()
    # uvloop says so where the server has hung up.
    with contextlib.suppress(ConnectionError, RuntimeError):
        for piece in sent:
            writer.write(piece)
            await asyncio.sleep(0)
        if writer.can_write_eof():
            writer.write_eof()
        await writer.drain()
    writer.transport.abort()
    reader, writer = await site.connect()
    writer.write(b"PUT /read HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
    assert (await answer(reader))[0] == 200
    await site.hang_up()


def test_any_bytes() -> None:
    failed: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: failed.append(context))
        context = running()
        site = runner.run(context.__aenter__())
        site.may_answer.set()

        @settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(pieces)
        def send(sent: list[bytes]) -> None:
            runner.run(torment(site, sent))
            assert failed == []

        try:
            send()
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert failed == []
