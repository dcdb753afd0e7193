"""Upgrades of rooms to another version (CS "Room Upgrades")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, MatrixError
from homeserver.eventgraph.power_levels import read_level
from homeserver.services.event_writer import NewEvent
from homeserver.services.room_creation import create_content, room_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.directory import Directory
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.profiles import Profiles
    from homeserver.services.requester import Requester
    from homeserver.services.room_creation import RoomCreation
    from homeserver.storage.database import Database, Transaction

_TRANSFERRED = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.canonical_alias",
)


class RoomUpgrades:
    """Replaces rooms."""

    def __init__(
        self,
        database: Database,
        rooms: RoomReader,
        writer: EventWriter,
        creation: RoomCreation,
        profiles: Profiles,
        directory: Directory,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._writer = writer
        self._creation = creation
        self._profiles = profiles
        self._directory = directory

    async def upgrade(
        self, requester: Requester, room_id: RoomId, new_version: str, additional_creators: Sequence[str]
    ) -> RoomId:
        """Make the room that replaces another one, and say so in the old one; the answer is the new one's id."""
        version = room_version(new_version)
        user_id = requester.user_id
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        levels = await self._rooms.power_levels(room_id)
        if not levels.can_send(user_id, "m.room.tombstone", is_state=True):
            raise Forbidden("You may not upgrade this room")
        keys: list[StateKey] = [
            (event_type, "") for event_type in (*_TRANSFERRED, "m.room.create", "m.room.power_levels")
        ]
        state = await self._rooms.state_entries(room_id, keys)
        events = await self._first_events(user_id, room_id, version, state, additional_creators)
        published = await self._directory.is_published(room_id)
        new_room = await self._creation.write(user_id, version, events, published=published)
        await self._close(user_id, room_id, new_room, state)
        return new_room

    async def _first_events(
        self,
        user_id: UserId,
        room_id: RoomId,
        version: RoomVersion,
        state: dict[StateKey, Event],
        additional_creators: Sequence[str],
    ) -> list[NewEvent]:
        old_create = state["m.room.create", ""].content
        wanted: dict[str, Any] = {"predecessor": {"room_id": room_id}}
        for name in ("type", "m.federate"):
            if name in old_create:
                wanted[name] = old_create[name]
        if version.creators_are_privileged and additional_creators:
            wanted["additional_creators"] = list(dict.fromkeys(additional_creators))
        if not version.creators_are_privileged:
            # From version 12 on it may be left out; before, clients look for it.
            wanted["predecessor"]["event_id"] = state["m.room.create", ""].event_id
        create = create_content(user_id, version, wanted)
        member = {**await self._profiles.member_content(user_id), "membership": "join"}
        events = [
            NewEvent("m.room.create", create, user_id, state_key=""),
            NewEvent("m.room.member", member, user_id, state_key=user_id),
        ]
        creators = (
            {user_id, *create.get("additional_creators", [])} if version.creators_are_privileged else set()
        )
        levels = _power_levels_for(user_id, version, state.get(("m.room.power_levels", "")), creators)
        events.append(NewEvent("m.room.power_levels", levels, user_id, state_key=""))
        events += [
            NewEvent(event_type, state[event_type, ""].content, user_id, state_key="")
            for event_type in _TRANSFERRED
            if (event_type, "") in state
        ]
        return events

    async def _close(self, user_id: UserId, old: RoomId, new: RoomId, state: dict[StateKey, Event]) -> None:
        async def extra(transaction: Transaction, _: RoomId) -> None:
            await self._directory.move_in(transaction, old, new)
            await self._directory.publish_in(transaction, old, published=False)

        tombstone = NewEvent(
            "m.room.tombstone",
            {"body": "This room has been replaced", "replacement_room": new},
            user_id,
            state_key="",
        )
        events = [tombstone]
        alias = state.get(("m.room.canonical_alias", ""))
        levels = await self._rooms.power_levels(old)
        if alias is not None and levels.can_send(user_id, "m.room.canonical_alias", is_state=True):
            events.append(NewEvent("m.room.canonical_alias", {}, user_id, state_key=""))
        await self._writer.write_all(old, events, extra=extra)
        current = state.get(("m.room.power_levels", ""))
        if current is None:
            return
        muted = _muted(current.version, current.content)
        try:
            await self._writer.write(old, NewEvent("m.room.power_levels", muted, user_id, state_key=""))
        except MatrixError:
            # "If possible": whoever may not change the levels leaves them.
            return


def _power_levels_for(
    user_id: UserId, version: RoomVersion, current: Event | None, creators: set[Any]
) -> dict[str, Any]:
    """The levels of the old room, in a form that the new version takes."""
    content: dict[str, Any] = dict(current.content) if current is not None else {"users": {user_id: 100}}
    users = content.get("users")
    levels = {
        name: level
        for name, value in (users.items() if isinstance(users, dict) else ())
        if name not in creators and (level := read_level(version, value)) is not None
    }
    if not version.creators_are_privileged and not levels:
        levels = {user_id: 100}
    content["users"] = levels
    if version.creators_are_privileged:
        events = content.get("events")
        content["events"] = {**(events if isinstance(events, dict) else {}), "m.room.tombstone": 150}
    return content


def _muted(version: RoomVersion, content: dict[str, Any]) -> dict[str, Any]:
    users_default = read_level(version, content.get("users_default")) or 0
    restricted = max(50, users_default + 1)
    muted = dict(content)
    for name in ("events_default", "invite"):
        muted[name] = max(restricted, read_level(version, content.get(name)) or 0)
    return muted
