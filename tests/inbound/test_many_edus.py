"""Many EDUs in one transaction: each is judged by itself, and what they say is written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.eventgraph.rooms import BOB, public_room
from tests.inbound.test_transactions import TWO, Told

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer

MEMBERS = [f"@user{number}:two.example" for number in range(50)]


class Devices:
    """Takes note of the order in which updates came."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.heard: list[tuple[str, int]] = []

    async def device_list_update(self, content: dict[str, Any], user_id: str) -> None:
        async def work(transaction: Any) -> None:
            await transaction.next_position()

        if content.get("fails"):
            raise RuntimeError
        await self.told.server.application.database.write(work)
        self.heard.append((user_id, content["stream_id"]))

    async def signing_key_update(self, content: dict[str, Any], user_id: str) -> None: ...


@pytest.fixture
async def told(start_server: StartServer) -> Any:
    server = await start_server()
    alice = await server.register("alice")
    room = public_room("11", BOB, users={BOB: 50})
    told = Told(server, room)
    for user_id in MEMBERS:
        room.join(user_id)
    await told.foreign.arrive(room.join(alice.user_id))
    told.alice = alice
    yield told
    await told.queues.stop()


def receipts(room_id: str, event_id: str, *user_ids: str) -> dict[str, Any]:
    by_user = {user_id: {"event_ids": [event_id], "data": {"ts": 1}} for user_id in user_ids}
    return {"edu_type": "m.receipt", "content": {room_id: {"m.read": by_user}}}


def update(user_id: str, stream_id: int, **more: Any) -> dict[str, Any]:
    content = {"user_id": user_id, "device_id": "D", "stream_id": stream_id, **more}
    return {"edu_type": "m.device_list_update", "content": content}


async def readers(alice: Client, room_id: str, event_id: str) -> set[str]:
    found: set[str] = set()
    for event in (await alice.sync())["rooms"]["join"][room_id]["ephemeral"]["events"]:
        if event["type"] == "m.receipt":
            found |= event["content"].get(event_id, {}).get("m.read", {}).keys()
    return found


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("one_by_one", [True, False])
async def test_what_a_hundred_edus_say_takes_few_commits(told: Told, one_by_one: bool) -> None:
    devices = Devices(told)
    told.transactions._edus._devices = devices  # type: ignore[attr-defined]
    room_id, event_id = told.room.room_id, await told.alice.send(told.room.room_id, "hello")
    said = [receipts(room_id, event_id, user_id) for user_id in MEMBERS]
    if not one_by_one:
        said = [receipts(room_id, event_id, *MEMBERS)]
    edus = [
        edu for pair in zip(said, (update(user_id, 1) for user_id in MEMBERS), strict=False) for edu in pair
    ]
    database, commits = told.server.application.database, 0
    on_commit = database.on_commit

    def count(*arguments: Any) -> None:
        nonlocal commits
        commits += 1
        on_commit(*arguments)

    database.on_commit = count
    await told.transactions.receive(TWO, [], edus)
    assert commits <= 10
    assert await readers(told.alice, room_id, event_id) == set(MEMBERS)
    assert {user_id for user_id, _ in devices.heard} >= {MEMBERS[0]}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_what_is_said_of_one_user_is_heard_in_its_order_and_one_that_fails_takes_no_other_along(
    told: Told,
) -> None:
    devices = Devices(told)
    told.transactions._edus._devices = devices  # type: ignore[attr-defined]
    room_id, event_id = told.room.room_id, await told.alice.send(told.room.room_id, "hello")
    first, second, third = MEMBERS[:3]
    edus: list[Any] = [update(user_id, number) for number in range(10) for user_id in (first, second)]
    edus[5:5] = [update(third, 1, fails=True), receipts(room_id, "$nothing", third), None, {"edu_type": 5}]
    edus += [update(third, 2), receipts(room_id, event_id, third)]
    await told.transactions.receive(TWO, [], edus)
    for user_id in (first, second):
        assert [number for heard, number in devices.heard if heard == user_id] == list(range(10))
    assert [number for heard, number in devices.heard if heard == third] == [2]
    assert await readers(told.alice, room_id, event_id) == {third}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_receipt_that_cannot_be_takes_none_along_that_came_with_it(told: Told) -> None:
    room_id, event_id = told.room.room_id, await told.alice.send(told.room.room_id, "hello")
    first, second, third = MEMBERS[:3]
    edu = receipts(room_id, event_id, first, "@stranger:two.example", second, third)
    edu["content"][room_id]["m.read"][second]["event_ids"] = ["$nothing"]
    await told.transactions.receive(TWO, [], [edu])
    assert await readers(told.alice, room_id, event_id) == {first, third}
