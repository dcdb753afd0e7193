"""What a request does ends with its connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from homeserver.http.body_budget import BodyBudget
from homeserver.http.request import Request, WhileConnected
from homeserver.http.routing import Route


class Client:
    """One that sends a request without a body, and goes away when it is told to."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        async def nothing(_: Request) -> Any:
            raise NotImplementedError

        return Request({"type": "http"}, self.receive, Route("GET", "/", nothing), {}, "", "", BodyBudget())


async def test_what_is_done_inside_ends_when_the_client_goes_away() -> None:
    client = Client()
    ended = []

    async def handle() -> None:
        async with WhileConnected(client.request()):
            client.gone.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

    with pytest.raises(ClientDisconnect):
        await handle()
    assert ended
    # The task itself goes on.
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_what_is_done_in_time_is_left_alone() -> None:
    client = Client()
    async with WhileConnected(client.request()):
        done = await asyncio.sleep(0, result="done")
    client.gone.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert done == "done"
    assert len(asyncio.all_tasks()) == 1, "nobody watches any more"


async def test_an_error_from_inside_goes_on() -> None:
    async def handle() -> None:
        async with WhileConnected(Client().request()):
            raise LookupError

    with pytest.raises(LookupError):
        await handle()


async def test_a_cancellation_from_outside_stays_one() -> None:
    entered = asyncio.Event()

    async def handle() -> None:
        async with WhileConnected(Client().request()):
            entered.set()
            await asyncio.Event().wait()

    handling = asyncio.create_task(handle())
    await entered.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
