"""State events of a room in the form that another room version takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.power_levels import creators, read_level
from homeserver.ids import is_user_id
from homeserver.services.room_creation import CREATOR_LEVEL, tombstone_level

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import UserId

_NUMBERS = ("ban", "events_default", "invite", "kick", "redact", "state_default", "users_default")
_MAPS = ("events", "notifications", "users")
_TOMBSTONE = "m.room.tombstone"


def levels_for(
    version: RoomVersion, create: Mapping[str, Any], user_id: UserId, old_create: Event, current: Event | None
) -> dict[str, Any]:
    """The power levels of a room in a new version: every level a number, creators where they belong."""
    content: dict[str, Any] = {"users": {user_id: CREATOR_LEVEL}}
    if current is not None:
        content = _as_numbers(current)
    users: dict[str, int] = {name: level for name, level in content["users"].items() if is_user_id(name)}
    events: dict[str, int] = content.get("events", {})
    if version.creators_are_privileged:
        privileged = {user_id, *create.get("additional_creators", [])}
        users = {name: level for name, level in users.items() if name not in privileged}
        events = {**events, _TOMBSTONE: tombstone_level(content.get("state_default", 50))}
    else:
        # Creators of version 12 stood above all levels, and are now to stand beside the highest.
        highest = max([CREATOR_LEVEL, *users.values()])
        users |= {name: highest for name in creators(old_create) if is_user_id(name)}
        if events.get(_TOMBSTONE, 0) > highest:
            events = {**events, _TOMBSTONE: highest}
    content["users"] = users
    if events:
        content["events"] = events
    return content


def first_power_levels(
    version: RoomVersion, user_id: UserId, wanted: dict[str, Any], types: Collection[str]
) -> dict[str, Any]:
    """The levels with which the one who upgrades can send state events of these types, and `wanted` after them."""
    if version.creators_are_privileged:
        return wanted
    events: dict[str, int] = wanted.get("events", {})
    default = wanted.get("state_default", 50)
    needed = max(events.get(event_type, default) for event_type in (*types, "m.room.power_levels"))
    if wanted["users"].get(user_id, wanted.get("users_default", 0)) >= needed:
        return wanted
    return {**wanted, "users": {**wanted["users"], user_id: needed}}


def join_rules_for(version: RoomVersion, content: dict[str, Any]) -> dict[str, Any]:
    """The join rules of a room; a rule that the version does not know becomes the closest one that it knows."""
    rule = content.get("join_rule")
    if rule == "knock_restricted" and not version.has_knock_restricted_join:
        rule = "restricted" if version.has_restricted_join else "knock" if version.has_knock else "invite"
    if rule == "restricted" and not version.has_restricted_join:
        rule = "invite"
    if rule == "knock" and not version.has_knock:
        rule = "invite"
    return {**content, "join_rule": rule} if rule is not None else content


def muted(version: RoomVersion, content: dict[str, Any]) -> dict[str, Any]:
    """Levels under which nobody but moderators sends and invites: "the greater of 50 and `users_default` + 1"."""
    users_default = read_level(version, content.get("users_default")) or 0
    restricted = max(50, users_default + 1)
    levels = dict(content)
    for name in ("events_default", "invite"):
        levels[name] = max(restricted, read_level(version, content.get(name)) or 0)
    return levels


def _as_numbers(event: Event) -> dict[str, Any]:
    """The content of a power levels event without what is no level; before version 10 text could be one."""
    content = dict(event.content)
    for name in _NUMBERS:
        level = read_level(event.version, content.pop(name, None))
        if level is not None:
            content[name] = level
    for name in _MAPS:
        levels = content.pop(name, None)
        if isinstance(levels, dict) or name == "users":
            content[name] = {
                key: level
                for key, value in (levels.items() if isinstance(levels, dict) else ())
                if (level := read_level(event.version, value)) is not None
            }
    return content
