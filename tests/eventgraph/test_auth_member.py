"""Rule 5 of the authorisation rules, `m.room.member`, in every room version; the numbers are those of version 12."""

from __future__ import annotations

from typing import Any

import pytest

from crypto import keys
from crypto.signatures import sign_json
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.eventgraph.rooms import (
    ALICE,
    BOB,
    CHARLIE,
    Room,
    public_room,
    rule_of,
)

VERSIONS = list(ROOM_VERSIONS)


def since(first: int) -> list[str]:
    return [version for version in VERSIONS if int(version) >= first]


@pytest.mark.parametrize("version", VERSIONS)
def test_5_1_a_member_event_has_a_state_key_and_a_membership(version):
    room = public_room(version)
    assert rule_of(room, room.send("m.room.member", BOB, {"membership": "join"})) == "5.1"
    assert rule_of(room, room.set_member(ALICE, "nobody", "ban")) == "5.1"
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
