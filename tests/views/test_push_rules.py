"""What the predefined push rules say, against the rules themselves, tried one after the other for each member."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.power_levels import PowerLevels
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import EventId
from homeserver.views.push_rules import EVERYBODY, MAX_MENTIONED, default_rules, evaluate_defaults

VERSION = ROOM_VERSIONS["10"]
ALICE, BOB, CAROL = MEMBERS = ("@alice:example.org", "@bob:example.org", "@carol:example.org")
KINDS = ("override", "content", "room", "sender", "underride")


# -- the reference: every condition as the specification words it --------------------------------------------


def value_of(event: dict[str, Any], key: str) -> Any:
    """The property at a dot-separated path; None where there is none. A backslash keeps a dot in a name."""
    names = [name.replace("\n", ".") for name in key.replace("\\.", "\n").split(".")]
    value: Any = event
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def holds(condition: dict[str, Any], event: dict[str, Any], levels: PowerLevels, members: int) -> bool:
    kind = condition["kind"]
    if kind == "event_match":
        value = value_of(event, condition["key"])
        return isinstance(value, str) and value.lower() == condition["pattern"].lower()
    if kind == "event_property_is":
        value = value_of(event, condition["key"])
        return type(value) is type(condition["value"]) and value == condition["value"]
    if kind == "event_property_contains":
        value = value_of(event, condition["key"])
        return isinstance(value, list) and any(
            type(item) is str and item == condition["value"] for item in value
        )
    if kind == "room_member_count":
        return members == int(condition["is"])
    assert kind == "sender_notification_permission"
    return levels.user_level(event["sender"]) >= levels.notification_level(condition["key"])


def actions_for(user_id: str, event: dict[str, Any], levels: PowerLevels) -> list[Any]:
    """The actions of the first rule that matches."""
    rules = default_rules(user_id)
    for kind in KINDS:
        for rule in rules[kind]:
            if rule["enabled"] and all(
                holds(condition, event, levels, len(MEMBERS)) for condition in rule["conditions"]
            ):
                return rule["actions"]
    return []


# -- any event -----------------------------------------------------------------------------------------------

rarely_capitals = st.sampled_from([str, str, str, str.upper])
types = st.sampled_from(
    [
        "m.room.message",
        "m.room.encrypted",
        "m.call.invite",
        "m.reaction",
        "m.room.member",
        "m.room.tombstone",
        "m.room.server_acl",
        "m.room.topic",
        "org.example",
    ]
)
anything = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.just("true"), st.just([]), st.just({}))
mentions = st.one_of(
    anything,
    st.fixed_dictionaries(
        {},
        optional={
            "room": st.one_of(st.just(True), anything),
            "user_ids": st.one_of(
                anything,
                st.lists(st.one_of(st.sampled_from([*MEMBERS, "@x:y", "", "*"]), anything), max_size=5),
            ),
        },
    ),
)
relations = st.one_of(
    anything,
    st.fixed_dictionaries(
        {},
        optional={"rel_type": st.one_of(st.sampled_from(["m.replace", "m.thread", "M.REPLACE"]), anything)},
    ),
)
contents = st.fixed_dictionaries(
    {},
    optional={
        "msgtype": st.one_of(st.sampled_from(["m.text", "m.notice", "M.Notice"]), anything),
        "membership": st.sampled_from(["join", "leave", "ban"]),
        "m.mentions": mentions,
        "m.relates_to": relations,
    },
)
levels_contents = st.fixed_dictionaries(
    {},
    optional={
        "users": st.dictionaries(st.sampled_from(MEMBERS), st.sampled_from([0, 49, 50, 51, 100])),
        "users_default": st.sampled_from([0, 50, 60]),
        "notifications": st.one_of(
            st.just({}), st.fixed_dictionaries({"room": st.sampled_from([0, 20, 50, 60])})
        ),
    },
)


def event_of(fields: dict[str, Any]) -> Event:
    pdu = {"room_id": "!a:example.org", "origin_server_ts": 1, "depth": 1, **fields}
    pdu |= {"prev_events": [], "auth_events": [], "hashes": {}, "signatures": {}}
    return Event(VERSION, pdu, EventId("$a"), b"{}")


def levels_of(content: dict[str, Any]) -> PowerLevels:
    create = event_of(
        {"type": "m.room.create", "state_key": "", "sender": ALICE, "content": {"creator": ALICE}}
    )
    levels = event_of({"type": "m.room.power_levels", "state_key": "", "sender": ALICE, "content": content})
    return PowerLevels(VERSION, create, levels)


@given(
    event_type=types,
    spelling=rarely_capitals,
    content=contents,
    state_key=st.sampled_from([None, None, "", BOB, "other"]),
    sender=st.sampled_from(MEMBERS),
    level_content=levels_contents,
)
def test_one_verdict_for_all_is_that_of_the_rules_for_each(
    event_type: str,
    spelling: Any,
    content: dict[str, Any],
    state_key: str | None,
    sender: str,
    level_content: Any,
) -> None:
    fields: dict[str, Any] = {"type": spelling(event_type), "sender": sender, "content": content}
    if state_key is not None:
        fields["state_key"] = state_key
    levels = levels_of(level_content)
    verdict = evaluate_defaults(event_of(fields), levels)
    for member in MEMBERS:
        if member == sender:
            # "Homeservers MUST NOT notify the Push Gateway for events that the user has sent themselves."
            continue
        actions = actions_for(member, fields, levels)
        highlighted = not verdict.highlights.isdisjoint({member, EVERYBODY})
        assert highlighted == ({"set_tweak": "highlight"} in actions)
        assert (verdict.notifies or highlighted) == ("notify" in actions)
    assert sender not in verdict.highlights


def test_an_event_highlights_so_many_and_no_more() -> None:
    user_ids = [f"@user{number}:example.org" for number in range(3 * MAX_MENTIONED)]
    content = {"m.mentions": {"user_ids": ["", "nobody", *user_ids]}}
    event = event_of({"type": "m.room.message", "sender": ALICE, "content": content})
    assert evaluate_defaults(event, levels_of({})).highlights == set(user_ids[:MAX_MENTIONED])
