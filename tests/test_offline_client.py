"""The client of docs/offline_client.py does what it says, against a server in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_SOURCE = Path(__file__).parent.parent / "docs" / "offline_client.py"


def load() -> Any:
    specification = importlib.util.spec_from_file_location("offline_client", _SOURCE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["offline_client"] = module
    specification.loader.exec_module(module)
    return module


offline_client = load()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as running:
        yield running


@pytest.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as made:
        yield made


async def register(http: httpx.AsyncClient, name: str) -> None:
    body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
    (await http.post("/_matrix/client/v3/register", json=body)).raise_for_status()


async def client_of(http: httpx.AsyncClient, name: str, tmp_path: Path) -> Any:
    client = offline_client.OfflineClient(http, offline_client.Place(tmp_path / f"{name}.json"))
    await client.log_in(name, "correct horse")
    return client


async def everything(client: Any) -> list[str]:
    return [
        event["content"]["body"] async for event in client.catch_up() if event["type"] == "m.room.message"
    ]


async def test_it_catches_up_follows_and_shows_ticks(http: httpx.AsyncClient, tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        await register(http, name)
    alice, bob = [await client_of(http, name, tmp_path) for name in ("alice", "bob")]
    room = await bob.call("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat"})
    room_id = room["room_id"]
    await alice.call("POST", f"/_matrix/client/v3/join/{room_id}", {})
    await everything(alice)

    # Away: the program ends, and is started again.
    sent = [await bob.send(room_id, f"{number}") for number in range(30)]
    assert await bob.ticks(room_id, sent[-1]) == "✓"
    alice = await client_of(http, "alice", tmp_path)
    assert await everything(alice) == [f"{number}" for number in range(30)]
    assert alice.timelines[room_id] == sent
    # The next request of the device says that it has it all.
    assert await everything(alice) == []
    assert await bob.ticks(room_id, sent[-1]) == "✓✓"

    # There: what is said comes at once, and once.
    heard: list[str] = []
    follows = asyncio.Event()
    arrived: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def listen() -> None:
        async for event in alice.follow():
            if event["type"] == "m.room.message":
                heard.append(event["content"]["body"])

    async def wait_for_ticks() -> None:
        async for event in bob.follow():
            follows.set()
            if event["type"] == "dev.restante.delivered":
                arrived.set_result(event["content"])
                return

    tasks = [asyncio.create_task(one()) for one in (listen, wait_for_ticks)]
    await asyncio.wait_for(follows.wait(), 60)
    live = await bob.send(room_id, "live")
    # The next request of the device says that it has it, and bob hears of that.
    news = await asyncio.wait_for(arrived, 60)
    assert news.keys() == {live}
    assert [user.partition(":")[0] for user in news[live]] == ["@alice"]
    assert heard == ["live"]
    assert await bob.ticks(room_id, live) == "✓✓"
    tasks[0].cancel()
    await alice.call("POST", f"/_matrix/client/v3/rooms/{room_id}/receipt/m.read/{live}", {})
    assert await bob.ticks(room_id, live) == "✓✓ read"
