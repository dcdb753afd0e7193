"""Joins of rooms elsewhere are jobs: who asks again waits for the same one, the operator sees how far it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.services.inbound import outliers
from tests.client import error_of
from tests.hostile.elsewhere import EVIL, HONEST, Elsewhere, room_elsewhere
from tests.hostile.wire import Answered, Asked, Wire

if TYPE_CHECKING:
    from tests.client import Client
    from tests.eventgraph.rooms import Room
    from tests.server import Server


@pytest.fixture
def engine() -> str:
    """The job is the same on both."""
    return "sqlite"


@pytest.fixture
def room() -> Room:
    return room_elsewhere("11")


class SlowElsewhere(Elsewhere):
    """Answers the second half of a join when it is told to."""

    def __init__(self, server: Server, room: Room) -> None:
        wire = Wire()
        wire.plug_in(server)
        super().__init__(wire, server, room)
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def answer(self, asked: Asked) -> Answered:
        if "/send_join/" in asked.path:
            self.asked.set()
            await self.may_answer.wait()
        return await super().answer(asked)


@pytest.fixture
def elsewhere(server: Server, room: Room) -> SlowElsewhere:
    return SlowElsewhere(server, room)


def join(client: Client, room: Room, *via: str) -> asyncio.Task[Any]:
    query = "&".join(f"via={name}" for name in via or (EVIL,))
    return asyncio.create_task(client.post(f"/join/{room.room_id}?{query}"))


async def jobs(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await server.control("jobs"))["jobs"]
    return found


async def test_a_join_is_shown_until_it_is_done(
    server: Server, alice: Client, room: Room, elsewhere: SlowElsewhere
) -> None:
    assert await jobs(server) == []
    joining = join(alice, room, "nobody.example", EVIL)
    await elsewhere.asked.wait()
    (job,) = await jobs(server)
    assert 0 <= server.clock.now_ms() - job.pop("created_ts") < 60_000
    assert job.pop("last_error").startswith("nobody.example")
    assert job == {
        "kind": "join",
        "user_id": alice.user_id,
        "room_id": room.room_id,
        "phase": "asking",
        "received": 0,
        "checked": 0,
        "written": 0,
        "tried": ["nobody.example", EVIL],
    }
    elsewhere.may_answer.set()
    await joining
    assert await jobs(server) == []


async def test_its_events_are_counted(
    server: Server, alice: Client, room: Room, elsewhere: SlowElsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outliers, "_AT_ONCE", 2)
    control = server.application.control
    seen: list[tuple[str, int, int, int]] = []
    outlier_store = server.application.stores.outliers
    insert = outlier_store.insert

    async def look(*arguments: Any) -> Any:
        for job in (await control.perform("jobs", {}))["jobs"]:
            seen.append((job["phase"], job["received"], job["checked"], job["written"]))
        return await insert(*arguments)

    monkeypatch.setattr(outlier_store, "insert", look)
    elsewhere.may_answer.set()
    await join(alice, room)
    events = len(room.events)
    batches = -(-events // 2)
    assert seen[:batches] == [("writing", events, events, 2 * number) for number in range(batches)]


async def test_who_asks_again_waits_for_the_same_join(
    server: Server, alice: Client, room: Room, elsewhere: SlowElsewhere
) -> None:
    first = join(alice, room)
    await elsewhere.asked.wait()
    second = join(alice, room)
    await asyncio.sleep(0)
    elsewhere.may_answer.set()
    assert (await first) == (await second) == {"room_id": room.room_id}
    assert elsewhere.wire.asked[server.settings.server_name, EVIL, "send_join"] == 1


async def test_a_join_that_fails_is_no_job_any_more(
    server: Server, alice: Client, room: Room, elsewhere: SlowElsewhere
) -> None:
    elsewhere.lies["send_join"] = lambda _, __: Answered.json({"errcode": "M_FORBIDDEN", "error": "No"}, 403)
    elsewhere.may_answer.set()
    error = await error_of(join(alice, room, EVIL, HONEST))
    assert (error.status, error.errcode) == (403, "M_FORBIDDEN")
    assert await jobs(server) == []
