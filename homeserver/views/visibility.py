"""Which events a reader may see (CS "Room history visibility"): by what held at the event, not by what holds now."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

from homeserver.eventgraph.visibility import HISTORY_VISIBILITY, history_visibility_in, may_see

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipChange, MembershipRow, MembershipStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent

_CACHED_HISTORIES = 5_000
_CACHED_SETTINGS = 50_000
_OUT = ("leave", "ban")
_NEVER = 2**63


class MembershipHistory:
    """The memberships that a user had in one room, by position."""

    def __init__(self, changes: Sequence[MembershipChange]) -> None:
        self._positions = [change.stream_id for change in changes]
        self._memberships = [change.membership for change in changes]

    @property
    def last_position(self) -> int:
        """The position of the last change; 0 where there was none."""
        return self._positions[-1] if self._positions else 0

    def at(self, position: int) -> str:
        """The membership at a position, that position included; `leave` before the first."""
        index = bisect_right(self._positions, position) - 1
        return self._memberships[index] if index >= 0 else "leave"

    def timeline_end(self, position: int) -> int:
        """How far the timeline of the room goes for somebody who has heard all up to a position; 0 for nothing at all.

        Where they are out of the room it ends with what they were told of that last.
        """
        index = bisect_right(self._positions, position) - 1
        if index < 0:
            return 0
        if self._memberships[index] == "join":
            return position
        return self._positions[index] if self._memberships[index] in _OUT else self.last_left(position)

    def joined_after(self, position: int) -> bool:
        """Whether the user was in the room at some time after a position."""
        index = bisect_right(self._positions, position)
        return "join" in self._memberships[index:]

    def first_there(self, position: int) -> int | None:
        """The first position from this one on at which the user was in the room; None where they no more were."""
        if self.at(position) == "join":
            return position
        later = self.changes_between(position, self.last_position)
        return next((at for at, membership in later if membership == "join"), None)

    def joined_at(self) -> int:
        """The position at which the user last came into the room; 0 where they are not in it."""
        joined_at = 0
        for position, membership in zip(reversed(self._positions), reversed(self._memberships), strict=True):
            if membership != "join":
                break
            joined_at = position
        return joined_at

    def first_joined(self) -> int | None:
        """The position at which the user first came into the room; None where they never did."""
        index = self._memberships.index("join") if "join" in self._memberships else None
        return None if index is None else self._positions[index]

    def came_in_between(self, after: int, upto: int) -> bool:
        """Whether the user came into the room with `after < position <= upto`."""
        begin, end = bisect_right(self._positions, after), bisect_right(self._positions, upto)
        return "join" in self._memberships[begin:end]

    def changed_between(self, after: int, upto: int) -> bool:
        """Whether the membership changed with `after < position <= upto`."""
        return bisect_right(self._positions, after) < bisect_right(self._positions, upto)

    def changes_between(self, after: int, upto: int) -> list[tuple[int, str]]:
        """Position and membership of each change with `after < position <= upto`."""
        changes = slice(bisect_right(self._positions, after), bisect_right(self._positions, upto))
        return list(zip(self._positions[changes], self._memberships[changes], strict=True))

    def last_left(self, upto: int | None = None) -> int:
        """The position, up to `upto`, at which the user last went out of the room; 0 where they never did."""
        last = len(self._positions) if upto is None else bisect_right(self._positions, upto)
        for index in range(last - 1, 0, -1):
            if self._memberships[index] != "join" and self._memberships[index - 1] == "join":
                return self._positions[index]
        return 0


class HistoryVisibility:
    """Answers whether a user may see events, and what their membership was at them."""

    def __init__(
        self,
        memberships: Memberships,
        membership_store: MembershipStore,
        state: StateStore,
        events: EventStore,
        numbers: NumberStore,
    ) -> None:
        self._memberships = memberships
        self._membership_store = membership_store
        self._state = state
        self._events = events
        self._numbers = numbers
        self._histories: OrderedDict[tuple[UserId, int], MembershipHistory] = OrderedDict()
        self._known_settings: dict[int, str] = {}

    async def memberships_at(self, user_id: UserId, events: Sequence[StoredEvent]) -> list[str]:
        """The membership of a user just after each of these events of one room."""
        if not events:
            return []
        row = (await self._memberships.of_user(user_id)).get(events[0].room_id)
        if row is None:
            return ["leave"] * len(events)
        if all(stored.stream_id >= row.stream_id for stored in events):
            return [row.membership] * len(events)
        history = await self.history(row)
        older = await self.memberships_of_older(user_id, events)
        return [older.get(stored.event_nid) or history.at(stored.stream_id) for stored in events]

    async def memberships_of_older(self, user_id: UserId, events: Sequence[StoredEvent]) -> dict[int, str]:
        """The membership of a user just after those of these events that stand before the log, by their numbers.

        What was fetched later was missed when it happened: only the state at it says who was there.
        """
        snapshots = {stored.event_nid: stored.state_after for stored in events if stored.stream_id < 0}
        key_nid = await self._numbers.key_number(("m.room.member", user_id)) if snapshots else None
        if key_nid is None:
            return {}
        numbers = await self._state.load_number_in_each(
            {snapshot_nid for snapshot_nid in snapshots.values() if snapshot_nid != 0}, key_nid
        )
        members = await self._events.load_numbered(set(numbers.values()))
        found = {}
        for event_nid, snapshot_nid in snapshots.items():
            member = members.get(numbers.get(snapshot_nid, 0))
            if member is not None and member.event.membership is not None:
                found[event_nid] = member.event.membership
        return found

    async def history(self, row: MembershipRow) -> MembershipHistory:
        """All memberships that a user had in a room, up to this last one."""
        key = (row.user_id, row.room_nid)
        known = self._histories.get(key)
        if known is not None and known.last_position == row.stream_id:
            self._histories.move_to_end(key)
            return known
        return self._keep(key, MembershipHistory(await self._membership_store.load_log(*key)))

    def _keep(self, key: tuple[UserId, int], history: MembershipHistory) -> MembershipHistory:
        self._histories[key] = history
        if len(self._histories) > _CACHED_HISTORIES:
            self._histories.popitem(last=False)
        return history

    async def load_histories(self, rows: Iterable[MembershipRow]) -> None:
        """Have the memberships of a user in several rooms in memory."""
        missing = {}
        for row in rows:
            known = self._histories.get((row.user_id, row.room_nid))
            if known is None or known.last_position != row.stream_id:
                missing[row.room_nid] = row.user_id
        for user_id in set(missing.values()):
            logs = await self._membership_store.load_logs(user_id, missing)
            for room_nid, log in logs.items():
                self._keep((user_id, room_nid), MembershipHistory(log))

    async def prepare(self, user_id: UserId, rooms: Iterable[Sequence[StoredEvent]]) -> None:
        """Have in memory what decides whether a user may see these events, those of each room apart."""
        rows = await self._memberships.of_user(user_id)
        snapshots: set[int] = set()
        for events in rooms:
            row = rows.get(events[0].room_id) if events else None
            joined_at = row.stream_id if row is not None and row.membership == "join" else _NEVER
            for stored in events:
                if stored.stream_id < joined_at:
                    snapshots |= {stored.state_after, stored.state_before}
        if snapshots:
            await self._settings(snapshots)

    async def first_joined(self, user_id: UserId, room_id: RoomId) -> int | None:
        """The position at which a user first came into a room; None where they never did."""
        row = (await self._memberships.of_user(user_id)).get(room_id)
        return (await self.history(row)).first_joined() if row is not None else None

    async def visible(self, user_id: UserId, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Those of these events, all of one room, that the user may see."""
        if not events:
            return []
        row = (await self._memberships.of_user(user_id)).get(events[0].room_id)
        if row is not None and row.membership == "join" and all(s.stream_id >= row.stream_id for s in events):
            return list(events)
        history = await self.history(row) if row is not None else MembershipHistory(())
        older = await self.memberships_of_older(user_id, events)
        asked = [
            stored
            for stored in events
            if not (older.get(stored.event_nid) == "join" or _was_there(user_id, stored, history))
        ]
        snapshots = {stored.state_after for stored in asked} | {stored.state_before for stored in asked}
        settings = await self._settings(snapshots)
        hidden = {
            stored.event_nid
            for stored in asked
            if not _is_shown(stored, older.get(stored.event_nid), history, settings)
        }
        return [stored for stored in events if stored.event_nid not in hidden]

    async def settings_at(self, events: Sequence[StoredEvent]) -> dict[int, set[str]]:
        """The visibility of history before and after each of these events, by their numbers."""
        snapshots = {stored.state_after for stored in events} | {stored.state_before for stored in events}
        settings = await self._settings(snapshots)
        return {
            stored.event_nid: {settings[stored.state_before], settings[stored.state_after]}
            for stored in events
        }

    async def may_read_now(self, user_id: UserId, room_id: RoomId, snapshot_nid: int) -> bool:
        """Whether the room as it is now is open to the user: joined, or world readable."""
        row = (await self._memberships.of_user(user_id)).get(room_id)
        if row is not None and row.membership == "join":
            return True
        return (await self._settings({snapshot_nid}))[snapshot_nid] == "world_readable"

    async def _settings(self, snapshot_nids: Collection[int]) -> Mapping[int, str]:
        """The visibility of history in each of these snapshots, and maybe in others."""
        known = self._known_settings
        missing = [snapshot_nid for snapshot_nid in snapshot_nids if snapshot_nid not in known]
        if missing:
            if len(known) + len(missing) > _CACHED_SETTINGS:
                known = self._known_settings = {one: known[one] for one in snapshot_nids if one in known}
            # A snapshot never changes, nor does what a redaction leaves of such an event.
            known.update(await self._load_settings(missing))
        return known

    async def _load_settings(self, snapshot_nids: Collection[int]) -> dict[int, str]:
        key_nid = await self._numbers.key_number(HISTORY_VISIBILITY)
        numbers: dict[int, int] = {}
        if key_nid is not None:
            numbers = await self._state.load_number_in_each(
                [snapshot_nid for snapshot_nid in snapshot_nids if snapshot_nid != 0], key_nid
            )
        contents = await self._events.load_contents(set(numbers.values()))
        return {
            snapshot_nid: history_visibility_in(contents.get(numbers.get(snapshot_nid, 0)))
            for snapshot_nid in snapshot_nids
        }


def _was_there(user_id: UserId, stored: StoredEvent, history: MembershipHistory) -> bool:
    """Whether the user saw the event happen, or it is about them."""
    if history.at(stored.stream_id) == "join":
        return True
    # "... if their membership before or after the event would allow them to see it."
    return stored.event.type == "m.room.member" and stored.event.state_key == user_id


def _is_shown(
    stored: StoredEvent, older: str | None, history: MembershipHistory, settings: Mapping[int, str]
) -> bool:
    """Whether the setting at the event lets the user see it, though they were not there."""
    # The two differ for a change of the setting only.
    visibilities = {settings[stored.state_after], settings[stored.state_before]}
    membership = older or history.at(stored.stream_id)
    return may_see(visibilities, {membership}, joins_later=history.joined_after(stored.stream_id))
