"""`POST /createRoom`: what a new room looks like (CS "Creation")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

VERSIONS = [str(number) for number in range(1, 13)]


async def events_of(client: Client, room_id: str) -> list[dict[str, Any]]:
    """The events of a room from the first on."""
    return (await client.messages(room_id, dir="f"))["chunk"]


async def state_of(client: Client, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    events = await client.get(f"/rooms/{room_id}/state")
    return {(event["type"], event["state_key"]): event["content"] for event in events}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_of_every_version_can_be_used(alice: Client, bob: Client, version: str) -> None:
    room_id = await alice.create_room(room_version=version, preset="public_chat", name="Tea")
    create = await alice.get_state(room_id, "m.room.create")
    assert create.get("room_version", "1") == version
    assert ("creator" in create) == (int(version) < 11)
    assert (":" in room_id) == (int(version) < 12)
    await bob.join(room_id)
    event_id = await bob.send(room_id, "hello")
    await alice.redact(room_id, event_id)
    redacted = await bob.event(room_id, event_id)
    assert redacted["content"] == {}
    assert redacted["unsigned"]["redacted_because"]["redacts"] == event_id
    await alice.kick(room_id, bob.user_id)
    levels = await alice.get_state(room_id, "m.room.power_levels")
    assert levels["users"] == ({} if version == "12" else {alice.user_id: 100})


async def test_the_default_version_is_12(alice: Client) -> None:
    room_id = await alice.create_room()
    assert (await alice.get_state(room_id, "m.room.create"))["room_version"] == "12"


async def test_the_first_events_come_in_the_order_of_the_specification(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(
        preset="public_chat",
        room_alias_name="tea",
        name="Tea",
        topic="Leaves",
        initial_state=[
            {"type": "org.example.b", "state_key": "x", "content": {}},
            {"type": "org.example.a", "content": {"a": 1}},
            {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
        ],
        invite=[bob.user_id],
    )
    assert [event["type"] for event in await events_of(alice, room_id)] == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "org.example.b",
        "org.example.a",
        "m.room.guest_access",
        "m.room.name",
        "m.room.topic",
        "m.room.member",
    ]
    state = await state_of(alice, room_id)
    assert state["m.room.guest_access", ""] == {"guest_access": "can_join"}
    assert state["m.room.canonical_alias", ""] == {"alias": "#tea:example.org"}
    assert state["org.example.b", "x"] == {}


@pytest.mark.parametrize(
    ("preset", "join_rule", "guest_access"),
    [
        ("private_chat", "invite", "can_join"),
        ("trusted_private_chat", "invite", "can_join"),
        ("public_chat", "public", "forbidden"),
    ],
)
async def test_presets(alice: Client, preset: str, join_rule: str, guest_access: str) -> None:
    state = await state_of(alice, await alice.create_room(preset=preset))
    assert state["m.room.join_rules", ""] == {"join_rule": join_rule}
    assert state["m.room.history_visibility", ""] == {"history_visibility": "shared"}
    assert state["m.room.guest_access", ""] == {"guest_access": guest_access}


@pytest.mark.parametrize(("visibility", "join_rule"), [("public", "public"), ("private", "invite")])
async def test_the_visibility_chooses_the_preset(alice: Client, visibility: str, join_rule: str) -> None:
    room_id = await alice.create_room(visibility=visibility)
    assert await alice.get_state(room_id, "m.room.join_rules") == {"join_rule": join_rule}
    assert await alice.get(f"/directory/list/room/{room_id}") == {"visibility": visibility}


async def test_a_preset_wins_over_the_visibility(alice: Client) -> None:
    room_id = await alice.create_room(visibility="public", preset="private_chat")
    assert await alice.get_state(room_id, "m.room.join_rules") == {"join_rule": "invite"}
    assert await alice.get(f"/directory/list/room/{room_id}") == {"visibility": "public"}


async def test_initial_state_wins_over_the_preset_and_loses_to_name_and_topic(alice: Client) -> None:
    room_id = await alice.create_room(
        preset="private_chat",
        name="Tea",
        topic="Leaves",
        initial_state=[
            {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}},
            {"type": "m.room.topic", "state_key": "", "content": {"topic": "Beans"}},
            {"type": "m.room.name", "state_key": "", "content": {"name": "Coffee"}},
            {"type": "org.example.last", "content": {}},
        ],
    )
    state = await state_of(alice, room_id)
    assert state["m.room.join_rules", ""] == {"join_rule": "knock"}
    assert state["m.room.name", ""] == {"name": "Tea"}
    topic = state["m.room.topic", ""]
    assert topic["topic"] == "Leaves"
    assert topic["m.topic"]["m.text"][0]["body"] == "Leaves"
    types = [event["type"] for event in await events_of(alice, room_id)]
    assert types[-2:] == ["m.room.name", "m.room.topic"]
    assert len(types) == len(set(types))


async def test_invites_are_marked_as_direct(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(is_direct=True, invite=[bob.user_id, bob.user_id, alice.user_id])
    member = await alice.get_state(room_id, "m.room.member", bob.user_id)
    assert member["membership"] == "invite"
    assert member["is_direct"] is True
    assert (await alice.get_state(room_id, "m.room.member", alice.user_id))["membership"] == "join"
    plain = await alice.create_room(invite=[bob.user_id])
    assert "is_direct" not in await alice.get_state(plain, "m.room.member", bob.user_id)


async def test_trusted_invitees_have_the_level_of_the_creator(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="trusted_private_chat", invite=[bob.user_id], room_version="11")
    levels = await alice.get_state(room_id, "m.room.power_levels")
    assert levels["users"] == {alice.user_id: 100, bob.user_id: 100}
    assert "additional_creators" not in await alice.get_state(room_id, "m.room.create")


async def test_trusted_invitees_are_creators_from_version_12_on(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(
        preset="trusted_private_chat",
        invite=[bob.user_id],
        room_version="12",
        creation_content={"additional_creators": ["@carol:example.com", bob.user_id]},
    )
    create = await alice.get_state(room_id, "m.room.create")
    assert create["additional_creators"] == ["@carol:example.com", bob.user_id]
    assert (await alice.get_state(room_id, "m.room.power_levels"))["users"] == {}
    await bob.join(room_id)
    await bob.set_state(room_id, "m.room.tombstone", {"body": "gone", "replacement_room": room_id})


async def test_creation_content_is_kept_but_for_what_the_server_sets(alice: Client) -> None:
    room_id = await alice.create_room(
        room_version="10",
        creation_content={
            "creator": "@mallory:example.com",
            "room_version": "9",
            "m.federate": False,
            "type": "m.space",
            "org.example.more": [1],
        },
    )
    assert await alice.get_state(room_id, "m.room.create") == {
        "creator": alice.user_id,
        "room_version": "10",
        "m.federate": False,
        "type": "m.space",
        "org.example.more": [1],
    }


@pytest.mark.parametrize("creators", ["@bob:example.org", ["bob"], [1], {"a": 1}])
async def test_additional_creators_are_user_ids(alice: Client, creators: Any) -> None:
    with refused(400, "M_BAD_JSON"):
        await alice.create_room(room_version="12", creation_content={"additional_creators": creators})


async def test_power_levels_are_overridden_key_by_key(alice: Client) -> None:
    room_id = await alice.create_room(
        power_level_content_override={"events_default": 10, "events": {"m.room.name": 0}, "org.example": {}},
        room_version="11",
    )
    levels = await alice.get_state(room_id, "m.room.power_levels")
    assert levels["events_default"] == 10
    assert levels["events"] == {"m.room.name": 0}
    assert levels["org.example"] == {}
    assert levels["users"] == {alice.user_id: 100}
    assert levels["state_default"] == 50


@pytest.mark.parametrize(
    ("override", "tombstone"),
    [
        ({}, 150),
        ({"events": {"m.room.name": 0}}, 150),
        ({"state_default": 200}, 201),
        ({"events": {"m.room.tombstone": 60}}, 60),
    ],
)
async def test_a_tombstone_needs_more_than_other_state_from_version_12_on(
    alice: Client, override: dict[str, Any], tombstone: int
) -> None:
    room_id = await alice.create_room(power_level_content_override=override, room_version="12")
    levels = await alice.get_state(room_id, "m.room.power_levels")
    assert levels["events"]["m.room.tombstone"] == tombstone


@pytest.mark.parametrize(
    "options",
    [
        {"room_version": "11", "power_level_content_override": {"users": {"@bob:example.org": 100}}},
        {"room_version": "12", "power_level_content_override": {"users": {"@alice:example.org": 100}}},
        {"power_level_content_override": {"users": {"bob": 1}}},
        {"power_level_content_override": {"ban": "50"}},
        {"initial_state": [{"type": "org.example", "state_key": "@bob:example.org", "content": {}}]},
    ],
)
async def test_a_room_that_its_own_rules_forbid_is_not_made(alice: Client, options: dict[str, Any]) -> None:
    with refused(400, "M_INVALID_ROOM_STATE"):
        await alice.create_room(name="Tea", room_alias_name="tea", **options)
    assert await alice.get("/joined_rooms") == {"joined_rooms": []}
    with refused(404, "M_NOT_FOUND"):
        await alice.get("/directory/room/%23tea:example.org")


async def test_an_alias_is_made_with_the_room(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(room_alias_name="tea", preset="public_chat")
    assert await bob.join("#tea:example.org") == room_id
    with refused(400, "M_ROOM_IN_USE"):
        await bob.create_room(room_alias_name="tea")


async def test_one_of_several_rooms_made_at_once_gets_the_alias(alice: Client, bob: Client) -> None:
    answers = await asyncio.gather(
        *(client.create_room(room_alias_name="tea") for client in (alice, bob, alice, bob)),
        return_exceptions=True,
    )
    (made,) = (answer for answer in answers if isinstance(answer, str))
    assert (await alice.get("/directory/room/%23tea:example.org"))["room_id"] == made
    rooms = [
        *(await alice.get("/joined_rooms"))["joined_rooms"],
        *(await bob.get("/joined_rooms"))["joined_rooms"],
    ]
    assert rooms == [made]


@pytest.mark.parametrize(
    ("options", "status", "errcode"),
    [
        ({"room_version": "13"}, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"room_version": 12}, 400, "M_BAD_JSON"),
        ({"preset": "loud_chat"}, 400, "M_BAD_JSON"),
        ({"visibility": "secret"}, 400, "M_BAD_JSON"),
        ({"room_alias_name": "a:b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": ""}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "a" * 250}, 400, "M_INVALID_PARAM"),
        ({"invite": "@bob:example.org"}, 400, "M_BAD_JSON"),
        ({"invite": ["bob"]}, 400, "M_INVALID_PARAM"),
        ({"invite": ["@nobody:example.org"]}, 404, "M_NOT_FOUND"),
        ({"invite_3pid": [{"medium": "email", "address": "b@example.org"}]}, 400, "M_MISSING_PARAM"),
        ({"initial_state": [{"type": "m.room.name"}]}, 400, "M_MISSING_PARAM"),
        ({"initial_state": [{"content": {}}]}, 400, "M_MISSING_PARAM"),
        ({"initial_state": [{"type": "m.room.create", "content": {}}]}, 400, "M_INVALID_PARAM"),
        ({"initial_state": [{"type": "a", "content": {"a": 1.5}}]}, 400, "M_BAD_JSON"),
        ({"initial_state": [{"type": "a", "content": {"a": "b" * 66_000}}]}, 413, "M_TOO_LARGE"),
        ({"initial_state": [{"type": "a", "state_key": "k" * 256, "content": {}}]}, 413, "M_TOO_LARGE"),
        ({"creation_content": []}, 400, "M_BAD_JSON"),
        ({"name": 1}, 400, "M_BAD_JSON"),
    ],
)
async def test_refused_options(alice: Client, options: dict[str, Any], status: int, errcode: str) -> None:
    with refused(status, errcode):
        await alice.create_room(**options)
    assert await alice.get("/joined_rooms") == {"joined_rooms": []}


async def test_an_account_is_needed(server: Server) -> None:
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().create_room()


async def test_the_room_is_there_after_a_restart(server: Server, alice: Client) -> None:
    room_id = await alice.create_room(name="Tea", room_alias_name="tea", visibility="public")
    before = await alice.get(f"/rooms/{room_id}/state")
    await server.restart()
    alice = server.reconnect(alice)
    after = await alice.get(f"/rooms/{room_id}/state")
    for event in [*before, *after]:
        del event["unsigned"]["age"]
    assert sorted(after, key=lambda event: event["event_id"]) == sorted(
        before, key=lambda event: event["event_id"]
    )
    assert (await alice.get("/directory/room/%23tea:example.org"))["room_id"] == room_id
    assert (await alice.get("/publicRooms"))["total_room_count_estimate"] == 1
