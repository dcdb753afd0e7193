"""The authorisation rules, one by one, in every room version; the numbers are those of version 12."""

from __future__ import annotations

from typing import Any

import pytest

from crypto import keys
from crypto.signatures import sign_json
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
)

VERSIONS = list(ROOM_VERSIONS)


def since(first: int) -> list[str]:
    return [version for version in VERSIONS if int(version) >= first]


def until(last: int) -> list[str]:
    return [version for version in VERSIONS if int(version) <= last]


def rule_of(room: Room, event: Event) -> str | None:
    """The rule that refused an event, None where it was allowed."""
    violation = room.why_rejected.get(event.event_id)
    return violation.rule if violation is not None else None


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


# -- 5. m.room.member ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_5_1_a_member_event_has_a_state_key_and_a_membership(version):
    room = public_room(version)
    assert rule_of(room, room.send("m.room.member", BOB, {"membership": "join"})) == "5.1"
    for content in ({}, {"membership": None}, {"membership": 1}):
        assert rule_of(room, room.send("m.room.member", BOB, content, state_key=BOB)) == "5.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_3_1_the_creator_joins_right_after_the_create_event(version):
    room = Room(version)
    assert rule_of(room, room.join(BOB)) == "5.3.4"
    assert rule_of(room, room.join(ALICE, prev=[room.create])) is None
    late = Room(version)
    late.join(ALICE)
    late.set_member(ALICE, ALICE, "leave")
    assert rule_of(late, late.join(ALICE)) == "5.3.4"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_3_1_the_creator_is_the_one_named_until_version_10_and_the_sender_from_11_on(version):
    room = Room(version, content={"creator": BOB})
    named = room.join(BOB, prev=[room.create])
    sender = room.join(ALICE, prev=[room.create])
    assert (rule_of(room, named) is None) == (int(version) <= 10)
    assert (rule_of(room, sender) is None) == (int(version) >= 11)


@pytest.mark.parametrize("version", VERSIONS)
def test_5_3_2_nobody_joins_for_somebody_else(version):
    room = public_room(version)
    assert rule_of(room, room.set_member(ALICE, BOB, "join")) == "5.3.2"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_3_3_nobody_joins_who_is_banned(version):
    room = public_room(version, BOB)
    room.set_member(ALICE, BOB, "ban")
    assert rule_of(room, room.join(BOB)) == "5.3.3"


