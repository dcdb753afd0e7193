"""Power levels: what is in force with and without the event, and how values of old rooms are read."""

from __future__ import annotations

import pytest

from homeserver.eventgraph.power_levels import CREATOR_LEVEL, PowerLevels, read_level
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, Room

VERSIONS = list(ROOM_VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_event_the_creator_stands_above_all_and_state_needs_level_50(version):
    room = Room(version)
    levels = PowerLevels(room.version, room.create, None)
    assert levels.user_level(ALICE) == (CREATOR_LEVEL if version == "12" else 100)
    assert levels.user_level(BOB) == 0
    assert levels.required_for_event("m.room.topic", is_state=True) == 50
    assert levels.required_for_event("m.room.message", is_state=False) == 0
    assert [levels.required_for(action) for action in ("ban", "kick", "redact", "invite")] == [50, 50, 50, 0]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_event_has_the_defaults_and_no_word_of_the_creator(version):
    room = Room(version)
    room.join(ALICE)
    event = room.set_levels(ALICE, {})
    levels = PowerLevels(room.version, room.create, event)
    assert levels.user_level(ALICE) == (CREATOR_LEVEL if version == "12" else 0)
    assert levels.required_for_event("m.room.topic", is_state=True) == 50
    assert levels.required_for_event("m.room.message", is_state=False) == 0
    assert levels.notification_level("room") == 50
    assert [levels.required_for(action) for action in ("ban", "kick", "redact", "invite")] == [50, 50, 50, 0]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_event_says_is_in_force(version):
    room = Room(version)
    room.join(ALICE)
    content = {
        "users": {BOB: 7},
        "users_default": 3,
        "events": {"m.room.topic": 4},
        "events_default": 5,
        "state_default": 6,
        "ban": 1,
        "kick": 2,
        "redact": 8,
        "invite": 9,
        "notifications": {"room": 10},
    }
    levels = PowerLevels(room.version, room.create, room.set_levels(ALICE, content))
    assert levels.user_level(BOB) == 7
    assert levels.user_level(CHARLIE) == 3
    assert levels.required_for_event("m.room.topic", is_state=True) == 4
    assert levels.required_for_event("m.room.topic", is_state=False) == 4
    assert levels.required_for_event("m.room.name", is_state=True) == 6
    assert levels.required_for_event("m.room.message", is_state=False) == 5
    assert levels.notification_level("room") == 10
    assert [levels.required_for(action) for action in ("ban", "kick", "redact", "invite")] == [1, 2, 8, 9]


def test_additional_creators_stand_as_high_as_the_creator_in_version_12_only():
    for version in ("11", "12"):
        room = Room(version, content={"additional_creators": [BOB]})
        levels = PowerLevels(room.version, room.create, None)
        assert (levels.user_level(BOB) == levels.user_level(ALICE)) == (version == "12")


@pytest.mark.parametrize("additional", [None, BOB, {}, [[]], [{}], [None, BOB]])
def test_a_create_event_that_nobody_has_judged_can_be_read(additional):
    room = Room("12", content={"additional_creators": additional})
    assert room.create.rejected
    levels = PowerLevels(room.version, room.create, None)
    assert levels.user_level(ALICE) == CREATOR_LEVEL
    assert levels.user_level(CHARLIE) == 0


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("50", 50),
        (" 00100 ", 100),
        ("+100", 100),
        (" -100 ", -100),
        ("0" * 30 + "7", 7),
        ("9" * 30, int("9" * 30)),
        (50.57, 50),
        (-1.9, -1),
        (5.114698e4, 51146),
        (1e300, int(1e300)),
    ],
)
def test_versions_1_to_9_read_levels_that_are_text_or_floats(value, level):
    assert read_level(ROOM_VERSIONS["1"], value) == level
    assert read_level(ROOM_VERSIONS["9"], value) == level
    assert read_level(ROOM_VERSIONS["10"], value) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "1.5",
        "0x10",
        "1_000",
        "- 1",
        "1 0",
        "ten",
        "+-1",
        "9" * 60_000,
        float("inf"),
        float("nan"),
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_level_is_none_in_any_version(value):
    for version in VERSIONS:
        assert read_level(ROOM_VERSIONS[version], value) is None
