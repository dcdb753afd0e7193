"""Member events of ours for rooms elsewhere, made out of the templates of resident servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.checks import check_format, check_size
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import EventId, random_string

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from federation.answers import Template
    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, ServerName, UserId


_MAX_VERSION_LENGTH = 32


class UnknownVersion(EventRefused):
    """The template is for a room of a version that is unknown here."""

    def __init__(self, room_version: str) -> None:
        super().__init__(f"the room is of the unknown version {room_version!r}")
        self.room_version = room_version[:_MAX_VERSION_LENGTH]


def version_of(template: Template) -> RoomVersion:
    """The version of the room that a template is for; raises `UnknownVersion`."""
    version = ROOM_VERSIONS.get(template.room_version)
    if version is None:
        raise UnknownVersion(template.room_version)
    return version


class MemberTemplates:
    """Completes and signs member events."""

    def __init__(self, server_name: ServerName, key: SigningKey, clock: Clock) -> None:
        self._server_name = server_name
        self._key = key
        self._clock = clock

    def complete(
        self,
        version: RoomVersion,
        template: Template,
        room_id: RoomId,
        user_id: UserId,
        content: dict[str, Any],
        *,
        membership: str,
    ) -> Event:
        """A member event of ours out of the template of another server; raises `EventRefused` for a template of
        something else.
        """
        offered = template.event
        wanted = {"type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id}
        if any(offered.get(name) != value for name, value in wanted.items()):
            raise EventRefused("the template is of another event")
        if not isinstance(offered.get("content"), dict) or offered["content"].get("membership") != membership:
            raise EventRefused("the template is of another membership")
        depth = offered.get("depth")
        if type(depth) is not int:
            raise EventRefused("the template has no depth")
        return self.build(
            version,
            room_id,
            user_id,
            {**content, "membership": membership},
            depth=depth,
            prev_events=_references(version, offered.get("prev_events")),
            auth_events=_references(version, offered.get("auth_events")),
        )

    def build(
        self,
        version: RoomVersion,
        room_id: RoomId,
        user_id: UserId,
        content: dict[str, Any],
        *,
        depth: int,
        prev_events: Sequence[EventReference],
        auth_events: Sequence[EventReference],
    ) -> Event:
        """A member event of a user of ours at a place in a room that others told of; raises `EventRefused`."""
        event = build(
            version,
            room_id=room_id,
            sender=user_id,
            type="m.room.member",
            state_key=user_id,
            content=content,
            origin_server_ts=self._clock.now_ms(),
            depth=depth,
            prev_events=prev_events,
            auth_events=auth_events,
            server_name=self._server_name,
            key=self._key,
            event_id=EventId(f"${random_string(32)}:{self._server_name}")
            if version.event_ids_are_given
            else None,
        )
        check_format(version, event.pdu)
        check_size(event.json)
        return event


def _references(version: RoomVersion, references: Any) -> list[EventReference]:
    if not isinstance(references, list):
        raise EventRefused("the template lacks references to other events")
    found = []
    for reference in references:
        event_id, sha256 = reference, None
        if version.event_ids_are_given:
            if not isinstance(reference, list) or len(reference) != 2 or not isinstance(reference[1], dict):
                raise EventRefused("the template holds something that is not a reference")
            event_id, sha256 = reference[0], reference[1].get("sha256")
        if not isinstance(event_id, str) or not isinstance(sha256, str | None):
            raise EventRefused("the template holds something that is not a reference")
        found.append(EventReference(EventId(event_id), sha256))
    return found
