"""Coming into rooms and going out of them (CS "Room membership")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server


async def membership(client: Client, room_id: str, user_id: str) -> dict[str, Any]:
    return await client.get_state(room_id, "m.room.member", user_id)


async def restricted_room(client: Client, allowed: str, rule: str = "restricted", **options: Any) -> str:
    content = {"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": allowed}]}
    return await client.create_room(
        initial_state=[{"type": "m.room.join_rules", "content": content}], **options
    )


# -- join ----------------------------------------------------------------------------------------------


async def test_a_public_room_is_joined_by_id_and_by_alias(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", room_alias_name="tea")
    assert await bob.join(room_id, reason="thirst") == room_id
    assert (await membership(alice, room_id, bob.user_id))["reason"] == "thirst"
    carol = await server.register("carol")
    assert await carol.join("#tea:example.org") == room_id
    dora = await server.register("dora")
    assert await dora.post(f"/rooms/{room_id}/join") == {"room_id": room_id}
    eve = await server.register("eve")
    query = "via=example.com&via=example.org&server_name=example.com"
    assert await eve.post(f"/join/%23tea:example.org?{query}") == {"room_id": room_id}
    assert (
        (await alice.get("/joined_rooms")) == (await eve.get("/joined_rooms")) == {"joined_rooms": [room_id]}
    )


async def test_joining_needs_no_body(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    assert await bob.call("POST", f"/join/{room_id}") == {"room_id": room_id}
    assert await bob.call("POST", f"/rooms/{room_id}/leave") == {}


async def test_joining_again_changes_nothing(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    before = await bob.get_state(room_id, "m.room.member", bob.user_id, format="event")
    await bob.join(room_id, reason="again")
    assert (await bob.get_state(room_id, "m.room.member", bob.user_id, format="event"))["event_id"] == before[
        "event_id"
    ]


@pytest.mark.parametrize("room", ["!unknown:example.org", "!" + "A" * 43, "#unknown:example.org"])
async def test_a_room_that_this_server_cannot_find_is_not_found(alice: Client, room: str) -> None:
    for deed in ("join", "knock"):
        with refused(404, "M_NOT_FOUND"):
            await alice.post(f"/{deed}/{quote(room, safe='')}")


@pytest.mark.parametrize("room", ["!unknown:example.com", "!unknown:example.org", "#unknown:example.com"])
async def test_a_room_of_servers_that_do_not_answer_cannot_be_joined(alice: Client, room: str) -> None:
    with refused(502, "M_UNKNOWN"):
        await alice.post(f"/join/{quote(room, safe='')}?via=example.com")


@pytest.mark.parametrize("room", ["room", "@alice:example.org", "!", "#", "!:example.org", "#a", "$a"])
async def test_what_is_neither_id_nor_alias_is_refused(alice: Client, room: str) -> None:
    for deed in ("join", "knock"):
        with refused(400, "M_INVALID_PARAM"):
            await alice.post(f"/{deed}/{quote(room, safe='')}")


async def test_a_private_room_needs_an_invite(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)
    await alice.invite(room_id, bob.user_id)
    await bob.join(room_id)
    assert (await membership(alice, room_id, bob.user_id))["membership"] == "join"
    await bob.leave(room_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)


async def test_the_profile_comes_along(alice: Client, bob: Client) -> None:
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    await bob.put(f"/profile/{bob.user_id}/avatar_url", {"avatar_url": "mxc://example.org/bob"})
    room_id = await alice.create_room(invite=[bob.user_id])
    profile = {"displayname": "Bob", "avatar_url": "mxc://example.org/bob"}
    assert await membership(alice, room_id, bob.user_id) == {"membership": "invite", **profile}
    await bob.join(room_id)
    assert await membership(alice, room_id, bob.user_id) == {"membership": "join", **profile}


async def test_many_join_at_once(server: Server, alice: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    users = [await server.register(f"user{number}") for number in range(12)]
    await asyncio.gather(*(user.join(room_id) for user in users for _ in range(2)))
    joined = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
    assert set(joined) == {alice.user_id, *(user.user_id for user in users)}
    answer = await alice.get(f"/_matrix/client/v1/room_summary/{room_id}")
    assert answer["num_joined_members"] == 13


@pytest.mark.parametrize("by_state", [False, True])
async def test_members_of_another_room_may_join_a_restricted_one(
    server: Server, alice: Client, bob: Client, by_state: bool
) -> None:
    club = await alice.create_room(preset="public_chat")
    room_id = await restricted_room(alice, club)

    async def come_in(client: Client) -> None:
        if by_state:
            await client.set_state(room_id, "m.room.member", {"membership": "join"}, client.user_id)
        else:
            await client.join(room_id)

    with refused(403, "M_FORBIDDEN"):
        await come_in(bob)
    await bob.join(club)
    await come_in(bob)
    member = await membership(bob, room_id, bob.user_id)
    assert member["join_authorised_via_users_server"] == alice.user_id
    # "The user does not need to maintain the conditions in order to stay a member of the room."
    await bob.leave(club)
    await bob.send(room_id, "still here")
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    assert "join_authorised_via_users_server" not in await membership(bob, room_id, bob.user_id)
    # An invite opens the room to others.
    carol = await server.register("carol")
    await alice.invite(room_id, carol.user_id)
    await come_in(carol)
    assert "join_authorised_via_users_server" not in await membership(carol, room_id, carol.user_id)


@pytest.mark.parametrize(
    "allow",
    [
        None,
        1,
        {},
        [1],
        [{}],
        [{"type": "m.room_membership"}],
        [{"type": "m.room_membership", "room_id": [1]}],
    ],
)
async def test_conditions_of_wrong_form_let_nobody_in(alice: Client, bob: Client, allow: Any) -> None:
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    room_id = await alice.create_room(initial_state=[rules])
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)
    with refused(404, "M_NOT_FOUND"):
        await bob.get(f"/_matrix/client/v1/room_summary/{room_id}")


async def test_nobody_writes_their_own_authorisation(alice: Client, bob: Client) -> None:
    room_id = await restricted_room(alice, "!elsewhere:example.org")
    content = {"membership": "join", "join_authorised_via_users_server": alice.user_id}
    with refused(403, "M_FORBIDDEN"):
        await bob.set_state(room_id, "m.room.member", content, bob.user_id)


async def test_somebody_who_may_invite_must_be_there_to_let_others_in(
    server: Server, alice: Client, bob: Client
) -> None:
    club = await alice.create_room(preset="public_chat")
    carol = await server.register("carol")
    for client in (bob, carol):
        await client.join(club)
    room_id = await restricted_room(
        alice, club, power_level_content_override={"invite": 50}, room_version="11"
    )
    await bob.join(room_id)
    await alice.leave(room_id)
    with refused(403, "M_UNABLE_TO_GRANT_JOIN"):
        await carol.join(room_id)


async def test_a_banned_member_of_the_other_room_stays_out(alice: Client, bob: Client) -> None:
    club = await alice.create_room(preset="public_chat")
    await bob.join(club)
    room_id = await restricted_room(alice, club)
    await alice.ban(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)


@pytest.mark.parametrize(("version", "works"), [("7", False), ("8", True)])
async def test_restricted_rooms_come_with_version_8(
    alice: Client, bob: Client, version: str, works: bool
) -> None:
    club = await alice.create_room(preset="public_chat")
    await bob.join(club)
    room_id = await restricted_room(alice, club, room_version=version)
    if works:
        await bob.join(room_id)
    else:
        with refused(403, "M_FORBIDDEN"):
            await bob.join(room_id)


async def test_a_knock_restricted_room_takes_both(server: Server, alice: Client, bob: Client) -> None:
    club = await alice.create_room(preset="public_chat")
    await bob.join(club)
    room_id = await restricted_room(alice, club, "knock_restricted")
    await bob.join(room_id)
    carol = await server.register("carol")
    with refused(403, "M_FORBIDDEN"):
        await carol.join(room_id)
    assert await carol.post(f"/knock/{room_id}") == {"room_id": room_id}
    assert (await membership(alice, room_id, carol.user_id))["membership"] == "knock"


# -- knock ---------------------------------------------------------------------------------------------


async def knock_room(client: Client, **options: Any) -> str:
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    return await client.create_room(initial_state=[rules], **options)


async def test_a_knock_is_accepted_by_an_invite(alice: Client, bob: Client) -> None:
    room_id = await knock_room(alice, room_alias_name="door")
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)
    assert await bob.post("/knock/%23door:example.org", {"reason": "please"}) == {"room_id": room_id}
    member = await membership(alice, room_id, bob.user_id)
    assert (member["membership"], member["reason"]) == ("knock", "please")
    await alice.invite(room_id, bob.user_id)
    await bob.join(room_id)


async def test_a_knock_is_taken_back_or_turned_down(alice: Client, bob: Client) -> None:
    room_id = await knock_room(alice)
    await bob.post(f"/knock/{room_id}")
    await bob.leave(room_id)
    assert (await membership(alice, room_id, bob.user_id))["membership"] == "leave"
    await bob.post(f"/knock/{room_id}")
    await alice.kick(room_id, bob.user_id)
    assert (await membership(alice, room_id, bob.user_id))["membership"] == "leave"


async def test_who_is_in_invited_or_banned_does_not_knock(alice: Client, bob: Client) -> None:
    room_id = await knock_room(alice)
    with refused(403, "M_FORBIDDEN"):
        await alice.post(f"/knock/{room_id}")
    await alice.invite(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/knock/{room_id}")
    await alice.ban(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/knock/{room_id}")


@pytest.mark.parametrize("preset", ["public_chat", "private_chat"])
async def test_other_rooms_take_no_knocks(alice: Client, bob: Client, preset: str) -> None:
    room_id = await alice.create_room(preset=preset)
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/knock/{room_id}")


async def test_knocking_comes_with_version_7(alice: Client, bob: Client) -> None:
    room_id = await knock_room(alice, room_version="6")
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/knock/{room_id}")


# -- invite --------------------------------------------------------------------------------------------


async def test_an_invite_may_give_a_reason_and_is_sent_once(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": bob.user_id, "reason": "tea"})
    await alice.post(f"/rooms/{room_id}/invite", {"user_id": bob.user_id, "reason": "more tea"})
    assert (await membership(alice, room_id, bob.user_id))["reason"] == "tea"


async def test_who_may_not_be_invited(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await bob.invite(room_id, carol.user_id)
    await bob.join(room_id)
    with refused(403, "M_FORBIDDEN"):
        await alice.invite(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.invite(room_id, carol.user_id)  # a public room wants level 50
    await alice.ban(room_id, carol.user_id)
    with refused(403, "M_FORBIDDEN"):
        await alice.invite(room_id, carol.user_id)
    with refused(403, "M_FORBIDDEN"):
        await alice.invite("!unknown:example.org", bob.user_id)


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"user_id": 1}, 400, "M_BAD_JSON"),
        ({"user_id": "bob"}, 400, "M_INVALID_PARAM"),
        ({"user_id": "@nobody:example.org"}, 404, "M_NOT_FOUND"),
        ({"user_id": "@bob:example.com"}, 502, "M_UNKNOWN"),
        (
            {"id_server": "example.com", "medium": "email", "address": "bob@example.com"},
            400,
            "M_MISSING_PARAM",
        ),
    ],
)
async def test_invites_of_nobody(alice: Client, body: dict[str, Any], status: int, errcode: str) -> None:
    room_id = await alice.create_room()
    with refused(status, errcode):
        await alice.post(f"/rooms/{room_id}/invite", body)
    user_id = body.get("user_id")
    if isinstance(user_id, str) and ":" in user_id:
        with refused(status, errcode):
            await alice.set_state(room_id, "m.room.member", {"membership": "invite"}, user_id)


# -- leave, kick, ban, forget --------------------------------------------------------------------------


async def test_leaving_says_why_and_may_be_repeated(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    await bob.post(f"/rooms/{room_id}/leave", {"reason": "tired"})
    await bob.post(f"/rooms/{room_id}/leave", {"reason": "still tired"})
    assert await membership(alice, room_id, bob.user_id) == {"membership": "leave", "reason": "tired"}
    assert await bob.get("/joined_rooms") == {"joined_rooms": []}
    with refused(403, "M_FORBIDDEN"):
        await bob.send(room_id, "hello?")


async def test_an_invite_is_rejected_by_leaving(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    await bob.leave(room_id)
    assert (await membership(alice, room_id, bob.user_id))["membership"] == "leave"
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)


async def test_nobody_leaves_where_they_never_were(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await bob.leave(room_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.leave("!unknown:example.org")
    await alice.ban(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.leave(room_id)


async def test_kicking_and_banning_need_level_and_rank(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(
        preset="public_chat",
        power_level_content_override={"users": {alice.user_id: 100, bob.user_id: 50}},
        room_version="11",
    )
    for client in (bob, carol):
        await client.join(room_id)
    body = {"user_id": carol.user_id, "reason": "noise"}
    for deed in ("kick", "ban"):
        for client, target in ((carol, bob), (bob, alice)):
            with refused(403, "M_FORBIDDEN"):
                await client.post(f"/rooms/{room_id}/{deed}", {"user_id": target.user_id})
    await bob.post(f"/rooms/{room_id}/kick", body)
    assert await membership(alice, room_id, carol.user_id) == {"membership": "leave", "reason": "noise"}
    with refused(403, "M_FORBIDDEN"):
        await bob.kick(room_id, carol.user_id)  # not in the room any more
    await carol.join(room_id)
    await bob.post(f"/rooms/{room_id}/ban", body)
    member = await membership(alice, room_id, carol.user_id)
    assert (member["membership"], member["reason"]) == ("ban", "noise")
    with refused(403, "M_FORBIDDEN"):
        await carol.join(room_id)
    with refused(403, "M_FORBIDDEN"):
        await alice.kick(room_id, carol.user_id)
    await bob.post(f"/rooms/{room_id}/unban", {"user_id": carol.user_id})
    with refused(403, "M_BAD_STATE"):
        await bob.post(f"/rooms/{room_id}/unban", {"user_id": carol.user_id})
    await carol.join(room_id)


async def test_an_invite_is_taken_back_by_a_kick(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    await alice.kick(room_id, bob.user_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)


async def test_somebody_who_was_never_there_can_be_banned(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.ban(room_id, bob.user_id)
    await alice.ban(room_id, "@spam:example.com")
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id)


@pytest.mark.parametrize("deed", ["kick", "ban", "unban"])
async def test_strangers_and_nonsense_are_refused(alice: Client, bob: Client, deed: str) -> None:
    room_id = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/rooms/{room_id}/{deed}", {"user_id": alice.user_id})
    with refused(403, "M_FORBIDDEN"):
        await alice.post(f"/rooms/!unknown:example.org/{deed}", {"user_id": bob.user_id})
    with refused(400, "M_INVALID_PARAM"):
        await alice.post(f"/rooms/{room_id}/{deed}", {"user_id": "bob"})
    with refused(400, "M_MISSING_PARAM"):
        await alice.post(f"/rooms/{room_id}/{deed}", {})
    with refused(400, "M_BAD_JSON"):
        await alice.post(f"/rooms/{room_id}/{deed}", {"user_id": bob.user_id, "reason": 1})


async def test_membership_can_be_set_as_state(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    path = f"/rooms/{room_id}/state/m.room.member/{bob.user_id}"
    for client, content in (
        (alice, {"membership": "invite"}),
        (bob, {"membership": "join", "displayname": "Bobby"}),
        (alice, {"membership": "ban"}),
        (alice, {"membership": "leave"}),
    ):
        await client.put(path, content)
        assert await membership(alice, room_id, bob.user_id) == content
    for content in ({}, {"membership": 1}):
        with refused(400, "M_BAD_JSON"):
            await alice.put(path, content)
    with refused(400, "M_BAD_JSON"):
        await alice.set_state(room_id, "m.room.member", {"membership": "invite"}, "bob")
    for content in ({"membership": "join"}, {"membership": "away"}):
        with refused(403, "M_FORBIDDEN"):
            await alice.put(path, content)


async def test_a_forgotten_room_is_gone_until_one_comes_back(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    with refused(400, "M_UNKNOWN"):
        await bob.post(f"/rooms/{room_id}/forget")
    await bob.leave(room_id)
    assert (await bob.messages(room_id))["chunk"]
    await bob.post(f"/rooms/{room_id}/forget")
    await bob.post(f"/rooms/{room_id}/forget")
    with refused(403, "M_FORBIDDEN"):
        await bob.messages(room_id)
    left = {"room": {"include_leave": True}}
    assert "rooms" not in await bob.sync(filter=left)
    await bob.join(room_id)
    assert (await bob.messages(room_id))["chunk"]


async def test_a_ban_and_its_end_do_not_bring_a_forgotten_room_back(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    await bob.leave(room_id)
    await bob.post(f"/rooms/{room_id}/forget")
    await alice.ban(room_id, bob.user_id)
    await alice.post(f"/rooms/{room_id}/unban", {"user_id": bob.user_id})
    left = {"room": {"include_leave": True}}
    assert "rooms" not in await bob.sync(filter=left)
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    assert "rooms" not in await bob.sync(filter=left)
    await alice.invite(room_id, bob.user_id)
    assert room_id in (await bob.sync())["rooms"]["invite"]


async def test_a_room_that_one_was_never_in_cannot_be_forgotten(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    with refused(404, "M_NOT_FOUND"):
        await bob.post(f"/rooms/{room_id}/forget")
    await alice.invite(room_id, bob.user_id)
    with refused(400, "M_UNKNOWN"):
        await bob.post(f"/rooms/{room_id}/forget")


async def test_a_member_who_is_kicked_while_sending_sends_before_or_not_at_all(
    alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)

    sent: list[str] = []

    async def chatter() -> None:
        with refused(403, "M_FORBIDDEN"):
            while True:
                sent.append(await bob.send(room_id, f"{len(sent)}"))

    async def kick() -> None:
        await alice.send(room_id, "wait")
        await alice.kick(room_id, bob.user_id)

    await asyncio.gather(chatter(), kick())
    events = (await alice.messages(room_id))["chunk"][::-1]
    ids = [event["event_id"] for event in events if event["sender"] == bob.user_id]
    assert ids[1:] == sent
    kicked = next(i for i, event in enumerate(events) if event["content"].get("membership") == "leave")
    assert all(event["sender"] != bob.user_id for event in events[kicked:])
