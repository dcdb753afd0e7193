"""`GET /rooms/{roomId}/hierarchy`: the tree of a space (CS "Spaces")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

V1 = "/_matrix/client/v1"


async def space_of(client: Client, *children: str, **options: Any) -> str:
    options = {"preset": "public_chat", "creation_content": {"type": "m.space"}, **options}
    space = await client.create_room(**options)
    for number, child in enumerate(children):
        await add(client, space, child, order=f"{number:02}")
    return space


async def add(client: Client, space: str, child: str, **content: Any) -> None:
    await client.set_state(space, "m.space.child", {"via": ["example.org"], **content}, child)


async def tree(client: Client, space: str, **query: Any) -> list[dict[str, Any]]:
    """All pages of the tree."""
    rooms: list[dict[str, Any]] = []
    token = None
    while True:
        page = await client.get(
            f"{V1}/rooms/{space}/hierarchy", **query, **({"from": token} if token else {})
        )
        assert len(page["rooms"]) <= query.get("limit", 50)
        rooms += page["rooms"]
        token = page.get("next_batch")
        if token is None:
            return rooms


def ids(rooms: list[dict[str, Any]]) -> list[str]:
    return [room["room_id"] for room in rooms]


async def public(client: Client, **options: Any) -> str:
    return await client.create_room(preset="public_chat", **options)


async def test_the_tree_is_walked_depth_first_in_pages(alice: Client, bob: Client) -> None:
    leaves = [await public(alice, name=f"{number}") for number in range(5)]
    left = await space_of(alice, leaves[0], leaves[1])
    right = await space_of(alice, leaves[2])
    space = await space_of(alice, left, leaves[3], right, leaves[4])
    expected = [space, left, leaves[0], leaves[1], leaves[3], right, leaves[2], leaves[4]]
    for limit in (50, 1, 2, 3, 8):
        assert ids(await tree(bob, space, limit=limit)) == expected
    assert ids(await tree(bob, space, max_depth=0)) == [space]
    assert ids(await tree(bob, space, max_depth=1)) == [space, left, leaves[3], right, leaves[4]]
    assert ids(await tree(bob, space, max_depth=1, limit=2)) == [space, left, leaves[3], right, leaves[4]]
    assert ids(await tree(bob, space, max_depth=1000)) == expected


async def test_a_room_of_the_tree_tells_of_itself_and_of_its_children(alice: Client, bob: Client) -> None:
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room_id = await public(alice, name="Tea", topic="Leaves", initial_state=[encryption])
    await bob.join(room_id)
    space = await space_of(alice, room_id, name="Drinks")
    rooms = await tree(alice, space)
    common = {"world_readable": False, "guest_can_join": False, "join_rule": "public", "room_version": "12"}
    (child,) = rooms[0].pop("children_state")
    assert child["type"] == "m.space.child"
    assert child["state_key"] == room_id
    assert child["sender"] == alice.user_id
    assert child["content"] == {"via": ["example.org"], "order": "00"}
    assert child["origin_server_ts"] > 0
    assert rooms == [
        {"room_id": space, "num_joined_members": 1, "name": "Drinks", "room_type": "m.space", **common},
        {
            "room_id": room_id,
            "num_joined_members": 2,
            "name": "Tea",
            "topic": "Leaves",
            "encryption": "m.megolm.v1.aes-sha2",
            "children_state": [],
            **common,
        },
    ]


async def test_a_tree_that_bites_its_tail_ends(alice: Client) -> None:
    first = await space_of(alice)
    second = await space_of(alice, first)
    await add(alice, first, second)
    await add(alice, first, first)
    assert ids(await tree(alice, first)) == [first, second]


async def test_children_come_in_the_order_of_the_specification(server: Server, alice: Client) -> None:
    rooms = [await public(alice) for _ in range(5)]
    space = await space_of(alice)
    await add(alice, space, rooms[0])
    server.clock.offset_ms += 10
    await add(alice, space, rooms[1], order="x" * 51)  # not valid, so it counts as none
    server.clock.offset_ms += 10
    await add(alice, space, rooms[2], order="b")
    await add(alice, space, rooms[3], order="a")
    server.clock.offset_ms += 10
    await add(alice, space, rooms[4], order="b")
    assert ids(await tree(alice, space)) == [space, rooms[3], rooms[2], rooms[4], rooms[0], rooms[1]]


async def test_what_is_no_child_is_left_out(alice: Client) -> None:
    room_id = await public(alice)
    plain = await public(alice)
    await add(alice, plain, room_id)  # not a space
    space = await space_of(alice, plain)
    for content in ({}, {"via": "example.org"}, {"via": []}):
        await alice.set_state(space, "m.space.child", content, room_id)
    await add(alice, space, "!unknown:example.com")
    await add(alice, space, "nonsense")
    rooms = await tree(alice, space)
    assert ids(rooms) == [space, plain]
    assert rooms[1]["children_state"] == []
    # What this server does not know may be known to the client.
    assert [child["state_key"] for child in rooms[0]["children_state"]] == [plain, "!unknown:example.com"]


async def test_only_what_is_suggested(alice: Client) -> None:
    rooms = [await public(alice) for _ in range(2)]
    space = await space_of(alice)
    await add(alice, space, rooms[0], suggested=True)
    await add(alice, space, rooms[1], suggested=False)
    answer = await tree(alice, space, suggested_only=True)
    assert ids(answer) == [space, rooms[0]]
    assert [child["state_key"] for child in answer[0]["children_state"]] == [rooms[0]]
    assert set(ids(await tree(alice, space, suggested_only=False))) == {space, *rooms}


async def test_rooms_are_shown_to_those_who_may_know_of_them(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    club = await public(alice)
    await bob.join(club)
    allow = [{"type": "m.room_membership", "room_id": club}]

    def rules(**content: Any) -> dict[str, Any]:
        return {"initial_state": [{"type": "m.room.join_rules", "content": content}]}

    readable = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
    rooms = {
        "public": await public(alice),
        "invite": await alice.create_room(),
        "invited": await alice.create_room(invite=[carol.user_id]),
        "joined": await alice.create_room(invite=[bob.user_id]),
        "knock": await alice.create_room(**rules(join_rule="knock")),
        "knock in version 6": await alice.create_room(**rules(join_rule="knock"), room_version="6"),
        "restricted": await alice.create_room(**rules(join_rule="restricted", allow=allow)),
        "knock_restricted": await alice.create_room(**rules(join_rule="knock_restricted", allow=allow)),
        "readable": await alice.create_room(initial_state=[readable]),
        "banned": await public(alice),
        "subspace": await space_of(alice, preset="private_chat"),
    }
    await bob.join(rooms["joined"])
    await alice.ban(rooms["banned"], carol.user_id)
    hidden = await public(alice)
    await add(alice, rooms["subspace"], hidden)
    space = await space_of(alice, *rooms.values())

    async def seen(client: Client) -> set[str]:
        shown = set(ids(await tree(client, space)))
        assert space in shown
        return {name for name, room_id in {**rooms, "hidden": hidden}.items() if room_id in shown}

    for_all = {"public", "knock", "knock_restricted", "readable"}
    assert await seen(alice) == {*rooms, "hidden"}
    assert await seen(bob) == {*for_all, "joined", "restricted", "banned"}
    assert await seen(carol) == {*for_all, "invited"}


async def test_a_space_that_one_may_not_see_has_no_tree(server: Server, alice: Client, bob: Client) -> None:
    space = await space_of(alice, preset="private_chat")
    banned = await space_of(alice)
    await alice.ban(banned, bob.user_id)
    for room_id in (space, banned, "!unknown:example.org", "nonsense"):
        with refused(403, "M_FORBIDDEN"):
            await tree(bob, room_id)
    await alice.invite(space, bob.user_id)
    assert ids(await tree(bob, space)) == [space]
    with refused(401, "M_MISSING_TOKEN"):
        await tree(server.nobody(), space)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": "x"},
        {"max_depth": -1},
        {"max_depth": "x"},
        {"suggested_only": "x"},
        {"from": "nonsense"},
    ],
)
async def test_trees_that_cannot_be_asked_for(alice: Client, query: dict[str, Any]) -> None:
    space = await space_of(alice)
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(f"{V1}/rooms/{space}/hierarchy", **query)


async def test_one_goes_on_as_one_began(alice: Client) -> None:
    space = await space_of(alice, await public(alice), await public(alice))
    path = f"{V1}/rooms/{space}/hierarchy"
    token = (await alice.get(path, limit=1, max_depth=3))["next_batch"]
    assert (await alice.get(path, limit=2, max_depth=3, **{"from": token}))["rooms"]
    for query in ({"max_depth": 2}, {"max_depth": 3, "suggested_only": True}, {}):
        with refused(400, "M_INVALID_PARAM"):
            await alice.get(path, **{"from": token}, **query)