JOIN_RULES_OF = {
    "public": 1,
    "invite": 1,
    "knock": 7,
    "restricted": 8,
    "knock_restricted": 10,
    "private": 99,
    "odd": 99,
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("join_rule", JOIN_RULES_OF)
def test_5_3_4_to_7_who_may_join_under_which_rule(version, join_rule):
    room = Room(version)
    room.join(ALICE)
    room.set_join_rule(ALICE, join_rule)
    known = int(version) >= JOIN_RULES_OF[join_rule]
    uninvited = rule_of(room, room.join(BOB))
    room.set_member(ALICE, BOB, "invite")
    invited = rule_of(room, room.join(BOB))
    if not known:
        assert (uninvited, invited) == ("5.3.7", "5.3.7")
        return
    assert uninvited == {
        "public": None,
        "invite": "5.3.4",
        "knock": "5.3.4",
        "restricted": "5.3.5",
        "knock_restricted": "5.3.5",
    }.get(join_rule)
    assert invited is None
    assert rule_of(room, room.join(BOB)) is None, "a member may join again"


@pytest.mark.parametrize("version", VERSIONS)
def test_without_join_rules_one_is_invited(version):
    room = Room(version)
    room.join(ALICE)
    assert rule_of(room, room.join(BOB)) == "5.3.4"
    room.send("m.room.join_rules", ALICE, {}, state_key="")
    assert rule_of(room, room.join(BOB)) == "5.3.4"
    room.set_member(ALICE, BOB, "invite")
    assert rule_of(room, room.join(BOB)) is None


@pytest.mark.parametrize("version", since(8))
@pytest.mark.parametrize("join_rule", ["restricted", "knock_restricted"])
def test_5_3_5_a_restricted_join_is_authorised_by_a_member_who_may_invite(version, join_rule):
    if join_rule == "knock_restricted" and int(version) < 10:
        return
    room = public_room(version, CHARLIE)
    room.set_join_rule(ALICE, join_rule)

    def join_by(authoriser: Any) -> str | None:
        content = {"membership": "join", "join_authorised_via_users_server": authoriser}
        return rule_of(room, room.send("m.room.member", BOB, content, state_key=BOB, prev=[tip]))

    tip = room.newest()
    assert join_by(None) == "5.3.5"
    assert join_by(7) == "5.3.5"
    assert join_by("@nobody:two.example") == "5.3.5"
    assert join_by(CHARLIE) is None
    named = {} if room.version.creators_are_privileged else {ALICE: 100}
    tip = room.set_levels(ALICE, {"users": named, "invite": 50}, prev=[tip])
    assert join_by(CHARLIE) == "5.3.5"
    assert join_by(ALICE) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_5_4_who_may_invite_whom(version):
    room = public_room(version, BOB)
    assert rule_of(room, room.set_member("@dave:one.example", CHARLIE, "invite")) == "5.4.2"
    assert rule_of(room, room.set_member(BOB, ALICE, "invite")) == "5.4.3"
    assert rule_of(room, room.set_member(BOB, CHARLIE, "invite")) is None
    assert rule_of(room, room.set_member(ALICE, CHARLIE, "invite")) is None, "again"
    room.set_member(ALICE, CHARLIE, "ban")
    assert rule_of(room, room.set_member(BOB, CHARLIE, "invite")) == "5.4.3"
    room.set_member(ALICE, CHARLIE, "leave")
    named = {} if room.version.creators_are_privileged else {ALICE: 100}
    room.set_levels(ALICE, {"users": named, "invite": 1})
    assert rule_of(room, room.set_member(BOB, CHARLIE, "invite")) == "5.4.5"
    assert rule_of(room, room.set_member(ALICE, CHARLIE, "invite")) is None


IDENTITY = keys.key_from_seed("0", bytes(range(32)))


def third_party_invite(room: Room, sender: str = ALICE, target: str = BOB, **changes: Any) -> str | None:
    """The rule that refuses an invite by a third-party invite that Alice has made, with changes."""
    signed = {"mxid": target, "token": "token", **changes}
    signed = sign_json(signed, "identity.example", IDENTITY)
    return by_invite(room, {"display_name": "x", "signed": signed}, sender, target)


def by_invite(room: Room, invite: Any, sender: str = ALICE, target: str = BOB) -> str | None:
    content = {"membership": "invite", "third_party_invite": invite}
    event = room.send("m.room.member", sender, content, state_key=target)
    if not event.rejected:
        room.set_member(ALICE, target, "leave")
    return rule_of(room, event)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "offer",
    [
        {"public_key": IDENTITY.public_base64},
        {"public_key": "nonsense", "public_keys": [{"public_key": IDENTITY.public_base64}]},
        {"public_keys": ["x", {}, {"public_key": 1}, {"public_key": IDENTITY.public_base64}]},
    ],
)
def test_5_4_1_an_invite_by_a_third_party_invite(version, offer):
    room = public_room(version, CHARLIE)
    room.send("m.room.third_party_invite", ALICE, offer, state_key="token")
    assert third_party_invite(room) is None
    assert by_invite(room, {}) == "5.4.1.2"
    assert by_invite(room, "x") == "5.4.1.2"
    assert by_invite(room, {"signed": []}) == "5.4.1.2"
    assert by_invite(room, {"signed": {"token": "token"}}) == "5.4.1.3"
    assert by_invite(room, {"signed": {"mxid": BOB}}) == "5.4.1.3"
    assert by_invite(room, {"signed": {"mxid": BOB, "token": ["x"]}}) == "5.4.1.3"
    assert third_party_invite(room, mxid=CHARLIE) == "5.4.1.4"
    assert third_party_invite(room, token="other") == "5.4.1.5"
    assert third_party_invite(room, sender=CHARLIE) == "5.4.1.6"
    unsigned = {"mxid": BOB, "token": "token"}
    for signatures in (None, {}, [], {"identity.example": "x"}, {"identity.example": {"ed25519:0": "AAAA"}}):
        assert by_invite(room, {"signed": {**unsigned, "signatures": signatures}}) == "5.4.1.8"
    room.set_member(ALICE, BOB, "ban")
    assert third_party_invite(room) == "5.4.1.1"


