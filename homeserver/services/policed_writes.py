"""Events of this server's users in rooms that have a policy server: it sees each before the room does.

It is asked without the room's lock, so that a slow one holds nothing up but what is sent here; what is sent here goes
one after the other. If something else came into the room meanwhile, the event stands beside that.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from homeserver.errors import Forbidden, MatrixError
from homeserver.eventgraph.policy import is_own_leave
from homeserver.services.inbound.events import Unplaceable
from homeserver.storage.stored_event import Status
from homeserver.storage.transaction_ids import transaction_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.event_writer import EventWriter, NewEvent, TransactionReference
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.policy_servers import PolicyServers
    from homeserver.services.prepared_events import RoomWrite
    from homeserver.storage.database import Transaction
    from homeserver.storage.transaction_ids import TransactionIdStore

    Extra = Callable[[Transaction, RoomId], Awaitable[None]]

_ATTEMPTS = 3
_LEAVE = {"membership": "leave"}


class PolicedWrites:
    """Has events signed by the policy server, and then placed."""

    def __init__(
        self,
        clock: Clock,
        policy: PolicyServers,
        writer: EventWriter,
        inbound: InboundEvents,
        transaction_ids: TransactionIdStore,
    ) -> None:
        self._clock = clock
        self._policy = policy
        self._writer = writer
        self._inbound = inbound
        self._transaction_ids = transaction_ids
        self._locks: WeakValueDictionary[RoomId, asyncio.Lock] = WeakValueDictionary()

    async def covers(self, room: LiveRoom) -> bool:
        """Whether a room has a policy server."""
        return await self._policy.of(room) is not None

    async def write_all(
        self,
        room: LiveRoom,
        events: Sequence[NewEvent],
        transaction: TransactionReference | None,
        extra: Extra | None,
    ) -> list[EventId]:
        """Send events one after the other; `extra` is written with the first of them.

        Raises what the policy server says, and as `EventWriter.write_all` does. What was sent before that stays sent.
        """
        lock = self._locks.setdefault(room.room_id, asyncio.Lock())
        async with lock:
            return [
                await self._write(room, new, transaction, extra if number == 0 else None)
                for number, new in enumerate(events)
            ]

    async def _write(
        self, room: LiveRoom, new: NewEvent, reference: TransactionReference | None, extra: Extra | None
    ) -> EventId:
        key = None
        if reference is not None:
            key = transaction_key(
                new.sender, reference.device_id, reference.endpoint, reference.transaction_id
            )
            if (sent := await self._transaction_ids.get(key)) is not None:
                return sent
        if extra is None and (current := await self._writer.current_equal(room, new)) is not None:
            return current

        def furnish(write: RoomWrite) -> None:
            if reference is not None:
                write.device_id, write.transaction_id = reference.device_id, reference.transaction_id
                write.transaction_key = key
            if extra is not None:
                write.extra = _both(write.extra, extra)

        for _ in range(_ATTEMPTS):
            event = await self._signed(room, new)
            try:
                status = await self._inbound.place(
                    room, event, goes_out=True, is_recommended=True, furnish=furnish
                )
            except Unplaceable:
                # What it was built on could not be written; or the same request was answered by another process.
                if key is not None and (sent := await self._transaction_ids.get(key)) is not None:
                    return sent
                continue
            if status is not Status.TIMELINE:
                raise Forbidden("The room does not allow this any more")
            return event.event_id
        raise MatrixError("The room is too busy", status=503)

    async def _signed(self, room: LiveRoom, new: NewEvent) -> Event:
        """An event with the signature of the policy server; a leave of one's own without it, where that cannot be had.

        The specification has events that are not signed rejected or soft-failed, leaves among them; but nobody is to be
        kept in a room that they want no more of. So whoever leaves is out of it here, and the leave goes to the other
        servers, which ask for themselves.
        """
        draft = await self._writer.draft(room.room_id, new)
        try:
            return await self._policy.signed(room, draft)
        except MatrixError:
            if not is_own_leave(draft):
                raise
            if len(new.content) > 1:
                # It may have been about the reason; and what is said without the policy server is nothing but the leave.
                return await self._signed(room, replace(new, content=_LEAVE))
            return draft


def _both(first: Extra | None, second: Extra) -> Extra:
    async def write(transaction: Transaction, room_id: RoomId) -> None:
        if first is not None:
            await first(transaction, room_id)
        await second(transaction, room_id)

    return write
