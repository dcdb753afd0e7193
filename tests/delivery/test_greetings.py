"""Servers that may have given this one up hear that it is there again; those that were given up here are called back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.delivery import greetings
from homeserver.ids import server_name_of
from tests.delivery.far_servers import CAROL, FAR, FarServers, set_membership, shared_room, until
from tests.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client import Client

OTHER = "other.example"
DAVE = "@dave:other.example"
_MONTH_MS = 30 * 24 * 3_600_000


async def met(server: Server, alice: Client, far: FarServers, *user_ids: str) -> str:
    """A room of Alice's and others, whose servers have taken something."""
    room_id = await shared_room(server, alice, *user_ids)
    await alice.send(room_id, "hello")
    await until(lambda: all(far.bodies(server_name_of(user_id)) for user_id in user_ids))
    await until(lambda: not server.application.delivery._sender._lines)
    return room_id


async def greeted_after_restart(server: Server, far: FarServers) -> list[str]:
    """Who is greeted after a start, once everybody has been who is."""
    far.greeted.clear()
    await server.restart()
    delivery = server.application.delivery
    assert delivery is not None
    (task,) = [task for task in delivery._tasks if task.get_coro().__name__ == "_greet"]
    await task
    await until(lambda: not delivery._sender._lines)
    return sorted(far.greeted)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greetings, "_EVERY_SECONDS", 0.001)


async def test_after_a_start_the_servers_of_the_rooms_are_greeted_once(
    server: Server, alice: Client, far: FarServers
) -> None:
    await met(server, alice, far, CAROL, DAVE)
    assert await greeted_after_restart(server, far) == [FAR, OTHER]


async def test_to_whom_something_is_sent_is_not_greeted_as_well(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await met(server, alice, far, CAROL, DAVE)
    far.away.add(FAR)
    await alice.send(room_id, "are you there?")
    await until(lambda: server.application.delivery._outbox.is_away(FAR))
    far.away.clear()
    assert await greeted_after_restart(server, far) == [OTHER]
    assert far.bodies() == ["hello", "are you there?"]


async def test_servers_without_a_room_in_common_are_not_greeted(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await met(server, alice, far, CAROL, DAVE)
    await set_membership(server, room_id, CAROL, "leave")
    assert await greeted_after_restart(server, far) == [OTHER]


async def test_servers_that_were_silent_long_before_the_end_are_not_greeted(
    server: Server, alice: Client, far: FarServers
) -> None:
    await met(server, alice, far, CAROL)
    server.clock.offset_ms += _MONTH_MS + 1
    await met(server, alice, far, DAVE)
    # However long the absence was.
    server.clock.offset_ms += 3 * _MONTH_MS
    assert await greeted_after_restart(server, far) == [OTHER]


async def test_no_more_than_so_many_are_greeted_and_the_last_alive_first(
    server: Server, alice: Client, far: FarServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greetings, "_MAX_GREETED", 1)
    await met(server, alice, far, CAROL)
    server.clock.offset_ms += 1000
    await met(server, alice, far, DAVE)
    assert await greeted_after_restart(server, far) == [OTHER]


async def test_what_another_process_sends_to_is_left_to_it(tmp_path: Path, postgresql_url: str) -> None:
    far = FarServers()
    one, other = (Server(tmp_path, postgresql_url) for _ in range(2))
    for server in (one, other):
        server.courier = far
    await one.start()
    await met(one, await one.register("alice"), far, CAROL)
    await other.start()
    assert await greeted_after_restart(other, far) == []
    # It ends without a word.
    await one.application.delivery._sender.stop()
    other.clock.offset_ms += 60_000
    await other.application.delivery._stay_alive()
    await until(lambda: far.greeted == [FAR])
    await one.stop()
    await other.stop()


async def test_who_calls_after_a_failure_is_told_of_what_passes_again(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await met(server, alice, far, CAROL)
    delivery = server.application.delivery

    async def type_something(typing: bool) -> None:
        await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": typing, "timeout": 30_000})

    far.away.add(FAR)
    await type_something(True)
    await until(lambda: delivery._outbox.is_away(FAR) and not delivery._sender._lines)
    far.away.clear()
    delivery.heard_from(FAR)
    await until(lambda: far.greeted == [FAR] and not delivery._outbox.is_away(FAR))
    await type_something(False)
    await until(lambda: [edu["typing"] for edu in far.edus("m.typing")] == [False])
    delivery.heard_from(FAR)
    await until(lambda: not delivery._sender._lines)
    assert far.greeted == [FAR]


async def test_a_server_that_called_before_and_after_it_came_into_a_room_is_greeted(
    server: Server, alice: Client, far: FarServers
) -> None:
    delivery = server.application.delivery
    # It asks how to join, joins, and sends an event.
    delivery.heard_from(FAR)
    await until(lambda: len(delivery._tasks) <= 2)
    await shared_room(server, alice, CAROL)
    delivery.heard_from(FAR)
    await until(lambda: len(delivery._tasks) <= 2)
    assert await greeted_after_restart(server, far) == [FAR]
