"""Redaction: what is left of an event (specification, "Redactions" of each room version)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from homeserver.eventgraph.room_versions import RoomVersion

_KEPT = frozenset(
    {
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
    }
)
_KEPT_BEFORE_V11 = _KEPT | {"prev_state", "origin", "membership"}
_POWER_LEVELS = frozenset(
    {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
)


def redact(version: RoomVersion, pdu: dict[str, Any]) -> dict[str, Any]:
    """The redacted copy of an event; `unsigned` goes too."""
    kept = _KEPT if version.redaction_is_v11 else _KEPT_BEFORE_V11
    redacted = {name: value for name, value in pdu.items() if name in kept}
    content = pdu.get("content")
    redacted["content"] = (
        _redact_content(version, pdu.get("type"), content) if isinstance(content, dict) and content else {}
    )
    return redacted


def _redact_content(version: RoomVersion, event_type: Any, content: dict[str, Any]) -> dict[str, Any]:
    if event_type == "m.room.create" and version.redaction_is_v11:
        return content
    kept = _kept_content(version, event_type)
    redacted = {name: value for name, value in content.items() if name in kept}
    if event_type == "m.room.member" and version.redaction_is_v11:
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            # "Additionally, it allows the `signed` key of the `third_party_invite` key": an invite without it stays
            # as an empty one, in every implementation.
            redacted["third_party_invite"] = {
                name: value for name, value in invite.items() if name == "signed"
            }
    return redacted


def _kept_content(version: RoomVersion, event_type: Any) -> frozenset[str]:
    kept: frozenset[str] = frozenset()
    if event_type == "m.room.member":
        kept = frozenset({"membership"})
        if version.redaction_keeps_restricted_join:
            kept |= {"join_authorised_via_users_server"}
    elif event_type == "m.room.create":
        kept = frozenset({"creator"})
    elif event_type == "m.room.join_rules":
        kept = frozenset({"join_rule"})
        if version.has_restricted_join:
            kept |= {"allow"}
    elif event_type == "m.room.power_levels":
        kept = _POWER_LEVELS
        if version.redaction_is_v11:
            kept |= {"invite"}
    elif event_type == "m.room.history_visibility":
        kept = frozenset({"history_visibility"})
    elif event_type == "m.room.aliases" and version.aliases_are_special:
        kept = frozenset({"aliases"})
    elif event_type == "m.room.redaction" and version.redaction_is_v11:
        kept = frozenset({"redacts"})
    return kept
