"""Which events stand at the end of a room once another one came: its forward extremities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from homeserver.rooms.followed import load_followed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.rooms.state_resolver import StatePoint, StateResolver
    from homeserver.storage.events import EventStore
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.rooms import Extremity

MAX_EXTREMITIES = 100
"""So many forward extremities a room has, where nobody here may tie them together (`extremities`)."""
_MAX_OURS = 100

_log = structlog.get_logger(__name__)


class RoomEnds:
    """Says where an event stands among the ends of its room."""

    def __init__(
        self,
        server_name: ServerName,
        events: EventStore,
        gaps: GapStore,
        memberships: MembershipStore,
        resolver: StateResolver,
    ) -> None:
        self._server_name = server_name
        self._events = events
        self._gaps = gaps
        self._memberships = memberships
        self._resolver = resolver

    async def left(
        self, room: LiveRoom, event: Event, before: StatePoint, extremities: Sequence[Extremity]
    ) -> list[Extremity] | None:
        """The forward extremities that stay beside an event; None where it is to be none itself."""
        if await self._gaps.is_followed(room.room_nid, event.event_id):
            return None
        if await self._may_be_before_arrival(room, event, before):
            # It may be one that the join of this server rests on, by events that are not here. If it is beside
            # that, it counts once an event follows both.
            return None
        followed = await load_followed(self._events, event)
        left = [one for one in extremities if one.event_id not in followed]
        if len(left) >= MAX_EXTREMITIES:
            # Each makes the next resolution dearer. It counts once an event follows it and an extremity, as the
            # next one of its server does.
            _log.info("too_many_extremities", room_id=room.room_id)
            return None
        return left

    async def _may_be_before_arrival(self, room: LiveRoom, event: Event, before: StatePoint) -> bool:
        """Whether an event may be from before the one with which this server came into its room.

        What is as deep as that, or deeper, is not. Of what is less deep nothing follows: a depth is what a server says,
        and servers that build on it say one more. But where the state holds how somebody here has come into the
        room since, the event comes after that.
        """
        arrival_depth = await self._gaps.load_arrival_depth(room.room_nid)
        if event.depth >= arrival_depth:
            return False
        ours = await self._memberships.load_local_members(room.room_nid, self._server_name, _MAX_OURS)
        members = await self._resolver.entries(before, [("m.room.member", user_id) for user_id in ours])
        # Their senders are those who joined: these depths are ours.
        return not any(
            stored.event.membership == "join" and stored.event.depth >= arrival_depth
            for stored in members.values()
        )
