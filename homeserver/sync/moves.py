"""The rooms that a user came into or went out of in an interval."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from homeserver.storage.room_stretch import RoomStretch
from homeserver.views.visibility import MembershipHistory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import RoomId, UserId
    from homeserver.storage.events import EventStore
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.sync.interval import Interval
    from homeserver.views.invite_permission import HiddenInvites

_OUT = ("leave", "ban")


@dataclass(frozen=True, slots=True)
class Start:
    """Where the timeline begins of a room that the user was in for a part of the interval."""

    after: int
    """The position up to which the client has had the timeline; 0 where it never had."""
    may_have_gap: bool
    """The user was banned, invited, ... in between: what the client was told of that stands apart from the rest."""
    told: int = 0
    """The position up to which events came by another way (`homeserver.sync.missed`)."""

    @property
    def timeline_after(self) -> int:
        """The position after which there are events that the client has not had."""
        return max(self.after, self.told)


@dataclass(slots=True)
class Moves:
    """Rooms by what the user became in them, each with the membership at the end of the interval."""

    came_in: dict[RoomId, Start] = field(default_factory=dict)
    went_out: dict[RoomId, tuple[MembershipRow, Start | None]] = field(default_factory=dict)
    """None where they were not in the room at any time of the interval."""
    told_apart: set[RoomId] = field(default_factory=set)
    """Of these, those where the client may not have been told all that came while they were in the room last."""
    invited: dict[RoomId, MembershipRow] = field(default_factory=dict)
    knocked: dict[RoomId, MembershipRow] = field(default_factory=dict)
    untold: list[RoomStretch] = field(default_factory=list)
    """What came while they were in rooms that they went out of and are invited to, or knock at, by the end."""

    def __len__(self) -> int:
        return len(self.came_in) + len(self.went_out) + len(self.invited) + len(self.knocked)


class MoveReader:
    """Reads moves from the log of memberships."""

    def __init__(self, memberships: MembershipStore, events: EventStore) -> None:
        self._memberships = memberships
        self._events = events

    async def at(self, row: MembershipRow, position: int) -> MembershipRow | None:
        """A membership as it was at a position: another process may have moved on before we hear of it."""
        if row.stream_id <= position:
            return row
        change = await self._memberships.get_at(row.user_id, row.room_nid, position)
        if change is None:
            return None
        (stored,) = (await self._events.load_numbered([change.event_nid])).values()
        return replace(
            row,
            membership=change.membership,
            event_nid=change.event_nid,
            stream_id=change.stream_id,
            sender=stored.event.sender,
            forgotten=False,
        )

    async def shown(self, row: MembershipRow, hidden: HiddenInvites) -> MembershipRow | None:
        """A membership as the user is told of it: what it was before invites that are not shown; None for nothing."""
        while hidden.has(row):
            before = await self.at(row, row.stream_id - 1)
            if before is None:
                return None
            row = before
        return row

    async def read(
        self,
        user_id: UserId,
        rooms: Mapping[RoomId, MembershipRow],
        interval: Interval,
        hidden: HiddenInvites,
    ) -> Moves:
        """The moves in an interval that has a beginning."""
        assert interval.since is not None
        moves = Moves()
        changes = await self._memberships.load_changes(user_id, after=interval.since, upto=interval.upto)
        by_room: dict[RoomId, list[str]] = {}
        for change in changes:
            if change.room_id in rooms:
                by_room.setdefault(change.room_id, []).append(change.membership)
        for room_id, memberships in by_room.items():
            row = await self.at(rooms[room_id], interval.upto)
            if row is not None:
                row = await self.shown(row, hidden)
            if row is None or row.stream_id <= interval.since:
                continue
            history = MembershipHistory(await self._memberships.load_log(user_id, row.room_nid))
            before = history.at(interval.since)
            told = history.timeline_end(interval.told) if interval.told else 0
            start = Start(interval.since, may_have_gap=False, told=told)
            was_in = before == "join" or "join" in memberships
            if before != "join":
                left = history.last_left(interval.since)
                has_gap = left > 0 and history.changed_between(left, interval.since)
                # Of a room with a gap nothing came by another way: a new timeline begins.
                start = Start(left, may_have_gap=has_gap, told=0 if has_gap else told)
            if row.membership == "join":
                if before != "join" or any(membership != "join" for membership in memberships):
                    moves.came_in[room_id] = start
            elif row.membership in ("invite", "knock"):
                (moves.invited if row.membership == "invite" else moves.knocked)[room_id] = row
                if was_in:
                    end = history.last_left(interval.upto)
                    moves.untold.append(RoomStretch(row.room_nid, start.timeline_after, end))
            elif not (before in _OUT and row.forgotten):
                moves.went_out[room_id] = (row, start if was_in else None)
                if not was_in and start.may_have_gap:
                    moves.told_apart.add(room_id)
        return moves
