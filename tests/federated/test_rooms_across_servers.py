"""Two servers of ours, over HTTPS: how people find, enter and follow rooms of the other server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, bodies, refused
from tests.federated.test_two_servers import Reader, authority, pair  # noqa: F401 - fixtures
from tests.federation_api.identity_server import IdentityServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.federation.neighbours import Neighbour

    Pair = tuple[Neighbour, Neighbour]

V1 = "/_matrix/client/v1"


@pytest.fixture
async def empty_database_url(tmp_path: Any) -> str:
    """One engine says it all."""
    return f"sqlite:///{tmp_path}/empty.db"


def restricted(*rooms: str, rule: str = "restricted") -> dict[str, Any]:
    allow = [{"type": "m.room_membership", "room_id": room} for room in rooms]
    return {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": rule, "allow": allow}}


async def via(client: Client, room_id: str, server: Neighbour) -> None:
    await client.post(f"/join/{quote(room_id, safe='')}?via={server.name}")


async def heard(client: Client, room_id: str, who: Client) -> None:
    """Go on once the server of a client knows that somebody is in a room."""
    reader = Reader(client)
    await reader.until(
        lambda: who.user_id in [event.get("state_key") for event in reader.rooms.get(room_id, [])]
    )


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
async def test_where_nobody_here_may_let_anybody_in_the_other_server_does(pair: Pair, rule: str) -> None:  # noqa: F811
    one, two = pair
    alice, bob, carol, dave = (
        await one.register("alice"),
        await two.register("bob"),
        await two.register("carol"),
        await two.register("dave"),
    )
    club = await alice.create_room(preset="public_chat")
    levels = {"invite": 50}
    room_id = await alice.create_room(
        preset="private_chat",
        initial_state=[restricted(club, rule=rule)],
        power_level_content_override=levels,
    )
    await via(bob, club, one)
    await via(bob, room_id, one)
    await carol.join(club)
    await heard(alice, club, carol)
    # Bob is in the room, but may not invite: who comes after him comes by way of Alice's server.
    await carol.join(room_id)
    here, there = Reader(alice), Reader(carol)
    await carol.send(room_id, "let in")
    await here.until(lambda: "let in" in here.said(room_id))
    await alice.send(room_id, "welcome")
    await there.until(lambda: "welcome" in there.said(room_id))
    for client in (alice, bob, carol):
        members = (await client.get(f"/rooms/{room_id}/joined_members"))["joined"]
        assert set(members) == {alice.user_id, bob.user_id, carol.user_id}
    member = await bob.get_state(room_id, "m.room.member", carol.user_id)
    assert member["join_authorised_via_users_server"] == alice.user_id
    assert (await two.control("jobs"))["jobs"] == []
    with refused(403, "M_FORBIDDEN"):
        await dave.join(room_id)
    # By hand as well.
    await dave.join(club)
    await heard(alice, club, dave)
    await dave.set_state(room_id, "m.room.member", {"membership": "join"}, dave.user_id)
    assert (await bob.get_state(room_id, "m.room.member", dave.user_id))["membership"] == "join"


async def test_where_the_other_server_is_away_nobody_is_let_in_and_nothing_is_left_behind(pair: Pair) -> None:  # noqa: F811
    one, two = pair
    alice, bob, carol = await one.register("alice"), await two.register("bob"), await two.register("carol")
    club = await alice.create_room(preset="public_chat")
    room_id = await alice.create_room(
        preset="private_chat",
        initial_state=[restricted(club)],
        power_level_content_override={"invite": 50},
    )
    await via(bob, club, one)
    await via(bob, room_id, one)
    await carol.join(club)
    await heard(alice, club, carol)
    await one.unplug()
    with refused(502, "M_UNKNOWN"):
        await carol.join(room_id)
    assert room_id not in (await carol.get("/joined_rooms"))["joined_rooms"]
    await bob.send(room_id, "still here")
    await one.plug_in()
    await carol.join(room_id)


async def test_who_rejects_an_invite_that_nobody_hears_of_can_be_invited_again(pair: Pair) -> None:  # noqa: F811
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(invite=[bob.user_id])
    there = Reader(bob)
    await there.until(lambda: room_id in there.invited)
    await one.unplug()
    await bob.leave(room_id)
    await there.until(lambda: room_id in there.left)
    there.invited.clear()
    await one.plug_in()
    # To Alice's server Bob is invited still.
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": bob.user_id})
    await there.until(lambda: room_id in there.invited)
    await via(bob, room_id, one)
    assert bob.user_id in (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]


async def test_a_room_that_replaces_another_is_found_by_the_servers_of_that(pair: Pair) -> None:  # noqa: F811
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    old = await alice.create_room(preset="public_chat", name="Tea")
    await via(bob, old, one)
    await bob.put(f"/user/{bob.user_id}/rooms/{old}/tags/m.favourite", {"order": 0.5})
    there = Reader(bob)
    await there.sync()
    new = (await alice.post(f"/rooms/{old}/upgrade", {"new_version": "12"}))["replacement_room"]
    await there.until(lambda: any(event["type"] == "m.room.tombstone" for event in there.rooms.get(old, [])))
    # Its id says nothing of where it is, and the client names no server.
    assert ":" not in new
    await bob.join(new)
    assert (await bob.get_state(new, "m.room.name")) == {"name": "Tea"}
    tags = await bob.get(f"/user/{bob.user_id}/rooms/{new}/tags")
    assert tags == {"tags": {"m.favourite": {"order": 0.5}}}


async def test_a_space_of_the_other_server_is_looked_into_before_anybody_joins(pair: Pair) -> None:  # noqa: F811
    one, two = pair
    alice, bob, carol = await one.register("alice"), await two.register("bob"), await two.register("carol")

    async def space_of(*children: str, name: str) -> str:
        space = await alice.create_room(preset="public_chat", name=name, creation_content={"type": "m.space"})
        for number, child in enumerate(children):
            content = {"via": [one.name], "order": f"{number}"}
            await alice.set_state(space, "m.space.child", content, child)
        return space

    club = await alice.create_room(preset="public_chat", name="Club")
    secret = await alice.create_room(preset="private_chat", name="Secret")
    inner = await alice.create_room(preset="private_chat", name="Inner", initial_state=[restricted(club)])
    inside = await alice.create_room(preset="public_chat", name="Inside")
    below = await space_of(inside, name="Below")
    top = await space_of(club, secret, inner, below, name="Top")
    await via(bob, club, one)

    async def seen(client: Client) -> list[str]:
        answer = await client.get(f"{V1}/rooms/{quote(top, safe='')}/hierarchy")
        return [room["name"] for room in answer["rooms"]]

    # Nobody has come across it: no server is known.
    with refused(403, "M_FORBIDDEN"):
        await seen(bob)
    own = await bob.create_room(creation_content={"type": "m.space"}, name="Own")
    await bob.set_state(own, "m.space.child", {"via": [one.name]}, top)
    answer = await bob.get(f"{V1}/rooms/{quote(own, safe='')}/hierarchy")
    names = [room["name"] for room in answer["rooms"]]
    assert names == ["Own", "Top", "Club", "Inner", "Below", "Inside"]
    assert await seen(bob) == names[1:]
    assert await seen(carol) == ["Top", "Club", "Below", "Inside"]
    path = f"{V1}/room_summary/{quote(inner, safe='')}"
    assert (await bob.get(path, via=one.name))["name"] == "Inner"
    with refused(404, "M_NOT_FOUND"):
        await carol.get(path, via=one.name)
    # And what is shown can be joined.
    await via(bob, inner, one)


async def test_an_event_of_a_time_before_anybody_here_came_is_found_and_read(pair: Pair) -> None:  # noqa: F811
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(preset="public_chat")
    sent: list[str] = []
    for number in range(30):
        one.clock.offset_ms += 60_000
        sent.append(await alice.send(room_id, f"{number}"))
    one.clock.offset_ms += 60_000
    two.clock.offset_ms = one.clock.offset_ms
    await via(bob, room_id, one)
    times = [(await alice.event(room_id, event_id))["origin_server_ts"] for event_id in sent]

    async def at(ts: int, direction: str) -> str:
        path = f"{V1}/rooms/{quote(room_id, safe='')}/timestamp_to_event"
        return (await bob.get(path, ts=ts, dir=direction))["event_id"]

    assert await at(times[10] + 5, "b") == sent[10]
    assert await at(times[20] - 5, "f") == sent[20]
    # It is there, with what stands around it; what was missing in between is paged in.
    around = await bob.get(f"/rooms/{room_id}/context/{quote(sent[10], safe='')}", limit=4)
    assert around["event"]["content"]["body"] == "10"
    page = await bob.messages(room_id, limit=100)
    assert bodies(page["chunk"])[::-1] == [f"{number}" for number in range(30)]
    # Now nothing is missing, and nobody is asked.
    await one.unplug()
    assert await at(times[5] + 5, "b") == sent[5]
    assert await at(times[29] + 5, "b") == sent[29]
    await one.plug_in()


@pytest.fixture
async def identity() -> AsyncIterator[IdentityServer]:
    server = IdentityServer()
    await server.start()
    yield server
    await server.stop()


async def test_an_address_is_invited_and_turns_out_to_be_somebodys_of_the_other_server(
    pair: Pair,  # noqa: F811
    identity: IdentityServer,
) -> None:
    one, two = pair
    one.settings = one.settings.model_copy(
        update={
            "http_client": one.settings.http_client.model_copy(
                update={"verify_tls": False, "allow_private_addresses": True}
            )
        }
    )
    await one.stop()
    await one.start()
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await alice.create_room(name="Secret")
    who = {"id_server": identity.name, "id_access_token": "x", "medium": "email", "address": "bob@b.example"}
    await alice.post(f"/rooms/{room_id}/invite", who)
    invite = {"room_id": room_id, "sender": alice.user_id, "signed": identity.signed(bob.user_id)}
    common = {"medium": "email", "address": "bob@b.example", "mxid": bob.user_id}
    await two.nobody().put(
        "/_matrix/federation/v1/3pid/onbind", {**common, "invites": [{**common, **invite}]}
    )
    there = Reader(bob)
    await there.until(lambda: room_id in there.invited)
    await bob.join(room_id)
    here = Reader(alice)
    await bob.send(room_id, "found me")
    await here.until(lambda: "found me" in here.said(room_id))
