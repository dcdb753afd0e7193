"""The link between Synapse and a server of ours is cut while people of both change the same room, and mended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.interop.people import agree, of_ours, of_synapse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from tests.federation.neighbours import Neighbour
    from tests.interop.people import Somebody
    from tests.interop.synapse import Link, Synapse

pytestmark = pytest.mark.interop
every_version = pytest.mark.parametrize("version", ["6", "10", "11", "12"])


class Border:
    """Between the servers: closed, nothing passes in either direction."""

    def __init__(self, ours: Neighbour, link: Link) -> None:
        self._ours = ours
        self._link = link

    async def close(self) -> None:
        await self._link.cut()
        await self._ours.unplug()

    async def open(self) -> None:
        await self._link.join()
        await self._ours.plug_in()


@pytest.fixture
def border(ours: Neighbour, way_to_synapse: Link) -> Border:
    return Border(ours, way_to_synapse)


@pytest.fixture(params=["room of ours", "room of Synapse"])
async def two_here_and_two_there(
    request: pytest.FixtureRequest, ours: Neighbour, synapse: Synapse
) -> AsyncIterator[list[Somebody]]:
    """A host, a guest of the other server, and a friend of each."""
    async with httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=60) as http:
        here = [await of_ours(ours, name) for name in ("here", "near")]
        there = [await of_synapse(synapse, http, name) for name in ("there", "far")]
        hosts, guests = (here, there) if request.param == "room of ours" else (there, here)
        yield [hosts[0], guests[0], hosts[1], guests[1]]


async def shared_room(host: Somebody, guest: Somebody, version: str) -> str:
    """A room in which both may do everything that a guest can be allowed to do."""
    room_id = await host.client.create_room(preset="public_chat", room_version=version)
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    levels = await host.client.get_state(room_id, "m.room.power_levels")
    levels["users"][guest.user_id] = 50
    levels["events"] = dict.fromkeys(levels["events"], 50)
    await host.client.set_state(room_id, "m.room.power_levels", levels)

    async def has_power() -> bool:
        there = await guest.client.get_state(room_id, "m.room.power_levels")
        return guest.user_id in there["users"]

    await guest.until(has_power, "power")
    return room_id


async def healed(room_id: str, host: Somebody, guest: Somebody, *, but_for: Collection[str] = ()) -> None:
    """Both speak again, and agree."""
    await asyncio.gather(host.say(room_id, "host is back"), guest.say(room_id, "guest is back"))
    await host.until_said(room_id, "guest is back")
    await guest.until_said(room_id, "host is back")
    await agree(room_id, host, guest, but_for=but_for)


@every_version
async def test_both_change_the_same_state_and_talk(
    people: tuple[Somebody, Somebody], border: Border, version: str
) -> None:
    host, guest = people
    room_id = await shared_room(host, guest, version)
    await border.close()
    for somebody, side in ((host, "host"), (guest, "guest")):
        for number in range(3):
            await somebody.client.set_state(room_id, "m.room.topic", {"topic": f"{side} {number}"})
            await somebody.client.set_state(room_id, "org.example.note", {"by": side}, f"note {number}")
            await somebody.say(room_id, f"{side} {number}")
        await somebody.client.set_state(room_id, "org.example.note", {"by": side}, f"of the {side}")
    await border.open()
    await healed(room_id, host, guest)
    topics = [await somebody.client.get_state(room_id, "m.room.topic") for somebody in (host, guest)]
    assert topics[0] == topics[1]
    for somebody in (host, guest):
        said = await somebody.said(room_id)
        for side in ("host", "guest"):
            assert [text for text in said if text[: len(side)] == side and text[-1].isdigit()] == [
                f"{side} {number}" for number in range(3)
            ]


@every_version
async def test_one_bans_while_the_banned_talks_on(
    people: tuple[Somebody, Somebody], border: Border, version: str
) -> None:
    host, guest = people
    room_id = await host.client.create_room(preset="public_chat", room_version=version)
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    await border.close()
    await host.client.ban(room_id, guest.user_id)
    await host.say(room_id, "gone")
    await guest.say(room_id, "does anybody hear me?")
    await border.open()
    await host.say(room_id, "still here")
    await guest.until_left(room_id)
    await host.client.post(f"/rooms/{room_id}/unban", {"user_id": guest.user_id})
    await guest.join(room_id, host)
    await guest.say(room_id, "again")
    await host.until_said(room_id, "again")
    states = [await somebody.state(room_id) for somebody in (host, guest)]
    assert states[0] == states[1]


@every_version
async def test_both_change_who_may_what(
    people: tuple[Somebody, Somebody], border: Border, version: str
) -> None:
    host, guest = people
    room_id = await shared_room(host, guest, version)
    levels = await host.client.get_state(room_id, "m.room.power_levels")
    await border.close()
    less = {**levels, "users": {**levels["users"], guest.user_id: 0}}
    await host.client.set_state(room_id, "m.room.power_levels", less)
    await host.client.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
    await host.client.set_state(room_id, "m.room.name", {"name": "of the host"})
    # Where the host's change is known already, these are kept from everybody (soft failure).
    of_guest = [
        await guest.client.set_state(room_id, "m.room.power_levels", {**levels, "invite": 25}),
        await guest.client.set_state(room_id, "m.room.name", {"name": "of the guest"}),
        await guest.client.set_state(room_id, "m.room.topic", {"topic": "of the guest"}),
    ]
    await border.open()
    await healed(room_id, host, guest, but_for=of_guest)
    assert await guest.client.get_state(room_id, "m.room.name") == {"name": "of the host"}
    assert await guest.client.get_state(room_id, "m.room.power_levels") == less


@every_version
async def test_what_is_redacted_on_one_side_is_answered_on_the_other(
    people: tuple[Somebody, Somebody], border: Border, version: str
) -> None:
    host, guest = people
    room_id = await shared_room(host, guest, version)
    event_id = await host.client.send(room_id, "a mistake")
    await guest.until_said(room_id, "a mistake")
    await border.close()
    await host.client.redact(room_id, event_id)
    await guest.say(room_id, "what do you mean?")
    await border.open()
    await healed(room_id, host, guest)
    for somebody in (host, guest):
        assert "a mistake" not in await somebody.said(room_id)


@every_version
async def test_people_come_and_go_on_both_sides(
    two_here_and_two_there: list[Somebody], border: Border, version: str
) -> None:
    host, guest, friend_of_host, friend_of_guest = two_here_and_two_there
    room_id = await shared_room(host, guest, version)
    await border.close()
    await friend_of_host.join(room_id, host)
    await friend_of_guest.join(room_id, guest)
    await friend_of_host.say(room_id, "hello from the host's side")
    await friend_of_guest.say(room_id, "hello from the guest's side")
    await friend_of_guest.client.leave(room_id)
    await border.open()
    await healed(room_id, host, guest)
    assert await guest.membership(room_id, friend_of_host.user_id) == "join"
    assert await host.membership(room_id, friend_of_guest.user_id) == "leave"
