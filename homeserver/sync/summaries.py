"""Heroes and member counts (CS `GET /sync`, "RoomSummary"), from memory until a membership of the room changes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import UserId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.memberships import MembershipStore

HEROES = 5
_CACHED_ROOMS = 5_000


@dataclass(slots=True)
class _Members:
    """Who was there at a position: one more than is shown, since a reader is not their own hero."""

    position: int
    joined: int
    invited: int
    present: list[UserId] | None = None
    """None until somebody wants to know."""
    gone: list[UserId] = field(default_factory=list)


class Summaries:
    """Answers who stands for a room that has no name."""

    def __init__(self, notifier: Notifier, recent: RecentEvents, memberships: MembershipStore) -> None:
        self._notifier = notifier
        self._recent = recent
        self._memberships = memberships
        self._rooms: OrderedDict[int, _Members] = OrderedDict()

    async def heroes(self, room_nid: int, user_id: UserId) -> list[UserId]:
        """Those after whom a room is called for one of its members."""
        members = self._known(room_nid)
        if members is None or members.present is None:
            members = await self._read(room_nid)
        present = members.present or []
        heroes = [one for one in present if one != user_id] or [one for one in members.gone if one != user_id]
        return heroes[:HEROES]

    async def counts(self, room_nid: int) -> dict[str, int]:
        """How many members a room has."""
        members = self._known(room_nid)
        if members is None:
            await self.load_counts([room_nid])
            members = self._rooms[room_nid]
        return {"m.joined_member_count": members.joined, "m.invited_member_count": members.invited}

    async def load_counts(self, room_nids: Iterable[int]) -> None:
        """Have the numbers of members of several rooms in memory."""
        missing = [room_nid for room_nid in room_nids if self._known(room_nid) is None]
        if missing:
            position = self._notifier.position
            counts = await self._memberships.load_counts(missing)
            for room_nid in missing:
                self._keep(room_nid, _Members(position, *counts.get(room_nid, (0, 0))))

    async def load_heroes(self, room_nids: Iterable[int]) -> None:
        """Have those in memory after whom several rooms are called, where there is anybody else in them."""
        missing = [
            room_nid
            for room_nid in room_nids
            if (members := self._known(room_nid)) is not None and members.present is None
        ]
        if missing:
            present = await self._memberships.load_first_joined_or_invited(missing, HEROES + 1)
            for room_nid, user_ids in present.items():
                members = self._known(room_nid)
                if members is not None and len(user_ids) > 1:
                    members.present = user_ids

    def _known(self, room_nid: int) -> _Members | None:
        members = self._rooms.get(room_nid)
        if members is None:
            return None
        position = self._notifier.position
        came = self._recent.since(room_nid, members.position, position)
        if came is None or any(stored.event.type == "m.room.member" for stored in came):
            del self._rooms[room_nid]
            return None
        members.position = max(members.position, position)
        self._rooms.move_to_end(room_nid)
        return members

    async def _read(self, room_nid: int) -> _Members:
        position = self._notifier.position
        joined, invited = await self._memberships.count(room_nid)
        present = await self._memberships.load_first_members(room_nid, ("join", "invite"), HEROES + 1)
        gone: list[UserId] = []
        if len(present) <= 1:
            gone = await self._memberships.load_first_members(room_nid, ("leave", "ban"), HEROES + 1)
        return self._keep(room_nid, _Members(position, joined, invited, present, gone))

    def _keep(self, room_nid: int, members: _Members) -> _Members:
        self._rooms[room_nid] = members
        self._rooms.move_to_end(room_nid)
        if len(self._rooms) > _CACHED_ROOMS:
            self._rooms.popitem(last=False)
        return members
