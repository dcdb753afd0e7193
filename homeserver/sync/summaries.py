"""Heroes and member counts (CS `GET /sync`, "RoomSummary"), from memory until a membership of the room changes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    present: list[UserId]
    gone: list[UserId]
    joined: int
    invited: int


class Summaries:
    """Answers who stands for a room that has no name."""

    def __init__(self, notifier: Notifier, recent: RecentEvents, memberships: MembershipStore) -> None:
        self._notifier = notifier
        self._recent = recent
        self._memberships = memberships
        self._rooms: OrderedDict[int, _Members] = OrderedDict()

    async def of(self, room_nid: int, user_id: UserId) -> dict[str, Any]:
        """The summary of a room for one of its members."""
        members = self._known(room_nid) or await self._read(room_nid)
        heroes = [one for one in members.present if one != user_id]
        if not heroes:
            heroes = [one for one in members.gone if one != user_id]
        return {
            "m.heroes": heroes[:HEROES],
            "m.joined_member_count": members.joined,
            "m.invited_member_count": members.invited,
        }

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
        members = self._rooms[room_nid] = _Members(position, present, gone, joined, invited)
        if len(self._rooms) > _CACHED_ROOMS:
            self._rooms.popitem(last=False)
        return members
