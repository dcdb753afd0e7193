"""Rooms as other servers describe them: of what they say, what has the right form is passed on, and no more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.ids import is_room_id, is_user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPACE = "m.space"
CHILD = "m.space.child"
_MAX_TEXT = 10_000
_MAX_VIA = 20
_MAX_CONDITIONS = 100
_MAX_INTEGER = 2**53 - 1


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


_OPTIONAL: Mapping[str, Callable[[Any], bool]] = {
    "name": _text,
    "topic": _text,
    "avatar_url": lambda value: _text(value) and value.startswith("mxc://"),
    "canonical_alias": lambda value: _text(value) and value.startswith("#"),
    "room_type": _text,
    "encryption": _text,
    "room_version": _text,
}


def read_summary(described: Any) -> dict[str, Any] | None:
    """A room in the form of a `RoomSummary`; None for what is none."""
    if not isinstance(described, dict):
        return None
    room_id = described.get("room_id")
    if not isinstance(room_id, str) or not is_room_id(room_id):
        return None
    members, rule = described.get("num_joined_members"), described.get("join_rule")
    summary: dict[str, Any] = {
        "room_id": room_id,
        "num_joined_members": members if type(members) is int and 0 <= members <= _MAX_INTEGER else 0,
        "world_readable": described.get("world_readable") is True,
        "guest_can_join": described.get("guest_can_join") is True,
        # "When not present, the room is assumed to be `public`."
        "join_rule": rule if _text(rule) else "public" if rule is None else "invite",
    }
    for name, is_right in _OPTIONAL.items():
        if is_right(described.get(name)):
            summary[name] = described[name]
    allowed = described.get("allowed_room_ids")
    if isinstance(allowed, list):
        rooms = [one for one in allowed[:_MAX_CONDITIONS] if isinstance(one, str)]
        if rooms := [one for one in rooms if is_room_id(one)]:
            summary["allowed_room_ids"] = rooms
    return summary


def read_child(told: Any) -> dict[str, Any] | None:
    """An `m.space.child` event in the form of `children_state`; None for what is none."""
    if not isinstance(told, dict) or told.get("type") != CHILD:
        return None
    room_id, content, sender = told.get("state_key"), told.get("content"), told.get("sender")
    ts = told.get("origin_server_ts")
    if not isinstance(room_id, str) or not is_room_id(room_id) or not isinstance(content, dict):
        return None
    if not isinstance(sender, str) or not is_user_id(sender) or type(ts) is not int:
        return None
    via = content.get("via")
    if not isinstance(via, list) or not via or not all(isinstance(name, str) for name in via):
        return None
    kept: dict[str, Any] = {"via": via[:_MAX_VIA]}
    if isinstance(content.get("order"), str) and len(content["order"]) <= _MAX_TEXT:
        kept["order"] = content["order"]
    if isinstance(content.get("suggested"), bool):
        kept["suggested"] = content["suggested"]
    return {"type": CHILD, "state_key": room_id, "content": kept, "sender": sender, "origin_server_ts": ts}
