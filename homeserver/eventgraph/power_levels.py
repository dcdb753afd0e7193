"""Power levels (CS `m.room.power_levels`; "Authorization rules" of each room version)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.errors import AuthRuleViolated

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import UserId

CREATOR_LEVEL = 2**63
"""Stands above every level that an event can hold: the creators of rooms from version 12 on."""

_DEFAULTS = {
    "ban": 50,
    "kick": 50,
    "redact": 50,
    "invite": 0,
    "events_default": 0,
    "state_default": 50,
    "users_default": 0,
}
_TEXT_LEVEL = re.compile(r"\s*[+-]?[0-9]+\s*")
# Python reads no longer ones; no event of good will comes near.
_MAX_DIGITS = 4_000


def read_level(version: RoomVersion, value: Any) -> int | None:
    """A power level as a number, or None where it is not one that this room version takes."""
    if type(value) is int:
        return value
    if version.power_levels_are_integers:
        return None
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and _TEXT_LEVEL.fullmatch(value):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return None


def creators(create: Event) -> frozenset[str]:
    """The privileged creators of a room (from version 12); empty before."""
    if not create.version.creators_are_privileged:
        return frozenset()
    additional = create.content.get("additional_creators")
    others = additional if isinstance(additional, list) else []
    return frozenset([create.sender, *(user_id for user_id in others if isinstance(user_id, str))])


def creator_of(create: Event) -> str | None:
    """The one who made the room."""
    return create.sender if create.version.creator_is_sender else create.content.get("creator")


class PowerLevels:
    """The power levels in force, read from the create event and the power levels event, if there is one."""

    __slots__ = ("_content", "_creator", "_creators", "_event_levels", "_users", "_users_default", "version")

    def __init__(self, version: RoomVersion, create: Event | None, event: Event | None) -> None:
        self.version = version
        self._creators = creators(create) if create is not None else frozenset()
        self._content: dict[str, Any] | None = event.content if event is not None else None
        self._creator = creator_of(create) if create is not None and event is None else None
        users = self._content.get("users") if self._content is not None else None
        self._users: dict[str, Any] = users if isinstance(users, dict) else {}
        events = self._content.get("events") if self._content is not None else None
        self._event_levels: dict[str, Any] = events if isinstance(events, dict) else {}
        self._users_default = self._level("users_default")

    def user_level(self, user_id: UserId | str) -> int:
        """The power level of a user."""
        if user_id in self._creators:
            return CREATOR_LEVEL
        if self._content is None:
            # Without the event the creator has 100, and everybody else 0.
            return 100 if user_id == self._creator else 0
        level = read_level(self.version, self._users.get(user_id))
        return self._users_default if level is None else level

    @property
    def users_default(self) -> int:
        """The power level of whom nobody names."""
        return self._users_default if self._content is not None else 0

    @property
    def named_users(self) -> list[str]:
        """The users with a level of their own: those whom the event names, and the creators."""
        return [*self._creators, *self._users, *([self._creator] if self._creator is not None else [])]

    def required_for(self, action: str) -> int:
        """The level for `ban`, `kick`, `redact` or `invite`."""
        return self._level(action)

    def required_for_event(self, event_type: str, *, is_state: bool) -> int:
        """The level for sending an event of a type."""
        level = read_level(self.version, self._event_levels.get(event_type))
        if level is not None:
            return level
        return self._level("state_default" if is_state else "events_default")

    def notification_level(self, key: str) -> int:
        """The level for notifying by `key` (`room`): 50 where nothing is said."""
        notifications = self._content.get("notifications") if self._content is not None else None
        level = read_level(self.version, notifications.get(key)) if isinstance(notifications, dict) else None
        return 50 if level is None else level

    def can_send(self, user_id: UserId | str, event_type: str, *, is_state: bool) -> bool:
        """Whether the level of a user is enough for an event of a type."""
        return self.user_level(user_id) >= self.required_for_event(event_type, is_state=is_state)

    def _level(self, name: str) -> int:
        if self._content is None:
            return _DEFAULTS[name]
        level = read_level(self.version, self._content.get(name))
        return _DEFAULTS[name] if level is None else level


def check_power_levels_event(event: Event, create: Event, current: Event | None, sender_level: int) -> None:
    """The rules for a new `m.room.power_levels` event; raises `AuthRuleViolated`."""
    version = event.version
    content = event.content
    if version.power_levels_are_integers:
        _check_types(event)
    users = content.get("users", {})
    if not isinstance(users, dict) or any(
        read_level(version, level) is None or not user_id.startswith("@") or ":" not in user_id
        for user_id, level in users.items()
    ):
        raise AuthRuleViolated("power_levels.users", "`users` is not an object of user ids and levels")
    if named := creators(create) & users.keys():
        raise AuthRuleViolated("power_levels.creators", f"{min(named)} is a creator and needs no level")
    if current is None:
        return
    for name in ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"):
        old, new = _present(version, current.content, name), _present(version, content, name)
        if old != new:
            for level in (old, new):
                if level is not None and level > sender_level:
                    raise AuthRuleViolated(
                        f"power_levels.{name}", f"you may not change `{name}`: it is above your level"
                    )
    maps = ("events", "notifications") if version.notification_levels_are_checked else ("events",)
    for name in maps:
        for entry, old, new in _changes(version, current.content.get(name), content.get(name)):
            for level in (old, new):
                if level is not None and level > sender_level:
                    raise AuthRuleViolated(
                        f"power_levels.{name}",
                        f"you may not change `{name}` for {entry}: it is above your level",
                    )
    for user_id, old, new in _changes(version, current.content.get("users"), users):
        if old is not None and user_id != event.sender and old >= sender_level:
            raise AuthRuleViolated(
                "power_levels.users", f"you may not change the level of {user_id}: it is not below yours"
            )
        if (new is not None and new > sender_level) or (old is not None and old > sender_level):
            raise AuthRuleViolated("power_levels.users", f"you may not give {user_id} a level above your own")


def _check_types(event: Event) -> None:
    content = event.content
    for name in ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"):
        if name in content and type(content[name]) is not int:
            raise AuthRuleViolated("power_levels.types", f"`{name}` is not an integer")
    for name in ("events", "notifications"):
        levels = content.get(name, {})
        if not isinstance(levels, dict) or any(type(level) is not int for level in levels.values()):
            raise AuthRuleViolated("power_levels.types", f"`{name}` is not an object of integers")


def _present(version: RoomVersion, content: dict[str, Any], name: str) -> int | None:
    return read_level(version, content.get(name))


def _changes(version: RoomVersion, old: Any, new: Any) -> list[tuple[str, int | None, int | None]]:
    old = old if isinstance(old, dict) else {}
    new = new if isinstance(new, dict) else {}
    changes = []
    for entry in {**old, **new}:
        before, after = read_level(version, old.get(entry)), read_level(version, new.get(entry))
        if before != after:
            changes.append((entry, before, after))
    return changes
