"""What servers may ask without being in a room: aliases, profiles, public rooms, spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.client import refused
from tests.federation_api.remote import Network

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer
    from tests.federation_api.remote import Remote


async def test_an_alias_leads_to_its_room_and_the_servers_in_it(
    alice: Client, one: Remote, two: Remote, room: str
) -> None:
    await alice.put("/directory/room/%23here:example.org", {"room_id": room})
    answer = await two.get("/query/directory", room_alias="#here:example.org")
    assert answer == {"room_id": room, "servers": ["example.org", "one.example"]}
    with refused(404, "M_NOT_FOUND"):
        await two.get("/query/directory", room_alias="#there:example.org")
    with refused(404, "M_NOT_FOUND"):
        await two.get("/query/directory", room_alias="#here:one.example")
    with refused(400, "M_INVALID_PARAM"):
        await two.get("/query/directory", room_alias="here")
    with refused(400, "M_MISSING_PARAM"):
        await two.get("/query/directory")


async def test_a_profile_is_told_whole_or_by_a_field(alice: Client, one: Remote) -> None:
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    await alice.put(f"/profile/{alice.user_id}/avatar_url", {"avatar_url": "mxc://example.org/a"})
    whole = await one.get("/query/profile", user_id=alice.user_id)
    assert whole == {"displayname": "Alice", "avatar_url": "mxc://example.org/a"}
    field = await one.get("/query/profile", user_id=alice.user_id, field="displayname")
    assert field == {"displayname": "Alice"}
    for query in (
        {"user_id": alice.user_id, "field": "m.tz"},
        {"user_id": "@nobody:example.org"},
        {"user_id": one.user("zoe")},
    ):
        with refused(404, "M_NOT_FOUND"):
            await one.get("/query/profile", **query)


async def test_there_are_no_other_queries(one: Remote) -> None:
    with refused(404, "M_UNRECOGNIZED"):
        await one.get("/query/weather")


async def test_public_rooms_are_listed_page_by_page_and_searched(alice: Client, one: Remote) -> None:
    rooms = [await alice.create_room(visibility="public", name=f"Room {number}") for number in range(3)]
    first = await one.get("/publicRooms", limit=2)
    second = await one.get("/publicRooms", limit=2, since=first["next_batch"])
    assert sorted(entry["room_id"] for entry in (*first["chunk"], *second["chunk"])) == sorted(rooms)
    whole = await one.get("/publicRooms")
    assert len(whole["chunk"]) == 3
    found = await one.post("/publicRooms", {"filter": {"generic_search_term": "room 1"}, "limit": 5})
    assert [entry["room_id"] for entry in found["chunk"]] == [rooms[1]]
    with refused(400, "M_INVALID_PARAM"):
        await one.post("/publicRooms", {"limit": -1})


async def test_an_operator_may_keep_the_list_from_other_servers(start_server: StartServer) -> None:
    server = await start_server(room_directory={"public_over_federation": False})
    one = Network(server).remote("one.example")
    with refused(403, "M_FORBIDDEN"):
        await one.get("/publicRooms")
    with refused(403, "M_FORBIDDEN"):
        await one.post("/publicRooms", {})


# -- spaces ------------------------------------------------------------------------------------------------


async def space(alice: Client, *children: str, **options: Any) -> str:
    """A space with children."""
    made = await alice.create_room(
        preset="public_chat", creation_content={"type": "m.space"}, name="Space", **options
    )
    for child in children:
        await alice.set_state(made, "m.space.child", {"via": ["example.org"]}, child)
    return made


async def test_a_space_is_told_with_the_rooms_that_the_server_could_come_into(
    alice: Client, one: Remote, two: Remote, room: str
) -> None:
    private = await alice.create_room(preset="private_chat")
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room}]}
    state = [{"type": "m.room.join_rules", "state_key": "", "content": rules}]
    restricted = await alice.create_room(preset="private_chat", initial_state=state)
    invited = await alice.create_room(preset="private_chat")
    await two.invited_by(alice, invited, two.user("yan"))
    elsewhere = "!elsewhere:two.example"
    top = await space(alice, room, private, restricted, invited, elsewhere)

    async def seen(remote: Remote) -> tuple[set[str], set[str]]:
        answer = await remote.get(f"/hierarchy/{top}")
        assert answer["room"]["room_id"] == top
        children = {child["state_key"] for child in answer["room"]["children_state"]}
        assert children == {room, private, restricted, invited, elsewhere}
        return {child["room_id"] for child in answer["children"]}, set(answer["inaccessible_children"])

    assert await seen(one) == ({room, restricted}, {private, invited})
    assert await seen(two) == ({room, invited}, {private, restricted})


async def test_suggested_rooms_only(alice: Client, one: Remote, room: str) -> None:
    other = await alice.create_room(preset="public_chat")
    top = await space(alice, room)
    await alice.set_state(top, "m.space.child", {"via": ["example.org"], "suggested": True}, other)
    answer = await one.get(f"/hierarchy/{top}", suggested_only="true")
    assert [child["room_id"] for child in answer["children"]] == [other]


async def test_a_room_that_is_no_space_has_no_children_and_a_private_one_is_not_told(
    alice: Client, one: Remote, two: Remote, room: str
) -> None:
    await alice.set_state(room, "m.space.child", {"via": ["example.org"]}, "!other:example.org")
    answer = await two.get(f"/hierarchy/{room}")
    assert (answer["room"]["children_state"], answer["children"]) == ([], [])
    private = await space(
        alice,
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "invite"}}],
    )
    for unknown in (private, "!unknown:example.org"):
        with refused(404, "M_NOT_FOUND"):
            await two.get(f"/hierarchy/{unknown}")