def test_a_third_party_invite_with_a_host_of_keys_and_signatures_is_not_tried_to_the_end():
    room = public_room("11")
    others = [{"public_key": keys.generate("0").public_base64} for _ in range(30)]
    offer = {"public_keys": [*others, {"public_key": IDENTITY.public_base64}]}
    room.send("m.room.third_party_invite", ALICE, offer, state_key="token")
    assert third_party_invite(room) is None
    wrong = {"x": {f"ed25519:{number}": "A" * 86 for number in range(1_000)}}
    signed = {"mxid": BOB, "token": "token", "signatures": wrong}
    assert by_invite(room, {"signed": signed}) == "5.4.1.8"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_5_1_one_may_leave_what_one_is_in_or_invited_to(version):
    room = public_room(version, BOB)
    assert rule_of(room, room.set_member(BOB, BOB, "leave")) is None
    assert rule_of(room, room.set_member(BOB, BOB, "leave")) == "5.5.1"
    assert rule_of(room, room.set_member(CHARLIE, CHARLIE, "leave")) == "5.5.1"
    room.set_member(ALICE, BOB, "invite")
    assert rule_of(room, room.set_member(BOB, BOB, "leave")) is None
    room.set_member(ALICE, BOB, "ban")
    assert rule_of(room, room.set_member(BOB, BOB, "leave")) == "5.5.1"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_5_who_may_remove_whom(version):
    room = public_room(version, BOB, CHARLIE, users={BOB: 50, "@dave:one.example": 50})
    room.join("@dave:one.example")
    assert rule_of(room, room.set_member(CHARLIE, BOB, "leave")) == "5.5.5"
    assert rule_of(room, room.set_member(BOB, "@dave:one.example", "leave")) == "5.5.5", "of one's own level"
    assert rule_of(room, room.set_member(BOB, ALICE, "leave")) == "5.5.5"
    assert rule_of(room, room.set_member("@eve:two.example", CHARLIE, "leave")) == "5.5.2"
    assert rule_of(room, room.set_member(BOB, CHARLIE, "leave")) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_5_5_3_lifting_a_ban_needs_the_level_for_banning_and_that_for_kicking(version):
    room = public_room(version, BOB)
    named = {BOB: 50} if room.version.creators_are_privileged else {ALICE: 100, BOB: 50}
    room.set_member(ALICE, CHARLIE, "ban")
    room.set_levels(ALICE, {"users": named, "ban": 60, "kick": 40})
    assert rule_of(room, room.set_member(BOB, CHARLIE, "leave")) == "5.5.3"
    room.set_levels(ALICE, {"users": named, "ban": 40, "kick": 60})
    assert rule_of(room, room.set_member(BOB, CHARLIE, "leave")) == "5.5.5"
    room.set_levels(ALICE, {"users": named, "ban": 50, "kick": 50})
    assert rule_of(room, room.set_member(BOB, CHARLIE, "leave")) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_5_6_who_may_ban_whom(version):
    room = public_room(version, BOB, users={BOB: 50, CHARLIE: 50})
    assert rule_of(room, room.set_member("@eve:two.example", CHARLIE, "ban")) == "5.6.1"
    assert rule_of(room, room.set_member(BOB, CHARLIE, "ban")) == "5.6.3", "of one's own level"
    assert rule_of(room, room.set_member(BOB, ALICE, "ban")) == "5.6.3"
    assert rule_of(room, room.set_member(BOB, "@eve:two.example", "ban")) is None, "who was never there"
    named = {BOB: 50} if room.version.creators_are_privileged else {ALICE: 100, BOB: 50}
    room.set_levels(ALICE, {"users": named, "ban": 51})
    assert rule_of(room, room.set_member(BOB, CHARLIE, "ban")) == "5.6.3"
    assert rule_of(room, room.set_member(ALICE, CHARLIE, "ban")) is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("join_rule", ["knock", "knock_restricted", "public", "restricted", "invite"])
def test_5_7_who_may_knock_under_which_rule(version, join_rule):
    room = Room(version)
    room.join(ALICE)
    room.set_join_rule(ALICE, join_rule)
    knock = rule_of(room, room.set_member(BOB, BOB, "knock"))
    if int(version) < 7:
        assert knock == "5.8"
    elif join_rule == "knock" or (join_rule == "knock_restricted" and int(version) >= 10):
        assert knock is None
    else:
        assert knock == "5.7.1"


