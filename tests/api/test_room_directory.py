"""Aliases, the list of published rooms, summaries (CS "Room aliases", "Published room directory", "Room Summaries")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, found, refused
from tests.server import Server

if TYPE_CHECKING:
    from pathlib import Path

V1 = "/_matrix/client/v1"
TEA = "/directory/room/%23tea:example.org"


# -- aliases -------------------------------------------------------------------------------------------


async def test_an_alias_leads_to_its_room_until_it_is_deleted(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    await alice.put(TEA, {"room_id": room_id})
    assert await server.nobody().get(TEA) == {"room_id": room_id, "servers": ["example.org"]}
    assert await alice.get(f"/rooms/{room_id}/aliases") == {"aliases": ["#tea:example.org"]}
    await alice.delete(TEA)
    with refused(404, "M_NOT_FOUND"):
        await alice.get(TEA)
    with refused(404, "M_NOT_FOUND"):
        await alice.delete(TEA)
    assert await alice.get(f"/rooms/{room_id}/aliases") == {"aliases": []}


async def test_an_alias_is_given_once(alice: Client, bob: Client) -> None:
    rooms = [await client.create_room() for client in (alice, bob)]
    await alice.put(TEA, {"room_id": rooms[0]})
    for client, room_id in zip((alice, bob), rooms, strict=True):
        with refused(409, "M_UNKNOWN"):
            await client.put(TEA, {"room_id": room_id})
    answers = await asyncio.gather(
        *(
            client.put("/directory/room/%23once:example.org", {"room_id": room_id})
            for client, room_id in zip((alice, bob), rooms, strict=True)
        ),
        return_exceptions=True,
    )
    assert answers.count({}) == 1


@pytest.mark.parametrize(
    ("alias", "status", "errcode"),
    [
        ("tea", 400, "M_INVALID_PARAM"),
        ("#tea", 400, "M_INVALID_PARAM"),
        ("#:example.org", 400, "M_INVALID_PARAM"),
        ("!tea:example.org", 400, "M_INVALID_PARAM"),
        ("#tea:example.com", 400, "M_INVALID_PARAM"),
        ("#" + "a" * 250 + ":example.org", 400, "M_INVALID_PARAM"),
    ],
)
async def test_what_is_no_alias_of_this_server(alice: Client, alias: str, status: int, errcode: str) -> None:
    room_id = await alice.create_room()
    path = f"/directory/room/{quote(alias, safe='')}"
    with refused(status, errcode):
        await alice.put(path, {"room_id": room_id})
    with refused(status, errcode):
        await alice.delete(path)
    is_foreign = alias == "#tea:example.com"
    with refused(*((502, "M_UNKNOWN") if is_foreign else (status, errcode))):
        await alice.get(path)


async def test_who_may_make_and_delete_aliases(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await bob.put(TEA, {"room_id": room_id})
    with refused(404, "M_NOT_FOUND"):
        await bob.put(TEA, {"room_id": "!unknown:example.org"})
    with refused(400, "M_MISSING_PARAM"):
        await bob.put(TEA, {})
    for client in (bob, carol):
        await client.join(room_id)
    await bob.put(TEA, {"room_id": room_id})
    with refused(403, "M_FORBIDDEN"):
        await carol.delete(TEA)
    await bob.delete(TEA)
    await bob.put(TEA, {"room_id": room_id})
    await alice.delete(TEA)  # may change the canonical alias
    for method in ("put", "delete"):
        with refused(401, "M_MISSING_TOKEN"):
            await getattr(server.nobody(), method)(TEA, {"room_id": room_id})


async def test_aliases_are_listed_for_members_and_where_all_may_read(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", room_alias_name="tea")
    with refused(403, "M_FORBIDDEN"):
        await bob.get(f"/rooms/{room_id}/aliases")
    with refused(403, "M_FORBIDDEN"):
        await bob.get("/rooms/!unknown:example.org/aliases")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert await bob.get(f"/rooms/{room_id}/aliases") == {"aliases": ["#tea:example.org"]}


async def test_aliases_survive_a_restart(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    await alice.put(TEA, {"room_id": room_id})
    await server.restart()
    assert (await server.nobody().get(TEA))["room_id"] == room_id


# -- published rooms -----------------------------------------------------------------------------------


async def search(client: Client, **filter_: Any) -> list[str]:
    answer = await client.post("/publicRooms", {"filter": filter_})
    return [room.get("name") for room in answer["chunk"]]


async def test_a_room_is_published_and_taken_off(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    path = f"/directory/list/room/{room_id}"
    assert await server.nobody().get(path) == {"visibility": "private"}
    await alice.put(path, {"visibility": "public"})
    assert await server.nobody().get(path) == {"visibility": "public"}
    assert [room["room_id"] for room in (await bob.get("/publicRooms"))["chunk"]] == [room_id]
    await alice.put(path, {"visibility": "private"})
    assert (await bob.get("/publicRooms"))["chunk"] == []
    await alice.put(path, {})  # "Defaults to `public`."
    assert await alice.get(path) == {"visibility": "public"}
    await bob.join(room_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.put(path, {"visibility": "private"})
    with refused(400, "M_BAD_JSON"):
        await alice.put(path, {"visibility": "secret"})
    for call in (alice.get, lambda path: alice.put(path, {})):
        with refused(404, "M_NOT_FOUND"):
            await call("/directory/list/room/!unknown:example.org")


async def test_an_entry_of_the_list_tells_of_its_room(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(
        visibility="public",
        name="Tea",
        topic="Leaves",
        room_alias_name="tea",
        creation_content={"type": "m.space"},
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://example.org/tea"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}},
            {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
        ],
    )
    await bob.join(room_id)
    for answer in (await alice.get("/publicRooms"), await alice.post("/publicRooms")):
        assert answer["total_room_count_estimate"] == 1
        assert answer["chunk"] == [
            {
                "room_id": room_id,
                "num_joined_members": 2,
                "world_readable": True,
                "guest_can_join": True,
                "join_rule": "public",
                "name": "Tea",
                "topic": "Leaves",
                "avatar_url": "mxc://example.org/tea",
                "canonical_alias": "#tea:example.org",
                "room_type": "m.space",
            }
        ]


async def test_a_bare_room_has_a_bare_entry(alice: Client) -> None:
    topic = {
        "topic": "*old*",
        "m.topic": {"m.text": [{"mimetype": "text/html", "body": "<b>"}, {"body": "new"}]},
    }
    room_id = await alice.create_room(
        visibility="public",
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "https://example.org/tea"}},
            {"type": "m.room.name", "content": {"name": 5}},
            {"type": "m.room.topic", "content": topic},
        ],
    )
    (entry,) = (await alice.get("/publicRooms"))["chunk"]
    assert entry == {
        "room_id": room_id,
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "topic": "new",
    }


async def test_a_room_without_members_is_not_listed(alice: Client) -> None:
    room_id = await alice.create_room(visibility="public")
    await alice.leave(room_id)
    assert await alice.get("/publicRooms") == {"chunk": [], "total_room_count_estimate": 0}


async def test_the_list_is_paged_with_the_largest_rooms_first(
    server: Server, alice: Client, bob: Client
) -> None:
    rooms = [await alice.create_room(visibility="public", name=f"room {number}") for number in range(5)]
    await bob.join(rooms[3])
    everything = [room["room_id"] for room in (await alice.get("/publicRooms"))["chunk"]]
    assert everything[0] == rooms[3]
    assert sorted(everything) == sorted(rooms)
    for filter_ in ({}, {"generic_search_term": "ROOM"}):
        paged: list[str] = []
        page = await alice.post("/publicRooms", {"limit": 2, "filter": filter_})
        assert "prev_batch" not in page
        while True:
            paged += [room["room_id"] for room in page["chunk"]]
            if "next_batch" not in page:
                break
            page = await alice.post(
                "/publicRooms", {"limit": 2, "filter": filter_, "since": page["next_batch"]}
            )
        assert paged == everything
        back = await alice.post("/publicRooms", {"limit": 2, "filter": filter_, "since": page["prev_batch"]})
        assert [room["room_id"] for room in back["chunk"]] == everything[2:4]
    page = await alice.get("/publicRooms", limit=4)
    assert [room["room_id"] for room in page["chunk"]] == everything[:4]
    assert page["total_room_count_estimate"] == 5
    page = await alice.get("/publicRooms", since=page["next_batch"])
    assert [room["room_id"] for room in page["chunk"]] == everything[4:]


async def test_the_list_is_searched(server: Server, alice: Client, bob: Client) -> None:
    await alice.create_room(visibility="public", name="Tea", topic="Leaves of Größe", room_alias_name="cup")
    await alice.create_room(visibility="public", name="Coffee", creation_content={"type": "m.space"})
    await alice.create_room(visibility="public", name="Milk", creation_content={"type": "org.example"})
    await alice.create_room(name="Hidden tea")
    for _ in range(2):
        assert await search(bob, generic_search_term="tea") == ["Tea"]
        assert await search(bob, generic_search_term="LEAVES") == ["Tea"]
        assert await search(bob, generic_search_term="GRÖSSE") == ["Tea"]
        assert await search(bob, generic_search_term="#cup") == ["Tea"]
        assert await search(bob, generic_search_term="tea\nleaves") == ["Tea"]
        assert await search(bob, generic_search_term="nothing") == []
        assert await search(bob, room_types=["m.space"]) == ["Coffee"]
        assert await search(bob, room_types=[None]) == ["Tea"]
        assert sorted(await search(bob, room_types=[None, "m.space"])) == ["Coffee", "Tea"]
        assert await search(bob, room_types=[]) == []
        assert await search(bob, generic_search_term="tea", room_types=["m.space"]) == []
        assert sorted(await search(bob, generic_search_term="")) == ["Coffee", "Milk", "Tea"]
        await server.restart()
        alice, bob = server.reconnect(alice), server.reconnect(bob)


async def test_a_search_finds_what_is_so_now(alice: Client) -> None:
    room_id = await alice.create_room(visibility="public", name="Tea")
    assert await search(alice, generic_search_term="tea") == ["Tea"]
    await alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
    assert await search(alice, generic_search_term="tea") == []
    assert await search(alice, generic_search_term="coffee") == ["Coffee"]
    name = (await alice.get_state(room_id, "m.room.name", format="event"))["event_id"]
    await alice.redact(room_id, name)
    assert await search(alice, generic_search_term="coffee") == []


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"limit": 0}, "M_INVALID_PARAM"),
        ({"limit": "x"}, "M_BAD_JSON"),
        ({"since": "nonsense"}, "M_INVALID_PARAM"),
        ({"filter": {"generic_search_term": 1}}, "M_BAD_JSON"),
        ({"filter": {"room_types": "m.space"}}, "M_BAD_JSON"),
    ],
)
async def test_lists_that_cannot_be_asked_for(alice: Client, body: dict[str, Any], errcode: str) -> None:
    with refused(400, errcode):
        await alice.post("/publicRooms", body)


async def test_the_list_of_a_server_that_does_not_answer_cannot_be_had(alice: Client) -> None:
    with refused(502, "M_UNKNOWN"):
        await alice.get("/publicRooms", server="example.com")
    with refused(502, "M_UNKNOWN"):
        await alice.post("/publicRooms", {}, server="example.com")
    with refused(400, "M_INVALID_PARAM"):
        await alice.get("/publicRooms", server="not a name")
    assert (await alice.get("/publicRooms", server="example.org"))["chunk"] == []


async def test_the_list_is_for_users_unless_it_is_set_otherwise(
    server: Server, tmp_path: Path, alice: Client
) -> None:
    for call in (server.nobody().get, server.nobody().post):
        with refused(401, "M_MISSING_TOKEN"):
            await call("/publicRooms")
    open_server = Server(
        tmp_path / "open", f"sqlite:///{tmp_path}/open.db", room_directory={"public_without_login": True}
    )
    await open_server.start()
    assert (await open_server.nobody().get("/publicRooms"))["chunk"] == []
    await open_server.stop()


# -- summaries -----------------------------------------------------------------------------------------


async def test_a_summary_tells_of_a_room_and_of_ones_own_part_in_it(
    server: Server, alice: Client, bob: Client
) -> None:
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room_id = await alice.create_room(
        preset="public_chat", name="Tea", room_alias_name="tea", initial_state=[encryption]
    )
    expected = {
        "room_id": room_id,
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "name": "Tea",
        "canonical_alias": "#tea:example.org",
        "room_version": "12",
        "encryption": "m.megolm.v1.aes-sha2",
    }
    for room in (room_id, "%23tea:example.org"):
        path = f"{V1}/room_summary/{room}"
        assert await server.nobody().get(path) == expected
        assert await bob.get(path, via="example.com") == {**expected, "membership": "leave"}
        assert await alice.get(path) == {**expected, "membership": "join"}
    await alice.invite(room_id, bob.user_id)
    assert (await bob.get(f"{V1}/room_summary/{room_id}"))["membership"] == "invite"


async def test_who_may_have_a_summary(server: Server, alice: Client, bob: Client) -> None:
    carol, nobody = await server.register("carol"), server.nobody()
    club = await alice.create_room(preset="public_chat")
    await bob.join(club)
    allow = [{"type": "m.room_membership", "room_id": club}]

    async def told(rules: dict[str, Any], **state: Any) -> list[bool]:
        initial = [{"type": "m.room.join_rules", "content": rules}]
        initial += [{"type": f"m.room.{name}", "content": {name: value}} for name, value in state.items()]
        room_id = await alice.create_room(initial_state=initial)
        results = []
        for client in (alice, bob, carol, nobody):
            answer = await found(client.get(f"{V1}/room_summary/{room_id}"))
            assert answer is None or answer.get("allowed_room_ids", []) == (
                [club] if "allow" in rules else []
            )
            results.append(answer is not None)
        return results

    assert await told({"join_rule": "public"}) == [True, True, True, True]
    assert await told({"join_rule": "knock"}) == [True, True, True, True]
    assert await told({"join_rule": "knock_restricted", "allow": allow}) == [True, True, True, True]
    assert await told({"join_rule": "restricted", "allow": allow}) == [True, True, False, False]
    assert await told({"join_rule": "invite"}) == [True, False, False, False]
    assert await told({"join_rule": "invite"}, history_visibility="world_readable") == [True] * 4


async def test_rooms_that_are_not_there_have_no_summary(alice: Client) -> None:
    for room in ("!unknown:example.org", "#unknown:example.org"):
        with refused(404, "M_NOT_FOUND"):
            await alice.get(f"{V1}/room_summary/{quote(room, safe='')}", via="example.com")
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(f"{V1}/room_summary/nonsense")


async def test_a_banned_user_is_told_nothing_but_what_all_the_world_may_read(
    alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.ban(room_id, bob.user_id)
    with refused(404, "M_NOT_FOUND"):
        await bob.get(f"{V1}/room_summary/{room_id}")
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert (await bob.get(f"{V1}/room_summary/{room_id}"))["membership"] == "ban"
