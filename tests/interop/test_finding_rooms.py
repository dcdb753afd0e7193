"""How people of Synapse and of a server of ours find each other's rooms, and get into them by another's leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from tests.federation_api.identity_server import IdentityServer
from tests.interop.people import agree, of_ours, of_synapse

if TYPE_CHECKING:
    from tests.federation.neighbours import Neighbour
    from tests.interop.people import Somebody
    from tests.interop.synapse import Synapse

pytestmark = pytest.mark.interop


def restricted(room_id: str) -> dict[str, Any]:
    content = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room_id}]}
    return {"type": "m.room.join_rules", "state_key": "", "content": content}


async def space_of(host: Somebody, *children: str, via: Somebody, name: str) -> str:
    space = await host.client.create_room(
        preset="public_chat", name=name, creation_content={"type": "m.space"}
    )
    for number, child in enumerate(children):
        content = {"via": [via.server_name], "order": f"{number}"}
        await host.client.set_state(space, "m.space.child", content, child)
    return space


async def test_a_guest_looks_into_a_space_of_the_other_server(people: tuple[Somebody, Somebody]) -> None:
    host, guest = people
    club = await host.client.create_room(preset="public_chat", name="Club")
    secret = await host.client.create_room(preset="private_chat", name="Secret")
    inner = await host.client.create_room(
        preset="private_chat", name="Inner", initial_state=[restricted(club)]
    )
    inside = await host.client.create_room(preset="public_chat", name="Inside")
    below = await space_of(host, inside, via=host, name="Below")
    top = await space_of(host, club, secret, inner, below, via=host, name="Top")
    own = await space_of(guest, top, via=host, name="Own")
    await guest.join(club, host)
    await host.until_member(club, guest.user_id, "join")
    answer = await guest.client.get(f"/_matrix/client/v1/rooms/{quote(own, safe='')}/hierarchy")
    names = [room["name"] for room in answer["rooms"]]
    assert names == ["Own", "Top", "Club", "Inner", "Below", "Inside"]
    told = {room["name"]: room for room in answer["rooms"]}
    assert [child["state_key"] for child in told["Top"]["children_state"]] == [club, secret, inner, below]
    assert told["Inner"]["join_rule"] == "restricted"
    assert told["Inner"]["allowed_room_ids"] == [club]


async def test_synapse_lets_in_where_nobody_of_ours_may(ours: Neighbour, synapse: Synapse) -> None:
    async with httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=60) as http:
        host = await of_synapse(synapse, http, "there")
        first, second = await of_ours(ours, "here"), await of_ours(ours, "here")
        club = await host.client.create_room(preset="public_chat", room_version="11")
        room_id = await host.client.create_room(
            preset="private_chat",
            room_version="11",
            initial_state=[restricted(club)],
            power_level_content_override={"invite": 50},
        )
        for one in (first, second):
            await one.join(club, host)
            await host.until_member(club, one.user_id, "join")
        await first.join(room_id, host)
        # No server is named: those in the room are known.
        await second.client.join(room_id)
        await second.say(room_id, "let in")
        await host.until_said(room_id, "let in")
        await agree(room_id, host, second)


async def test_an_invite_of_an_address_is_exchanged(
    people: tuple[Somebody, Somebody], ours: Neighbour, synapse: Synapse
) -> None:
    host, guest = people
    identity = IdentityServer()
    room_id = await host.client.create_room(preset="private_chat", name="Secret")
    keys = {"public_key": identity.public_key}
    offer = {"display_name": "g...", "public_keys": [keys]}
    await host.client.set_state(room_id, "m.room.third_party_invite", offer, "token1")
    common = {"medium": "email", "address": "guest@example.org", "mxid": guest.user_id}
    signed = identity.signed(guest.user_id, sender=host.user_id)
    invite = {**common, "room_id": room_id, "sender": host.user_id, "signed": signed}
    path, body = "/_matrix/federation/v1/3pid/onbind", {**common, "invites": [invite]}
    if guest.server_name == synapse.name:
        answer = await asyncio.to_thread(synapse.http.post, path, json=body)
    else:
        answer = await ours.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    await guest.until_invited(room_id)
    await guest.join(room_id, host)
    await guest.say(room_id, "found me")
    await host.until_said(room_id, "found me")
    await agree(room_id, host, guest)
