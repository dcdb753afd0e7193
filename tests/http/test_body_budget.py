"""However many send large bodies at once: of all together so much is in memory, and nobody holds up others for long."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.http.body_budget import FREE_BYTES, BodyBudget
from tests.http.site import answer, running, until

if TYPE_CHECKING:
    from tests.http.site import Site, Streams

MEGABYTE = 1_000_000
COUNTED = MEGABYTE - FREE_BYTES
LONG = 3_600.0


def patient(most: int = 3 * COUNTED) -> BodyBudget:
    return BodyBudget(most, patience_seconds=LONG, wait_seconds=LONG)


async def begin(
    site: Site, path: str = "/read", *, length: int = MEGABYTE, sent: int | None = None
) -> Streams:
    """A request whose body may not be all there."""
    reader, writer = await site.connect()
    writer.write(b"PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path.encode(), length))
    writer.write(b"x" * (length if sent is None else sent))
    return reader, writer


async def outcome(streams: Streams) -> tuple[int, Any]:
    status, _, body = await answer(streams[0])
    return status, json.loads(body)


async def test_all_that_is_read_at_once_stays_within_the_budget_and_everybody_has_their_turn() -> None:
    async with running(patient()) as site:
        sending = [await begin(site, sent=500_000) for _ in range(10)]
        await until(lambda: site.budget.left == 0)
        least = []
        for _, writer in sending:
            writer.write(b"x" * 500_000)
            least.append(site.budget.left)
        outcomes = await asyncio.gather(*(outcome(streams) for streams in sending))
        assert outcomes == [(200, {"bytes": MEGABYTE})] * 10
        assert min(least) >= 0
        assert site.budget.left == 3 * COUNTED


async def test_small_requests_wait_for_nobody() -> None:
    async with running(patient()) as site:
        for _ in range(5):
            await begin(site, sent=10)
        await until(lambda: site.budget.left == 0)
        assert await outcome(await begin(site, length=FREE_BYTES)) == (200, {"bytes": FREE_BYTES})


async def test_a_body_counts_until_it_is_answered_and_who_waits_too_long_is_turned_away() -> None:
    async with running(BodyBudget(COUNTED, patience_seconds=0.01, wait_seconds=0.05)) as site:
        held = await begin(site, "/hold")
        await until(lambda: site.budget.left == 0)
        status, body = await outcome(await begin(site))
        assert (status, body["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert body["retry_after_ms"] > 0
        site.may_answer.set()
        assert await outcome(held) == (200, {"bytes": MEGABYTE})
        assert await outcome(await begin(site)) == (200, {"bytes": MEGABYTE})


async def test_who_sends_slowly_makes_room_for_others() -> None:
    async with running(BodyBudget(2 * COUNTED, patience_seconds=0.05, wait_seconds=LONG)) as site:
        slow = [await begin(site, sent=sent) for sent in (10, 500_000)]
        await until(lambda: site.budget.left == 0)
        quick = [await begin(site) for _ in range(4)]
        assert [await outcome(streams) for streams in quick] == [(200, {"bytes": MEGABYTE})] * 4
        status, body = await outcome(slow[0])
        assert (status, body["errcode"]) == (429, "M_LIMIT_EXCEEDED")


async def test_nobody_is_hurried_for_whom_nobody_waits() -> None:
    async with running(BodyBudget(COUNTED, patience_seconds=0.0, wait_seconds=LONG)) as site:
        reader, writer = await begin(site, sent=10)
        await until(lambda: site.budget.left == 0)
        assert await outcome(await begin(site, length=1_000)) == (200, {"bytes": 1_000})
        writer.write(b"x" * (MEGABYTE - 10))
        assert await outcome((reader, writer)) == (200, {"bytes": MEGABYTE})


@pytest.mark.parametrize("path", ["/read", "/hold"])
async def test_who_goes_away_leaves_nothing_behind(path: str) -> None:
    async with running(patient()) as site:
        sending = [await begin(site, path, sent=500_000) for _ in range(8)]
        await until(lambda: site.budget.left == 0)
        # The last ones still wait for their turn.
        for _, writer in reversed(sending):
            writer.transport.abort()
        await until(lambda: site.budget.left == 3 * COUNTED)


async def test_a_body_of_unknown_length_counts_as_it_comes() -> None:
    async with running(patient()) as site:
        reader, writer = await site.connect()
        writer.write(b"PUT /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (MEGABYTE, b"x" * MEGABYTE))
        await until(lambda: site.budget.left == 2 * COUNTED)
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (FREE_BYTES, b"x" * FREE_BYTES))
        await until(lambda: site.budget.left == 2 * COUNTED - FREE_BYTES)
        site.may_answer.set()
        assert await outcome((reader, writer)) == (200, {"bytes": MEGABYTE + FREE_BYTES})
        assert site.budget.left == 3 * COUNTED


async def test_a_compressed_body_counts_as_what_it_is_unpacked() -> None:
    async with running(BodyBudget(10 * MEGABYTE, patience_seconds=LONG, wait_seconds=LONG)) as site:
        packed = gzip.compress(b"x" * MEGABYTE)
        reader, writer = await site.connect()
        head = b"PUT /hold HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(packed) + packed)
        await until(lambda: site.budget.left == 10 * MEGABYTE - COUNTED)
        site.may_answer.set()
        assert await outcome((reader, writer)) == (200, {"bytes": MEGABYTE})
