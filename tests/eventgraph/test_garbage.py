"""Hostile events: whatever has the form of an event is judged, redacted and resolved, and nothing else is raised."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.eventgraph.auth_rules import check_auth_events, check_auth_rules
from homeserver.eventgraph.checks import check_format
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import has_right_content_hash
from homeserver.eventgraph.power_levels import PowerLevels
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import servers_that_sign
from homeserver.eventgraph.visibility import history_visibility_in
from tests.eventgraph.rooms import ALICE, BOB, JOIN_RULES, POWER_LEVELS, Room, member

_TEXT = st.sampled_from(
    ["", "x", ALICE, BOB, "join", "invite", "leave", "ban", "knock", "public", "restricted", "50"]
)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [
    "membership",
    "join_authorised_via_users_server",
    "third_party_invite",
    "creator",
    "room_version",
    "additional_creators",
    "m.federate",
    "join_rule",
    "allow",
    "users",
    "users_default",
    "events",
    "events_default",
    "state_default",
    "notifications",
    "ban",
    "kick",
    "invite",
    "redact",
    "redacts",
    "history_visibility",
    "public_key",
    "public_keys",
]
_SIGNED = st.fixed_dictionaries({}, optional={"mxid": _JSON, "token": _JSON, "signatures": _JSON})
_CONTENT = st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6) | st.builds(
    lambda content, signed: {**content, "membership": "invite", "third_party_invite": {"signed": signed}},
    st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=3),
    _SIGNED | _JSON,
)
_VERSIONS = st.sampled_from(list(ROOM_VERSIONS))
_KEYS = (
    ("m.room.create", ""),
    POWER_LEVELS,
    JOIN_RULES,
    member(ALICE),
    member(BOB),
    ("m.room.third_party_invite", "x"),
    ("m.room.aliases", "one.example"),
    ("m.room.redaction", None),
    ("m.room.message", None),
    ("m.room.history_visibility", ""),
)


def event_of(
    version: str, key: tuple[str, str | None], content: dict[str, Any], sender: str = ALICE
) -> Event:
    """An event that nobody has judged."""
    event_type, state_key = key
    pdu: dict[str, Any] = {
        **Room(version).join(ALICE).pdu,
        "type": event_type,
        "content": content,
        "sender": sender,
    }
    pdu.pop("state_key")
    if state_key is not None:
        pdu["state_key"] = state_key
    if event_type == "m.room.create":
        pdu["prev_events"] = []
        if version == "12":
            del pdu["room_id"]
    return Event.from_json(ROOM_VERSIONS[version], pdu)


@settings(max_examples=300, deadline=None)
@given(
    _VERSIONS, st.sampled_from(_KEYS), _CONTENT, st.dictionaries(st.sampled_from(_KEYS), _CONTENT), st.data()
)
def test_any_content_is_judged(version, key, content, others, data):
    sender = data.draw(st.sampled_from([ALICE, BOB]))
    event = event_of(version, key, content, sender)
    check_format(event.version, event.pdu)
    state = {
        other.key: other
        for other in (event_of(version, *one) for one in others.items())
        if other.state_key is not None
    }
    for known in (state, {**state, ("m.room.create", ""): Room(version).create}):
        with contextlib.suppress(AuthRuleViolated):
            check_auth_events(event, known.values())
        with contextlib.suppress(AuthRuleViolated):
            check_auth_rules(event, known)
    levels = PowerLevels(event.version, state.get(("m.room.create", "")), state.get(POWER_LEVELS))
    assert isinstance(levels.user_level(BOB), int)
    assert isinstance(levels.required_for_event("m.room.topic", is_state=True), int)
    assert isinstance(levels.notification_level("room"), int)
    assert history_visibility_in(event.content) in ("shared", "invited", "joined", "world_readable")
    redacted = redact(event.version, event.pdu)
    assert redact(event.version, redacted) == redacted
    servers_that_sign(event)


@settings(max_examples=300, deadline=None)
@given(
    _VERSIONS,
    st.dictionaries(
        st.sampled_from(
            [
                "type",
                "sender",
                "room_id",
                "state_key",
                "content",
                "depth",
                "origin_server_ts",
                "prev_events",
                "auth_events",
                "hashes",
                "signatures",
                "event_id",
                "redacts",
                "unsigned",
            ]
        ),
        _JSON | st.floats() | st.integers(),
        max_size=4,
    ),
)
def test_what_has_not_the_form_of_an_event_is_refused_and_the_rest_can_be_read(version, fields):
    pdu = {**Room(version).join(ALICE).pdu, **fields}
    try:
        check_format(ROOM_VERSIONS[version], pdu)
    except EventRefused:
        return
    event = Event.from_json(ROOM_VERSIONS[version], pdu)
    assert event.event_id.startswith("$")
    has_right_content_hash(event.version, pdu)
    servers_that_sign(event)
    _ = event.redacts, event.membership, repr(event)


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
@pytest.mark.parametrize("pdu", [{}, {"type": "m.room.create"}, {"type": "m.room.create", "state_key": ""}])
def test_next_to_nothing_is_refused(version, pdu):
    with pytest.raises(EventRefused):
        check_format(ROOM_VERSIONS[version], pdu)
