"""The predefined push rules (CS "Push Rules: Predefined Rules") and what they say of an event."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from homeserver.ids import is_user_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.power_levels import PowerLevels

EVERYBODY = ""
"""Stands for every member of the room among those whom an event highlights."""

_NOTIFYING_TYPES = frozenset({"m.room.message", "m.room.encrypted", "m.call.invite"})
MAX_MENTIONED = 100
_SOUND = {"set_tweak": "sound", "value": "default"}
_RING = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT = {"set_tweak": "highlight"}


@dataclass(frozen=True, slots=True)
class DefaultVerdict:
    """What the predefined rules say of an event: whether it notifies everybody, and whom it highlights."""

    notifies: bool
    highlights: frozenset[str]


_SILENT = DefaultVerdict(notifies=False, highlights=frozenset())
_NOTIFIES = DefaultVerdict(notifies=True, highlights=frozenset())


def evaluate_defaults(event: Event, levels: PowerLevels) -> DefaultVerdict:
    """The verdict of the predefined rules, once for all members of a room.

    Rules are tried in their order; the first that matches decides. An invite notifies its target, who is not in
    the room yet and counts nothing.
    """
    content = event.content
    # "The match is performed case-insensitively."
    event_type = event.type.lower()
    message_type = content.get("msgtype")
    if isinstance(message_type, str) and message_type.lower() == "m.notice":
        return _SILENT
    if event_type == "m.room.member":
        return _SILENT
    mentions = content.get("m.mentions")
    mentioned: frozenset[str] = frozenset()
    if isinstance(mentions, dict):
        mentioned = mentioned_users(content)
        if mentions.get("room") is True and levels.user_level(event.sender) >= levels.notification_level(
            "room"
        ):
            return DefaultVerdict(notifies=True, highlights=frozenset({EVERYBODY}))
    if event_type == "m.room.tombstone" and event.state_key == "":
        return DefaultVerdict(notifies=True, highlights=frozenset({EVERYBODY}))
    relates_to = content.get("m.relates_to")
    is_edit = isinstance(relates_to, dict) and relates_to.get("rel_type") == "m.replace"
    notifies = event_type in _NOTIFYING_TYPES and not is_edit
    if not mentioned:
        return _NOTIFIES if notifies else _SILENT
    return DefaultVerdict(notifies=notifies, highlights=mentioned - {event.sender})


def mentioned_users(content: Mapping[str, Any]) -> frozenset[str]:
    """The first so many users that an event mentions: each costs a row."""
    mentions = content.get("m.mentions")
    user_ids = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(user_ids, list):
        return frozenset()
    found = (user_id for user_id in user_ids if isinstance(user_id, str) and is_user_id(user_id))
    return frozenset(islice(found, MAX_MENTIONED))


def _match(key: str, pattern: str) -> dict[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _rule(
    rule_id: str, conditions: list[dict[str, Any]], actions: list[Any], *, enabled: bool = True
) -> dict[str, Any]:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": enabled,
        "conditions": conditions,
        "actions": actions,
    }


def default_rules(user_id: str) -> dict[str, list[dict[str, Any]]]:
    """The predefined rules of a user by kind, in their order."""
    two_members = {"kind": "room_member_count", "is": "2"}
    return {
        "override": [
            _rule(".m.rule.master", [], [], enabled=False),
            _rule(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
            _rule(
                ".m.rule.invite_for_me",
                [
                    _match("type", "m.room.member"),
                    _match("content.membership", "invite"),
                    _match("state_key", user_id),
                ],
                ["notify", _SOUND],
            ),
            _rule(".m.rule.member_event", [_match("type", "m.room.member")], []),
            _rule(
                ".m.rule.is_user_mention",
                [
                    {
                        "kind": "event_property_contains",
                        "key": r"content.m\.mentions.user_ids",
                        "value": user_id,
                    }
                ],
                ["notify", _SOUND, _HIGHLIGHT],
            ),
            _rule(
                ".m.rule.is_room_mention",
                [
                    {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
                    {"kind": "sender_notification_permission", "key": "room"},
                ],
                ["notify", _HIGHLIGHT],
            ),
            _rule(
                ".m.rule.tombstone",
                [_match("type", "m.room.tombstone"), _match("state_key", "")],
                ["notify", _HIGHLIGHT],
            ),
            _rule(".m.rule.reaction", [_match("type", "m.reaction")], []),
            _rule(
                ".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")], []
            ),
            _rule(
                ".m.rule.suppress_edits",
                [
                    {
                        "kind": "event_property_is",
                        "key": r"content.m\.relates_to.rel_type",
                        "value": "m.replace",
                    }
                ],
                [],
            ),
        ],
        "content": [],
        "postcontent": [
            _rule(
                ".io.element.msc4306.rule.unsubscribed_thread",
                [{"kind": "io.element.msc4306.thread_subscription", "subscribed": False}],
                [],
            ),
            _rule(
                ".io.element.msc4306.rule.subscribed_thread",
                [{"kind": "io.element.msc4306.thread_subscription", "subscribed": True}],
                ["notify", _SOUND],
            ),
        ],
        "room": [],
        "sender": [],
        "underride": [
            _rule(".m.rule.call", [_match("type", "m.call.invite")], ["notify", _RING]),
            _rule(
                ".m.rule.encrypted_room_one_to_one",
                [two_members, _match("type", "m.room.encrypted")],
                ["notify", _SOUND],
            ),
            _rule(
                ".m.rule.room_one_to_one", [two_members, _match("type", "m.room.message")], ["notify", _SOUND]
            ),
            _rule(".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
            _rule(".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
        ],
    }
