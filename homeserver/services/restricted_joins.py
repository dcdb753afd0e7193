"""Who may join a restricted room without an invite, and who of this server lets them in (CS "Restricted rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.auth_member import join_rule_of
from homeserver.ids import RoomId, UserId, server_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import ServerName
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.memberships import MembershipStore


_MAX_AUTHORISERS = 100


def is_restricted(version: RoomVersion, state: Mapping[StateKey, Event]) -> bool:
    """Whether the join rules of a state let members of other rooms in."""
    rule = join_rule_of(state)
    return (rule == "restricted" and version.has_restricted_join) or (
        rule == "knock_restricted" and version.has_knock_restricted_join
    )


def allowed_rooms(join_rules: Event) -> list[RoomId]:
    """The rooms whose members may join."""
    allow = join_rules.content.get("allow")
    return [
        RoomId(condition["room_id"])
        for condition in (allow if isinstance(allow, list) else [])
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]


class RestrictedJoins:
    """Answers from what this server knows of the rooms."""

    def __init__(self, server_name: ServerName, rooms: RoomReader, store: MembershipStore) -> None:
        self._server_name = server_name
        self._rooms = rooms
        self._store = store

    async def meets_condition(self, user_id: UserId, join_rules: Event) -> bool:
        """Whether a user is in one of the rooms whose members may join."""
        rooms = await self._rooms.rooms_of(user_id)
        return any(
            room_id in rooms and rooms[room_id].membership == "join" for room_id in allowed_rooms(join_rules)
        )

    async def authoriser(self, room_id: RoomId) -> UserId | None:
        """A member of this server who may invite, looked for without going through all the members first."""
        levels = await self._rooms.power_levels(room_id)
        required = levels.required_for("invite")
        for name in levels.named_users:
            if server_name_of(name) == self._server_name and levels.user_level(name) >= required:
                row = await self._rooms.membership(room_id, UserId(name))
                if row is not None and row.membership == "join":
                    return row.user_id
        if levels.users_default >= required:
            room_nid = await self._rooms.room_nid(room_id)
            # Those with less than the default are named: one more than them is enough.
            most = len(levels.named_users) + 1
            for user_id in await self._store.load_local_members(room_nid, self._server_name, most):
                if levels.user_level(user_id) >= required:
                    return user_id
        return None

    async def other_authorisers(self, room_id: RoomId) -> list[ServerName]:
        """Other servers that have somebody in a room who may invite, those of whom it is certain first."""
        levels = await self._rooms.power_levels(room_id)
        required = levels.required_for("invite")
        servers: list[ServerName] = []
        named = sorted(levels.named_users, key=levels.user_level, reverse=True)
        for name in named[:_MAX_AUTHORISERS]:
            row = await self._rooms.membership(room_id, UserId(name))
            if row is not None and row.membership == "join" and levels.user_level(name) >= required:
                servers.append(server_name_of(name))
        if levels.users_default >= required:
            servers += sorted(await self._rooms.servers(room_id))
        return [name for name in dict.fromkeys(servers) if name != self._server_name]
