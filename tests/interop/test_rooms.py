"""People of Synapse and of a server of ours in the same rooms: whoever made them, in old and new versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Refused
from tests.interop.people import agree

if TYPE_CHECKING:
    from tests.interop.people import Somebody

pytestmark = pytest.mark.interop
every_version = pytest.mark.parametrize("version", ["6", "10", "11", "12"])
with_knocks = pytest.mark.parametrize("version", ["10", "11", "12"])


async def public_room(host: Somebody, version: str, **options: Any) -> str:
    return await host.client.create_room(preset="public_chat", room_version=version, **options)


@every_version
async def test_a_guest_joins_sees_what_was_before_and_both_talk(
    people: tuple[Somebody, Somebody], version: str
) -> None:
    host, guest = people
    await host.client.put(f"/profile/{host.user_id}/displayname", {"displayname": "The host"})
    room_id = await public_room(host, version, name="Tea")
    await host.say(room_id, *(f"before {number}" for number in range(30)))
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    await host.say(room_id, *(f"host {number}" for number in range(10)))
    await guest.say(room_id, *(f"guest {number}" for number in range(10)))
    await host.until_said(room_id, "guest 9")
    await guest.until_said(room_id, "host 9")
    await agree(room_id, host, guest)
    for somebody in (host, guest):
        said = await somebody.said(room_id)
        assert said[:30] == [f"before {number}" for number in range(30)]
        for side in ("host", "guest"):
            assert [text for text in said if text.startswith(side)] == [f"{side} {n}" for n in range(10)]
    profile = await guest.client.get(f"/profile/{host.user_id}")
    assert profile["displayname"] == "The host"


@every_version
async def test_an_invite_is_accepted(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    room_id = await host.client.create_room(room_version=version, invite=[guest.user_id])
    await guest.until_invited(room_id)
    await guest.join(room_id, host)
    await guest.say(room_id, "thank you")
    await host.until_said(room_id, "thank you")
    await agree(room_id, host, guest)


@every_version
async def test_an_invite_is_rejected(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    room_id = await host.client.create_room(room_version=version, invite=[guest.user_id])
    await guest.until_invited(room_id)
    await guest.client.leave(room_id)
    await host.until_member(room_id, guest.user_id, "leave")


@every_version
async def test_an_invite_is_taken_back(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    room_id = await host.client.create_room(room_version=version, invite=[guest.user_id])
    await guest.until_invited(room_id)
    await host.client.kick(room_id, guest.user_id)
    await guest.until_left(room_id)


@every_version
async def test_a_guest_is_kicked_comes_back_and_is_banned(
    people: tuple[Somebody, Somebody], version: str
) -> None:
    host, guest = people
    room_id = await public_room(host, version)
    await guest.join(room_id, host)
    await guest.sync()
    await host.client.kick(room_id, guest.user_id)
    await guest.until_left(room_id)
    await guest.join(room_id, host)
    await guest.say(room_id, "again")
    await host.until_said(room_id, "again")
    await agree(room_id, host, guest)
    await guest.sync()
    await host.client.ban(room_id, guest.user_id)
    await guest.until_left(room_id)


@every_version
async def test_a_guest_leaves_and_comes_back_to_what_was_missed(
    people: tuple[Somebody, Somebody], version: str
) -> None:
    host, guest = people
    room_id = await public_room(host, version)
    await guest.join(room_id, host)
    await guest.client.leave(room_id)
    await host.until_member(room_id, guest.user_id, "leave")
    await host.say(room_id, *(f"missed {number}" for number in range(15)))
    await host.client.set_state(room_id, "m.room.topic", {"topic": "Missed"})
    await guest.join(room_id, host)
    await guest.say(room_id, "back")
    await host.until_said(room_id, "back")
    await guest.until_said(room_id, "missed 14")
    await agree(room_id, host, guest)


@every_version
async def test_a_guest_is_given_power_and_uses_it(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    room_id = await public_room(host, version)
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    levels = await host.client.get_state(room_id, "m.room.power_levels")
    levels["users"][guest.user_id] = 60
    levels["events"]["m.room.power_levels"] = 50
    await host.client.set_state(room_id, "m.room.power_levels", levels)

    async def has_power() -> bool:
        there = await guest.client.get_state(room_id, "m.room.power_levels")
        return there["users"].get(guest.user_id) == 60

    await guest.until(has_power, "power")
    await guest.client.set_state(room_id, "m.room.name", {"name": "Coffee"})
    levels["users"][guest.user_id] = 55
    await guest.client.set_state(room_id, "m.room.power_levels", levels)
    await guest.say(room_id, "done")
    await host.until_said(room_id, "done")
    await agree(room_id, host, guest)
    assert await host.client.get_state(room_id, "m.room.name") == {"name": "Coffee"}


@every_version
async def test_each_redacts(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    room_id = await public_room(host, version)
    await guest.join(room_id, host)
    await host.until_member(room_id, guest.user_id, "join")
    of_host = await host.client.send(room_id, "of the host")
    of_guest = await guest.client.send(room_id, "of the guest")
    also_of_guest = await guest.client.send(room_id, "also of the guest")
    await host.until_said(room_id, "also of the guest")
    await guest.until_said(room_id, "of the host")
    await host.client.redact(room_id, of_host)
    await host.client.redact(room_id, of_guest)
    await guest.client.redact(room_id, also_of_guest)
    for somebody in (host, guest):

        async def all_redacted(somebody: Somebody = somebody) -> bool:
            return await somebody.said(room_id) == []

        await somebody.until(all_redacted, "redactions")
    await agree(room_id, host, guest)


@with_knocks
async def test_a_knock_is_answered(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = await host.client.create_room(room_version=version, initial_state=[rules])
    await guest.knock(room_id, host)
    await host.until_member(room_id, guest.user_id, "knock")
    await host.client.invite(room_id, guest.user_id)
    await guest.until_invited(room_id)
    await guest.join(room_id, host)
    await guest.say(room_id, "in")
    await host.until_said(room_id, "in")
    await agree(room_id, host, guest)


@with_knocks
async def test_members_of_a_room_may_join_another(people: tuple[Somebody, Somebody], version: str) -> None:
    host, guest = people
    club = await public_room(host, version)
    allow = [{"type": "m.room_membership", "room_id": club}]
    rules = {
        "type": "m.room.join_rules",
        "state_key": "",
        "content": {"join_rule": "restricted", "allow": allow},
    }
    room_id = await host.client.create_room(room_version=version, initial_state=[rules])
    with pytest.raises(Refused) as caught:
        await guest.join(room_id, host)
    assert caught.value.status == 403
    await guest.join(club, host)
    await host.until_member(club, guest.user_id, "join")
    await guest.join(room_id, host)
    await guest.say(room_id, "in")
    await host.until_said(room_id, "in")
    await agree(room_id, host, guest)
