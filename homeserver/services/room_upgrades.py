"""Upgrades of rooms to another version (CS "Room Upgrades")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, MatrixError
from homeserver.services.event_writer import NewEvent
from homeserver.services.room_creation import create_content, room_version
from homeserver.services.suspension import check_not_suspended
from homeserver.services.upgraded_state import first_power_levels, join_rules_for, levels_for, muted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.power_levels import PowerLevels
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.directory import Directory
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.joins import Joins
    from homeserver.services.profiles import Profiles
    from homeserver.services.requester import Requester
    from homeserver.services.room_creation import RoomCreation
    from homeserver.storage.database import Transaction

_CREATE, _LEVELS = ("m.room.create", ""), ("m.room.power_levels", "")
_JOIN_RULES, _ALIAS = ("m.room.join_rules", ""), ("m.room.canonical_alias", "")
_TRANSFERRED: list[StateKey] = [
    ("m.room.server_acl", ""),
    ("m.room.encryption", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.guest_access", ""),
    ("m.room.history_visibility", ""),
    _JOIN_RULES,
    _ALIAS,
]
_SPACE_CHILD = "m.space.child"


class RoomUpgrades:
    """Replaces rooms."""

    def __init__(
        self,
        rooms: RoomReader,
        writer: EventWriter,
        creation: RoomCreation,
        profiles: Profiles,
        directory: Directory,
        joins: Joins,
    ) -> None:
        self._rooms = rooms
        self._writer = writer
        self._creation = creation
        self._profiles = profiles
        self._directory = directory
        self._joins = joins

    async def upgrade(
        self, requester: Requester, room_id: RoomId, new_version: str, additional_creators: Sequence[str]
    ) -> RoomId:
        """Make the room that replaces another one, and say so in the old one; the answer is the new one's id.

        Until the old room says so the new one has neither aliases nor a place in the list: should the server stop
        between the two, nobody but its creator knows of it.
        """
        check_not_suspended(requester)
        version = room_version(new_version)
        user_id = requester.user_id
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        levels = await self._rooms.power_levels(room_id)
        if not levels.can_send(user_id, "m.room.tombstone", is_state=True):
            raise Forbidden("You may not upgrade this room")
        state = await self._rooms.state_entries(room_id, [*_TRANSFERRED, _CREATE, _LEVELS])
        create = self._create_content(user_id, room_id, version, state[_CREATE], additional_creators)
        member = {**await self._profiles.member_content(user_id), "membership": "join"}
        transferred = await self._transferred(user_id, room_id, version, state)
        wanted = levels_for(version, create, user_id, state[_CREATE], state.get(_LEVELS))
        first = first_power_levels(version, user_id, wanted, {event.type for event in transferred})
        events = [
            NewEvent("m.room.create", create, user_id, state_key=""),
            NewEvent("m.room.member", member, user_id, state_key=user_id),
            NewEvent("m.room.power_levels", first, user_id, state_key=""),
            *transferred,
        ]
        if first != wanted:
            events.append(NewEvent("m.room.power_levels", wanted, user_id, state_key=""))
        new_room = await self._creation.write(user_id, version, events)
        await self._close(user_id, room_id, new_room, levels, has_alias=_ALIAS in state)
        await self._mute(user_id, room_id, state.get(_LEVELS))
        await self._joins.carry_over(user_id, new_room)
        return new_room

    def _create_content(
        self,
        user_id: UserId,
        room_id: RoomId,
        version: RoomVersion,
        old: Event,
        additional_creators: Sequence[str],
    ) -> dict[str, Any]:
        wanted: dict[str, Any] = {"predecessor": {"room_id": room_id}}
        for name in ("type", "m.federate"):
            if name in old.content:
                wanted[name] = old.content[name]
        if version.creators_are_privileged and additional_creators:
            wanted["additional_creators"] = list(dict.fromkeys(additional_creators))
        if not version.creators_are_privileged:
            # From version 12 on it may be left out; before, clients look for it.
            wanted["predecessor"]["event_id"] = old.event_id
        return create_content(user_id, version, wanted)

    async def _transferred(
        self, user_id: UserId, room_id: RoomId, version: RoomVersion, state: dict[StateKey, Event]
    ) -> list[NewEvent]:
        """What goes over into the new room; what was redacted says nothing and stays behind."""
        events = []
        for key in _TRANSFERRED:
            content = state[key].content if key in state else {}
            if key == _JOIN_RULES:
                content = join_rules_for(version, content)
            if content:
                events.append(NewEvent(key[0], content, user_id, state_key=key[1]))
        if state[_CREATE].content.get("type") == "m.space":
            children = await self._rooms.state_of_type(room_id, _SPACE_CHILD)
            events += [
                NewEvent(_SPACE_CHILD, child.content, user_id, state_key=key)
                for key, child in sorted(children.items())
                if child.content
            ]
        return events

    async def _close(
        self, user_id: UserId, old: RoomId, new: RoomId, levels: PowerLevels, *, has_alias: bool
    ) -> None:
        """In one transaction: the tombstone, the aliases and the place in the list, which go to the new room."""
        published = await self._directory.is_published(old)

        async def extra(transaction: Transaction, _: RoomId) -> None:
            await self._directory.move_in(transaction, old, new)
            if published:
                await self._directory.publish_in(transaction, old, published=False)
                await self._directory.publish_in(transaction, new, published=True)

        content = {"body": "This room has been replaced", "replacement_room": new}
        events = [NewEvent("m.room.tombstone", content, user_id, state_key="")]
        if has_alias and levels.can_send(user_id, _ALIAS[0], is_state=True):
            events.append(NewEvent(_ALIAS[0], {}, user_id, state_key=""))
        await self._writer.write_all(old, events, extra=extra)

    async def _mute(self, user_id: UserId, room_id: RoomId, current: Event | None) -> None:
        """Let nobody but moderators talk and invite in the old room, where the one who upgrades it may say so."""
        if current is None:
            return
        try:
            content = muted(current.version, current.content)
            await self._writer.write(room_id, NewEvent(_LEVELS[0], content, user_id, state_key=""))
        except MatrixError:
            # Whoever may not change the levels leaves them.
            return