@pytest.mark.parametrize("version", since(7))
def test_5_7_nobody_knocks_for_others_or_where_they_are_banned_invited_or_in(version):
    room = Room(version)
    room.join(ALICE)
    room.set_join_rule(ALICE, "knock")
    assert rule_of(room, room.set_member(ALICE, BOB, "knock")) == "5.7.2"
    assert rule_of(room, room.set_member(ALICE, ALICE, "knock")) == "5.7.4"
    assert rule_of(room, room.set_member(BOB, BOB, "knock")) is None
    assert rule_of(room, room.set_member(BOB, BOB, "knock")) is None, "again"
    assert rule_of(room, room.set_member(BOB, BOB, "leave")) is None
    room.set_member(BOB, BOB, "knock")
    assert rule_of(room, room.join(BOB)) == "5.3.4"
    room.set_member(ALICE, BOB, "invite")
    assert rule_of(room, room.set_member(BOB, BOB, "knock")) == "5.7.4"
    room.set_member(ALICE, BOB, "ban")
    assert rule_of(room, room.set_member(BOB, BOB, "knock")) == "5.7.4"


@pytest.mark.parametrize("version", VERSIONS)
def test_5_8_a_membership_that_nobody_knows_is_refused(version):
    room = public_room(version, BOB)
    assert rule_of(room, room.set_member(BOB, BOB, "odd")) == "5.8"


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


# -- 10. m.room.power_levels ---------------------------------------------------------------------------------


def moderated(version: str) -> Room:
    """A room where Bob has level 50, Charlie 10, and power levels may be changed from 50 on."""
    return public_room(version, BOB, CHARLIE, users={BOB: 50, CHARLIE: 10})


def levels_of(room: Room) -> dict[str, Any]:
    content = room.events[room.state_after[room.newest().event_id][POWER_LEVELS]].content
    return {**content, "users": dict(content["users"])}


def change(room: Room, sender: str, **changes: Any) -> str | None:
    """The rule that refuses a change of the power levels; `users` are added to those that are there."""
    content = levels_of(room)
    users = {**content["users"], **changes.pop("users", {})}
    content = {**content, **changes, "users": users}
    content = {name: value for name, value in content.items() if value != "absent"}
    content["users"] = {user: level for user, level in users.items() if level != "absent"}
    return rule_of(room, room.set_levels(sender, content))


NAMED = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMED)
def test_10_6_named_levels_are_changed_up_to_ones_own(version, name):
    room = moderated(version)
    assert change(room, BOB, **{name: 50}) is None
    assert change(room, BOB, **{name: 51}) == f"power_levels.{name}"
    assert change(room, BOB, **{name: "absent"}) is None
    assert change(room, ALICE, **{name: 60}) is None
    if name in ("users_default", "state_default"):
        # Either everybody has 60 now, or Bob may not send power levels any more.
        return
    assert change(room, BOB, **{name: 40}) == f"power_levels.{name}"
    assert change(room, BOB, **{name: "absent"}) == f"power_levels.{name}"
    assert change(room, BOB, users={CHARLIE: 20}) is None, "what stays as it is may be above one's own level"


@pytest.mark.parametrize("version", VERSIONS)
def test_10_7_and_8_levels_of_events_are_changed_up_to_ones_own(version):
    room = moderated(version)
    assert change(room, BOB, events={"m.room.topic": 50}) is None
    assert change(room, BOB, events={"m.room.topic": 51}) == "power_levels.events"
    assert change(room, ALICE, events={"m.room.topic": 60}) is None
    assert change(room, BOB, events={"m.room.topic": 50}) == "power_levels.events"
    assert change(room, BOB, events={}) == "power_levels.events"
    assert change(room, BOB, events={"m.room.topic": 60, "m.room.name": 5}) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_10_7_and_8_levels_of_notifications_likewise_from_version_6_on(version):
    room = moderated(version)
    refused = "power_levels.notifications" if int(version) >= 6 else None
    assert change(room, BOB, notifications={"room": 50}) is None
    assert change(room, BOB, notifications={"room": 51}) == refused
    assert change(room, ALICE, notifications={"room": 60}) is None
    assert change(room, BOB, notifications={"room": 50}) == refused
    assert change(room, ALICE, notifications={"room": 60}) is None
    assert change(room, BOB, notifications={}) == refused


