"""Attacks by single events: refused as the specification says, and nothing else disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client import bodies

if TYPE_CHECKING:
    from tests.client import Client
    from tests.hostile.conftest import Judge
    from tests.hostile.mallory import Mallory
    from tests.server import Server

VERSIONS = ("1", "10", "12")


async def shared_room(alice: Client, *others: Mallory, version: str, **options: object) -> str:
    """A public room of Alice's that Mallory and the like are in."""
    room_id = await alice.create_room(preset="public_chat", room_version=version, **options)
    for other in others:
        await other.become("join", room_id, other.user("mallory"))
    return room_id


async def mallorys_room(server: Server, alice: Client, mallory: Mallory, version: str) -> str:
    """A room in which Mallory may do everything."""
    options = {"power_level_content_override": {"users": {alice.user_id: 100, mallory.user("mallory"): 100}}}
    if version == "12":
        options = {"power_level_content_override": {"users": {mallory.user("mallory"): 100}}}
    return await shared_room(alice, mallory, version=version, **options)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_that_follows_one_of_another_room_changes_nothing(
    server: Server, alice: Client, mallory: Mallory, judge: Judge, version: str
) -> None:
    target = await shared_room(alice, mallory, version=version)
    own = await mallorys_room(server, alice, mallory, version)
    name = await mallory.event_in(own, "m.room.name", {"name": "Mine"}, state_key="")
    assert await mallory.tell(name) == {name.event_id: {}}
    smuggled = await mallory.event_in(target, "m.room.message", {"body": "from there"}, prev=[name.event_id])
    await mallory.tell(smuggled)
    state = {event["type"] for event in await alice.get(f"/rooms/{target}/state")}
    assert "m.room.name" not in state
    await judge()
    await alice.send(target, "still here")
    assert bodies((await alice.messages(target))["chunk"])[0] == "still here"
