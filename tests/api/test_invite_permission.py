"""Users who want no invites (CS "Invite permission")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import refused
from tests.sync.sliding.client import Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client


@pytest.fixture
def engine() -> str:
    """No SQL of its own."""
    return "sqlite"


async def say(client: Client, content: Any) -> None:
    await client.put(f"/user/{client.user_id}/account_data/m.invite_permission_config", content)


async def invites(client: Client, since: str | None = None) -> list[str]:
    return list((await client.sync(since, timeout=0)).get("rooms", {}).get("invite", {}))


async def test_who_blocks_invites_gets_none(alice: Client, bob: Client) -> None:
    await say(bob, {"default_action": "block"})
    room_id = await alice.create_room()
    with refused(403, "M_INVITE_BLOCKED"):
        await alice.post(f"/rooms/{room_id}/invite", {"user_id": bob.user_id})
    with refused(403, "M_INVITE_BLOCKED"):
        await alice.set_state(room_id, "m.room.member", {"membership": "invite"}, bob.user_id)
    with refused(403, "M_INVITE_BLOCKED"):
        await alice.create_room(invite=[bob.user_id])
    with refused(404, "M_NOT_FOUND"):
        await alice.get_state(room_id, "m.room.member", bob.user_id)
    await say(bob, {})
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": bob.user_id})
    assert await invites(bob) == [room_id]


@pytest.mark.parametrize("content", [{}, {"default_action": "allow"}, {"default_action": ["block"]}])
async def test_whatever_else_is_said_blocks_nothing(alice: Client, bob: Client, content: Any) -> None:
    await say(bob, content)
    room_id = await alice.create_room(invite=[bob.user_id])
    assert await invites(bob) == [room_id]


async def test_invites_that_are_there_are_not_told_while_they_are_blocked(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    await say(bob, {"default_action": "block"})
    since = (await bob.sync(timeout=0))["next_batch"]
    device = Sliding(bob, lists={"all": a_list()})
    assert await invites(bob) == []
    answer = await device.sync()
    assert (answer["rooms"], answer["lists"]["all"]["count"]) == ({}, 0)
    assert (await device.sync(room_subscriptions={room_id: a_list()}))["rooms"] == {}
    # "Other endpoints [...] are not affected": the invite is there, and may be accepted.
    assert (await alice.get_state(room_id, "m.room.member", bob.user_id))["membership"] == "invite"
    await bob.join(room_id)
    assert room_id in (await bob.sync(since, timeout=0))["rooms"]["join"]