@pytest.mark.parametrize("version", VERSIONS)
def test_10_9_and_10_levels_of_users_are_changed_below_ones_own(version):
    dave = "@dave:one.example"
    room = moderated(version)
    assert change(room, BOB, users={dave: 50}) is None
    assert change(room, BOB, users={dave: 20}) == "power_levels.users", "of one's own level"
    assert change(room, BOB, users={dave: "absent"}) == "power_levels.users"
    assert change(room, BOB, users={CHARLIE: 51}) == "power_levels.users"
    assert change(room, BOB, users={CHARLIE: 50}) is None
    assert change(room, ALICE, users={CHARLIE: 99}) is None
    assert change(room, BOB, users={CHARLIE: 0}) == "power_levels.users"
    assert change(room, BOB, users={BOB: 51}) == "power_levels.users"
    assert change(room, BOB, users={BOB: 49}) is None, "one may lower one's own"


@pytest.mark.parametrize("version", VERSIONS)
def test_10_3_users_are_user_ids_with_levels(version):
    room = moderated(version)
    for users in (None, [], "x", 1):
        content = {**levels_of(room), "users": users}
        assert rule_of(room, room.set_levels(ALICE, content)) == "power_levels.users"
    for user_id in ("bob", "bob:two.example", "@bob", ""):
        assert change(room, ALICE, users={user_id: 1}) == "power_levels.users"
    for level in (None, "ten", "1.5", [], {}, True):
        assert change(room, ALICE, users={CHARLIE: level}) == "power_levels.users"


@pytest.mark.parametrize("version", VERSIONS)
def test_10_1_to_3_text_is_no_level_from_version_10_on(version):
    room = moderated(version)
    old = int(version) <= 9
    assert (change(room, ALICE, users={CHARLIE: " 020 "}) is None) == old
    for name in NAMED:
        assert (change(room, ALICE, **{name: "50"}) is None) == old
        assert (change(room, ALICE, **{name: None}) is None) == old
    for name in ("events", "notifications"):
        assert (change(room, ALICE, **{name: {"m.room.topic": "50"}}) is None) == old
        assert (change(room, ALICE, **{name: []}) is None) == old


@pytest.mark.parametrize("version", until(9))
def test_a_level_written_as_text_is_as_high_as_the_number(version):
    room = moderated(version)
    assert change(room, ALICE, users={CHARLIE: "50"}) is None
    assert rule_of(room, room.set_topic(CHARLIE, "x")) is None
    assert change(room, BOB, users={CHARLIE: 50}) is None, "it stays the same"
    assert change(room, BOB, users={"@dave:one.example": "51"}) == "power_levels.users"


@pytest.mark.parametrize("version", VERSIONS)
def test_10_4_creators_have_no_level_from_version_12_on(version):
    room = Room(version, content={"additional_creators": [BOB]})
    joined = room.join(ALICE)
    for named in ({ALICE: 100}, {ALICE: 100, BOB: 100}, {ALICE: 100, CHARLIE: 1, BOB: 1}):
        event = room.set_levels(ALICE, {"users": named}, prev=[joined])
        assert (rule_of(room, event) is None) == (version != "12")
    if version == "12":
        assert rule_of(room, room.set_levels(ALICE, {"users": {BOB: 100}})) == "power_levels.creators"
        assert rule_of(room, room.set_levels(ALICE, {"users": {CHARLIE: 100}})) is None


def test_creators_stand_above_everybody_and_beside_each_other_in_version_12():
    room = Room("12", content={"additional_creators": [BOB]})
    room.join(ALICE)
    room.set_join_rule(ALICE, "public")
    room.set_levels(ALICE, {"users": {CHARLIE: 2**53 - 1}, "ban": 2**53 - 1, "kick": 2**53 - 1})
    room.join(BOB)
    room.join(CHARLIE)
    assert rule_of(room, room.set_member(CHARLIE, BOB, "ban")) == "5.6.3"
    assert rule_of(room, room.set_member(ALICE, BOB, "ban")) == "5.6.3"
    assert rule_of(room, room.set_member(BOB, ALICE, "leave")) == "5.5.5"
    assert rule_of(room, room.set_member(BOB, CHARLIE, "ban")) is None


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
