"""Presence where two processes serve the same users: whom one of them hears of does not go offline in the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from homeserver.services.presence import OFFLINE_AFTER_MS
from tests.client import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.server import Server


async def seen(client: Client, user: Client, state: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again until a user is seen in a state: what the other process wrote is heard of soon."""
    async with asyncio.timeout(30):
        while (await client.get(f"/presence/{user.user_id}/status"))["presence"] != state:
            await meanwhile()


async def test_a_user_who_syncs_in_one_process_is_online_in_both(servers: tuple[Server, Server]) -> None:
    here, there = servers
    alice = await here.register("alice")
    bob = await here.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    bob_there = Client(there.http, bob.user_id, bob.device_id, bob.access_token)
    alice_there = Client(there.http, alice.user_id, alice.device_id, alice.access_token)

    # Bob was here once, and syncs on there.
    await bob.sync()
    await seen(alice, bob, "online", bob.sync)
    await here.restart()
    alice = here.reconnect(alice)
    await bob_there.sync()
    for _ in range(6):
        for server in servers:
            server.clock.offset_ms += OFFLINE_AFTER_MS // 3
        await bob_there.sync()
        for server in servers:
            await server.application.upkeep.look_after()
    await seen(alice_there, bob, "online", bob_there.sync)
    await seen(alice, bob, "online", bob_there.sync)

    async def nothing() -> None:
        for server in servers:
            server.clock.offset_ms += OFFLINE_AFTER_MS
            await server.application.upkeep.look_after()

    await nothing()
    await seen(alice, bob, "offline", nothing)
    await seen(alice_there, bob, "offline", nothing)
