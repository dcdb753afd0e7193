"""The authorisation rules but those of memberships and power levels, in every room version; the numbers are those of version 12."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.eventgraph.auth_rules import CREATE, auth_types_for, check_auth_events, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.eventgraph.rooms import (
    ALICE,
    BOB,
    CHARLIE,
    JOIN_RULES,
    POWER_LEVELS,
    Room,
    member,
    public_room,
    rule_of,
)

VERSIONS = list(ROOM_VERSIONS)


# -- 1. m.room.create ---------------------------------------------------------------------------------------


def create_with(version: str, *, prev: Any = None, **content: Any) -> str | None:
    """The rule that refuses a create event of a version."""
    pdu = dict(Room(version).create.pdu)
    pdu["content"] = {
        name: value for name, value in {**pdu["content"], **content}.items() if value != "absent"
    }
    if prev is not None:
        pdu["prev_events"] = prev
    try:
        check_auth_rules(Event.from_json(ROOM_VERSIONS[version], pdu), {})
    except AuthRuleViolated as error:
        return error.rule
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_1_1_a_create_event_has_no_previous_events(version):
    assert create_with(version) is None
    room = Room(version)
    reference = room.join(ALICE).pdu["prev_events"]
    assert create_with(version, prev=reference) == "1.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_1_2_the_room_id_is_of_the_senders_server_and_absent_from_version_12_on(version):
    pdu = {**Room(version).create.pdu, "room_id": "!room:two.example"}
    with pytest.raises(AuthRuleViolated) as refused:
        check_auth_rules(Event.from_json(ROOM_VERSIONS[version], pdu), {})
    assert refused.value.rule == "1.2"


@pytest.mark.parametrize("version", VERSIONS)
def test_1_3_the_room_version_is_a_known_one(version):
    assert create_with(version, room_version="absent") is None
    for unknown in ("13", "", 1, None, ["1"]):
        assert create_with(version, room_version=unknown) == "1.3"


@pytest.mark.parametrize("version", VERSIONS)
def test_1_4_a_creator_is_named_until_version_10(version):
    assert create_with(version, creator="absent") == ("1.4" if int(version) <= 10 else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_1_4_additional_creators_are_user_ids_from_version_12_on(version):
    for right in ([], [BOB, CHARLIE], ["@Historical Name:two.example"]):
        assert create_with(version, additional_creators=right) is None
    for wrong in (None, BOB, {}, [1], ["bob"], ["@bob:"], [f"@{'b' * 250}:two.example"]):
        assert create_with(version, additional_creators=wrong) == ("1.4" if version == "12" else None)


# -- 2. and 3. what is cited ---------------------------------------------------------------------------------


def citing(room: Room, *cited: Event) -> str | None:
    """The rule that refuses what a message of Alice cites."""
    event = room.send("m.room.message", ALICE, {}, auth=cited)
    return rule_of(room, event)


def auth_of(room: Room) -> list[Event]:
    return [room.events[event_id] for event_id in room.send("m.room.message", ALICE, {}).auth_event_ids]


@pytest.mark.parametrize("version", VERSIONS)
def test_3_1_no_two_auth_events_of_one_kind(version):
    room = public_room(version)
    right = auth_of(room)
    assert citing(room, *right) is None
    older = next(event for event in room.events.values() if event.key == member(ALICE))
    again = room.set_member(ALICE, ALICE, "join")
    assert citing(room, *[event for event in right if event.key != older.key], older, again) == "3.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_3_2_no_auth_events_that_do_not_belong_there(version):
    room = public_room(version, BOB)
    rules = room.events[room.state_after[room.newest().event_id][JOIN_RULES]]
    assert citing(room, *auth_of(room), rules) == "3.2"
    message = room.send("m.room.message", ALICE, {})
    assert citing(room, *auth_of(room), message) == "3.2"


@pytest.mark.parametrize("version", VERSIONS)
def test_3_3_no_rejected_auth_events(version):
    room = public_room(version, BOB)
    rejected = room.set_levels(BOB, {})
    assert rejected.rejected
    right = [event for event in auth_of(room) if event.key != POWER_LEVELS]
    assert citing(room, *right, rejected) == "3.3"


@pytest.mark.parametrize("version", VERSIONS)
def test_3_4_the_create_event_is_cited_until_version_11_and_not_from_12_on(version):
    room = public_room(version)
    right = [event for event in auth_of(room) if event.type != "m.room.create"]
    if version == "12":
        assert citing(room, *right) is None
        assert citing(room, room.create, *right) == "3.2"
    else:
        assert citing(room, *right) == "3.4"
        assert citing(room, room.create, *right) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_3_5_no_auth_events_of_another_room(version):
    other = Room(version, name="other")
    foreign = other.join(ALICE)
    room = public_room(version)
    event = room.send("m.room.message", ALICE, {})
    cited = [room.events[event_id] for event_id in event.auth_event_ids]
    cited = [foreign if one.key == foreign.key else one for one in cited]
    with pytest.raises(AuthRuleViolated) as refused:
        check_auth_events(event, cited)
    assert refused.value.rule == "3.5"


@pytest.mark.parametrize("version", VERSIONS)
def test_2_there_is_no_room_without_its_create_event(version):
    room = public_room(version)
    state = room.events_of(room.state_after[room.newest().event_id])
    event = room.send("m.room.message", ALICE, {})
    with pytest.raises(AuthRuleViolated):
        check_auth_rules(event, {key: one for key, one in state.items() if key != CREATE})
    if version == "12":
        foreign = Room(version, name="other").create
        with pytest.raises(AuthRuleViolated) as refused:
            check_auth_rules(event, {**state, CREATE: foreign})
        assert refused.value.rule == "2"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("content", "extra"),
    [
        ({"membership": "join"}, {JOIN_RULES}),
        ({"membership": "invite"}, {JOIN_RULES}),
        ({"membership": "leave"}, set()),
        ({"membership": "ban"}, set()),
        (
            {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}},
            {JOIN_RULES, ("m.room.third_party_invite", "t")},
        ),
        ({"membership": "invite", "third_party_invite": {"signed": {"token": 1}}}, {JOIN_RULES}),
        ({"membership": "invite", "third_party_invite": "x"}, {JOIN_RULES}),
        ({"membership": "leave", "third_party_invite": {"signed": {"token": "t"}}}, set()),
        ({"membership": "leave", "join_authorised_via_users_server": CHARLIE}, set()),
    ],
)
def test_the_auth_events_of_a_member_event(version, content, extra):
    chosen = auth_types_for(
        ROOM_VERSIONS[version], type="m.room.member", state_key=BOB, sender=ALICE, content=content
    )
    create = set() if version == "12" else {CREATE}
    assert chosen == {POWER_LEVELS, member(ALICE), member(BOB), *create, *extra}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_auth_events_of_a_restricted_join_a_knock_and_the_create_event(version):
    rules = ROOM_VERSIONS[version]
    join = {"membership": "join", "join_authorised_via_users_server": CHARLIE}
    chosen = auth_types_for(rules, type="m.room.member", state_key=BOB, sender=BOB, content=join)
    assert (member(CHARLIE) in chosen) == (int(version) >= 8)
    knock = auth_types_for(
        rules, type="m.room.member", state_key=BOB, sender=BOB, content={"membership": "knock"}
    )
    assert (JOIN_RULES in knock) == (int(version) >= 7)
    assert auth_types_for(rules, type="m.room.create", state_key="", sender=ALICE, content={}) == frozenset()


# -- 4. federation, and the aliases of old ------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_4_a_room_that_is_not_federated_is_for_one_server(version):
    room = Room(version, content={"m.federate": False})
    room.join(ALICE)
    room.set_join_rule(ALICE, "public")
    assert rule_of(room, room.join("@dave:one.example")) is None
    assert rule_of(room, room.join(BOB)) == "4"
    for open_to_all in (True, None, "false", 0):
        other = Room(version, content={"m.federate": open_to_all})
        other.join(ALICE)
        other.set_join_rule(ALICE, "public")
        assert rule_of(other, other.join(BOB)) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_sets_its_own_aliases_whoever_is_in_the_room_until_version_5(version):
    room = public_room(version)
    own = room.send("m.room.aliases", BOB, {}, state_key="two.example")
    foreign = room.send("m.room.aliases", ALICE, {}, state_key="two.example")
    without_key = room.send("m.room.aliases", ALICE, {})
    if int(version) <= 5:
        assert [rule_of(room, event) for event in (own, foreign, without_key)] == [None, "aliases", "aliases"]
    else:
        assert [rule_of(room, event) for event in (own, foreign, without_key)] == ["6", None, None]


# -- 6. to 9. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_6_only_members_send(version):
    room = public_room(version, BOB)
    assert rule_of(room, room.send("m.room.message", BOB, {})) is None
    assert rule_of(room, room.send("m.room.message", CHARLIE, {})) == "6"
    room.set_member(ALICE, CHARLIE, "invite")
    assert rule_of(room, room.send("m.room.message", CHARLIE, {})) == "6"
    room.set_member(ALICE, BOB, "ban")
    assert rule_of(room, room.send("m.room.message", BOB, {})) == "6"


@pytest.mark.parametrize("version", VERSIONS)
def test_7_a_third_party_invite_needs_the_level_for_inviting_and_no_other(version):
    room = public_room(version, BOB)
    named = {} if room.version.creators_are_privileged else {ALICE: 100}
    assert rule_of(room, room.send("m.room.third_party_invite", BOB, {}, state_key="t")) is None
    assert rule_of(room, room.send("m.room.third_party_invite", BOB, {}, state_key=ALICE)) is None
    room.set_levels(ALICE, {"users": named, "invite": 10})
    assert rule_of(room, room.send("m.room.third_party_invite", BOB, {}, state_key="t")) == "7.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_8_every_type_needs_its_level(version):
    room = public_room(version, BOB, CHARLIE)
    named = {BOB: 10} if room.version.creators_are_privileged else {ALICE: 100, BOB: 10}
    assert rule_of(room, room.set_topic(BOB, "x")) == "8"
    room.set_levels(
        ALICE,
        {
            "users": named,
            "events": {"m.room.topic": 10, "m.room.message": 10},
            "state_default": 11,
            "events_default": 10,
        },
    )
    assert rule_of(room, room.set_topic(BOB, "x")) is None
    assert rule_of(room, room.set_topic(CHARLIE, "x")) == "8"
    assert rule_of(room, room.send("m.room.name", BOB, {}, state_key="")) == "8"
    assert rule_of(room, room.send("m.room.message", BOB, {})) is None
    assert rule_of(room, room.send("m.room.message", CHARLIE, {})) == "8"
    assert rule_of(room, room.send("org.example.any", CHARLIE, {})) == "8"


@pytest.mark.parametrize("version", VERSIONS)
def test_8_without_power_levels_only_the_creator_sets_state(version):
    room = Room(version)
    room.join(ALICE)
    room.set_join_rule(ALICE, "public")
    room.join(BOB)
    assert rule_of(room, room.set_topic(ALICE, "x")) is None
    assert rule_of(room, room.set_topic(BOB, "x")) == "8"
    assert rule_of(room, room.set_levels(BOB, {"users": {BOB: 100}})) == "8"
    assert rule_of(room, room.send("m.room.message", BOB, {})) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_9_a_state_key_that_is_a_user_id_belongs_to_that_user(version):
    room = public_room(version, BOB)
    assert rule_of(room, room.send("org.example.any", ALICE, {}, state_key=ALICE)) is None
    assert rule_of(room, room.send("org.example.any", ALICE, {}, state_key=BOB)) == "9"
    assert rule_of(room, room.send("org.example.any", ALICE, {}, state_key="@")) == "9"
    assert rule_of(room, room.send("org.example.any", ALICE, {}, state_key="bob@two.example")) is None


# -- redactions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redaction_needs_the_level_or_an_event_of_ones_own_server_in_versions_1_and_2(version):
    room = public_room(version, BOB)
    own = room.send("m.room.message", BOB, {})
    foreign = room.send("m.room.message", ALICE, {})
    refused = "redaction" if int(version) <= 2 else None
    assert rule_of(room, room.send("m.room.redaction", BOB, {}, redacts=own.event_id)) is None
    assert rule_of(room, room.send("m.room.redaction", BOB, {}, redacts=foreign.event_id)) == refused
    assert rule_of(room, room.send("m.room.redaction", BOB, {})) == refused
    assert rule_of(room, room.send("m.room.redaction", ALICE, {}, redacts=own.event_id)) is None
