"""`POST /rooms/{roomId}/upgrade` (CS "Room Upgrades")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server


async def upgrade(client: Client, room_id: str, version: str, **body: Any) -> str:
    answer = await client.post(f"/rooms/{room_id}/upgrade", {"new_version": version, **body})
    return answer["replacement_room"]


async def state_of(client: Client, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    events = await client.get(f"/rooms/{room_id}/state")
    return {(event["type"], event["state_key"]): event["content"] for event in events}


@pytest.mark.parametrize("new", [str(number) for number in range(1, 13)])
@pytest.mark.parametrize("old", ["1", "12"])
async def test_any_version_goes_over_into_any_other(alice: Client, bob: Client, old: str, new: str) -> None:
    room_id = await alice.create_room(room_version=old, preset="public_chat", name="Tea")
    await bob.join(room_id)
    replacement = await upgrade(alice, room_id, new)
    state = await state_of(alice, replacement)
    assert state["m.room.create", ""].get("room_version", "1") == new
    assert state["m.room.create", ""]["predecessor"]["room_id"] == room_id
    assert state["m.room.name", ""] == {"name": "Tea"}
    await bob.join(replacement)
    with refused(403, "M_FORBIDDEN"):
        await bob.set_state(replacement, "m.room.name", {"name": "Coffee"})
    await alice.set_state(replacement, "m.room.name", {"name": "Coffee"})
    await alice.set_state(replacement, "m.room.tombstone", {"body": "b", "replacement_room": room_id})
    await alice.kick(replacement, bob.user_id)


async def test_the_new_room_takes_over_what_the_old_one_was(alice: Client, bob: Client) -> None:
    carried = [
        ("m.room.server_acl", {"allow": ["*"], "deny": ["example.com"]}),
        ("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
        ("m.room.avatar", {"url": "mxc://example.org/tea"}),
        ("m.room.guest_access", {"guest_access": "can_join"}),
        ("m.room.history_visibility", {"history_visibility": "invited"}),
        ("m.room.join_rules", {"join_rule": "knock"}),
    ]
    others = [("org.example.other", {"a": 1}), ("m.room.pinned_events", {"pinned": []})]
    room_id = await alice.create_room(
        name="Tea",
        topic="Leaves",
        visibility="public",
        room_alias_name="tea",
        room_version="11",
        creation_content={"type": "org.example.type", "m.federate": False, "org.example.more": 1},
        power_level_content_override={"users": {alice.user_id: 100, bob.user_id: 50}, "invite": 20},
        initial_state=[{"type": name, "content": content} for name, content in (*carried, *others)],
        invite=[bob.user_id],
    )
    await alice.put("/directory/room/%23leaves:example.org", {"room_id": room_id})
    replacement = await upgrade(alice, room_id, "12")
    state = await state_of(alice, replacement)
    for name, content in carried:
        assert state[name, ""] == content
    for name, _ in others:
        assert (name, "") not in state
    assert state["m.room.create", ""] == {
        "room_version": "12",
        "type": "org.example.type",
        "m.federate": False,
        "predecessor": {"room_id": room_id},
    }
    assert state["m.room.name", ""] == {"name": "Tea"}
    assert state["m.room.topic", ""]["topic"] == "Leaves"
    assert state["m.room.canonical_alias", ""] == {"alias": "#tea:example.org"}
    assert ("m.room.member", bob.user_id) not in state
    levels = state["m.room.power_levels", ""]
    assert levels["users"] == {bob.user_id: 50}
    assert levels["invite"] == 20
    assert levels["events"]["m.room.tombstone"] == 150
    # The aliases and the place in the list go over.
    for alias in ("tea", "leaves"):
        assert (await alice.get(f"/directory/room/%23{alias}:example.org"))["room_id"] == replacement
    assert (await alice.get(f"/rooms/{room_id}/aliases"))["aliases"] == []
    assert [room["room_id"] for room in (await alice.get("/publicRooms"))["chunk"]] == [replacement]


async def test_the_old_room_says_where_to_go_and_is_quiet(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", room_alias_name="tea")
    await bob.join(room_id)
    replacement = await upgrade(alice, room_id, "12")
    state = await state_of(bob, room_id)
    assert state["m.room.tombstone", ""]["replacement_room"] == replacement
    assert state["m.room.tombstone", ""]["body"]
    assert state["m.room.canonical_alias", ""] == {}
    levels = state["m.room.power_levels", ""]
    assert (levels["events_default"], levels["invite"]) == (50, 50)
    with refused(403, "M_FORBIDDEN"):
        await bob.send(room_id, "hello?")


@pytest.mark.parametrize(("users_default", "restricted"), [(0, 50), (60, 61)])
async def test_the_old_room_is_muted_above_the_default_level(
    alice: Client, users_default: int, restricted: int
) -> None:
    override = {"users_default": users_default}
    room_id = await alice.create_room(room_version="11", power_level_content_override=override)
    await upgrade(alice, room_id, "11")
    levels = await alice.get_state(room_id, "m.room.power_levels")
    assert (levels["events_default"], levels["invite"]) == (restricted, restricted)


async def test_before_version_12_the_predecessor_names_an_event(alice: Client) -> None:
    room_id = await alice.create_room(room_version="9")
    create = (await alice.get_state(room_id, "m.room.create", format="event"))["event_id"]
    replacement = await upgrade(alice, room_id, "10")
    predecessor = (await alice.get_state(replacement, "m.room.create"))["predecessor"]
    assert predecessor == {"room_id": room_id, "event_id": create}


async def test_additional_creators_are_named_anew(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], room_version="12")
    plain = await upgrade(alice, room_id, "12")
    assert "additional_creators" not in await alice.get_state(plain, "m.room.create")
    named = await upgrade(alice, plain, "12", additional_creators=[bob.user_id, bob.user_id])
    assert (await alice.get_state(named, "m.room.create"))["additional_creators"] == [bob.user_id]
    assert (await alice.get_state(named, "m.room.power_levels"))["users"] == {}
    older = await upgrade(alice, named, "11", additional_creators=["nonsense"])
    assert "additional_creators" not in await alice.get_state(older, "m.room.create")
    # Those who were creators stand where nobody stands above them.
    levels = await alice.get_state(older, "m.room.power_levels")
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 100}
    with refused(400, "M_BAD_JSON"):
        await upgrade(alice, older, "12", additional_creators=["nonsense"])


async def test_a_moderator_who_may_upgrade_has_the_same_level_afterwards(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(
        preset="public_chat",
        name="Tea",
        room_version="11",
        power_level_content_override={
            "users": {alice.user_id: 100, bob.user_id: 50},
            "events": {"m.room.tombstone": 50, "m.room.name": 90, "m.room.history_visibility": 100},
        },
    )
    await bob.join(room_id)
    replacement = await upgrade(bob, room_id, "11")
    levels = await bob.get_state(replacement, "m.room.power_levels")
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 50}
    assert await bob.get_state(replacement, "m.room.name") == {"name": "Tea"}
    with refused(403, "M_FORBIDDEN"):
        await bob.set_state(replacement, "m.room.name", {"name": "Coffee"})


async def test_levels_that_were_text_become_numbers(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(
        room_version="9",
        power_level_content_override={
            "users": {alice.user_id: "100", bob.user_id: " 50 "},
            "ban": "60",
            "events": {"m.room.name": "70"},
            "kick": "many",
        },
    )
    levels = await alice.get_state(await upgrade(alice, room_id, "10"), "m.room.power_levels")
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 50}
    assert (levels["ban"], levels["events"]) == (60, {"m.room.name": 70})
    assert "kick" not in levels


@pytest.mark.parametrize(
    ("rule", "version", "expected"),
    [
        ("restricted", "7", "invite"),
        ("restricted", "8", "restricted"),
        ("knock", "6", "invite"),
        ("knock_restricted", "9", "restricted"),
        ("knock_restricted", "7", "knock"),
        ("knock_restricted", "1", "invite"),
        ("public", "1", "public"),
    ],
)
async def test_join_rules_become_those_that_the_version_knows(
    alice: Client, rule: str, version: str, expected: str
) -> None:
    allow = [{"type": "m.room_membership", "room_id": "!club:example.org"}]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": allow}}
    room_id = await alice.create_room(initial_state=[rules])
    replacement = await upgrade(alice, room_id, version)
    assert (await alice.get_state(replacement, "m.room.join_rules"))["join_rule"] == expected


async def test_a_space_keeps_its_children(alice: Client) -> None:
    space = await alice.create_room(creation_content={"type": "m.space"})
    await alice.set_state(space, "m.space.child", {"via": ["example.org"]}, "!kept:example.org")
    await alice.set_state(space, "m.space.child", {"via": ["example.org"]}, "!dropped:example.org")
    await alice.set_state(space, "m.space.child", {}, "!dropped:example.org")
    state = await state_of(alice, await upgrade(alice, space, "12"))
    children = {key: content for (name, key), content in state.items() if name == "m.space.child"}
    assert children == {"!kept:example.org": {"via": ["example.org"]}}


async def test_who_may_not_upgrade(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    for room in (room_id, "!unknown:example.org"):
        with refused(403, "M_FORBIDDEN"):
            await upgrade(bob, room, "12")
    await bob.join(room_id)
    with refused(403, "M_FORBIDDEN"):
        await upgrade(bob, room_id, "12")
    assert (await bob.get("/joined_rooms"))["joined_rooms"] == [room_id]
    with refused(400, "M_UNSUPPORTED_ROOM_VERSION"):
        await upgrade(alice, room_id, "13")
    with refused(400, "M_MISSING_PARAM"):
        await alice.post(f"/rooms/{room_id}/upgrade", {})
    with refused(400, "M_BAD_JSON"):
        await alice.post(f"/rooms/{room_id}/upgrade", {"new_version": 12})
    assert ("m.room.tombstone", "") not in await state_of(alice, room_id)


async def test_settings_of_users_come_along(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    for client in (alice, bob):
        await client.put(f"/user/{client.user_id}/rooms/{room_id}/tags/m.favourite", {"order": 0.5})
        direct = {bob.user_id: ["!other:example.org"], alice.user_id: [room_id]}
        await client.put(f"/user/{client.user_id}/account_data/m.direct", direct)
    replacement = await upgrade(alice, room_id, "12")
    await bob.join(replacement)
    for client in (alice, bob):
        tags = await client.get(f"/user/{client.user_id}/rooms/{replacement}/tags")
        assert tags == {"tags": {"m.favourite": {"order": 0.5}}}
        direct = await client.get(f"/user/{client.user_id}/account_data/m.direct")
        assert direct == {bob.user_id: ["!other:example.org"], alice.user_id: [room_id, replacement]}


async def test_no_room_takes_the_place_of_another_by_saying_so(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room()
    await alice.put(f"/user/{alice.user_id}/rooms/{room_id}/tags/m.favourite", {})
    trap = await bob.create_room(preset="public_chat", creation_content={"predecessor": {"room_id": room_id}})
    await alice.join(trap)
    assert await alice.get(f"/user/{alice.user_id}/rooms/{trap}/tags") == {"tags": {}}
