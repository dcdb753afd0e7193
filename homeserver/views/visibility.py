"""Which events a reader may see (CS "Room history visibility"): by what held at the event, not by what holds now."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.events import EventStore, StoredEvent
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipChange, MembershipStore
    from homeserver.storage.state import StateStore

_VISIBILITY = ("m.room.history_visibility", "")
_SHARED = "shared"


class MembershipHistory:
    """The memberships that a user had in one room, by position."""

    def __init__(self, changes: Sequence[MembershipChange]) -> None:
        self._positions = [change.stream_id for change in changes]
        self._memberships = [change.membership for change in changes]

    def at(self, position: int) -> str:
        """The membership at a position, that position included; `leave` before the first."""
        index = bisect_right(self._positions, position) - 1
        return self._memberships[index] if index >= 0 else "leave"

    def joined_after(self, position: int) -> bool:
        """Whether the user was in the room at some time after a position."""
        index = bisect_right(self._positions, position)
        return "join" in self._memberships[index:]

    def last_left(self) -> int:
        """The position at which the user last went out of the room; 0 where they never were in it."""
        for index in range(len(self._memberships) - 1, 0, -1):
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

    async def memberships_at(self, user_id: UserId, events: Sequence[StoredEvent]) -> list[str]:
        """The membership of a user just after each of these events of one room."""
        if not events:
            return []
        row = (await self._memberships.of_user(user_id)).get(events[0].room_id)
        if row is None:
            return ["leave"] * len(events)
        if all(stored.stream_id >= row.stream_id for stored in events):
            return [row.membership] * len(events)
        history = await self.history(user_id, events[0].room_nid)
        return [history.at(stored.stream_id) for stored in events]

    async def history(self, user_id: UserId, room_nid: int) -> MembershipHistory:
        """All memberships that a user had in a room."""
        return MembershipHistory(await self._membership_store.load_log(user_id, room_nid))

    async def visible(self, user_id: UserId, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Those of these events, all of one room, that the user may see."""
        if not events:
            return []
        row = (await self._memberships.of_user(user_id)).get(events[0].room_id)
        if row is not None and row.membership == "join" and all(s.stream_id >= row.stream_id for s in events):
            return list(events)
        history = await self.history(user_id, events[0].room_nid)
        return [stored for stored in events if await self._is_visible(user_id, stored, history)]

    async def may_read_now(self, user_id: UserId, room_id: RoomId, snapshot_nid: int) -> bool:
        """Whether the room as it is now is open to the user: joined, or world readable."""
        row = (await self._memberships.of_user(user_id)).get(room_id)
        if row is not None and row.membership == "join":
            return True
        return await self._visibility(snapshot_nid) == "world_readable"

    async def _is_visible(self, user_id: UserId, stored: StoredEvent, history: MembershipHistory) -> bool:
        # "If the history_visibility was set to world_readable, allow." Of a change of the visibility itself,
        # and of one's own membership, the more open side counts.
        if history.at(stored.stream_id) == "join" or history.at(stored.stream_id - 1) == "join":
            return True
        if stored.event.type == "m.room.member" and stored.event.state_key == user_id:
            return True
        settings = {await self._visibility(stored.state_after)}
        if stored.state_before != stored.state_after:
            settings.add(await self._visibility(stored.state_before))
        if "world_readable" in settings:
            return True
        if _SHARED in settings and history.joined_after(stored.stream_id):
            return True
        return "invited" in settings and history.at(stored.stream_id) == "invite"

    async def _visibility(self, snapshot_nid: int) -> str:
        key_nid = await self._numbers.key_number(_VISIBILITY)
        if key_nid is None or snapshot_nid == 0:
            return _SHARED
        event_nid = await self._state.get_number(snapshot_nid, key_nid)
        if event_nid is None:
            return _SHARED
        stored = (await self._events.load_numbered([event_nid])).get(event_nid)
        value = stored.event.content.get("history_visibility") if stored is not None else None
        return value if value in ("invited", "joined", "world_readable") else _SHARED
