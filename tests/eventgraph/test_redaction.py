"""Redaction: what each room version keeps (the table of the specification)."""

from __future__ import annotations

import pytest

from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS

VERSIONS = list(ROOM_VERSIONS)
_TOP_LEVEL = [
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
]
_TOP_LEVEL_BEFORE_11 = ("prev_state", "origin", "membership")
_CONTENT = [
    "membership",
    "join_authorised_via_users_server",
    "creator",
    "join_rule",
    "allow",
    "ban",
    "events",
    "events_default",
    "invite",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "notifications",
    "aliases",
    "history_visibility",
    "redacts",
    "body",
    "name",
    "room_version",
    "additional_creators",
]
_POWER_LEVELS = [
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
]


def since(first: int, version: str, *names: str) -> list[str]:
    return list(names) if int(version) >= first else []


def until(last: int, version: str, *names: str) -> list[str]:
    return list(names) if int(version) <= last else []


def kept(event_type: str, version: str) -> set[str]:
    """The keys of the content that stay, by the pages of the room versions."""
    match event_type:
        case "m.room.member":
            return {"membership", *since(9, version, "join_authorised_via_users_server")}
        case "m.room.create":
            return {"creator", *since(11, version, *_CONTENT)}
        case "m.room.join_rules":
            return {"join_rule", *since(8, version, "allow")}
        case "m.room.power_levels":
            return {*_POWER_LEVELS, *since(11, version, "invite")}
        case "m.room.aliases":
            return {*until(5, version, "aliases")}
        case "m.room.history_visibility":
            return {"history_visibility"}
        case "m.room.redaction":
            return {*since(11, version, "redacts")}
    return set()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "event_type",
    [
        "m.room.member",
        "m.room.create",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.aliases",
        "m.room.history_visibility",
        "m.room.redaction",
        "m.room.message",
        "m.room.name",
        "m.room.encryption",
    ],
)
def test_the_content_keeps_what_the_version_says(version, event_type):
    content = {name: {"value": name} for name in _CONTENT}
    redacted = redact(ROOM_VERSIONS[version], {"type": event_type, "content": content})
    assert redacted["content"] == {name: content[name] for name in kept(event_type, version)}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_event_keeps_what_the_version_says(version):
    names = [*_TOP_LEVEL, *_TOP_LEVEL_BEFORE_11, "unsigned", "redacts", "age_ts", "other"]
    pdu = {**dict.fromkeys(names, "x"), "type": "m.room.message", "content": {}}
    redacted = redact(ROOM_VERSIONS[version], pdu)
    assert redacted.keys() == {*_TOP_LEVEL, *until(10, version, *_TOP_LEVEL_BEFORE_11)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("invite", "left"),
    [
        ({"display_name": "x", "signed": {"token": "y"}}, {"signed": {"token": "y"}}),
        ({"signed": "x"}, {"signed": "x"}),
        # The invite itself stays, with none of its keys: the id of the event rests on it.
        ({"display_name": "x"}, {}),
        ({}, {}),
        ("x", None),
        (None, None),
    ],
)
def test_of_a_third_party_invite_what_was_signed_stays_from_version_11_on(version, invite, left):
    pdu = {"type": "m.room.member", "content": {"membership": "invite", "third_party_invite": invite}}
    content = redact(ROOM_VERSIONS[version], pdu)["content"]
    if int(version) >= 11 and left is not None:
        assert content == {"membership": "invite", "third_party_invite": left}
    else:
        assert content == {"membership": "invite"}


@pytest.mark.parametrize("content", [None, [], "x", 1])
def test_content_of_the_wrong_kind_becomes_an_empty_one(content):
    pdu = {"type": "m.room.create", "content": content}
    for version in ROOM_VERSIONS.values():
        assert redact(version, pdu)["content"] == {}
    assert redact(version, {"type": "m.room.create"})["content"] == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redacted_event_is_redacted_again_to_the_same(version):
    pdu = {"type": "m.room.power_levels", "content": dict.fromkeys(_CONTENT, 1), "sender": "@a:b", "other": 2}
    once = redact(ROOM_VERSIONS[version], pdu)
    assert redact(ROOM_VERSIONS[version], once) == once
