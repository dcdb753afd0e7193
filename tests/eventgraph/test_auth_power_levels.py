"""Rule 10 of the authorisation rules, `m.room.power_levels`, in every room version; the numbers are those of version 12."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.eventgraph.rooms import (
    ALICE,
    BOB,
    CHARLIE,
    POWER_LEVELS,
    Room,
    public_room,
    rule_of,
)

VERSIONS = list(ROOM_VERSIONS)


def until(last: int) -> list[str]:
    return [version for version in VERSIONS if int(version) <= last]


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
