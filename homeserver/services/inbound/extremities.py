"""Keeps the forward extremities of rooms few: an event of ours that follows many ends stands for all of them.

Without it a room that nobody here writes into gathers ends with every fork, and each makes the next resolution dearer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from homeserver.errors import MatrixError
from homeserver.services.event_writer import NewEvent
from homeserver.services.inbound.events import Unplaceable
from homeserver.storage.errors import DatabaseClosed, DatabaseUnavailable

if TYPE_CHECKING:
    from homeserver.ids import ServerName, UserId
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.storage.memberships import MembershipStore

MANY = 10
DUMMY = "org.matrix.dummy_event"
_CANDIDATES = 20

_log = structlog.get_logger(__name__)


class Extremities:
    """Ties the ends of rooms together."""

    def __init__(
        self,
        server_name: ServerName,
        rooms: RoomReader,
        memberships: MembershipStore,
        writer: EventWriter,
        inbound: InboundEvents,
    ) -> None:
        self._server_name = server_name
        self._rooms = rooms
        self._memberships = memberships
        self._writer = writer
        self._inbound = inbound
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def notice(self, room: LiveRoom, number: int) -> None:
        """A room has so many forward extremities now."""
        if number > MANY and room.room_id not in self._under_way:
            task = self._under_way[room.room_id] = asyncio.create_task(self._tie(room))
            task.add_done_callback(lambda _: self._under_way.pop(room.room_id, None))

    async def stop(self) -> None:
        """Let go of what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tie(self, room: LiveRoom) -> None:
        try:
            sender = await self._sender(room)
            if sender is None:
                return
            event = await self._writer.draft(room.room_id, NewEvent(DUMMY, {}, sender))
            await self._inbound.place(room, event)
        except (DatabaseClosed, DatabaseUnavailable, MatrixError, Unplaceable) as error:
            _log.info("extremities_not_tied", room_id=room.room_id, why=str(error))

    async def _sender(self, room: LiveRoom) -> UserId | None:
        """A user of ours who may send events into the room."""
        levels = await self._rooms.power_levels(room.room_id)
        required = levels.required_for_event(DUMMY, is_state=False)
        for user_id in await self._memberships.load_local_members(
            room.room_nid, self._server_name, _CANDIDATES
        ):
            if levels.user_level(user_id) >= required:
                return user_id
        return None
