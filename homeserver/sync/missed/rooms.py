"""In which rooms, and in which stretches of the log, there is something that a user has missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.owed_rooms import Owed
    from homeserver.sync.moves import MoveReader
    from homeserver.views.visibility import HistoryVisibility, MembershipHistory

_OUT = ("leave", "ban")
_BEFORE_THE_LOG = -(2**62)


@dataclass(slots=True)
class MissedRooms:
    """The rooms of a user by number, for an interval `after < position <= upto`."""

    after: int
    upto: int
    room_ids: dict[int, RoomId] = field(default_factory=dict)
    throughout: list[int] = field(default_factory=list)
    """Rooms that the user was in all the time."""
    came: list[int] = field(default_factory=list)
    """Rooms that they were out of at some time and are in at the end, or of which the client has less than of others."""
    ends: dict[int, int] = field(default_factory=dict)
    """Rooms that they left and are not in at the end, with the position at which their timeline ends."""
    begins: dict[int, int] = field(default_factory=dict)
    """Of these, where the timeline goes on that had ended before the interval."""
    stays: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Of the rooms that they were in for a part of the time, which parts: `after < position <= upto`."""

    forgotten: set[int] = field(default_factory=set)
    """Of the rooms that they left, those that they have forgotten: the timeline goes on should they come back."""

    @property
    def all(self) -> list[int]:
        """The numbers of all of these rooms."""
        return [*self.throughout, *self.came, *self.ends]

    @property
    def earliest(self) -> int:
        """The position before which nothing of them was missed."""
        return min([self.after, *(after for stays in self.stays.values() for after, _ in stays)])

    def was_there(self, room_nid: int, position: int) -> bool:
        """Whether what arrived in one of these rooms at a position was missed: the user was in the room."""
        stays = self.stays.get(room_nid, [(self.after, self.upto)])
        return any(after < position <= upto for after, upto in stays)


class MissedRoomReader:
    """Finds these rooms."""

    def __init__(self, memberships: Memberships, moves: MoveReader, visibility: HistoryVisibility) -> None:
        self._memberships = memberships
        self._moves = moves
        self._visibility = visibility

    async def read(
        self, user_id: UserId, *, since: int, after: int, upto: int, owed: Mapping[int, Owed]
    ) -> MissedRooms:
        """The rooms that a user was in at some time of an interval, as they were at its end.

        `since` is the position from which `/sync` will go on; it is before `after` where the device has caught up once
        already. For the rooms that are `owed` it is another. What `/sync` says apart from any timeline, such as an invite
        that was taken back, is not among them, nor is a room of which it begins a new timeline, since something stood
        between the user's stays, or since the client has nothing of it.
        """
        missed = MissedRooms(after, upto)
        rooms: Mapping[RoomId, MembershipRow] = await self._memberships.of_user(user_id)
        for room_id, newest in rooms.items():
            debt = owed.get(newest.room_nid)
            if debt is None and newest.stream_id <= since:
                # The usual case: nothing moved.
                if newest.membership == "join":
                    missed.room_ids[newest.room_nid] = room_id
                    missed.throughout.append(newest.room_nid)
                continue
            row = await self._moves.at(newest, upto)
            if row is None or (debt is not None and debt.since == 0):
                continue
            history = await self._visibility.history(newest)
            known, shown = (since, after) if debt is None else (debt.since, max(debt))
            if not list(_stays(history, known, upto)) or _has_gap(history, known):
                continue
            if newest.forgotten:
                missed.forgotten.add(row.room_nid)
            missed.room_ids[row.room_nid] = room_id
            missed.stays[row.room_nid] = list(_stays(history, shown, upto))
            begin = history.timeline_end(shown)
            if 0 < begin < after:
                missed.begins[row.room_nid] = begin
            if row.membership == "join":
                missed.came.append(row.room_nid)
            else:
                missed.ends[row.room_nid] = history.timeline_end(upto)
        return missed

    async def read_ever(self, user_id: UserId, upto: int) -> MissedRooms:
        """The rooms that a user is in or was in, for looking at events by their time."""
        missed = MissedRooms(_BEFORE_THE_LOG, upto)
        for room_id, row in (await self._memberships.of_user(user_id)).items():
            if row.membership == "join":
                missed.throughout.append(row.room_nid)
            elif row.membership in _OUT and not row.forgotten:
                missed.ends[row.room_nid] = row.stream_id
            else:
                continue
            missed.room_ids[row.room_nid] = room_id
        return missed


def _has_gap(history: MembershipHistory, since: int) -> bool:
    """Whether a user who was out of the room was banned, invited, ... after they had left: see `sync.moves`."""
    left = history.last_left(since) if history.at(since) != "join" else 0
    return left > 0 and history.changed_between(left, since)


def _stays(history: MembershipHistory, after: int, upto: int) -> Iterator[tuple[int, int]]:
    """The parts of an interval in which the user was in the room."""
    since: int | None = after if history.at(after) == "join" else None
    for position, membership in history.changes_between(after, upto):
        if membership == "join":
            since = position - 1 if since is None else since
        elif since is not None:
            yield since, position
            since = None
    if since is not None:
        yield since, upto
