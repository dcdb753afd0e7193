"""Synapse or a server of ours is away while the other talks: what was said arrives, in order, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.federation.neighbours import Neighbour
    from tests.interop.people import Somebody
    from tests.interop.synapse import Synapse

pytestmark = pytest.mark.interop
MESSAGES = 1000


async def meet(host: Somebody, guest: Somebody) -> str:
    room_id = await host.client.create_room(preset="public_chat")
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    return room_id


def sides(people: tuple[Somebody, Somebody], ours: Neighbour) -> tuple[Somebody, Somebody]:
    """Who is here, and who is there, whoever made the room."""
    host, guest = people
    return (host, guest) if host.server_name == ours.name else (guest, host)


async def test_synapse_is_killed_and_comes_back(
    people: tuple[Somebody, Somebody], ours: Neighbour, synapse: Synapse
) -> None:
    room_id = await meet(*people)
    here, there = sides(people, ours)
    await asyncio.to_thread(synapse.kill)
    try:
        for number in range(MESSAGES):
            await here.client.send(room_id, f"{number}")
            if number % 100 == 0:
                message = {there.user_id: {there.client.device_id: {"number": number}}}
                await here.client.put(f"/sendToDevice/org.example/{number}", {"messages": message})
    finally:
        await asyncio.to_thread(synapse.start)
    await there.until_said(room_id, f"{MESSAGES - 1}")

    async def has_all() -> bool:
        return len(await there.said(room_id)) >= MESSAGES and len(there.to_device) >= MESSAGES // 100

    await there.until(has_all, "all messages")
    assert await there.said(room_id) == [f"{number}" for number in range(MESSAGES)]
    assert [one["content"]["number"] for one in there.to_device] == list(range(0, MESSAGES, 100))


async def test_a_server_of_ours_is_away_and_comes_back(
    people: tuple[Somebody, Somebody], ours: Neighbour
) -> None:
    room_id = await meet(*people)
    here, there = sides(people, ours)
    await ours.stop()
    try:
        for number in range(MESSAGES):
            await there.client.send(room_id, f"{number}")
            if number % 100 == 0:
                message = {here.user_id: {here.client.device_id: {"number": number}}}
                await there.client.put(f"/sendToDevice/org.example/{number}", {"messages": message})
    finally:
        await ours.start()
    here.client = ours.reconnect(here.client)
    # Synapse looks for servers that are back once a minute, unless they call.
    await ours.application.remote.servers.client.query_profile(there.server_name, there.user_id)

    async def has_all() -> bool:
        return len(await here.said(room_id)) >= MESSAGES and len(here.to_device) >= MESSAGES // 100

    await here.until(has_all, "all messages")
    assert await here.said(room_id) == [f"{number}" for number in range(MESSAGES)]
    assert [one["content"]["number"] for one in here.to_device] == list(range(0, MESSAGES, 100))
